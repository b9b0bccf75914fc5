"""What nginx lets through and how long it waits agree with what the application accepts and how long it takes."""

import re
from pathlib import Path

from django.conf import settings

from captioner import images, request_body

TEMPLATE = (
    Path(__file__).resolve().parents[2] / "deploy/nginx/templates/captioner.conf.template"
).read_text()


def body_limit(location: str) -> int:
    (megabytes,) = re.findall(
        rf"location {re.escape(location)} {{\s+client_max_body_size (\d+)m;", TEMPLATE
    ) or re.findall(r"^    client_max_body_size (\d+)m;", TEMPLATE, re.MULTILINE)
    return int(megabytes) * 2**20


def test_the_largest_form_passes_and_nothing_larger() -> None:
    largest = settings.UPLOAD_MAX_PHOTOS * images.MAX_BYTES + request_body._FORM_FIELDS_BYTES
    assert body_limit("= /") == largest


def test_the_largest_job_passes_and_nothing_larger() -> None:
    largest = settings.JOB_MAX_MEGABYTES * 2**20 + request_body._FORM_FIELDS_BYTES
    assert body_limit("= /jobs/") == body_limit("= /api/v1/jobs") == largest


def test_the_largest_body_of_the_api_passes_and_nothing_larger() -> None:
    assert body_limit("/api/") == settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    assert body_limit("/api/") > images.MAX_BYTES * 4 / 3, "the largest photo in base64"


def test_nginx_waits_longer_than_the_application_works() -> None:
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", TEMPLATE)
    assert int(seconds) > settings.CAPTION_TIMEOUT_SECONDS
