"""Batch jobs: many photos sent at once, captioned by any number of workers.

The database is what is known: each photo has a row that says how far it got. Messages of the broker only say where to
look, so that one that is lost, doubled or late changes nothing: a worker claims photos in the database before it
captions them, and a caption is logged in the transaction that marks its photo as done. The sweep finds what no message
leads to.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from django.conf import settings
from django.core.files.storage import storages
from django.db import transaction
from django.db.models import Count, Sum
from django.utils import timezone

from captioner.exceptions import Overloaded
from captioner.intake.limits import MAX_BYTES
from captioner.jobs.archives import SentPhoto
from captioner.jobs.messages import photos_enqueue
from captioner.jobs.uploads import upload_name, upload_store, uploads_clear
from captioner.jobs.worker import job_finish_if_done
from captioner.models import Job, JobPhoto, Owner

STORE_THREADS = 8
_ROOM_RETRY_AFTER = 30.0  # seconds


def job_create(
    photos: Sequence[SentPhoto],
    *,
    owner: Owner,
    caller: str = "",
    options: dict[str, int] | None = None,
    name: str = "",
    enqueue: bool = True,
    on_created: Callable[[Job], None] = lambda _: None,
) -> Job:
    """Keep the photos and have them captioned; `options` are wishes as in `parameters_from`.

    `caller` is among whose waiting jobs it counts, as in `jobs_room_check`; nobody's where it is empty.
    Without `enqueue`, the caller has them captioned with `job_begin`.
    `on_created` is called with the job in the transaction that completes it. The job is complete when this returns,
    whether or not the broker could be told.

    Raises `InvalidArchive` where a photo cannot be read, `StorageUnavailable` where none can be kept, `Overloaded`
    where enough of this caller's waits.
    """
    job = Job.objects.create(
        user=owner.api_key.user if owner.api_key else owner.user,
        api_key=owner.api_key,
        end_user=owner.end_user,
        visitor=owner.visitor,
        photo_count=len(photos),
        options=options or {},
        size=sum(photo.size for photo in photos if photo.size <= MAX_BYTES),
        caller=caller,
        name=name,
    )
    try:  # counted with this job, so that many that come at once cannot all find room
        jobs_room_check(caller)
        with ThreadPoolExecutor(STORE_THREADS) as pool:
            rows = list(pool.map(partial(upload_store, job.pk), range(len(photos)), photos))
    except BaseException:
        for index in range(len(photos)):
            storages["uploads"].delete(upload_name(job.pk, index))
        job.delete()
        raise
    with transaction.atomic():
        JobPhoto.objects.bulk_create(rows, batch_size=500)
        job.status = Job.Status.QUEUED
        job.save(update_fields=["status"])
        on_created(job)
        if enqueue:
            transaction.on_commit(partial(photos_enqueue, job.photos.pending()))
    job_finish_if_done(job.pk)  # when none of its photos can be captioned
    return job


def waiting_bytes_most() -> int:
    """How many bytes of one caller's photos may wait at a time, in all their jobs."""
    return max(settings.JOB_MAX_WAITING_MEGABYTES, settings.JOB_MAX_MEGABYTES) * 2**20


def jobs_room_check(caller: str, *, more: int = 0, more_bytes: int = 0) -> None:
    """Raises `Overloaded` where, with `more`, too many jobs of this caller would wait, or too many bytes."""
    if not caller:
        return
    waiting = Job.objects.filter(caller=caller).aggregate(jobs=Count("pk"), size=Sum("size", default=0))
    is_many = waiting["jobs"] + more > settings.JOB_MAX_WAITING
    if is_many or waiting["size"] + more_bytes > waiting_bytes_most():
        message = (
            "Too many of your photos wait to be captioned. Send more when a job is finished, or cancel one."
        )
        raise Overloaded(message, retry_after=_ROOM_RETRY_AFTER)


def job_delete(job: Job) -> None:
    """Forget this job: what its photos were called, why some failed, and those that wait. Their captions stay."""
    job_cancel(job)
    job.delete()


def job_cancel(job: Job) -> None:
    """Caption no more photos of this job. What was captioned stays in the history; a finished job stays finished."""
    with transaction.atomic():
        locked = Job.objects.select_for_update().get(pk=job.pk)
        if locked.is_over:
            return
        locked.photos.pending().update(state=JobPhoto.State.CANCELLED)
        locked.status, locked.finished_at, locked.caller = Job.Status.CANCELLED, timezone.now(), ""
        locked.save(update_fields=["status", "finished_at", "caller"])
    uploads_clear(JobPhoto.objects.filter(job=job))
