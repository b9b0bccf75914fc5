"""The `Idempotency-Key` of requests that may be repeated (draft-ietf-httpapi-idempotency-key-header)."""

import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils import timezone

from captioner.exceptions import IdempotencyKeyInUse, IdempotencyKeyReused, InvalidIdempotencyKey
from captioner.http.owner import owner_of
from captioner.models import Caption, IdempotentRequest, Job, Owner

MadeT = TypeVar("MadeT", Caption, Job)

HEADER = "Idempotency-Key"
# For how long a repeated request is given what the first one made.
KEPT_FOR = timedelta(days=1)
# A request that began earlier and made nothing died with its process.
_DEAD_AFTER = timedelta(minutes=5)
_RETRY_AFTER = 2  # seconds
_MAX_LENGTH = 255


def create_once(
    request: HttpRequest,
    create: Callable[[Callable[[MadeT], None]], MadeT],
    *,
    options: dict[str, Any],
    content: Callable[[], Iterable[bytes]],
) -> tuple[MadeT, dict[str, str]]:
    """Calls `create`, once per key where the request has one; returns what it made, and headers for the answer.

    `create` gets a function to call with what it makes, in the transaction that makes it. A request that fails leaves
    no trace, so that it can be repeated. Two requests are the same when their path, `options` and `content` are.

    Raises `InvalidIdempotencyKey`, `IdempotencyKeyInUse` while the first request is under way, `IdempotencyKeyReused`
    when that one was another, and what `create` raises.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return create(lambda _: None), {}
    if not (0 < len(key) <= _MAX_LENGTH and key.isascii() and key.isprintable()):
        raise InvalidIdempotencyKey(f"Send 1 to {_MAX_LENGTH} printable ASCII characters, e.g. a UUID.")
    digest = hashlib.sha256(f"{request.path}\n{json.dumps(options, sort_keys=True)}\n".encode())
    for part in content():
        digest.update(hashlib.sha256(part).digest())
    record, is_first = _record_begin(owner_of(request), key, digest.hexdigest())
    if is_first:

        def note(made: MadeT) -> None:
            setattr(record, "caption" if isinstance(made, Caption) else "job", made)
            record.save(force_update=True)

        try:
            return create(note), {}
        except BaseException:
            record.delete()
            raise
    if record.fingerprint != digest.hexdigest():
        raise IdempotencyKeyReused(
            "This Idempotency-Key came with another request before. Send a new key with each new request."
        )
    made = record.caption or record.job
    if made is None:
        message = "The first request with this Idempotency-Key is still being worked on."
        raise IdempotencyKeyInUse(message, retry_after=_RETRY_AFTER)
    return made, {"Idempotency-Replayed": "true"}  # type: ignore[return-value]  # the fingerprint tells which it is


def requests_sweep() -> int:
    """Forgets requests that are too old to be repeated; returns how many."""
    return IdempotentRequest.objects.filter(started_at__lt=timezone.now() - KEPT_FOR).delete()[0]


def _record_begin(owner: Owner, key: str, fingerprint: str) -> tuple[IdempotentRequest, bool]:
    """Returns the record of this key, and whether this request is the first and has to do the work."""
    if owner.api_key is not None:
        name = f"key {owner.api_key.pk}"
    else:
        name = f"user {owner.user.pk}" if owner.user is not None else f"visitor {owner.visitor}"
    now = timezone.now()
    try:
        with transaction.atomic():
            fresh = IdempotentRequest(owner=name, key=key, fingerprint=fingerprint, started_at=now)
            fresh.save(force_insert=True)
            return fresh, True
    except IntegrityError:
        pass
    kept = IdempotentRequest.objects.filter(owner=name, key=key)
    dead = kept.filter(caption=None, job=None, started_at__lt=now - _DEAD_AFTER)
    if dead.update(started_at=now, fingerprint=fingerprint):
        return kept.get(), True
    record = kept.select_related("caption", "job").first()
    if record is None:
        raise IdempotencyKeyInUse("The first request has just failed.", retry_after=_RETRY_AFTER)
    return record, False
