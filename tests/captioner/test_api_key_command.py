from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from captioner.captions.api_keys import api_key_create, api_key_find

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("api_key", *arguments, stdout=out)
    return out.getvalue()


def test_a_key_is_made_listed_and_revoked(user: User) -> None:
    secret = run("create", "ada", "nightly import").strip()
    api_key = api_key_find(secret)
    assert api_key is not None
    assert api_key.user == user
    [line] = run("list").splitlines()
    number, prefix, owner, _, state, name = line.split("\t")
    assert (prefix, owner, state, name) == (f"{secret[:8]}…", "ada", "in use", "nightly import")
    assert "Revoked: 1; revoked before: 0." in run("revoke", number)
    assert "Revoked: 0; revoked before: 1." in run("revoke", number)
    assert api_key_find(secret) is None
    assert "revoked" in run("list", "ada")


def test_a_list_may_be_of_one_user(user: User, other_user: User) -> None:
    api_key_create(user, "one")
    assert run("list", "bob") == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["create", "nobody", "x"], "no user 'nobody'"),
        (["create", "ada", ""], "has 0 characters"),
        (["create", "ada", "x" * 101], "has 101 characters"),
        (["list", "nobody"], "no user 'nobody'"),
        (["revoke", "7"], "no key with the number 7"),
    ],
)
def test_what_cannot_be_done_is_said(user: User, arguments: list[str], complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint):
        run(*arguments)
