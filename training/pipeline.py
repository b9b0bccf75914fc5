"""One training run from start to verdict: snapshot, features, learning, evaluation, gate, publication.

`training.services` claims the run, keeps it alive and decides what is promoted; here is the work in between. This
module loads torch and is imported by the trainer alone.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from django.conf import settings
from PIL import Image

from captioner.inference.loading import thread_count
from captioner.models import Photo
from models_registry import services as registry
from models_registry.exceptions import VersionExists
from models_registry.manifest import DataSnapshot, Lineage
from models_registry.models import ModelVersion
from training import provenance
from training.association import Association, association_test
from training.captioner import Captioner
from training.config import LearnConfig
from training.curation import Snapshot
from training.evaluate import PhotoSet, figures, latency_ratio, measure
from training.exceptions import NothingToLearn
from training.gate import Decision, Measured, decide
from training.golden import golden_check
from training.loop import CheckpointMismatch, Correction, Learning, Rating, Replay, TrainingSet
from training.models import TrainingRun
from training.objective import ratings_standardise
from training.photo_sets import PhotoSetFile, photo_set_open
from training.snapshot import replay_photos

SNAPSHOT_FILE = "data/feedback.jsonl"
EXAMPLES = 12
REPLAY_PHOTOS = 1000
ORIGINAL_PHOTOS = 400
PREFERENCE_RATING = 6  # a caption rated above this was not worse than the correction, just different

Tick = Callable[..., None]  # tick(stage, done, total, losses=None); raises when the run is to end


@dataclass
class Workspace:
    """The run's folder, its versions and how it reports. Nothing in the folder outlives the run but its outcome."""

    folder: Path
    base: ModelVersion
    champion: ModelVersion
    tick: Tick


@dataclass(frozen=True)
class Outcome:
    candidate: ModelVersion
    decision: Decision
    report: dict[str, Any]


def run_folder(run: TrainingRun) -> Path:
    return Path(settings.DATA_DIR) / "training" / "runs" / str(run.pk)


def run_work(
    run: TrainingRun, snapshot: Snapshot, base: ModelVersion, champion: ModelVersion, tick: Tick
) -> Outcome:
    """Do the whole run, from wherever an earlier attempt stopped. Raises `NothingToLearn`, and what `tick` raises."""
    torch.set_num_threads(settings.TRAINING_THREADS or max(1, thread_count() // 2))
    config = LearnConfig(seed=run.seed)
    if not snapshot.of("train"):
        raise NothingToLearn(
            "No approved correction to learn from, and no rating either." + _capped(snapshot)
        )
    work = Workspace(run_folder(run), base, champion, tick)
    _folder_prepare(work.folder, snapshot)
    captioner = Captioner.load(registry.version_fetch(base))
    photos = _FeedbackPhotos(work, captioner, snapshot)
    data = _training_set(work, captioner, photos, snapshot, config)
    candidate_folder = _learn(work, captioner, data, config, snapshot)
    holdout = photos.holdout(snapshot)
    original = _original_set(work, captioner)
    association = association_test(data.features, [(row.photo, row.ideal) for row in data.corrections])
    decision, report = _evaluate(
        work, candidate_folder, holdout, original, photos.holdout_photos(snapshot), association
    )
    candidate = _publish(work, candidate_folder, snapshot, config, report, decision)
    return Outcome(candidate, decision, report)


def _capped(snapshot: Snapshot) -> str:
    """What to do where most feedback comes from one person: a hint, or nothing."""
    if not (count := snapshot.left_out.get("author_cap", 0)):
        return ""
    return (
        f" {count} were left out by the limit per author: people who may teach without it are staff and those with "
        "the permission “Can teach without the limit per author”."
    )


def _folder_prepare(folder: Path, snapshot: Snapshot) -> None:
    """Keep what an earlier attempt left only if it was made from the very same feedback."""
    marker = folder / "snapshot.jsonl"
    if marker.exists() and marker.read_text(encoding="utf-8") != snapshot.to_jsonl():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(snapshot.to_jsonl(), encoding="utf-8")


# --- Photos ---


class _FeedbackPhotos:
    """Features of all photos that feedback was given on, and of the logged ones that are replayed."""

    def __init__(self, work: Workspace, captioner: Captioner, snapshot: Snapshot) -> None:
        names = sorted({row.photo for row in snapshot.rows})
        stored = {photo.sha256: photo for photo in Photo.objects.filter(sha256__in=names)}
        self.replayed = [] if settings.TRAINING_REPLAY_PHOTOS else replay_photos(snapshot)
        photos = [stored[name] for name in names] + self.replayed
        self.index = {photo.sha256: index for index, photo in enumerate(photos)}
        self.first_replayed = len(names)
        self.features = captioner.features_write(
            map(_photo_open, photos),
            len(photos),
            work.folder / f"features-{provenance.text_digest(*(photo.sha256 for photo in photos))}.npy",
            lambda done: work.tick("Looking at photos", done, len(photos)),
        )

    def holdout(self, snapshot: Snapshot) -> PhotoSet:
        references = _references(snapshot)
        return PhotoSet(self.features[[self.index[photo] for photo in references]], list(references.values()))

    def holdout_photos(self, snapshot: Snapshot) -> list[str]:
        return list(_references(snapshot))


def _references(snapshot: Snapshot) -> dict[str, list[str]]:
    """Held-out photo -> its approved captions, photos in a fixed order."""
    references: dict[str, list[str]] = {}
    for row in snapshot.of("holdout"):
        if row.ideal:
            references.setdefault(row.photo, []).append(row.ideal)
    return dict(sorted(references.items()))


def _photo_open(photo: Photo) -> Image.Image:
    with photo.file.open() as file:
        return Image.open(io.BytesIO(file.read())).convert("RGB")


def _set_features(work: Workspace, captioner: Captioner, photos: PhotoSetFile, stage: str) -> Any:
    """Features of an operator's own photo set, kept for later runs from the same base."""
    folder = Path(settings.DATA_DIR) / "training" / "features"
    name = f"{work.base.pk}-{photos.digest}-{len(photos)}.npy"
    return captioner.features_write(
        photos.images(), len(photos), folder / name, lambda done: work.tick(stage, done, len(photos))
    )


def _original_set(work: Workspace, captioner: Captioner) -> PhotoSet | None:
    if not settings.TRAINING_ORIGINAL_PHOTOS:
        return None
    photos = photo_set_open(Path(settings.TRAINING_ORIGINAL_PHOTOS), ORIGINAL_PHOTOS)
    return PhotoSet(
        _set_features(work, captioner, photos, "Looking at original test photos"), photos.captions
    )


# --- What is learned from ---


def _training_set(
    work: Workspace, captioner: Captioner, photos: _FeedbackPhotos, snapshot: Snapshot, config: LearnConfig
) -> TrainingSet:
    """Raises `NothingToLearn` where there is neither a correction nor ratings that count."""
    rows = snapshot.of("train")
    corrections = [
        Correction(
            photos.index[row.photo],
            row.ideal,
            row.logged if _was_worse(row.ideal, row.logged, row.rating) else "",
        )
        for row in rows
        if row.ideal
    ]
    rated = [row for row in rows if row.rating is not None and not row.ideal]
    scores = ratings_standardise([(row.author, float(row.rating or 0)) for row in rated])
    ratings = [Rating(photos.index[row.photo], row.logged, z) for row, z in zip(rated, scores, strict=True)]
    features, replay = _replay(work, captioner, photos)
    data = TrainingSet(features, corrections, ratings, replay)
    if not corrections and not data.ratings_count(config):
        raise NothingToLearn(
            f"No approved correction to learn from; the {len(ratings)} approved ratings alone teach nothing yet."
        )
    return data


def _was_worse(ideal: str, logged: str, rating: int | None) -> bool:
    return ideal.lower() != logged.lower() and (rating is None or rating <= PREFERENCE_RATING)


def _replay(work: Workspace, captioner: Captioner, photos: _FeedbackPhotos) -> tuple[Any, list[Replay]]:
    """Features of all that is learned from, and what is replayed: base training captions, else the base's own."""
    if not settings.TRAINING_REPLAY_PHOTOS:
        first = photos.first_replayed
        captions = captioner.captions(
            photos.features[first:],
            lambda done: work.tick("Captioning with the base", done, len(photos.replayed)),
        )
        return photos.features, [Replay(first + i, caption) for i, caption in enumerate(captions) if caption]
    replayed = photo_set_open(Path(settings.TRAINING_REPLAY_PHOTOS), REPLAY_PHOTOS)
    features = _set_features(work, captioner, replayed, "Looking at replayed photos")
    first = len(photos.features)
    rows = [
        Replay(first + index, caption) for index, group in enumerate(replayed.captions) for caption in group
    ]
    return _Stacked((photos.features, features)), rows


class _Stacked:
    """Memory-mapped features of several files, indexed as if they were one array."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts, self._starts, start = parts, [], 0
        for part in parts:
            self._starts.append(start)
            start += len(part)
        self._length = start

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, indexes: list[int]) -> Any:
        import numpy as np

        return np.stack([self._row(index) for index in indexes])

    def _row(self, index: int) -> Any:
        owner = max(n for n, start in enumerate(self._starts) if start <= index)
        return self._parts[owner][index - self._starts[owner]]


# --- Learning, judging, publishing ---


def _learn(
    work: Workspace, captioner: Captioner, data: TrainingSet, config: LearnConfig, snapshot: Snapshot
) -> Path:
    identity = (
        f"{work.base.pk} {snapshot.sha256} {provenance.text_digest(*(row.caption for row in data.replay))}"
    )
    folder = work.folder / "learning"
    try:
        learning = Learning(captioner, data, config, folder, identity)
    except CheckpointMismatch:
        # The settings changed between two attempts; the later ones count.
        shutil.rmtree(folder)
        captioner = Captioner.load(captioner.folder)
        learning = Learning(captioner, data, config, folder, identity)
    learning.run(lambda step, steps, losses: work.tick("Learning", step, steps, {"step": step, **losses}))
    candidate = work.folder / "candidate"
    captioner.save(candidate)
    path = candidate / SNAPSHOT_FILE
    path.parent.mkdir()
    path.write_text(snapshot.to_jsonl(), encoding="utf-8")
    return candidate


def _evaluate(
    work: Workspace,
    folder: Path,
    holdout: PhotoSet,
    original: PhotoSet | None,
    photos: list[str],
    association: Association | None,
) -> tuple[Decision, dict[str, Any]]:
    """Champion and candidate on the same photos, each as its published files load. They share the base's encoder."""
    versions = {
        "candidate": Captioner.load(folder),
        "champion": Captioner.load(registry.version_fetch(work.champion)),
    }
    sets = {"holdout": holdout} | ({"original": original} if original else {})
    measured: dict[str, dict[str, Measured]] = {
        name: {
            role: measure(version, photo_set, partial(_judging_tick, work, len(photo_set.references)))
            for role, version in versions.items()
        }
        for name, photo_set in sets.items()
    }
    timed = next((s.features for s in sets.values() if len(s.references)), holdout.features)
    golden_passed, golden_note = golden_check(folder)
    decision = decide(
        candidate=measured["holdout"]["candidate"],
        champion=measured["holdout"]["champion"],
        original_candidate=measured["original"]["candidate"] if original else None,
        original_champion=measured["original"]["champion"] if original else None,
        people=[group[0] for group in holdout.references],
        association=association,
        latency_ratio=latency_ratio(versions["candidate"], versions["champion"], timed),
        golden_captioned=golden_passed,
        golden_note=golden_note,
    )
    table = {
        name: {role: figures(row, sets[name].references) for role, row in rows.items()}
        for name, rows in measured.items()
    }
    examples = _examples(photos, holdout.references, measured["holdout"])
    return decision, {**decision.to_dict(), "figures": table, "examples": examples}


def _judging_tick(work: Workspace, total: int, done: int) -> None:
    work.tick("Judging", done, total)


def _examples(
    photos: list[str], references: Sequence[Sequence[str]], measured: dict[str, Measured]
) -> list[dict[str, str]]:
    """Before and after on the same few held-out photos in every run."""
    return [
        {
            "photo": photo,
            "before": measured["champion"].captions[index],
            "after": measured["candidate"].captions[index],
            "person": references[index][0],
        }
        for index, photo in enumerate(photos[:EXAMPLES])
    ]


def _publish(
    work: Workspace,
    folder: Path,
    snapshot: Snapshot,
    config: LearnConfig,
    report: dict[str, Any],
    decision: Decision,
) -> ModelVersion:
    work.tick("Publishing", 0, 1)
    manifest = work.base.facts
    name = f"{manifest.model_name.removesuffix('-learned')}-learned"
    metrics = {
        f"{kind}-{role}": row for kind, rows in report["figures"].items() for role, row in rows.items() if row
    }
    lineage = Lineage(
        parent=work.champion.pk,
        base=work.base.pk,
        data=DataSnapshot(SNAPSHOT_FILE, snapshot.sha256, snapshot.counts, snapshot.salt),
        code_revision=provenance.code_revision(),
        environment=provenance.environment(),
        config=asdict(config),
        seed=config.seed,
        decoding=provenance.decoding(folder),
        preprocessing_signature=provenance.file_digest(folder / "preprocessor_config.json"),
        metrics=metrics,
        gate={"verdict": str(decision.verdict), "reason": decision.reason, "checks": report["checks"]},
    )
    try:
        return registry.version_publish(
            folder,
            model_name=name,
            origin=f"learned from feedback, starting at {work.base.pk}",
            licence=manifest.licence,
            lineage=lineage,
        )
    except VersionExists as error:
        # An earlier attempt got this far: the same base, feedback and seed give the same bytes.
        return error.version
