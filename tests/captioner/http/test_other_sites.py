"""What pages of other sites can make a visitor's browser do here: nothing."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from captioner.captions.api_keys import api_key_create
from captioner.http.owner import COOKIE
from captioner.models import Caption
from tests.conftest import FakeEngine

pytestmark = pytest.mark.django_db
URL = "/api/v1/captions"


def send(client: Client, photo: bytes, **headers: str):
    return client.generic("POST", URL, photo, content_type="image/jpeg", headers=headers)


@pytest.mark.parametrize(
    "path", ["/", "/captions/", "/jobs/", URL, "/api/v1/jobs", "/nothing", "/api/v1/nothing"]
)
@pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
def test_who_made_nothing_is_given_no_cookie(fake_engine: FakeEngine, path: str, method: str) -> None:
    response = getattr(Client(), method)(path)
    assert COOKIE not in response.cookies


def test_who_made_something_is_known_again(fake_engine: FakeEngine, photo_bytes: bytes) -> None:
    client = Client()
    made = send(client, photo_bytes)
    assert COOKIE in made.cookies
    assert client.get(made.json()["links"]["self"]).status_code == 200
    assert COOKIE not in send(client, photo_bytes).cookies
    assert COOKIE not in send(Client(), b"no photo").cookies


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://testserver.elsewhere.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://testserver:8080"},
    ],
    ids=str,
)
def test_pages_of_other_sites_make_nothing(
    fake_engine: FakeEngine, photo_bytes: bytes, headers: dict
) -> None:
    refused = send(Client(), photo_bytes, **headers)
    assert refused.status_code == 403
    assert "another site" in refused.json()["detail"]
    assert COOKIE not in refused.cookies
    assert Client().delete(f"{URL}/7c0f3d36-93a1-4a8e-9d3f-0a2f5f2f6d11", headers=headers).status_code == 403
    assert Client().post("/api/v1/jobs", headers=headers).status_code == 403
    assert not Caption.objects.exists()


def test_our_own_pages_trusted_ones_and_keys_may(
    fake_engine: FakeEngine, photo_bytes: bytes, user: User, settings
) -> None:
    assert (
        send(
            Client(), photo_bytes, **{"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
        ).status_code
        == 201
    )
    settings.CSRF_TRUSTED_ORIGINS = ["https://*.friend.example"]
    friend = {"Origin": "https://www.friend.example", "Sec-Fetch-Site": "cross-site"}
    assert send(Client(), photo_bytes, **friend).status_code == 201
    _, secret = api_key_create(user, "script")
    elsewhere = {"Origin": "https://elsewhere.example", "Authorization": f"Bearer {secret}"}
    assert send(Client(), photo_bytes, **elsewhere).status_code == 201
