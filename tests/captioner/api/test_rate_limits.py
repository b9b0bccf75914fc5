"""Quotas per key, user and address, and the headers that tell of them."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from huggingface_hub.utils import parse_ratelimit_headers

from captioner.captions.api_keys import api_key_create
from captioner.models import Caption
from tests.conftest import FakeEngine

URL = "/api/v1/captions"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _limits(settings) -> None:
    settings.RATE_LIMITS = {
        "key": (2, 3600),
        "user": (3, 3600),
        "address": (2, 3600),
        "sign_in": None,
        "sign_in_address": None,
    }


def bearer(secret: str) -> Client:
    return Client(headers={"Authorization": f"Bearer {secret}"})


def test_good_answers_tell_the_limit_and_what_is_left(client: Client) -> None:
    response = client.get(URL)
    assert response.status_code == 200
    assert response.headers["RateLimit-Policy"] == '"address";q=2;w=3600'
    assert response.headers["RateLimit"].startswith('"address";r=1;t=')


def test_one_request_too_many_is_a_problem_that_says_when_to_come_back(client: Client) -> None:
    statuses = [client.get(URL).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    response = client.get(URL)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["type"] == "urn:captioner:problem:throttled"
    assert response.json()["retry_after"] == int(response.headers["Retry-After"])
    assert 0 < int(response.headers["Retry-After"]) <= 3600


def test_the_python_client_of_hugging_face_understands_the_headers(client: Client) -> None:
    for _ in range(3):
        response = client.get(URL)
    told = parse_ratelimit_headers(response.headers)
    assert (told.resource_type, told.remaining, told.limit, told.window_seconds) == ("address", 0, 2, 3600)
    assert told.reset_in_seconds == int(response.headers["Retry-After"])


def test_a_key_has_its_own_quota_and_its_user_one_over_all_of_them(user: User) -> None:
    one, two = (bearer(api_key_create(user, name)[1]) for name in ("one", "two"))
    assert [one.get(URL).status_code for _ in range(3)] == [200, 200, 429]
    response = two.get(URL)
    assert response.status_code == 429, "the user's three are used up"
    assert response.headers["RateLimit-Policy"] == '"user";q=3;w=3600, "key";q=2;w=3600'
    assert response.headers["RateLimit"].startswith('"user";r=0;')


def test_a_signed_in_person_is_not_limited_by_address(client: Client, user: User) -> None:
    client.force_login(user)
    assert [client.get(URL).status_code for _ in range(3)] == [200] * 3
    assert client.get(URL).headers["RateLimit-Policy"] == '"user";q=3;w=3600'


def test_trying_keys_is_limited_by_address(user: User) -> None:
    assert [bearer(f"guess {n}").get(URL).status_code for n in range(3)] == [401, 401, 429]
    assert bearer(api_key_create(user, "real")[1]).get(URL).status_code == 200


def test_addresses_are_told_apart_behind_a_proxy_that_is_trusted(client: Client, settings) -> None:
    settings.TRUSTED_PROXIES = 1

    def ask(forwarded: str) -> int:
        return client.get(URL, headers={"X-Forwarded-For": forwarded}).status_code

    assert [ask(f"10.0.0.{n}, 203.0.113.1") for n in range(3)] == [200, 200, 429]
    assert ask("203.0.113.2") == 200


def test_what_is_off_is_neither_counted_nor_told(client: Client, settings) -> None:
    settings.RATE_LIMITS = dict.fromkeys(settings.RATE_LIMITS)
    for _ in range(4):
        response = client.get(URL)
        assert response.status_code == 200
        assert not {"RateLimit", "RateLimit-Policy"} & set(response.headers)


def test_the_photos_of_a_page_are_not_counted(client: Client, user: User, caption: Caption) -> None:
    client.force_login(user)
    for _ in range(5):
        assert client.get(f"{URL}/{caption.pk}/photo").status_code == 200


def test_uploads_on_the_page_count_too(client: Client, fake_engine: FakeEngine, photo_bytes: bytes) -> None:
    from tests.webui.pages import jpeg, upload

    assert [upload(client, jpeg()).status_code for _ in range(3)] == [303, 303, 429]
    response = upload(client, jpeg())
    assert "You sent photos more often than allowed." in response.content.decode()
    assert int(response.headers["Retry-After"]) > 0
    assert Caption.objects.count() == 2
