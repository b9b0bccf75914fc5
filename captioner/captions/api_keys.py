"""Keys for the REST API. Only their digests are kept."""

import hashlib
import secrets

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils import timezone

from captioner.models import ApiKey


def api_key_create(user: User, name: str) -> tuple[ApiKey, str]:
    """Make a key that acts for `user`; returns it with its secret, which cannot be had again."""
    secret = secrets.token_urlsafe(32)
    api_key = ApiKey.objects.create(user=user, name=name, prefix=secret[:8], digest=_api_key_digest(secret))
    return api_key, secret


def api_key_find(secret: str) -> ApiKey | None:
    """The key with this secret, unless it was revoked or its user may not sign in any more."""
    return (
        ApiKey.objects.select_related("user")
        .filter(digest=_api_key_digest(secret), revoked_at__isnull=True, user__is_active=True)
        .first()
    )


def api_key_revoke(api_keys: QuerySet[ApiKey]) -> int:
    """End the access of every key of `api_keys`; return how many still had it."""
    return api_keys.filter(revoked_at__isnull=True).update(revoked_at=timezone.now())


def _api_key_digest(secret: str) -> str:
    # A plain hash is enough here: the secret has 256 random bits, so there is nothing to guess.
    return hashlib.sha256(secret.encode()).hexdigest()
