"""The first administrator."""

import pytest

from captioner.captions.accounts import administrator_ensure

pytestmark = pytest.mark.django_db


def test_the_first_administrator_gets_a_password_once(client) -> None:
    password = administrator_ensure()
    assert client.login(username="admin", password=password)
    assert administrator_ensure() is None
