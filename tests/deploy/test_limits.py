"""What nginx lets through and how long it waits agree with what the application accepts and how long it takes."""

import re
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings

from captioner.intake.limits import MAX_BYTES

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
TEMPLATE = (DEPLOY / "nginx/templates/captioner.conf.template").read_text()
UPSTREAM = (DEPLOY / "nginx/templates/upstream.conf.template").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]


def body_limit(location: str) -> str:
    (limit,) = re.findall(
        rf"location {re.escape(location)} {{[^\n]*\s+client_max_body_size (\S+);", TEMPLATE
    ) or re.findall(r"^    client_max_body_size (\S+);", TEMPLATE, re.MULTILINE)
    return limit


def bytes_of(limit: str) -> int:
    return int(limit.removesuffix("m")) * 2**20


def test_jobs_have_the_same_variable_for_a_limit_on_both_sides() -> None:
    """Its rendering and what the application says of it are seen in tests/stack."""
    limits = {body_limit(location) for location in ("= /", "/uploads/", "= /api/v1/jobs")}
    assert limits == {"${JOB_MAX_MEGABYTES}m"}


def test_the_largest_body_of_the_api_passes_and_nothing_larger() -> None:
    assert bytes_of(body_limit("/api/")) == settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    assert bytes_of(body_limit("/api/")) > MAX_BYTES * 4 / 3, "the largest photo in base64"


def test_nginx_waits_longer_than_the_application_works() -> None:
    assert re.findall(r"proxy_read_timeout (\S+);", TEMPLATE) == ["1m${CAPTION_TIMEOUT_SECONDS}s"]


def of_templates() -> set[str]:
    return set(re.findall(r"\$\{([A-Z_]+)\}", TEMPLATE + UPSTREAM))


def test_compose_gives_nginx_every_variable_of_its_templates_and_the_applications_own_values() -> None:
    given: dict[str, str] = COMPOSE["nginx"]["environment"]
    assert of_templates() == set(given)
    for name in ("JOB_MAX_MEGABYTES", "CAPTION_TIMEOUT_SECONDS"):
        assert given[name] == f"${{{name}:-{getattr(settings, name)}}}"
        assert COMPOSE["web"]["env_file"] == ".env", "from which the line above is filled in, too"


def test_kubernetes_gives_nginx_every_variable_of_its_templates_and_the_applications_own_values() -> None:
    application, edge = yaml.safe_load_all((DEPLOY / "k8s/config.yaml").read_text())
    nginx = next(yaml.safe_load_all((DEPLOY / "k8s/nginx.yaml").read_text()))
    (container,) = nginx["spec"]["template"]["spec"]["containers"]
    of_application = {entry["name"]: key_of(entry) for entry in container["env"]}
    assert of_templates() == set(edge["data"]) | set(of_application)
    for name, (config, key) in of_application.items():
        assert (config, key) == ("captioner", name), "what the web processes read"
        assert name in application["data"]


def key_of(entry: dict[str, Any]) -> tuple[str, str]:
    reference = entry["valueFrom"]["configMapKeyRef"]
    return reference["name"], reference["key"]


def test_a_stopping_web_process_is_given_the_time_it_takes() -> None:
    def seconds(text: str) -> int:
        return int(text.removesuffix("s"))

    assert seconds(COMPOSE["web"]["stop_grace_period"]) > settings.STOP_SECONDS
    (stop,) = re.findall(r"docker stop --time (\d+)", (DEPLOY / "upgrade").read_text())
    assert int(stop) > settings.STOP_SECONDS
    web = next(yaml.safe_load_all((DEPLOY / "k8s/web.yaml").read_text()))["spec"]["template"]["spec"]
    before = web["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert web["terminationGracePeriodSeconds"] > before + settings.STOP_SECONDS
