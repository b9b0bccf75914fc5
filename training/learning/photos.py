"""The photos of one training run as the base's encoder sees them: of feedback, replayed ones, an operator's sets."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from django.conf import settings
from PIL import Image

from captioner.captions.photos import photo_open
from captioner.exceptions import InvalidImage
from captioner.models import Photo
from models_registry.models import ModelVersion
from training.data.features import FeatureFiles, features_write
from training.data.photo_sets import PhotoSet, photo_set_open
from training.judging.captioning import features_caption
from training.judging.measure import ReferenceSet
from training.learning import provenance
from training.learning.curation import Snapshot
from training.learning.finetune import Replay
from training.learning.model import FeatureCaptioner
from training.learning.snapshot import replay_photos
from training.progress import Tick

logger = logging.getLogger(__name__)

REPLAY_PHOTOS = 1000
ORIGINAL_PHOTOS = 400


def snapshot_readable(snapshot: Snapshot, tick: Tick) -> Snapshot:
    """The snapshot without photos that are gone from the store or cannot be decoded: they must not stop all others."""
    photos = Photo.objects.filter(sha256__in={row.photo for row in snapshot.rows}).order_by("pk")
    readable = {photo.sha256 for photo in photos_readable(list(photos), tick)}
    rows = tuple(row for row in snapshot.rows if row.photo in readable)
    lost = {row.feedback: "photo_unreadable" for row in snapshot.rows if row.photo not in readable}
    return replace(snapshot, rows=rows, left_out={**snapshot.left_out, **lost}) if lost else snapshot


def photos_readable(photos: Sequence[Photo], tick: Tick) -> list[Photo]:
    found = []
    for number, photo in enumerate(photos, start=1):
        try:
            photo_read(photo)
            found.append(photo)
        except InvalidImage as error:
            logger.warning("%s", error)
        tick("Reading photos", number, len(photos))
    return found


def photo_read(photo: Photo) -> Image.Image:
    """The stored photo in RGB. Raises `InvalidImage` where it is lost or damaged, and `StorageUnavailable`."""
    try:
        with photo_open(photo) as file:
            data = file.read()
    except FileNotFoundError as error:
        raise InvalidImage(f"{photo.file.name} is gone from the store", reason="empty") from error
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except Exception as error:  # what decoders raise is undocumented
        raise InvalidImage(f"{photo.file.name} cannot be read: {error}", reason="corrupt") from error


class FeedbackPhotos:
    """Features of all photos that feedback was given on, and of the logged ones that are replayed."""

    def __init__(self, folder: Path, captioner: FeatureCaptioner, snapshot: Snapshot, tick: Tick) -> None:
        names = sorted({row.photo for row in snapshot.rows})
        stored = {photo.sha256: photo for photo in Photo.objects.filter(sha256__in=names)}
        replayed = [] if settings.TRAINING_REPLAY_PHOTOS else replay_photos(snapshot)
        photos = [stored[name] for name in names] + photos_readable(replayed, tick)
        self.index = {photo.sha256: index for index, photo in enumerate(photos)}
        self.first_replayed = len(names)
        self.path = folder / f"features-{provenance.text_digest(*(photo.sha256 for photo in photos))}.npy"
        images = map(photo_read, photos)
        self.features = features_write(self.path, images, len(photos), captioner.encode_images, tick)

    def holdout(self, snapshot: Snapshot) -> ReferenceSet:
        """The photos that judge, in the order of `holdout_references`."""
        references = holdout_references(snapshot)
        return ReferenceSet(
            self.features[[self.index[photo] for photo in references]], list(references.values())
        )


def holdout_references(snapshot: Snapshot) -> dict[str, list[str]]:
    """Held-out photo -> its approved captions, photos in a fixed order."""
    references: dict[str, list[str]] = {}
    for row in snapshot.of("holdout"):
        if row.ideal:
            references.setdefault(row.photo, []).append(row.ideal)
    return dict(sorted(references.items()))


def original_set(base: ModelVersion, captioner: FeatureCaptioner, tick: Tick) -> ReferenceSet | None:
    """Test photos of the base, where the operator has given any. Raises `DatasetError`."""
    if not settings.TRAINING_ORIGINAL_PHOTOS:
        return None
    photos = photo_set_open(Path(settings.TRAINING_ORIGINAL_PHOTOS), ORIGINAL_PHOTOS)
    path, stage = _set_path(base, photos), "Looking at original test photos"
    features = features_write(path, photos.images(), len(photos), captioner.encode_images, tick, stage)
    return ReferenceSet(features, photos.captions)


def replay_set(
    base: ModelVersion, captioner: FeatureCaptioner, photos: FeedbackPhotos, tick: Tick
) -> tuple[FeatureFiles, list[Replay]]:
    """Features of all that is learned from, and what is replayed: base training captions, else the base's own.

    Raises `DatasetError`.
    """
    if not settings.TRAINING_REPLAY_PHOTOS:
        first = photos.first_replayed
        captions = features_caption(
            captioner.predictor(), photos.features[first:], tick, "Captioning with the base"
        )
        replay = [Replay(first + i, caption) for i, caption in enumerate(captions) if caption]
        return FeatureFiles(photos.path), replay
    replayed = photo_set_open(Path(settings.TRAINING_REPLAY_PHOTOS), REPLAY_PHOTOS)
    path, stage = _set_path(base, replayed), "Looking at replayed photos"
    features_write(path, replayed.images(), len(replayed), captioner.encode_images, tick, stage)
    first = len(photos.features)
    rows = [
        Replay(first + index, caption) for index, group in enumerate(replayed.captions) for caption in group
    ]
    return FeatureFiles(photos.path, path), rows


def _set_path(base: ModelVersion, photos: PhotoSet) -> Path:
    """The features of an operator's own photo set, kept for later runs from the same base."""
    folder = Path(settings.DATA_DIR) / "training" / "features"
    return folder / f"{base.pk}-{photos.digest}-{len(photos)}.npy"
