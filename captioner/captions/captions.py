"""Caption photos and log that; delete a caption. Views, the API, tasks and commands are thin callers."""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import cast

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from captioner.captions.memory import photo_recall, recalled_lock, vector_keep
from captioner.captions.photos import photo_delete, photo_store
from captioner.exceptions import CaptionerError, ClientGone
from captioner.inference.types import Candidate, DecodingParameters
from captioner.models import Caption, CaptionQuerySet, JobPhoto, Owner, Photo
from captioner.ops import metrics
from captioner.serving.process import serving

DISCARDED_FOR = timedelta(minutes=10)
_DELETE_CHUNK = 250
FORGOTTEN_NAME = "deleted"  # of a photo of a job, in place of what its sender called it


def caption_create(
    data: bytes,
    *,
    owner: Owner,
    source: Caption.Source,
    file_name: str = "",
    parameters: DecodingParameters | None = None,
    is_abandoned: Callable[[], bool] = lambda: False,
    on_logged: Callable[[Caption], None] = lambda _: None,
) -> Caption:
    """Caption one photo and log the interaction; the caption is in the log when this returns.

    `file_name` is what its sender calls it, fit to be shown. `parameters` defaults to what the version that captions
    the photo asks for. `is_abandoned` is asked now and then while waiting: once it is true, the work is dropped.
    `on_logged` runs in the transaction that logs the caption; when it raises, nothing is logged.

    Raises `InvalidImage`, `Overloaded`, `DeadlineExceeded`, `ModelUnavailable`, `StorageUnavailable` or `ClientGone`.
    """
    _, caption = _captioning(data, owner, source, file_name, parameters, is_abandoned, on_logged)
    return cast(Caption, caption)


def captions_create(
    photos: Iterable[bytes],
    *,
    owner: Owner,
    source: Caption.Source,
    file_names: Sequence[str] = (),
    parameters: DecodingParameters | None = None,
    is_abandoned: Callable[[], bool] = lambda: False,
    on_logged: Callable[[int, Caption], None] = lambda _place, _caption: None,
) -> list[Caption | CaptionerError]:
    """Caption several photos as `caption_create` would; in each one's place its caption, or what was wrong with it.

    `file_names` are in the order of `photos`, where there are any. `on_logged` is given the photo's place, from 0, as
    well.

    The engine gets a whole batch before its first answer is awaited, so that the photos share batches. The next one
    is read from `photos` only then, so that memory holds the pixels of one batch, however many photos there are.

    Raises `ClientGone`.
    """
    photos = iter(photos)
    outcomes: list[Caption | CaptionerError] = []
    while batch := list(islice(photos, settings.CAPTION_MAX_BATCH)):
        under_way = [
            _captioning(
                data,
                owner,
                source,
                file_names[place] if file_names else "",
                parameters,
                is_abandoned,
                partial(on_logged, place),
            )
            for place, data in enumerate(batch, start=len(outcomes))
        ]
        try:
            refusals = [_step(captioning) for captioning in under_way]
            for refusal, captioning in zip(refusals, under_way, strict=True):
                outcomes.append(refusal or cast(Caption, _step(captioning)))
        finally:
            for captioning in under_way:
                captioning.close()  # of use only where something else than one photo failed
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
    captions_delete(Caption.objects.filter(pk=caption.pk))


def captions_discard(captions: CaptionQuerySet) -> datetime | None:
    """Let their owner see these captions no more; `captions_sweep` deletes them once it is too late to regret that.

    Returns the moment, which takes them back; None where there were none.
    """
    now = timezone.now()
    return now if captions.update(deleted_at=now) else None


def captions_take_back(owner: Owner, discarded_at: datetime) -> int:
    """Undo what `owner` discarded at this moment, as far as it is still there; returns how many captions are back."""
    return Caption.objects.discarded_by(owner).filter(deleted_at=discarded_at).update(deleted_at=None)


def captions_sweep() -> int:
    """Delete for good what was discarded `DISCARDED_FOR` ago; returns how many captions that were."""
    return captions_delete(Caption.objects.filter(deleted_at__lt=timezone.now() - DISCARDED_FOR))


def captions_delete(captions: QuerySet[Caption]) -> int:
    """As `caption_delete`, many in each transaction; returns how many there were.

    Raises `StorageUnavailable`, with some of them deleted.
    """
    ids = list(captions.order_by().values_list("pk", flat=True))
    for start in range(0, len(ids), _DELETE_CHUNK):
        chunk = Caption.objects.filter(pk__in=ids[start : start + _DELETE_CHUNK])
        with transaction.atomic():
            shown = Photo.objects.filter(pk__in=chunk.values("photo"))
            photos = list(shown.select_for_update().order_by("pk"))
            JobPhoto.objects.filter(caption__in=chunk).update(name=FORGOTTEN_NAME)
            chunk.delete()
            still = set(
                Caption.objects.filter(photo__in=photos)
                .order_by()
                .values_list("photo_id", flat=True)
                .distinct()
            )
            for photo in photos:
                if photo.pk not in still:
                    photo_delete(photo)
    return len(ids)


def _captioning(
    data: bytes,
    owner: Owner,
    source: Caption.Source,
    file_name: str,
    parameters: DecodingParameters | None,
    is_abandoned: Callable[[], bool],
    on_logged: Callable[[Caption], None],
) -> Generator[Caption | None, None, None]:
    """One photo's way, in two steps: yields None once the engine has the photo, then the logged caption.

    Closed in between, it drops the photo.
    """
    # Pillow comes with the first photo, for the admin and tasks that name this module have none.
    from captioner.intake.decode import photo_decode

    with metrics.rejects_counted():
        started = time.monotonic()
        deadline = started + settings.CAPTION_TIMEOUT_SECONDS
        engine = serving.engine()
        engine.room_check(parameters, deadline)
        photo = photo_decode(data, max_wait_seconds=settings.CAPTION_MAX_WAIT_SECONDS)
        decoded = time.monotonic()
        ticket = engine.photo_submit(photo.image, photo.sha256, parameters, deadline)
        metrics.preprocess_seconds.observe(time.monotonic() - started)
        try:
            with metrics.queue_depth.track_inprogress():
                yield None
                # Made by this thread while the engine is busy with the photo.
                jpeg, difference_hash = photo.jpeg, photo.difference_hash
                if not connection.in_atomic_block:
                    connection.close()  # while this thread waits: waiting requests may outnumber connections
                prediction = ticket.answer(is_abandoned)
        finally:
            ticket.cancel()
        metrics.queue_seconds.observe(prediction.queue_seconds)
        recalled = photo_recall(prediction, difference_hash, owner)
        best, *others = recalled.beams[: ticket.parameters.num_captions]
        caption = Caption(
            user=owner.api_key.user if owner.api_key else owner.user,
            api_key=owner.api_key,
            end_user=owner.end_user,
            visitor=owner.visitor,
            source=source,
            file_name=file_name,
            text=best.caption,
            beam_rank=recalled.ranks[0],
            confidence=_confidence(best),
            words=[asdict(word) for word in best.words],
            least_probability=min((word.probability for word in best.words), default=None),
            alternatives=[{"caption": each.caption, "confidence": _confidence(each)} for each in others],
            token_log_probabilities=list(best.token_log_probabilities),
            model_name=ticket.version.model_name,
            model_version=prediction.model_version,
            decoding=asdict(ticket.parameters),
            timings_ms={
                "decode": _milliseconds(decoded - started),
                "queue": _milliseconds(prediction.queue_seconds),
                "inference": _milliseconds(prediction.inference_seconds),
                "total": _milliseconds(time.monotonic() - started),
            },
            inference_ms=_milliseconds(prediction.inference_seconds),
            batch_size=prediction.batch_size,
        )
        with transaction.atomic():
            caption.photo = photo_store(photo, jpeg)
            vector_keep(caption.photo, prediction)
            if recalled.same is not None:  # and was not deleted or rejected this moment
                caption.recalled = recalled_lock(recalled.same)
                caption.origin = Caption.Origin.MEMORY if caption.recalled else Caption.Origin.MODEL
            caption.save(force_insert=True)
            on_logged(caption)
        metrics.captions.labels("captioned").inc()
        ticket.logged(caption.pk)
        yield caption


def _step(captioning: Generator[Caption | None, None, None]) -> Caption | CaptionerError | None:
    """What the next step yields, or the error it raised; a client that left ends everything."""
    try:
        return next(captioning)
    except ClientGone:
        raise
    except CaptionerError as error:
        return error


def _confidence(candidate: Candidate) -> float | None:
    return None if candidate.confidence is None else round(candidate.confidence, 3)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
