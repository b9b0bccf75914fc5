"""A key is found by its secret, for as long as it counts."""

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from captioner.captions.api_keys import api_key_create, api_key_find

pytestmark = pytest.mark.django_db


def test_an_api_key_is_found_by_its_secret_only(user: User) -> None:
    key, secret = api_key_create(user, "script")
    assert api_key_find(secret) == key
    assert api_key_find(secret + "x") is None
    assert secret not in str(vars(key))


def test_a_revoked_key_or_one_of_an_inactive_user_is_not_found(user: User) -> None:
    key, secret = api_key_create(user, "script")
    User.objects.update(is_active=False)
    assert api_key_find(secret) is None
    User.objects.update(is_active=True)
    key.revoked_at = timezone.now()
    key.save()
    assert api_key_find(secret) is None
