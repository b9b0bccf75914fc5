"""Jobs whose photos come one by one, each in a request of its own, until their sender says which of them to caption.

A photo, or a ZIP of many, has a place in what was chosen. What comes again for a place replaces what came before, so
that whoever is not sure whether it arrived sends it again.
"""

import itertools
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.db.models import F, Q

from captioner.exceptions import InvalidArchive
from captioner.intake.containers import photo_check
from captioner.jobs.services import STORE_THREADS, jobs_room_check
from captioner.jobs.uploads import is_archive, photos_of, upload_store
from captioner.models import Job, JobPhoto, Owner

_PLACE_SIZE = 100_000  # photos that a ZIP may have, which is the most that `JOB_MAX_PHOTOS` may be
MAX_PLACES = 20_000  # so that numbers of photos fit their column


def job_receive(*, owner: Owner, caller: str, options: dict[str, int]) -> Job:
    """Begin a job that has no photos yet. Raises `Overloaded` where enough of this caller's waits."""
    jobs_room_check(caller, more=1)
    return Job.objects.create(
        user=owner.user, visitor=owner.visitor, photo_count=0, options=options, caller=caller
    )


def job_photos_receive(job: Job, place: int, upload: "UploadedFile[bytes]") -> int:
    """Keep the photo, or the photos of the ZIP, at this place of a job that is being received; returns how many.

    Raises `InvalidImage`, `InvalidArchive`, `Overloaded`, `StorageUnavailable`, and `Job.DoesNotExist` where it is not
    being received any more.
    """
    photos = photos_of([upload])
    if not is_archive(upload):
        photo_check(photos[0].read())
    here = Q(index__range=(place * _PLACE_SIZE, (place + 1) * _PLACE_SIZE - 1))
    count = job.photos.exclude(here).count() + len(photos)
    if count > settings.JOB_MAX_PHOTOS:
        message = f"They would be {count:,} photos; at most {settings.JOB_MAX_PHOTOS:,} are taken at a time."
        raise InvalidArchive(message, reason="too_many")
    size = sum(photo.size for photo in photos)
    jobs_room_check(job.caller, more_bytes=size)
    with ThreadPoolExecutor(STORE_THREADS) as pool:
        rows = list(pool.map(partial(upload_store, job.pk), itertools.count(place * _PLACE_SIZE), photos))
    with transaction.atomic():
        Job.objects.select_for_update().get(pk=job.pk, status=Job.Status.RECEIVING)
        job.photos.filter(here).delete()
        JobPhoto.objects.bulk_create(rows, batch_size=500)
        Job.objects.filter(pk=job.pk).update(size=F("size") + size)
    return len(rows)


def job_received(job: Job, places: Collection[int]) -> None:
    """What came for `places` is all there is, in their order, and to be captioned with `job_begin`.

    Raises `InvalidArchive` where that is nothing, and `Job.DoesNotExist` where it is not being received any more.
    """
    with transaction.atomic():
        locked = Job.objects.select_for_update().get(pk=job.pk, status=Job.Status.RECEIVING)
        rows = list(locked.photos.order_by("index"))
        kept = [row for row in rows if row.index // _PLACE_SIZE in places]
        if not kept:
            raise InvalidArchive("None of the photos arrived. Send them again.", reason="empty")
        locked.photos.exclude(pk__in=[row.pk for row in kept]).delete()
        for index, row in enumerate(kept):
            row.index = index  # never that of another row: those before it have theirs already
        JobPhoto.objects.bulk_update(kept, ["index"], batch_size=200)
        locked.photo_count, locked.status = len(kept), Job.Status.QUEUED
        locked.save(update_fields=["photo_count", "status"])
