"""Batch jobs: many photos sent at once, captioned by any number of workers.

The database is what is known: each photo has a row that says how far it got. Messages of the broker only say where to
look, so that one that is lost, doubled or late changes nothing: a worker claims photos in the database before it
captions them, and a caption is logged in the transaction that marks its photo as done. `jobs_sweep` finds what no
message leads to.
"""

import logging
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from itertools import groupby, islice
from typing import IO, Any, cast

from celery import current_app
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.files.uploadedfile import UploadedFile
from django.db import DatabaseError, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from kombu.exceptions import ChannelError, OperationalError

from captioner.captions.captions import captions_create, parameters_from
from captioner.captions.photos import storage_required
from captioner.exceptions import (
    CaptionerError,
    DeadlineExceeded,
    InvalidArchive,
    InvalidImage,
    ModelUnavailable,
    Overloaded,
    PhotoDone,
    StorageUnavailable,
)
from captioner.intake.images import MAX_BYTES
from captioner.jobs.archives import SentPhoto, archive_photos, name_shown
from captioner.models import Caption, Job, JobPhoto, Owner
from captioner.serving import follower as registry_follower
from captioner.serving import runtime

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3  # of a photo that was not captioned for no fault of its own, or that ends its worker
# Photos of one message: enough to be worth it, few enough to spread a small job over workers.
_CHUNK = 16
# A worker is taken for dead this long after it claimed a batch; were it only slow, work would be done twice, no more.
_LEASE = 3 * timedelta(seconds=settings.CAPTION_TIMEOUT_SECONDS)
_RETRY_AFTER = timedelta(seconds=30)
# Photos queued for so long were lost with their message: where nothing is queued any more, or anyway.
_LOST_AFTER, _LOST_ANYWAY_AFTER = timedelta(seconds=15), timedelta(hours=1)
_RECEIVED_WITHIN = timedelta(hours=1)
_STORE_THREADS = 8
_LOST = "lost", "The photo was lost before it was captioned. Send it again."


# --- From outside -----------------------------------------------------------------------------------------------


def job_create(
    photos: Sequence[SentPhoto],
    *,
    owner: Owner,
    options: dict[str, int] | None = None,
    on_created: Callable[[Job], None] = lambda _: None,
) -> Job:
    """Keep the photos and have them captioned; `options` are wishes as in `parameters_from`.

    `on_created` is called with the job in the transaction that completes it. The job is complete when this returns,
    whether or not the broker could be told.

    Raises `InvalidArchive` where a photo cannot be read, `StorageUnavailable` where none can be kept.
    """
    job = Job.objects.create(
        user=owner.api_key.user if owner.api_key else owner.user,
        api_key=owner.api_key,
        visitor=owner.visitor,
        photo_count=len(photos),
        options=options or {},
    )
    try:
        with ThreadPoolExecutor(_STORE_THREADS) as pool:
            rows = list(pool.map(partial(_photo_store, job.pk), range(len(photos)), photos))
    except BaseException:
        for index in range(len(photos)):
            storages["uploads"].delete(_input_name(job.pk, index))
        job.delete()
        raise
    with transaction.atomic():
        JobPhoto.objects.bulk_create(rows, batch_size=500)
        job.status = Job.Status.QUEUED
        job.save(update_fields=["status"])
        on_created(job)
        transaction.on_commit(partial(_enqueue, job.photos.pending()))
    _finish_if_done(job.pk)  # when none of its photos can be captioned
    return job


def photos_sent(
    archive: "UploadedFile[bytes] | None", images: "Sequence[UploadedFile[bytes]]"
) -> list[SentPhoto]:
    """The photos of an uploaded ZIP, or of uploaded files, checked against the limits of a job.

    Raises `InvalidArchive`.
    """
    max_photos, max_bytes = settings.JOB_MAX_PHOTOS, settings.JOB_MAX_MEGABYTES * 2**20
    if archive is not None:
        return archive_photos(cast(IO[bytes], archive.file), max_photos=max_photos, max_bytes=max_bytes)
    if len(images) > max_photos:
        raise InvalidArchive(f"At most {max_photos:,} photos are taken at a time.", reason="too_many")
    return [
        SentPhoto(name_shown(image.name or "photo"), image.size or 0, partial(_upload_read, image))
        for image in images
    ]


def _upload_read(upload: "UploadedFile[bytes]") -> bytes:
    upload.seek(0)
    data: bytes = upload.read(MAX_BYTES + 1)
    return data


def job_cancel(job: Job) -> None:
    """Caption no more photos of this job. What was captioned stays in the history; a finished job stays finished."""
    with transaction.atomic():
        locked = Job.objects.select_for_update().get(pk=job.pk)
        if locked.is_over:
            return
        locked.photos.pending().update(state=JobPhoto.State.CANCELLED)
        locked.status, locked.finished_at = Job.Status.CANCELLED, timezone.now()
        locked.save(update_fields=["status", "finished_at"])
    _inputs_clear(JobPhoto.objects.filter(job=job))


# --- In workers -------------------------------------------------------------------------------------------------


def job_photos_caption(job_id: uuid.UUID, indexes: Sequence[int]) -> None:
    """Caption those of the job's photos that are still to be captioned and no other worker has.

    The engine comes first: while no model can be loaded, photos stay as they are, to be found by the sweep.
    """
    registry_follower.engine_refresh(max_wait_seconds=math.inf)
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
        _finish_if_done(job.pk)


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
        _fail(photo, "gave_up", f"It was tried {MAX_ATTEMPTS} times and never finished.")
    if claimed:
        Job.objects.filter(pk=job.pk, status=Job.Status.QUEUED).update(status=Job.Status.RUNNING)
    return claimed


def _caption(job: Job, photos: list[JobPhoto]) -> None:
    inputs = [(photo, data) for photo in photos if (data := _input_read(photo)) is not None]
    parameters = runtime.engine().default_parameters
    outcomes = captions_create(
        [data for _, data in inputs],
        owner=job.owner,
        source=Caption.Source.BATCH,
        parameters=parameters_from(parameters, **job.options),
        on_logged=lambda place, caption: _captioned(inputs[place][0], caption),
    )
    for (photo, _), outcome in zip(inputs, outcomes, strict=True):
        if isinstance(outcome, CaptionerError):
            _not_captioned(photo, outcome)
    _inputs_clear(JobPhoto.objects.filter(pk__in=[photo.pk for photo in photos]))


def _captioned(photo: JobPhoto, caption: Caption) -> None:
    """In the transaction that logs the caption. Raises `PhotoDone` where the photo needs none any more."""
    locked = JobPhoto.objects.select_for_update().pending().filter(pk=photo.pk).first()
    if locked is None:
        raise PhotoDone("This photo needs no caption any more.")
    locked.state, locked.caption = JobPhoto.State.CAPTIONED, caption
    locked.save(update_fields=["state", "caption"])


def _not_captioned(photo: JobPhoto, error: CaptionerError) -> None:
    match error:
        case PhotoDone():
            pass
        case InvalidImage():
            _fail(photo, error.reason, str(error))
        case (
            ModelUnavailable() | StorageUnavailable()
        ):  # no fault of the photo's, and not counted as an attempt
            _release([photo], attempts=F("attempts") - 1)
        case Overloaded() | DeadlineExceeded() if photo.attempts < MAX_ATTEMPTS:
            _release([photo])
        case _:
            _fail(photo, "gave_up", f"It was tried {photo.attempts} times. {error}")


def _fail(photo: JobPhoto, reason: str, error: str) -> None:
    failed = {"state": JobPhoto.State.FAILED, "reason": reason, "error": error}
    JobPhoto.objects.pending().filter(pk=photo.pk).update(**failed)


def _release(photos: Iterable[JobPhoto], **changes: Any) -> None:
    """Leave the photos to the sweep, some time from now."""
    until = timezone.now() + _RETRY_AFTER
    pks = [photo.pk for photo in photos]
    JobPhoto.objects.pending().filter(pk__in=pks).update(leased_until=until, **changes)


def _finish_if_done(job_id: uuid.UUID) -> None:
    if not JobPhoto.objects.pending().filter(job=job_id).exists():
        running = Job.objects.filter(pk=job_id, status__in=[Job.Status.QUEUED, Job.Status.RUNNING])
        running.update(status=Job.Status.FINISHED, finished_at=timezone.now())


# --- Messages ---------------------------------------------------------------------------------------------------


def _enqueue(photos: QuerySet[JobPhoto]) -> int:
    """Tell workers of these photos; returns how many were told of. While the broker is away, the rest stays unsaid."""
    told = 0
    # What failed before is tried alone, for it may be what ended its worker.
    ordered = photos.order_by("job", "attempts", "index").values_list("job", "attempts", "index")
    for (job_id, attempts), rows in groupby(ordered, key=lambda row: (row[0], min(row[1], 1))):
        indexes = [index for _, _, index in rows]
        size = 1 if attempts else _CHUNK
        for start in range(0, len(indexes), size):
            chunk = indexes[start : start + size]
            if not _tell(job_id, chunk):
                return told
            told += len(chunk)
    return told


def _tell(job_id: uuid.UUID, indexes: list[int]) -> bool:
    from captioner.tasks import job_photos_caption_task  # which calls this module

    rows = JobPhoto.objects.pending().filter(job=job_id, index__in=indexes)
    # Before the message is out, for a worker may be faster than this process.
    rows.update(enqueued_at=timezone.now(), leased_until=None)
    try:
        job_photos_caption_task.apply_async((str(job_id), indexes), retry=False)
    except (OperationalError, ChannelError, OSError) as error:
        logger.error("The broker cannot be reached; job %s waits for it: %s", job_id, error)
        rows.update(enqueued_at=None)
        return False
    return True


# --- Sweeps -----------------------------------------------------------------------------------------------------


def jobs_sweep() -> int:
    """Enqueue photos that no message leads to, and finish what was left; returns how many photos were enqueued."""
    now = timezone.now()
    never_enqueued = Q(enqueued_at__isnull=True)
    worker_died_or_retry = Q(leased_until__lt=now)
    lost_after = _LOST_AFTER if _is_queue_empty() else _LOST_ANYWAY_AFTER
    message_lost = Q(leased_until__isnull=True, enqueued_at__lt=now - lost_after)
    waiting = JobPhoto.objects.pending().exclude(input="")
    found = _enqueue(waiting.filter(never_enqueued | worker_died_or_retry | message_lost))
    _inputs_clear(JobPhoto.objects.exclude(input=""))
    for pk in Job.objects.filter(status__in=[Job.Status.QUEUED, Job.Status.RUNNING]).values_list(
        "pk", flat=True
    ):
        _finish_if_done(pk)
    return found


def _is_queue_empty() -> bool:
    """Whether no message waits in the broker; false where it cannot be asked."""
    with current_app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=2)
            queue = connection.default_channel.queue_declare(
                current_app.conf.task_default_queue, passive=True
            )
        except ChannelError:  # a queue that nothing is in may not exist
            return True
        except (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors):
            return False
        return bool(queue.message_count == 0)


def uploads_sweep() -> int:
    """Delete photos of jobs that are over, gone or were never received whole; returns of how many jobs."""
    too_old = timezone.now() - _RECEIVED_WITHIN
    Job.objects.filter(status=Job.Status.RECEIVING, created_at__lt=too_old).delete()
    over = [Job.Status.FINISHED, Job.Status.CANCELLED]
    storage = storages["uploads"]
    try:
        folders = set(storage.listdir("")[0])
    except FileNotFoundError:  # nobody has sent a job yet
        return 0
    # Looked up after the folders: whoever makes one has made the job before.
    swept = folders - {str(pk) for pk in Job.objects.exclude(status__in=over).values_list("pk", flat=True)}
    for folder in swept:
        for name in storage.listdir(folder)[1]:
            storage.delete(f"{folder}/{name}")
        storage.delete(folder)
    return len(swept)


def jobs_resume() -> Iterator[tuple[Job, int]]:
    """After a restore: let unfinished jobs go on, and fail those of their photos whose bytes were not in the backup.

    Yields each job with such photos, and how many have to be sent again.
    """
    for job in Job.objects.filter(status__in=[Job.Status.QUEUED, Job.Status.RUNNING]):
        pending = job.photos.pending()
        # Messages and leases of before are nobody's any more: the sweep finds these photos at once.
        pending.update(enqueued_at=None, leased_until=None)
        lost = [photo for photo in pending if not storages["uploads"].exists(photo.input)]
        for photo in lost:
            _fail(photo, *_LOST)
        _finish_if_done(job.pk)
        if lost:
            yield job, len(lost)


# --- Photos as they were sent -------------------------------------------------------------------------------------


def _input_name(job_id: uuid.UUID, index: int) -> str:
    return f"{job_id}/{index:06}"


def _photo_store(job_id: uuid.UUID, index: int, photo: SentPhoto) -> JobPhoto:
    """The row of one photo, whose bytes are kept unless they are too many."""
    row = JobPhoto(job_id=job_id, index=index, name=photo.name)
    if photo.size > MAX_BYTES:
        row.state, row.reason = JobPhoto.State.FAILED, "too_large"
        row.error = f"The photo takes more than {MAX_BYTES // 2**20} MB. Send a smaller copy of it."
        return row
    data = ContentFile(photo.read())
    with storage_required():
        row.input = storages["uploads"].save(_input_name(job_id, index), data)
    return row


def _input_read(photo: JobPhoto) -> bytes | None:
    """The photo's bytes; None, and the photo has failed, where they are lost."""
    try:
        with storages["uploads"].open(photo.input) as file:
            data: bytes = file.read()
            return data
    except FileNotFoundError:
        _fail(photo, *_LOST)
        return None


def _inputs_clear(photos: QuerySet[JobPhoto]) -> None:
    """Delete the bytes of those of `photos` that are done."""
    done = photos.exclude(state=JobPhoto.State.PENDING).exclude(input="")
    for pk, name in done.values_list("pk", "input"):
        storages["uploads"].delete(name)
        JobPhoto.objects.filter(pk=pk).update(input="")
