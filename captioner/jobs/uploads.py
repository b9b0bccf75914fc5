"""The photos of jobs as they were sent: taken from a request, kept in the store until they are captioned."""

import uuid
from collections.abc import Sequence
from functools import partial
from typing import IO, cast

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet

from captioner.captions.photos import storage_required
from captioner.exceptions import InvalidArchive
from captioner.intake.limits import MAX_BYTES
from captioner.jobs.archives import SentPhoto, archive_photos
from captioner.jobs.names import name_shown
from captioner.models import JOB_NAME_MAX_LENGTH, JobPhoto


def photos_sent(
    archive: "UploadedFile[bytes] | None",
    images: "Sequence[UploadedFile[bytes]]",
    code_page: str | None = None,
) -> list[SentPhoto]:
    """The photos of an uploaded ZIP, or of uploaded files, checked against the limits of a job.

    `code_page` is that of the names in the ZIP, as in `names_read`.

    Raises `InvalidArchive`.
    """
    max_photos, max_bytes = settings.JOB_MAX_PHOTOS, settings.JOB_MAX_MEGABYTES * 2**20
    if archive is not None:
        file = cast(IO[bytes], archive.file)
        return archive_photos(file, max_photos=max_photos, max_bytes=max_bytes, code_page=code_page)
    if len(images) > max_photos:
        raise InvalidArchive(f"At most {max_photos:,} photos are taken at a time.", reason="too_many")
    return [
        SentPhoto(name_shown(image.name or "photo"), image.size or 0, partial(_upload_read, image))
        for image in images
    ]


def photos_of(uploads: "Sequence[UploadedFile[bytes]]") -> list[SentPhoto]:
    """The photos of uploaded files in their order, ZIPs of them opened, checked against the limits of a job.

    Raises `InvalidArchive`.
    """
    photos = [
        photo
        for upload in uploads
        for photo in (photos_sent(upload, []) if is_archive(upload) else photos_sent(None, [upload]))
    ]
    if len(photos) > settings.JOB_MAX_PHOTOS:
        message = (
            f"These are {len(photos):,} photos; at most {settings.JOB_MAX_PHOTOS:,} are taken at a time."
        )
        raise InvalidArchive(message, reason="too_many")
    if sum(photo.size for photo in photos) > settings.JOB_MAX_MEGABYTES * 2**20:
        message = f"Together they have more than {settings.JOB_MAX_MEGABYTES} MB. Send them in parts."
        raise InvalidArchive(message, reason="too_large")
    return photos


def is_archive(upload: "UploadedFile[bytes]") -> bool:
    return str(upload.name).lower().endswith(".zip")


def archive_title(name: str | None) -> str:
    """What a job is called by the name of the ZIP it came in."""
    return name_shown(name or "")[: -len(".zip")][:JOB_NAME_MAX_LENGTH].strip()


def _upload_read(upload: "UploadedFile[bytes]") -> bytes:
    upload.seek(0)
    data: bytes = upload.read(MAX_BYTES + 1)
    return data


def upload_name(job_id: uuid.UUID, index: int) -> str:
    return f"{job_id}/{index:06}"


def upload_store(job_id: uuid.UUID, index: int, photo: SentPhoto) -> JobPhoto:
    """The row, not saved yet, of one photo of a job, whose bytes are kept unless they are too many.

    Raises `InvalidArchive` where it cannot be read, `StorageUnavailable` where it cannot be kept.
    """
    row = JobPhoto(job_id=job_id, index=index, name=photo.name)
    if photo.size > MAX_BYTES:
        row.state, row.reason = JobPhoto.State.FAILED, "too_large"
        row.error = f"The photo takes more than {MAX_BYTES // 2**20} MB. Send a smaller copy of it."
        return row
    data = ContentFile(photo.read())
    with storage_required():
        row.input = storages["uploads"].save(upload_name(job_id, index), data)
    return row


def upload_read(photo: JobPhoto) -> bytes:
    """The photo's bytes. Raises `FileNotFoundError` where they are lost, another `OSError` where the store is away."""
    with storages["uploads"].open(photo.input) as file:
        data: bytes = file.read()
        return data


def uploads_clear(photos: QuerySet[JobPhoto]) -> None:
    """Delete the bytes of those of `photos` that are done."""
    done = photos.exclude(state=JobPhoto.State.PENDING).exclude(input="")
    for pk, name in done.values_list("pk", "input"):
        storages["uploads"].delete(name)
        JobPhoto.objects.filter(pk=pk).update(input="")
