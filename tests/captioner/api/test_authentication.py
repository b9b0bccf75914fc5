"""Signing in with a key or a session, and refusals."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from captioner.captions.api_keys import api_key_create
from captioner.models import Caption

URL = "/api/v1/captions"

pytestmark = pytest.mark.django_db


def get(client: Client, authorization: str):
    return client.get(URL, headers={"Authorization": authorization})


def test_key_gets_in(client: Client, user: User) -> None:
    _, secret = api_key_create(user, "script")
    assert get(client, f"Bearer {secret}").status_code == 200
    assert get(client, f"bearer {secret}").status_code == 200


@pytest.mark.parametrize("secret", ["wrong", "", "é", "two words"])
def test_unknown_key_is_refused(client: Client, secret: str) -> None:
    response = get(client, f"Bearer {secret}")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert response.json()["type"] == "urn:captioner:problem:authentication-failed"


def test_revoked_key_is_refused(client: Client, user: User) -> None:
    api_key, secret = api_key_create(user, "script")
    api_key.revoked_at = timezone.now()
    api_key.save()
    assert get(client, f"Bearer {secret}").status_code == 401


def test_key_of_a_deactivated_user_is_refused(client: Client, user: User) -> None:
    _, secret = api_key_create(user, "script")
    User.objects.update(is_active=False)
    assert get(client, f"Bearer {secret}").status_code == 401


def test_bad_key_is_refused_even_with_a_session(client: Client, user: User) -> None:
    client.force_login(user)
    assert get(client, "Bearer wrong").status_code == 401


def test_other_schemes_are_somebody_elses(client: Client) -> None:
    assert get(client, "Basic YWRhOmFkYQ==").status_code == 200


def test_anonymous_use_can_be_turned_off(client: Client, user: User, settings, photo_bytes: bytes) -> None:
    settings.ALLOW_ANONYMOUS = False
    for response in (client.get(URL), client.generic("POST", URL, photo_bytes, content_type="image/jpeg")):
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert response.json()["type"] == "urn:captioner:problem:not-authenticated"
    client.force_login(user)
    assert client.get(URL).status_code == 200


def test_session_needs_a_csrf_token_to_change_something(user: User, caption: Caption) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)
    assert browser.get(URL).status_code == 200
    response = browser.delete(f"{URL}/{caption.pk}")
    assert response.status_code == 403
    assert "CSRF" in response.json()["detail"]
    assert Caption.objects.exists()


def test_key_needs_no_csrf_token(user: User, caption: Caption) -> None:
    _, secret = api_key_create(user, "script")
    program = Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {secret}"})
    # The key did not make this caption; what matters is that it gets as far as being told so.
    assert program.delete(f"{URL}/{caption.pk}").status_code == 404
