"""The captioning domain's verbs. Views, the API, tasks and commands are thin callers of these."""

import contextlib
import hashlib
import io
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import ParamSpec, TypeVar

from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from PIL import Image

from captioner.exceptions import (
    CaptionerError,
    ClientGone,
    DeadlineExceeded,
    InvalidFeedback,
    InvalidImage,
    StorageUnavailable,
)
from captioner.inference.types import Candidate, DecodingParameters, Prediction
from captioner.intake import images
from captioner.models import IDEAL_CAPTION_MAX_LENGTH, ApiKey, Caption, Feedback, Owner, Photo
from captioner.ops import metrics
from captioner.serving import runtime, trials
from captioner.serving.engine import Engine, Ticket

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# How often a waiting request looks whether its client is still there.
_CLIENT_CHECK_SECONDS = 0.2
# A younger photo without captions may belong to a request that is just about to log its caption.
_ORPHAN_AGE = timedelta(hours=1)


# --- Captions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pending:
    """A photo that the engine has accepted and not answered yet."""

    photo: images.DecodedPhoto
    ticket: Ticket
    submitted_at: float  # time.monotonic(), as is the deadline
    deadline: float
    decode_seconds: float


def caption_create(
    data: bytes,
    *,
    owner: Owner,
    source: Caption.Source,
    parameters: DecodingParameters | None = None,
    is_abandoned: Callable[[], bool] = lambda: False,
    on_logged: Callable[[Caption], None] = lambda _: None,
) -> Caption:
    """Caption one photo and log the interaction; the caption is in the log when this returns.

    `parameters` defaults to what the version that captions the photo asks for. `is_abandoned` is asked now and then
    while waiting: once it is true, the work is dropped. `on_logged` runs in the transaction that logs the caption;
    when it raises, nothing is logged.

    Raises `InvalidImage`, `Overloaded`, `DeadlineExceeded`, `ModelUnavailable`, `StorageUnavailable` or `ClientGone`.
    """
    return _caption_finish(_caption_submit(data, parameters), owner, source, is_abandoned, on_logged)


def captions_create(
    photos: Iterable[bytes],
    *,
    owner: Owner,
    source: Caption.Source,
    parameters: DecodingParameters | None = None,
    is_abandoned: Callable[[], bool] = lambda: False,
    on_logged: Callable[[int, Caption], None] = lambda _place, _caption: None,
) -> list[Caption | CaptionerError]:
    """Caption several photos as `caption_create` would; in each one's place its caption, or what was wrong with it.

    `on_logged` is given the photo's place, from 0, as well.

    The engine gets a whole batch before its first answer is awaited, so that the photos share batches. The next one
    is read from `photos` only then, so that memory holds the pixels of one batch, however many photos there are.

    Raises `ClientGone`.
    """
    photos = iter(photos)
    outcomes: list[Caption | CaptionerError] = []
    while batch := list(islice(photos, settings.CAPTION_MAX_BATCH)):
        submitted = [_attempt(_caption_submit, data, parameters) for data in batch]
        try:
            for item in submitted:
                if isinstance(item, CaptionerError):
                    outcomes.append(item)
                    continue
                note = partial(on_logged, len(outcomes))
                outcomes.append(_attempt(_caption_finish, item, owner, source, is_abandoned, note))
        finally:
            for item in submitted:
                if isinstance(item, _Pending):
                    item.ticket.cancel()  # of use only where something else than one photo failed
    return outcomes


def photos_predict(
    paths: Sequence[Path], **wishes: int | None
) -> Iterator[tuple[Path, Prediction | CaptionerError]]:
    """Caption local photos without logging them, in the order of `paths`; `wishes` as in `parameters_from`.

    A photo that cannot be captioned yields its error. Raises what `runtime.engine_load` raises.
    """
    # Whoever captions a folder waits as long as it takes.
    engine = runtime.engine_load(max_wait_seconds=math.inf)
    parameters = parameters_from(engine.default_parameters, **wishes)
    waiting: deque[tuple[Path, Future[Prediction] | CaptionerError]] = deque()
    for path in paths:
        if len(waiting) > settings.CAPTION_MAX_BATCH:
            yield _photo_outcome(*waiting.popleft())
        waiting.append((path, _photo_submit(engine, path, parameters)))
    yield from (_photo_outcome(*entry) for entry in waiting)


def parameters_from(default: DecodingParameters, **wishes: int | None) -> DecodingParameters:
    """`default` with the wishes that are not None; asking for several captions raises the beams to as many.

    Raises `ValueError` naming the field and what is allowed.
    """
    given = {name: value for name, value in wishes.items() if value is not None}
    if "num_beams" not in given and "num_captions" in given:
        given["num_beams"] = max(default.num_beams, given["num_captions"])
    return replace(default, **given)


def caption_delete(caption: Caption) -> None:
    """Delete a caption with its feedback, and its photo once no other caption shows it.

    Deleting what somebody else has just deleted is no error. Raises `StorageUnavailable`, with nothing deleted.
    """
    with transaction.atomic():
        photo = Photo.objects.select_for_update().filter(pk=caption.photo_id).first()
        caption.delete()
        if photo is not None and not photo.captions.exists():
            _photo_delete(photo)


def _photo_submit(
    engine: Engine, path: Path, parameters: DecodingParameters
) -> "Future[Prediction] | CaptionerError":
    try:
        return engine.submit(images.decode(path.read_bytes()).image, parameters, deadline=math.inf)
    except OSError as error:
        return InvalidImage(f"The file cannot be read: {error.strerror}.", reason="corrupt")
    except InvalidImage as error:
        return error


def _photo_outcome(
    path: Path, entry: "Future[Prediction] | CaptionerError"
) -> tuple[Path, Prediction | CaptionerError]:
    return path, entry if isinstance(entry, CaptionerError) else entry.result()


@metrics.rejects_counted
def _caption_submit(data: bytes, parameters: DecodingParameters | None) -> _Pending:
    engine = runtime.engine()
    started = time.monotonic()
    deadline = started + settings.CAPTION_TIMEOUT_SECONDS
    photo = images.decode(data, max_wait_seconds=settings.CAPTION_MAX_WAIT_SECONDS)
    submitted = time.monotonic()
    ticket = engine.photo_submit(photo.image, photo.sha256, parameters, deadline)
    metrics.photo_accepted(ticket.future)
    metrics.preprocess_seconds.observe(time.monotonic() - started)
    return _Pending(
        photo=photo,
        ticket=ticket,
        submitted_at=submitted,
        deadline=deadline,
        decode_seconds=submitted - started,
    )


def _connection_release() -> None:
    """Give the database connection back while this thread waits: waiting requests may outnumber connections."""
    if not connection.in_atomic_block:
        connection.close()


@metrics.rejects_counted
def _caption_finish(
    pending: _Pending,
    owner: Owner,
    source: Caption.Source,
    is_abandoned: Callable[[], bool],
    on_logged: Callable[[Caption], None],
) -> Caption:
    # The engine is busy with the photo now; this thread meanwhile prepares what will be stored.
    jpeg = images.encode(pending.photo.image)
    _connection_release()
    prediction = _prediction_wait(pending, is_abandoned)
    metrics.queue_seconds.observe(prediction.queue_seconds)
    caption = _caption_log(pending, prediction, jpeg, owner, source, on_logged)
    metrics.captions.labels("captioned").inc()
    _challenger_try(pending, caption)
    return caption


def _attempt(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | CaptionerError:
    """What `step` returns, or the error it raised; a client that left ends everything."""
    try:
        return step(*args, **kwargs)
    except ClientGone:
        raise
    except CaptionerError as error:
        return error


def _prediction_wait(pending: _Pending, is_abandoned: Callable[[], bool]) -> Prediction:
    while True:
        try:
            return pending.ticket.result(timeout=_CLIENT_CHECK_SECONDS)
        except FutureTimeout:
            if is_abandoned():
                pending.ticket.cancel()
                raise ClientGone("The client closed its connection while its photo was waiting.") from None
            if time.monotonic() > pending.deadline:
                pending.ticket.cancel()
                raise DeadlineExceeded(
                    f"No caption within {settings.CAPTION_TIMEOUT_SECONDS} seconds; please try again."
                ) from None


def _caption_log(
    pending: _Pending,
    prediction: Prediction,
    jpeg: bytes,
    owner: Owner,
    source: Caption.Source,
    on_logged: Callable[[Caption], None],
) -> Caption:
    best, *others = prediction.candidates
    caption = Caption(
        user=owner.api_key.user if owner.api_key else owner.user,
        api_key=owner.api_key,
        visitor=owner.visitor,
        source=source,
        text=best.caption,
        confidence=_confidence(best),
        words=[asdict(word) for word in best.words],
        alternatives=[_alternative(candidate) for candidate in others],
        token_log_probabilities=list(best.token_log_probabilities),
        model_name=pending.ticket.version.model_name,
        model_version=prediction.model_version,
        decoding=asdict(pending.ticket.parameters),
        timings_ms={
            "decode": _milliseconds(pending.decode_seconds),
            "queue": _milliseconds(prediction.queue_seconds),
            "inference": _milliseconds(prediction.inference_seconds),
            "total": _milliseconds(time.monotonic() - pending.submitted_at + pending.decode_seconds),
        },
        batch_size=prediction.batch_size,
    )
    with transaction.atomic():
        caption.photo = _photo_store(pending.photo, jpeg)
        caption.save(force_insert=True)
        on_logged(caption)
    return caption


def _challenger_try(pending: _Pending, caption: Caption) -> None:
    """Log how a challenger failed this photo, or let it caption the photo too when there is nothing else to do."""
    ticket = pending.ticket
    if ticket.failure is not None:
        trials.trial_failed(caption, *ticket.failure)
        return
    challenger = runtime.engine().challenger
    if challenger is not None and challenger.version is not ticket.version:
        challenger.shadow_offer(caption.pk, pending.photo.image, pending.photo.sha256, ticket.parameters)


def _alternative(candidate: Candidate) -> dict[str, object]:
    return {"caption": candidate.caption, "confidence": _confidence(candidate)}


def _confidence(candidate: Candidate) -> float | None:
    return None if candidate.confidence is None else round(candidate.confidence, 3)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


# --- Photos -----------------------------------------------------------------------------------------------------


def _photo_store(decoded: images.DecodedPhoto, jpeg: bytes) -> Photo:
    """The stored photo of these bytes, written once, and again when its file was lost. Call inside the transaction
    that logs its caption.

    The row is locked, so that a deletion of the photo's last other caption either sees ours or comes first.
    """
    name = f"{decoded.sha256[:2]}/{decoded.sha256}.jpg"
    photo, is_new = Photo.objects.select_for_update().get_or_create(
        sha256=decoded.sha256,
        defaults={
            "file": name,
            "width": decoded.width,
            "height": decoded.height,
            "difference_hash": images.difference_hash(decoded.image),
        },
    )
    with storage_required():
        if is_new or not default_storage.exists(name):
            default_storage.save(name, ContentFile(jpeg))
    return photo


def photo_open(photo: Photo) -> "File[bytes]":
    """The stored JPEG. Raises `FileNotFoundError` when it is lost, `StorageUnavailable` when it cannot be had now."""
    with storage_required():
        return photo.file.open()


@contextlib.contextmanager
def storage_required() -> Iterator[None]:
    """Around what needs the store: raises `StorageUnavailable` where that fails."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        logger.error("The store of photos failed: %s", error)
        raise StorageUnavailable(
            "Photos cannot be stored or read right now; please try again in a few seconds."
        ) from error


def _photo_delete(photo: Photo) -> None:
    # The file goes last: should removing it fail, the rows are rolled back and nothing points at nothing.
    name = str(photo.file.name)
    photo.delete()
    with storage_required():
        default_storage.delete(name)


def photos_hash() -> int:
    """Give every photo that was stored before there were difference hashes its own; return how many got one."""
    hashed = 0
    for photo in Photo.objects.filter(difference_hash="").order_by("pk").iterator(chunk_size=100):
        try:
            with photo_open(photo) as file:
                data = file.read()
        except FileNotFoundError:
            continue  # its caption is being deleted, or the storage has lost it
        try:
            photo.difference_hash = images.difference_hash(Image.open(io.BytesIO(data)).convert("RGB"))
        except Exception as error:  # noqa: BLE001  what decoders raise is undocumented
            logger.warning("%s cannot be read: %s", photo.file.name, error)
            continue
        hashed += Photo.objects.filter(pk=photo.pk).update(difference_hash=photo.difference_hash)
    return hashed


def photos_sweep() -> int:
    """Delete photos that no caption shows any more (their owners were deleted); return how many went."""
    orphans = Photo.objects.filter(captions__isnull=True, created_at__lt=timezone.now() - _ORPHAN_AGE)
    swept = 0
    for pk in orphans.values_list("pk", flat=True).iterator():
        with transaction.atomic():
            photo = Photo.objects.select_for_update().filter(pk=pk, captions__isnull=True).first()
            if photo is not None:
                _photo_delete(photo)
                swept += 1
    return swept


# --- Feedback ---------------------------------------------------------------------------------------------------


def feedback_submit(
    caption: Caption, *, rating: int | None = None, ideal_caption: str = ""
) -> tuple[Feedback, bool]:
    """Record what the person thinks of `caption`; saying it again replaces what was said and asks for a new review.

    Returns the feedback, and whether it is the first.

    Raises `InvalidFeedback` when there is neither a rating nor a caption, or one of them is out of range, and
    `Caption.DoesNotExist` when the caption was deleted meanwhile.
    """
    ideal_caption = " ".join(ideal_caption.split())
    if rating is None and not ideal_caption:
        raise InvalidFeedback("Give a rating from 1 to 10, a better caption, or both.", field="rating")
    if rating is not None and not 1 <= rating <= 10:
        raise InvalidFeedback(f"The rating is a whole number from 1 to 10, not {rating}.", field="rating")
    if len(ideal_caption) > IDEAL_CAPTION_MAX_LENGTH:
        raise InvalidFeedback(
            f"The caption has {len(ideal_caption)} characters; at most {IDEAL_CAPTION_MAX_LENGTH} are allowed.",
            field="ideal_caption",
        )
    said = {"rating": rating, "ideal_caption": ideal_caption}
    review = {"status": Feedback.Status.PENDING, "reviewed_by": None, "reviewed_at": None}
    with transaction.atomic():
        # Locked, so that a deletion under way comes either before, and there is nothing to rate, or after.
        caption = Caption.objects.select_for_update().get(pk=caption.pk)
        return Feedback.objects.update_or_create(caption=caption, defaults=said | review)


def feedback_review(feedback: QuerySet[Feedback], status: Feedback.Status, *, reviewer: User) -> int:
    """Approve or reject every row of `feedback`, recording who and when; return how many rows changed."""
    return feedback.exclude(status=status).update(
        status=status, reviewed_by=reviewer, reviewed_at=timezone.now()
    )


# --- API keys ---------------------------------------------------------------------------------------------------


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


# --- Set-up -----------------------------------------------------------------------------------------------------


def administrator_ensure() -> str | None:
    """Make the user `admin` where no administrator exists; return its random password, kept nowhere else."""
    if User.objects.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(12)
    User.objects.create_superuser(username="admin", password=password)
    return password
