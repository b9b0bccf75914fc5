"""Caption photos and log that; delete a caption. Views, the API, tasks and commands are thin callers."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from typing import ParamSpec, TypeVar

from django.conf import settings
from django.db import connection, transaction

from captioner.captions.photos import photo_delete, photo_store
from captioner.exceptions import (
    CaptionerError,
    ClientGone,
    DeadlineExceeded,
)
from captioner.inference.types import Candidate, DecodingParameters, Prediction
from captioner.intake.decode import DecodedPhoto, photo_decode
from captioner.models import Caption, Owner, Photo
from captioner.ops import metrics
from captioner.serving import runtime, trials
from captioner.serving.engine import Ticket

P = ParamSpec("P")
T = TypeVar("T")

# How often a waiting request looks whether its client is still there.
_CLIENT_CHECK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class _Pending:
    """A photo that the engine has accepted and not answered yet."""

    photo: DecodedPhoto
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
            photo_delete(photo)


@metrics.rejects_counted
def _caption_submit(data: bytes, parameters: DecodingParameters | None) -> _Pending:
    engine = runtime.engine()
    started = time.monotonic()
    deadline = started + settings.CAPTION_TIMEOUT_SECONDS
    photo = photo_decode(data, max_wait_seconds=settings.CAPTION_MAX_WAIT_SECONDS)
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
    jpeg = pending.photo.jpeg
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
        caption.photo = photo_store(pending.photo, jpeg)
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
