"""Signing in with a password may fail only so often, on every page that asks for one."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from captioner.captions.api_keys import api_key_create, api_key_find
from captioner.http import rates
from captioner.http.sign_in import KNOWN_COOKIE, known_browser_make

pytestmark = pytest.mark.django_db

RIGHT, WRONG = "correct horse battery", "wrong"


@pytest.fixture(autouse=True)
def _limit(settings) -> None:
    settings.RATE_LIMITS = settings.RATE_LIMITS | {"sign_in": (3, 3600), "sign_in_address": (3, 3600)}


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


def test_an_account_that_is_guessed_at_takes_one_attempt_from_each_address(user: User) -> None:
    for n in range(3):
        sign_in("/login", "ada", WRONG, address=f"192.0.2.{n}")
    assert sign_in("/login", "ADA", WRONG, address="192.0.2.99").status_code == 200
    assert sign_in("/login", "ada", RIGHT, address="192.0.2.99").status_code == 429
    assert sign_in("/login", "ada", RIGHT, address="192.0.2.100").status_code == 302, "nobody is shut out"


def test_a_browser_that_signed_in_before_has_its_own_count(user: User, other_user: User) -> None:
    browser = Client(REMOTE_ADDR="192.0.2.1")
    assert browser.post("/login", {"username": "ada", "password": RIGHT}).status_code == 302
    browser.post("/logout")
    for _ in range(4):
        sign_in("/login", "ada", WRONG)
    assert sign_in("/login", "ada", RIGHT).status_code == 429, "another browser at the same address"
    assert browser.post("/login", {"username": "bob", "password": RIGHT}).status_code == 429, (
        "another account"
    )
    answers = [browser.post("/login", {"username": "ada", "password": WRONG}).status_code for _ in range(4)]
    assert answers == [200, 200, 200, 429], "whoever has the browser guesses no more than others"


def test_an_office_behind_one_address_signs_in(user: User, settings) -> None:
    settings.RATE_LIMITS = settings.RATE_LIMITS | {"sign_in_address": (300, 3600)}
    for _ in range(290):
        rates.rate_take(rates.rate_of("sign_in_address"), "address 192.0.2.1")
    assert sign_in("/login", "ada", RIGHT).status_code == 302


def test_a_forged_cookie_makes_no_browser_known(user: User) -> None:
    for _ in range(4):
        sign_in("/login", "ada", WRONG)
    browser = Client(REMOTE_ADDR="192.0.2.1")
    browser.cookies[KNOWN_COOKIE] = known_browser_make(user)
    assert browser.post("/login", {"username": "ada", "password": RIGHT}).status_code == 429


def test_the_old_password_cannot_be_guessed_at_an_open_session(reviewer: User) -> None:
    client, new, page = Client(), "staple battery horse", "/account/password"
    client.force_login(reviewer)
    fields = {"old_password": WRONG, "new_password1": new, "new_password2": new}
    assert [client.post(page, fields).status_code for _ in range(3)] == [200] * 3
    assert client.post(page, fields | {"old_password": RIGHT}).status_code == 429
    answer = client.post("/admin/password_change/", fields | {"old_password": RIGHT})
    assert (answer.status_code, answer.url) == (302, page), "the admin has no way of its own"


def test_a_new_password_ends_other_sessions_and_keys_on_request(user: User) -> None:
    here, elsewhere, new = Client(), Client(), "staple battery horse"
    here.login(username="ada", password=RIGHT)
    elsewhere.login(username="ada", password=RIGHT)
    _, secret = api_key_create(user, "importer")
    fields = {"old_password": RIGHT, "new_password1": new, "new_password2": new}
    assert here.post("/account/password", fields).status_code == 302
    assert (here.get("/account").status_code, elsewhere.get("/account").status_code) == (200, 302)
    assert api_key_find(secret), "kept unless asked for"
    fields |= {"old_password": new, "revoke_keys": "on"}
    assert here.post("/account/password", fields).status_code == 302
    assert api_key_find(secret) is None


def test_an_address_is_stopped_whatever_accounts_it_tries(user: User) -> None:
    for n in range(3):
        sign_in("/login", f"nobody{n}", WRONG)
    assert sign_in("/login", "ada", RIGHT).status_code == 429
    assert sign_in("/login", "ada", RIGHT, address="192.0.2.2").status_code == 302


def test_signing_in_rightly_is_never_counted(user: User) -> None:
    assert [sign_in("/login", "ada", RIGHT).status_code for _ in range(5)] == [302] * 5
