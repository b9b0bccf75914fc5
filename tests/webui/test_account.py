"""The pages about oneself: API keys, shown once and revoked by their owner, and the password."""

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from captioner.captions.api_keys import api_key_create
from captioner.models import ApiKey
from tests.webui.pages import text

pytestmark = pytest.mark.django_db


@pytest.fixture
def signed_in(client: Client, user: User) -> Client:
    client.force_login(user)
    return client


def works(secret: str) -> bool:
    return Client().get("/api/v1/captions", headers={"Authorization": f"Bearer {secret}"}).status_code == 200


def test_a_new_keys_secret_is_shown_once_and_gets_in(signed_in: Client) -> None:
    response = signed_in.post("/account", {"name": "importer"})
    assert response.status_code == 201
    [secret] = re.findall(r'class="secret-text">([^<]+)<', text(response))
    assert works(secret)
    assert f'Bearer {secret}" -F image=@photo.jpg http://testserver/api/v1/captions</code>' in text(response)
    assert "no-store" in response.headers["Cache-Control"]
    page = text(signed_in.get("/account"))
    assert secret not in page
    assert "importer" in page
    assert secret[:8] in page


@pytest.mark.parametrize("name", ["", " ", "x" * 101])
def test_a_key_needs_a_name_of_some_length(signed_in: Client, name: str) -> None:
    response = signed_in.post("/account", {"name": name})
    assert response.status_code == 400
    assert 'class="errorlist' in text(response)
    assert not ApiKey.objects.exists()


def test_its_owner_revokes_it_after_being_asked(signed_in: Client, user: User) -> None:
    api_key, secret = api_key_create(user, "importer")
    address = f"/account/keys/{api_key.pk}/revoke"
    assert "Revoke “importer”?" in text(signed_in.get(address))
    assert works(secret)
    response = signed_in.post(address, follow=True)
    assert response.redirect_chain == [("/account", 303)]
    assert "The key “importer” was revoked." in text(response)
    assert not works(secret)
    assert signed_in.post(address).status_code == 404, "it is gone from the page"


def test_nobody_sees_or_revokes_the_keys_of_others(signed_in: Client, other_user: User) -> None:
    api_key, secret = api_key_create(other_user, "theirs")
    assert "theirs" not in text(signed_in.get("/account"))
    for ask in (signed_in.get, signed_in.post):
        assert ask(f"/account/keys/{api_key.pk}/revoke").status_code == 404
    assert works(secret)


@pytest.mark.parametrize("address", ["/account", "/account/password", "/account/keys/1/revoke"])
def test_somebody_anonymous_is_asked_to_sign_in(client: Client, address: str) -> None:
    assert client.get(address).url == f"/login?next={address}"


def test_a_key_opens_no_page(user: User) -> None:
    _, secret = api_key_create(user, "importer")
    response = Client(headers={"Authorization": f"Bearer {secret}"}).post("/account", {"name": "another"})
    assert response.status_code == 302
    assert ApiKey.objects.count() == 1


def test_a_password_is_changed_by_whoever_knows_it(signed_in: Client, user: User) -> None:
    new = "staple battery horse"
    fields = {"old_password": "wrong", "new_password1": new, "new_password2": new}
    assert "errorlist" in text(signed_in.post("/account/password", fields))
    response = signed_in.post("/account/password", fields | {"old_password": "correct horse battery"})
    assert response.url == "/account"
    assert Client().login(username="ada", password=new)


# --- Invitations ---


def invited(client: Client, reviewer: User, name: str = "eve") -> str:
    """The link the administrator is shown after adding somebody without a password."""
    client.force_login(reviewer)
    fields = {"username": name, "usable_password": "false"}
    page = text(client.post("/admin/auth/user/add/", fields, follow=True))
    [link] = re.findall(r"<code>http://testserver(/welcome/[^<]+)</code>", page)
    return link


def test_an_invited_person_chooses_a_password_once_and_is_signed_in(client: Client, reviewer: User) -> None:
    link, browser, new = invited(client, reviewer), Client(), "staple battery horse"
    form = browser.get(link, follow=True)
    assert "sign in as <strong>eve</strong>" in text(form)
    address = form.redirect_chain[-1][0]
    assert browser.post(address, {"new_password1": new, "new_password2": new}).url == "/"
    assert browser.session["_auth_user_id"] == str(User.objects.get(username="eve").pk)
    assert "This link is not valid any more." in text(Client().get(link, follow=True))


def test_staff_make_no_link_for_a_superuser(client: Client, reviewer: User, user: User) -> None:
    from django.contrib.auth.models import Permission

    user.is_staff = True
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_user", "change_user"]))
    client.force_login(user)
    fields = {"action": "invite", "_selected_action": [reviewer.pk, user.pk]}
    page = text(client.post("/admin/auth/user/", fields, follow=True))
    assert "Only a superuser may do this for rita." in page
    assert page.count("/welcome/") == 1
