"""One training run from start to verdict: snapshot, features, learning, evaluation, gate, publication.

`training.services` claims the run, keeps it alive and decides what is promoted; here is the work in between. This
module loads torch and is imported by the trainer alone.
"""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from django.conf import settings
from PIL import Image

from captioner.captions.photos import photo_open
from captioner.exceptions import InvalidImage
from captioner.inference.loading import thread_count
from captioner.models import Photo
from models_registry.exceptions import VersionExists
from models_registry.manifest import DataSnapshot, Lineage
from models_registry.models import ModelVersion
from models_registry.versions import version_fetch, version_get, version_publish
from training.data.features import FeatureFiles, features_write
from training.data.photo_sets import PhotoSet, photo_set_open
from training.exceptions import NothingToLearn
from training.judging.association import Association, association_test
from training.judging.captioning import features_caption
from training.judging.figures import caption_figures
from training.judging.gate import Decision, ScoredCaptions, decide
from training.judging.golden import golden_check
from training.judging.measure import ReferenceSet, latency_ratio, measure
from training.learning import provenance
from training.learning.config import LearnConfig
from training.learning.curation import Snapshot
from training.learning.loop import (
    CheckpointMismatch,
    Correction,
    Learning,
    Losses,
    Rating,
    Replay,
    TrainingSet,
    checkpoint_step,
)
from training.learning.model import FeatureCaptioner
from training.learning.objective import ratings_standardise
from training.learning.processes import learn_in_processes, process_count
from training.learning.snapshot import replay_photos
from training.models import TrainingRun
from training.services import runs_folder

logger = logging.getLogger(__name__)

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
    counts: dict[str, int]  # the snapshot's, and what came of it


def run_folder(run: TrainingRun) -> Path:
    return runs_folder() / str(run.pk)


def run_work(
    run: TrainingRun, snapshot: Snapshot, base: ModelVersion, champion: ModelVersion, tick: Tick
) -> Outcome:
    """Do the whole run, from wherever an earlier attempt stopped.

    Raises `NothingToLearn`, `DatasetError` for photo sets that cannot be used, and what `tick` raises.
    """
    torch.set_num_threads(settings.TRAINING_THREADS or max(1, thread_count() // 2))
    config = LearnConfig(seed=run.seed)
    work = Workspace(run_folder(run), base, champion, tick)
    snapshot = _snapshot_readable(work, snapshot)
    if not snapshot.of("train"):
        raise NothingToLearn(
            "No approved correction to learn from, and no rating either." + _capped(snapshot)
        )
    work.folder.mkdir(parents=True, exist_ok=True)
    captioner = FeatureCaptioner.load(version_fetch(base))
    original = _original_set(work, captioner)
    photos = _FeedbackPhotos(work, captioner, snapshot)
    data = _training_set(work, captioner, photos, snapshot, config)
    candidate_folder = _learn(work, captioner, data, config, snapshot)
    holdout = photos.holdout(snapshot)
    association = association_test(photos.features, [(row.photo, row.ideal) for row in data.corrections])
    counts = snapshot.counts | _counts(captioner, data, config)
    decision, report = _evaluate(
        work, candidate_folder, holdout, original, snapshot, association, counts["replayed_photos"]
    )
    candidate = _publish(work, candidate_folder, snapshot, config, report, decision, counts)
    return Outcome(candidate, decision, report, counts)


def _counts(captioner: FeatureCaptioner, data: TrainingSet, config: LearnConfig) -> dict[str, int]:
    return {
        "corrections_cut": sum(captioner.is_cut(row.ideal, config.max_tokens) for row in data.corrections),
        "replayed_photos": len({row.photo for row in data.replay}),
    }


def _capped(snapshot: Snapshot) -> str:
    """What to do where most feedback comes from one person: a hint, or nothing."""
    if not (count := snapshot.left_out.get("author_cap", 0)):
        return ""
    return (
        f" {count} were left out by the limit per author: people who may teach without it are staff and those with "
        "the permission “Can teach without the limit per author”."
    )


# --- Photos ---


def _snapshot_readable(work: Workspace, snapshot: Snapshot) -> Snapshot:
    """The snapshot without photos that are gone from the store or cannot be decoded: they must not stop all others."""
    photos = Photo.objects.filter(sha256__in={row.photo for row in snapshot.rows}).order_by("pk")
    readable = {photo.sha256 for photo in _readable(work, list(photos))}
    rows = tuple(row for row in snapshot.rows if row.photo in readable)
    if not (lost := len(snapshot.rows) - len(rows)):
        return snapshot
    before = snapshot.left_out.get("photo_unreadable", 0)
    return replace(snapshot, rows=rows, left_out={**snapshot.left_out, "photo_unreadable": before + lost})


def _readable(work: Workspace, photos: Sequence[Photo]) -> list[Photo]:
    found = []
    for number, photo in enumerate(photos, start=1):
        try:
            _photo_open(photo)
            found.append(photo)
        except InvalidImage as error:
            logger.warning("%s", error)
        work.tick("Reading photos", number, len(photos))
    return found


class _FeedbackPhotos:
    """Features of all photos that feedback was given on, and of the logged ones that are replayed."""

    def __init__(self, work: Workspace, captioner: FeatureCaptioner, snapshot: Snapshot) -> None:
        names = sorted({row.photo for row in snapshot.rows})
        stored = {photo.sha256: photo for photo in Photo.objects.filter(sha256__in=names)}
        replayed = [] if settings.TRAINING_REPLAY_PHOTOS else replay_photos(snapshot)
        self.replayed = _readable(work, replayed)
        photos = [stored[name] for name in names] + self.replayed
        self.index = {photo.sha256: index for index, photo in enumerate(photos)}
        self.first_replayed = len(names)
        self.path = (
            work.folder / f"features-{provenance.text_digest(*(photo.sha256 for photo in photos))}.npy"
        )
        self.features = features_write(
            self.path, map(_photo_open, photos), len(photos), captioner.encode_images, work.tick
        )

    def holdout(self, snapshot: Snapshot) -> ReferenceSet:
        references = _references(snapshot)
        return ReferenceSet(
            self.features[[self.index[photo] for photo in references]], list(references.values())
        )


def _references(snapshot: Snapshot) -> dict[str, list[str]]:
    """Held-out photo -> its approved captions, photos in a fixed order."""
    references: dict[str, list[str]] = {}
    for row in snapshot.of("holdout"):
        if row.ideal:
            references.setdefault(row.photo, []).append(row.ideal)
    return dict(sorted(references.items()))


def _photo_open(photo: Photo) -> Image.Image:
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


def _set_features(work: Workspace, captioner: FeatureCaptioner, photos: PhotoSet, stage: str) -> Any:
    """Features of an operator's own photo set, kept for later runs from the same base."""
    return features_write(
        _set_path(work, photos), photos.images(), len(photos), captioner.encode_images, work.tick, stage
    )


def _set_path(work: Workspace, photos: PhotoSet) -> Path:
    folder = Path(settings.DATA_DIR) / "training" / "features"
    return folder / f"{work.base.pk}-{photos.digest}-{len(photos)}.npy"


def _original_set(work: Workspace, captioner: FeatureCaptioner) -> ReferenceSet | None:
    if not settings.TRAINING_ORIGINAL_PHOTOS:
        return None
    photos = photo_set_open(Path(settings.TRAINING_ORIGINAL_PHOTOS), ORIGINAL_PHOTOS)
    return ReferenceSet(
        _set_features(work, captioner, photos, "Looking at original test photos"), photos.captions
    )


# --- What is learned from ---


def _training_set(
    work: Workspace,
    captioner: FeatureCaptioner,
    photos: _FeedbackPhotos,
    snapshot: Snapshot,
    config: LearnConfig,
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


def _replay(
    work: Workspace, captioner: FeatureCaptioner, photos: _FeedbackPhotos
) -> tuple[FeatureFiles, list[Replay]]:
    """Features of all that is learned from, and what is replayed: base training captions, else the base's own."""
    if not settings.TRAINING_REPLAY_PHOTOS:
        first = photos.first_replayed
        captions = features_caption(
            captioner.predictor(), photos.features[first:], work.tick, "Captioning with the base"
        )
        replay = [Replay(first + i, caption) for i, caption in enumerate(captions) if caption]
        return FeatureFiles(photos.path), replay
    replayed = photo_set_open(Path(settings.TRAINING_REPLAY_PHOTOS), REPLAY_PHOTOS)
    _set_features(work, captioner, replayed, "Looking at replayed photos")
    first = len(photos.features)
    rows = [
        Replay(first + index, caption) for index, group in enumerate(replayed.captions) for caption in group
    ]
    return FeatureFiles(photos.path, _set_path(work, replayed)), rows


# --- Learning, judging, publishing ---


def _learn(
    work: Workspace, captioner: FeatureCaptioner, data: TrainingSet, config: LearnConfig, snapshot: Snapshot
) -> Path:
    identity = (
        f"{work.base.pk} {snapshot.sha256} {provenance.text_digest(*(row.caption for row in data.replay))}"
    )
    folder = work.folder / "learning"
    try:
        checkpoint_step(folder, config, identity)
    except CheckpointMismatch:
        # The settings changed between two attempts; the later ones count.
        shutil.rmtree(folder)

    def tick(step: int, steps: int, losses: Losses) -> None:
        work.tick("Learning", step, steps, {"step": step, **losses} if losses else None)

    if (processes := process_count(config)) > 1:
        # They leave the last checkpoint, and nothing to do but to load it.
        learn_in_processes(captioner.folder, data, config, folder, identity, processes, tick)
    Learning(captioner, data, config, folder, identity).run(tick)
    candidate = work.folder / "candidate"
    captioner.save(candidate)
    path = candidate / SNAPSHOT_FILE
    path.parent.mkdir()
    path.write_text(snapshot.to_jsonl(), encoding="utf-8")
    return candidate


def _evaluate(
    work: Workspace,
    folder: Path,
    holdout: ReferenceSet,
    original: ReferenceSet | None,
    snapshot: Snapshot,
    association: Association | None,
    replayed: int,
) -> tuple[Decision, dict[str, Any]]:
    """Champion and candidate on the same photos, each as its published files load. They share the base's encoder."""
    versions = {
        "candidate": FeatureCaptioner.load(folder),
        "champion": FeatureCaptioner.load(version_fetch(work.champion)),
    }
    sets = {"holdout": holdout} | ({"original": original} if original else {})
    measured: dict[str, dict[str, ScoredCaptions]] = {
        name: {role: measure(version.predictor(), photo_set, work.tick) for role, version in versions.items()}
        for name, photo_set in sets.items()
    }
    timed = next((s.features for s in sets.values() if len(s.references)), holdout.features)
    golden_passed, golden_note = golden_check(folder)
    photos, group_of = list(_references(snapshot)), {row.photo: row.group for row in snapshot.rows}
    decision = decide(
        candidate=measured["holdout"]["candidate"],
        champion=measured["holdout"]["champion"],
        original_candidate=measured["original"]["candidate"] if original else None,
        original_champion=measured["original"]["champion"] if original else None,
        people=[group[0] for group in holdout.references],
        association=association,
        replayed=replayed,
        latency_ratio=latency_ratio(
            versions["candidate"].predictor(), versions["champion"].predictor(), timed
        ),
        golden_captioned=golden_passed,
        golden_note=golden_note,
        groups=[group_of[photo] for photo in photos],
    )
    table = {
        name: {role: caption_figures(row.captions, sets[name].references) for role, row in rows.items()}
        for name, rows in measured.items()
    }
    examples = _examples(photos, holdout.references, measured["holdout"])
    return decision, {**decision.to_dict(), "figures": table, "examples": examples}


def _examples(
    photos: list[str], references: Sequence[Sequence[str]], measured: dict[str, ScoredCaptions]
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
    counts: dict[str, int],
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
        data=DataSnapshot(SNAPSHOT_FILE, snapshot.sha256, counts, snapshot.salt),
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
        return version_publish(
            folder,
            model_name=name,
            origin=f"learned from feedback, starting at {work.base.pk}",
            licence=manifest.licence,
            lineage=lineage,
        )
    except VersionExists as error:
        # An earlier attempt got this far: the same base, feedback and seed give the same bytes.
        return version_get(error.version)
