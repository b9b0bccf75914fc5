"""What runs now and then: find photos that no message leads to, finish what was left, remove what nobody needs."""

from collections.abc import Iterator
from datetime import timedelta

from django.core.files.storage import storages
from django.db.models import Q
from django.utils import timezone

from captioner.jobs.messages import photos_enqueue, queue_is_empty
from captioner.jobs.uploads import uploads_clear
from captioner.jobs.worker import job_finish_if_done, photo_lost
from captioner.models import Job, JobPhoto

# Photos queued for so long were lost with their message: where nothing is queued any more, or anyway.
_LOST_AFTER, _LOST_ANYWAY_AFTER = timedelta(seconds=15), timedelta(hours=1)
_RECEIVED_WITHIN = timedelta(hours=1)
_UNFINISHED = (Job.Status.QUEUED, Job.Status.RUNNING)


def jobs_sweep() -> int:
    """Enqueue photos that no message leads to, and finish what was left; returns how many photos were enqueued."""
    now = timezone.now()
    never_enqueued = Q(enqueued_at__isnull=True, leased_until__isnull=True)
    worker_died_or_retry = Q(leased_until__lt=now)
    lost_after = _LOST_AFTER if queue_is_empty() else _LOST_ANYWAY_AFTER
    message_lost = Q(leased_until__isnull=True, enqueued_at__lt=now - lost_after)
    waiting = JobPhoto.objects.pending().exclude(input="")
    found = photos_enqueue(waiting.filter(never_enqueued | worker_died_or_retry | message_lost))
    uploads_clear(JobPhoto.objects.exclude(input=""))
    for pk in Job.objects.filter(status__in=_UNFINISHED).values_list("pk", flat=True):
        job_finish_if_done(pk)
    return found


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
    for job in Job.objects.filter(status__in=_UNFINISHED):
        pending = job.photos.pending()
        # Messages and leases of before are nobody's any more: the sweep finds these photos at once.
        pending.update(enqueued_at=None, leased_until=None)
        lost = [photo for photo in pending if not storages["uploads"].exists(photo.input)]
        for photo in lost:
            photo_lost(photo)
        job_finish_if_done(job.pk)
        if lost:
            yield job, len(lost)
