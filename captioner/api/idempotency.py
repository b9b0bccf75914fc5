"""The `Idempotency-Key` of a request (draft-ietf-httpapi-idempotency-key-header)."""

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from captioner.http.idempotency import MadeT, create_once
from captioner.http.owner import owner_of

HEADER = "Idempotency-Key"
_MAX_LENGTH = 255


def create_as_asked(
    request: Request,
    create: Callable[[Callable[[MadeT], None]], MadeT],
    *,
    options: dict[str, Any],
    content: Callable[[], Iterable[bytes]],
) -> tuple[MadeT, dict[str, str]]:
    """What `create` made, once per key where the request has one; and headers for the answer.

    Two requests are the same when they ask for the same at the same address, whatever their form.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return create(lambda _: None), {}
    if not (0 < len(key) <= _MAX_LENGTH and key.isascii() and key.isprintable()):
        raise ValidationError({HEADER: [f"Send 1 to {_MAX_LENGTH} printable ASCII characters, e.g. a UUID."]})
    fingerprint = hashlib.sha256(f"{request.path}\n{json.dumps(options, sort_keys=True)}\n".encode())
    for part in content():
        fingerprint.update(hashlib.sha256(part).digest())
    made, is_repeated = create_once(
        create, key=key, owner=owner_of(request), fingerprint=fingerprint.hexdigest()
    )
    return made, {"Idempotency-Replayed": "true"} if is_repeated else {}
