"""What a worker does with the photos of a message: claim them, caption them, release what it could not finish."""

import math
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import F
from django.utils import timezone

from captioner.captions.captions import captions_create, parameters_from
from captioner.captions.memory import memory
from captioner.exceptions import (
    CaptionerError,
    ClientGone,
    DeadlineExceeded,
    InvalidImage,
    ModelUnavailable,
    Overloaded,
    PhotoDone,
    StorageUnavailable,
)
from captioner.jobs.messages import photos_enqueue
from captioner.jobs.uploads import upload_read, uploads_clear
from captioner.models import Caption, Job, JobPhoto
from captioner.serving.process import serving

MAX_ATTEMPTS = 3  # of a photo that was not captioned for no fault of its own, or that ends its worker
# A worker is taken for dead this long after it claimed a batch; were it only slow, work would be done twice, no more.
_LEASE = 3 * timedelta(seconds=settings.CAPTION_TIMEOUT_SECONDS)
_RETRY_AFTER = timedelta(seconds=30)
# Photos of a new job that are captioned while its sender waits, at most; none is begun after so many seconds.
BEGIN_MOST, _BEGIN_SECONDS = 20, 3.0


def job_photos_caption(job_id: uuid.UUID, indexes: Sequence[int]) -> None:
    """Caption those of the job's photos that are still to be captioned and no other worker has.

    The engine comes first: while no model can be loaded, photos stay as they are, to be found by the sweep.
    """
    serving.refresh(max_wait_seconds=math.inf)
    memory.look(serving.encoders)
    job = Job.objects.filter(pk=job_id).select_related("user", "api_key__user").first()
    if job is None:
        return
    rest = iter(indexes)
    while batch := list(islice(rest, settings.CAPTION_MAX_BATCH)):
        photos = _claim(job, batch)
        try:
            _caption(job, photos)
        except (OSError, DatabaseError):
            _release(photos, attempts=F("attempts") - 1)  # a server is away: no fault of the photos'
            raise
        except Exception:
            # Whatever it was, each photo is tried alone from now on, and not for ever.
            _release(photos)
            raise
        job_finish_if_done(job.pk)


def job_begin(job: Job, *, is_abandoned: Callable[[], bool]) -> None:
    """Caption the first photos of a new job in this process, as long as somebody may wait for a page; workers get the
    others, and what this process has no time for.
    """
    ends_at = time.monotonic() + _BEGIN_SECONDS
    indexes = iter(range(BEGIN_MOST))
    try:
        while time.monotonic() < ends_at and (batch := list(islice(indexes, settings.CAPTION_MAX_BATCH))):
            if not (photos := _claim(job, batch)):
                break
            _caption(job, photos, source=Caption.Source.WEB, is_abandoned=is_abandoned)
    except (ClientGone, ModelUnavailable):
        pass  # workers have all the time
    pending = job.photos.pending()
    # That this process was busy is no fault of the photos'.
    pending.filter(index__lt=BEGIN_MOST).update(attempts=0)
    photos_enqueue(pending)
    job_finish_if_done(job.pk)


def _claim(job: Job, indexes: Sequence[int]) -> list[JobPhoto]:
    """Take what is to be captioned for a while, or for ever where that was tried too often."""
    now = timezone.now()
    with transaction.atomic():
        photos = list(
            job.photos.claimable(now).filter(index__in=indexes).select_for_update().order_by("index")
        )
        hopeless = [photo for photo in photos if photo.attempts >= MAX_ATTEMPTS]
        claimed = [photo for photo in photos if photo.attempts < MAX_ATTEMPTS]
        for photo in claimed:
            photo.attempts += 1
            photo.leased_until = now + _LEASE
        JobPhoto.objects.bulk_update(claimed, ["attempts", "leased_until"])
    for photo in hopeless:
        photo_fail(photo, "gave_up", f"It was tried {MAX_ATTEMPTS} times and never finished.")
    if claimed:
        Job.objects.filter(pk=job.pk, status=Job.Status.QUEUED).update(status=Job.Status.RUNNING)
    return claimed


def _caption(
    job: Job,
    photos: list[JobPhoto],
    *,
    source: Caption.Source = Caption.Source.BATCH,
    is_abandoned: Callable[[], bool] = lambda: False,
) -> None:
    inputs: list[tuple[JobPhoto, bytes]] = []
    for photo in photos:
        try:
            inputs.append((photo, upload_read(photo)))
        except FileNotFoundError:
            photo_lost(photo)
    outcomes = captions_create(
        [data for _, data in inputs],
        owner=job.owner,
        source=source,
        file_names=[photo.name for photo, _ in inputs],
        parameters=parameters_from(serving.engine().default_parameters, **job.options),
        is_abandoned=is_abandoned,
        on_logged=lambda place, caption: _captioned(inputs[place][0], caption),
    )
    for (photo, _), outcome in zip(inputs, outcomes, strict=True):
        match outcome:
            case Caption() | PhotoDone():
                pass
            case InvalidImage():
                photo_fail(photo, outcome.reason, str(outcome))
            case ModelUnavailable() | StorageUnavailable():  # no fault of the photo's, and no attempt
                _release([photo], attempts=F("attempts") - 1)
            case Overloaded() | DeadlineExceeded() if photo.attempts < MAX_ATTEMPTS:
                _release([photo])
            case CaptionerError():
                photo_fail(photo, "gave_up", f"It was tried {photo.attempts} times. {outcome}")
    uploads_clear(JobPhoto.objects.filter(pk__in=[photo.pk for photo in photos]))


def _captioned(photo: JobPhoto, caption: Caption) -> None:
    """In the transaction that logs the caption. Raises `PhotoDone` where the photo needs none any more."""
    locked = JobPhoto.objects.select_for_update().pending().filter(pk=photo.pk).first()
    if locked is None:
        raise PhotoDone("This photo needs no caption any more.")
    locked.state, locked.caption = JobPhoto.State.CAPTIONED, caption
    locked.save(update_fields=["state", "caption"])


def _release(photos: Iterable[JobPhoto], **changes: Any) -> None:
    """Leave the photos to the sweep, some time from now."""
    until = timezone.now() + _RETRY_AFTER
    pks = [photo.pk for photo in photos]
    JobPhoto.objects.pending().filter(pk__in=pks).update(leased_until=until, **changes)


def photo_fail(photo: JobPhoto, reason: str, error: str) -> None:
    failed = {"state": JobPhoto.State.FAILED, "reason": reason, "error": error}
    JobPhoto.objects.pending().filter(pk=photo.pk).update(**failed)


def photo_lost(photo: JobPhoto) -> None:
    photo_fail(photo, "lost", "The photo was lost before it was captioned. Send it again.")


def job_finish_if_done(job_id: uuid.UUID) -> None:
    if not JobPhoto.objects.pending().filter(job=job_id).exists():
        running = Job.objects.filter(pk=job_id, status__in=[Job.Status.QUEUED, Job.Status.RUNNING])
        running.update(status=Job.Status.FINISHED, finished_at=timezone.now(), caller="")
