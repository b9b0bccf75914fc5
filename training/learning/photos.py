"""The photos of one training run as the base's encoder sees them: of feedback, and those that a run holds on to."""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from django.conf import settings
from PIL import Image

from captioner.captions.photos import photo_open
from captioner.exceptions import InvalidImage
from captioner.models import Photo
from training.data.anchor import anchor_sets
from training.data.features import FeatureStore, PhotoFeatures, stores_trim
from training.data.photo_sets import PhotoSet, photo_set_open
from training.judging.gate import Question
from training.judging.measure import ReferenceSet
from training.learning.curation import FeedbackRow, Snapshot
from training.learning.finetune import Replay
from training.learning.model import FeatureCaptioner
from training.models import BlindCaption
from training.progress import Tick
from training.services import CHUNK, features_folder, features_forget

logger = logging.getLogger(__name__)

REPLAY_PHOTOS = 1000  # of an operator's set
ORIGINAL_PHOTOS = 400
HOLDOUT_PHOTOS = 2000  # that judge; more would only take longer


def snapshot_budget(snapshot: Snapshot, most: int) -> Snapshot:
    """The snapshot with at most so many corrections to learn from: a run's steps would visit no more.

    Which ones hangs on their numbers alone, so that the next night chooses the same and encodes only what is new.
    """
    corrections = [row for row in snapshot.of("train") if row.ideal]
    drawn = sorted(corrections, key=lambda row: hashlib.sha256(str(row.feedback).encode()).digest())
    return snapshot_without(snapshot, drawn[most:], "step_budget")


def snapshot_without(snapshot: Snapshot, rows: Sequence[FeedbackRow], reason: str) -> Snapshot:
    """The snapshot without some of its rows, which are left out for that reason."""
    left = {row.feedback: reason for row in rows}
    kept = tuple(row for row in snapshot.rows if row.feedback not in left)
    return replace(snapshot, rows=kept, left_out={**snapshot.left_out, **left})


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


class RunPhotos:
    """Features of all photos that a run looks at: of corrections, of those that judge, and of those it holds on to.

    `snapshot` is that of the run without photos that are lost or damaged: they must not stop all others. Raises
    `DatasetError` where there is nothing to hold on to, or an operator's own set cannot be used.
    """

    def __init__(self, captioner: FeatureCaptioner, snapshot: Snapshot, tick: Tick) -> None:
        began = time.time()
        replayed, judged = (
            [half, *_own_set(path, most)]
            for half, path, most in zip(
                anchor_sets(),
                (settings.TRAINING_REPLAY_PHOTOS, settings.TRAINING_ORIGINAL_PHOTOS),
                (REPLAY_PHOTOS, ORIGINAL_PHOTOS),
                strict=True,
            )
        )
        folder = features_folder() / captioner.encoder_digest()
        sets = FeatureStore(folder / "sets")
        known, said = _joined(sets, replayed, captioner, tick, "Looking at replayed photos")
        self.kept = {
            question: ReferenceSet(
                *_joined(sets, [photos], captioner, tick, "Looking at original test photos")
            )
            for question, photos in zip((Question.ANCHOR, Question.ORIGINAL), judged, strict=False)
        }
        features_forget()
        store = FeatureStore(folder / "photos")
        names = sorted(
            {row.photo for row in snapshot.of("train") if row.ideal} | {*holdout_references(snapshot)}
        )
        missing = store.missing(names)
        store.put(_photos_read(missing), captioner.encode_images, tick, total=len(missing))
        lost = {*store.missing(missing)}
        self.snapshot = snapshot_without(
            snapshot, [row for row in snapshot.rows if row.photo in lost], "photo_unreadable"
        )
        own = store.get(name for name in names if name not in lost)
        stores_trim(features_folder(), settings.TRAINING_FEATURES_MEGABYTES * 1_000_000, used_before=began)
        self.index = {path.stem: index for index, path in enumerate(own.paths)}
        self.features = PhotoFeatures([*own.paths, *known.paths])
        self.replay = [
            Replay(len(own) + index, caption) for index, captions in enumerate(said) for caption in captions
        ]

    def judged_by(self, references: Mapping[str, list[str]]) -> ReferenceSet:
        """The photos with these references, in their order."""
        known = {photo: said for photo, said in references.items() if photo in self.index}
        return ReferenceSet(self.features.of(self.index[photo] for photo in known), list(known.values()))


def holdout_references(snapshot: Snapshot) -> dict[str, list[str]]:
    """Held-out photo -> what people wrote of it, blind captions first; of many photos the same ones every night.

    A light edit of what some version said judges only beside a caption that was written blind: whoever said the same
    could not be beaten.
    """
    rows = snapshot.of("holdout")
    held_out = {row.photo for row in rows}
    references: dict[str, list[str]] = {}
    for photo, text in BlindCaption.objects.order_by("pk").values_list("photo__sha256", "text"):
        if photo in held_out:
            references.setdefault(photo, []).append(text)
    judging = references_of([row for row in rows if row.photo in references or not row.is_light_edit])
    for photo, said in judging.items():
        references.setdefault(photo, []).extend(said)
    return {photo: references[photo] for photo in sorted(references)[:HOLDOUT_PHOTOS]}


def references_of(rows: Sequence[FeedbackRow]) -> dict[str, list[str]]:
    """Photo -> what people said of it, photos in a fixed order."""
    references: dict[str, list[str]] = {}
    for row in rows:
        if row.ideal:
            references.setdefault(row.photo, []).append(row.ideal)
    return dict(sorted(references.items()))


def _own_set(path: str, most: int) -> list[PhotoSet]:
    return [photo_set_open(Path(path), most)] if path else []


def _joined(
    store: FeatureStore, sets: Sequence[PhotoSet], captioner: FeatureCaptioner, tick: Tick, stage: str
) -> tuple[PhotoFeatures, list[list[str]]]:
    """The photos of several sets as one, and their captions."""
    paths = [
        path for each in sets for path in store.put_set(each, captioner.encode_images, tick, stage).paths
    ]
    return PhotoFeatures(paths), [captions for each in sets for captions in each.captions]


def _photos_read(names: Sequence[str]) -> Iterator[tuple[str, Image.Image]]:
    """Yields logged photos by name, without those that are lost or cannot be decoded."""
    for start in range(0, len(names), CHUNK):
        stored = Photo.objects.filter(sha256__in=names[start : start + CHUNK]).order_by("pk")
        for photo in stored:
            try:
                yield photo.sha256, photo_read(photo)
            except InvalidImage as error:
                logger.warning("%s", error)
