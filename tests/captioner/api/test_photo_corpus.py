"""POST /api/v1/captions with every broken photo (refused, with a reason) and every odd one (captioned)."""

import pytest
from django.test import Client

from captioner.models import Caption
from tests.corpus import BROKEN, ODD

URL = "/api/v1/captions"

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_engine")]


@pytest.mark.parametrize("name", BROKEN)
def test_broken_photo_is_refused(client: Client, name: str) -> None:
    response = client.generic("POST", URL, BROKEN[name](), content_type="application/octet-stream")
    assert 400 <= response.status_code < 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["detail"]
    assert name == "empty" or response.json()["reason"]  # an empty body is no photo at all
    assert not Caption.objects.exists()


@pytest.mark.parametrize("name", ODD)
def test_odd_photo_is_captioned(client: Client, name: str) -> None:
    response = client.generic("POST", URL, ODD[name](), content_type="image/jpeg")
    assert response.status_code == 201, response.content
    photo = client.get(response.json()["links"]["photo"])
    assert photo.status_code == 200
    assert b"".join(photo.streaming_content).startswith(b"\xff\xd8\xff")
