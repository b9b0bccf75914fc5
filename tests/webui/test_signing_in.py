import pytest
from django.contrib.auth.models import User
from django.test import Client

from captioner.models import Caption
from tests.conftest import FakeEngine
from tests.webui.pages import jpeg, text, upload

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


def test_signing_in_leads_to_where_one_was_going(client: Client, user: User, fake_engine: FakeEngine) -> None:
    page = text(client.get("/login?next=/captions/"))
    assert '<input type="hidden" name="next" value="/captions/">' in page
    response = client.post("/login", {"username": "ada", "password": PASSWORD, "next": "/captions/"})
    assert response.url == "/captions/"


def test_a_wrong_password_is_told_on_the_form(client: Client, user: User) -> None:
    page = text(client.post("/login", {"username": "ada", "password": "wrong"}))
    assert 'role="alert"' in page
    assert "Please enter a correct username and password." in page


def test_nobody_is_led_to_another_site(client: Client, user: User) -> None:
    fields = {"username": "ada", "password": PASSWORD, "next": "https://evil.example/"}
    assert client.post("/login", fields).url == "/"


def test_the_head_of_the_page_says_who_one_is(client: Client, user: User, fake_engine: FakeEngine) -> None:
    assert "visitor on this browser" in text(client.get("/"))
    client.force_login(user)
    page = text(client.get("/"))
    assert "ada</span>" in page
    assert 'href="/admin/"' not in page
    assert 'href="/api/docs"' in page


def test_staff_find_the_admin(client: Client, reviewer: User, fake_engine: FakeEngine) -> None:
    client.force_login(reviewer)
    assert 'href="/admin/"' in text(client.get("/"))


def test_signing_out_is_a_post(client: Client, user: User) -> None:
    client.force_login(user)
    assert client.get("/logout").status_code == 405
    assert client.post("/logout").url == "/"
    assert "_auth_user_id" not in client.session


def test_who_is_signed_in_needs_no_sign_in_page(client: Client, user: User) -> None:
    client.force_login(user)
    assert client.get("/login").url == "/"


def test_what_this_browser_captioned_comes_along_and_old_links_work(
    client: Client, user: User, fake_engine: FakeEngine
) -> None:
    link = upload(client, jpeg()).url
    upload(client, jpeg(size=(50, 40)))
    other = Client()
    theirs = upload(other, jpeg()).url
    page = text(client.post("/login", {"username": "ada", "password": PASSWORD}, follow=True))
    assert "The 2 captions made on this browser before are in your history now." in page
    assert client.get(link).status_code == 200
    assert Caption.objects.filter(user=user).count() == 2
    assert client.get(theirs).status_code == 404
    assert other.get(theirs).status_code == 200
    client.post("/logout")
    assert client.get(link).status_code == 404


def test_the_admin_has_no_sign_in_page_of_its_own(client: Client, user: User, reviewer: User) -> None:
    response = client.get("/admin/captioner/photo/", follow=True)
    assert response.redirect_chain[-1][0] == "/login?next=/admin/captioner/photo/"
    fields = {"username": "rita", "password": PASSWORD, "next": "/admin/captioner/photo/"}
    assert client.post("/login", fields).url == "/admin/captioner/photo/"
    assert client.get("/admin/login/").url == "/admin/"
    client.force_login(user)
    assert client.get("/admin/", follow=True).status_code == 403
