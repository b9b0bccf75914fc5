"""Requests that their senders may repeat: what was made is recorded in the transaction that makes it."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from django.db import IntegrityError, transaction
from django.utils import timezone

from captioner.exceptions import IdempotencyKeyInUse, IdempotencyKeyReused
from captioner.models import Caption, IdempotentRequest, Job, Owner

MadeT = TypeVar("MadeT", Caption, Job)

# How long a repeated request finds what the first one made.
KEPT_FOR = timedelta(days=1)
# A request that began earlier and left nothing died with its process.
_DEAD_AFTER = timedelta(minutes=5)
_RETRY_AFTER = 2  # seconds


def create_once(
    create: Callable[[Callable[[MadeT], None]], MadeT], *, key: str, owner: Owner, fingerprint: str
) -> tuple[MadeT, bool]:
    """What `create` made, now or when the request came first; and whether it was made before.

    `create` gets a function to call with what it makes, in the transaction that does. What fails leaves no trace,
    so a repeated request tries again. Raises `IdempotencyKeyInUse` while the first request is under way,
    `IdempotencyKeyReused` when that one was another, and what `create` raises.
    """
    record, is_first = _begin(_owner_name(owner), key, fingerprint)
    made = record.caption or record.job
    if not is_first:
        if record.fingerprint != fingerprint:
            raise IdempotencyKeyReused(
                "This Idempotency-Key came with another request before. Send a new key with each new request."
            )
        if made is None:
            message = "The first request with this Idempotency-Key is still being worked on."
            raise IdempotencyKeyInUse(message, retry_after=_RETRY_AFTER)
        return made, True  # type: ignore[return-value]  # a key's fingerprint names what is made
    try:
        return create(lambda thing: _note(record, thing)), False
    except BaseException:
        record.delete()
        raise


def requests_sweep() -> int:
    """Forget requests that are too old to be repeated; returns how many."""
    return IdempotentRequest.objects.filter(started_at__lt=timezone.now() - KEPT_FOR).delete()[0]


def _begin(owner: str, key: str, fingerprint: str) -> tuple[IdempotentRequest, bool]:
    """The record of this key, and whether the caller is the one to do what was asked."""
    now = timezone.now()
    try:
        with transaction.atomic():
            fresh = IdempotentRequest(owner=owner, key=key, fingerprint=fingerprint, started_at=now)
            fresh.save(force_insert=True)
            return fresh, True
    except IntegrityError:
        pass
    kept = IdempotentRequest.objects.filter(owner=owner, key=key)
    dead = kept.filter(caption=None, job=None, started_at__lt=now - _DEAD_AFTER)
    if dead.update(started_at=now, fingerprint=fingerprint):
        return kept.get(), True
    record = kept.select_related("caption", "job").first()
    if record is None:  # the first request has just failed
        raise IdempotencyKeyInUse("The first request has just failed.", retry_after=_RETRY_AFTER)
    return record, False


def _note(record: IdempotentRequest, thing: Caption | Job) -> None:
    setattr(record, "caption" if isinstance(thing, Caption) else "job", thing)
    record.save(force_update=True)


def _owner_name(owner: Owner) -> str:
    if owner.api_key is not None:
        return f"key {owner.api_key.pk}"
    return f"user {owner.user.pk}" if owner.user is not None else f"visitor {owner.visitor}"
