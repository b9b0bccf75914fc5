"""The stored photos: written once each, opened, and deleted once no caption shows them."""

import contextlib
import io
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone

from captioner.exceptions import (
    StorageUnavailable,
)
from captioner.models import Photo

if TYPE_CHECKING:
    from captioner.intake.decode import DecodedPhoto

logger = logging.getLogger(__name__)

THUMBNAIL_SIDE = 320  # pixels, the longer one

# A younger photo without captions may belong to a request that is just about to log its caption.
_ORPHAN_AGE = timedelta(hours=1)


def photo_store(decoded: "DecodedPhoto", jpeg: bytes) -> Photo:
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
            "difference_hash": decoded.difference_hash,
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


def thumbnail_open(photo: Photo) -> "File[bytes]":
    """The photo as a WebP of at most `THUMBNAIL_SIDE`, made when it is first asked for. Raises as `photo_open` does."""
    name = _thumbnail_name(photo)
    with storage_required(), contextlib.suppress(FileNotFoundError):
        return default_storage.open(name)
    from PIL import Image  # not for everybody who opens or deletes a photo

    with photo_open(photo) as file, Image.open(file) as image:
        image.draft("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))  # libjpeg decodes no more of it than is needed
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "WEBP", quality=70, method=2)
    with transaction.atomic():
        # Locked, so that a deletion under way comes either before, and nothing is kept, or after.
        if Photo.objects.select_for_update().filter(pk=photo.pk).exists():
            with storage_required():
                default_storage.save(name, ContentFile(buffer.getvalue()))
    return ContentFile(buffer.getvalue())


def _thumbnail_name(photo: Photo) -> str:
    return f"{str(photo.file.name).removesuffix('.jpg')}.{THUMBNAIL_SIDE}.webp"


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


def photo_delete(photo: Photo) -> None:
    # The file goes last: should removing it fail, the rows are rolled back and nothing points at nothing.
    names = [_thumbnail_name(photo), str(photo.file.name)]
    photo.delete()
    with storage_required():
        for name in names:
            default_storage.delete(name)


def photos_hash() -> int:
    """Give every photo that was stored before there were difference hashes its own; return how many got one."""
    from PIL import Image  # not for everybody who opens or deletes a photo

    from captioner.intake.hashes import difference_hash

    hashed = 0
    for photo in Photo.objects.filter(difference_hash="").order_by("pk").iterator(chunk_size=100):
        try:
            with photo_open(photo) as file:
                data = file.read()
        except FileNotFoundError:
            continue  # its caption is being deleted, or the storage has lost it
        try:
            photo.difference_hash = difference_hash(Image.open(io.BytesIO(data)).convert("RGB"))
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
                photo_delete(photo)
                swept += 1
    return swept
