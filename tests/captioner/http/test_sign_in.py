"""Signing in with a password may fail only so often, on every page that asks for one."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

pytestmark = pytest.mark.django_db

RIGHT, WRONG = "correct horse battery", "wrong"


@pytest.fixture(autouse=True)
def _limit(settings) -> None:
    settings.RATE_LIMITS = settings.RATE_LIMITS | {"sign_in": (3, 3600)}


def sign_in(page: str, username: str, password: str, address: str = "192.0.2.1"):
    client = Client(REMOTE_ADDR=address)
    return client.post(page, {"username": username, "password": password})


@pytest.mark.parametrize("page", ["/login", "/admin/login/"])
def test_guessing_ends_even_with_the_right_password(reviewer: User, page: str) -> None:
    assert [sign_in(page, "rita", WRONG).status_code for _ in range(3)] == [200] * 3
    response = sign_in(page, "rita", RIGHT)
    assert response.status_code == 429
    assert 0 < int(response.headers["Retry-After"]) <= 3600
    assert "Too many attempts." in response.content.decode()
    assert "sessionid" not in response.cookies


def test_an_account_is_guarded_whatever_addresses_attempts_come_from(user: User) -> None:
    for n in range(3):
        sign_in("/login", "ada", WRONG, address=f"192.0.2.{n}")
    assert sign_in("/login", "ADA", WRONG, address="192.0.2.99").status_code == 429


def test_an_address_is_stopped_whatever_accounts_it_tries(user: User) -> None:
    for n in range(3):
        sign_in("/login", f"nobody{n}", WRONG)
    assert sign_in("/login", "ada", RIGHT).status_code == 429
    assert sign_in("/login", "ada", RIGHT, address="192.0.2.2").status_code == 302


def test_signing_in_rightly_is_never_counted(user: User) -> None:
    assert [sign_in("/login", "ada", RIGHT).status_code for _ in range(5)] == [302] * 5
