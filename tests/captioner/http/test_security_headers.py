"""The headers browsers get, on every kind of answer."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from captioner.models import Caption

pytestmark = pytest.mark.django_db

ADDRESSES = [
    "/",
    "/login",
    "/captions/",
    "/nothing",
    "/admin/",
    "/api/docs",
    "/api/v1/captions",
    "/api/nothing",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_answer_carries_them(client: Client, reviewer: User, caption: Caption, address: str) -> None:
    client.force_login(reviewer)
    headers = client.get(address).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]


def test_photos_and_scripts_carry_them_too(client: Client, user: User, caption: Caption) -> None:
    client.force_login(user)
    for address in (f"/api/v1/captions/{caption.pk}/photo", "/api/docs?script="):
        assert "default-src 'none'" in client.get(address).headers["Content-Security-Policy"]


def test_cookies_stay_with_this_site(client: Client, user: User) -> None:
    response = client.post("/login", {"username": "ada", "password": "correct horse battery"})
    session = response.cookies["sessionid"]
    assert session["httponly"]
    assert session["samesite"] == "Lax"
    assert response.cookies["csrftoken"]["samesite"] == "Lax"
