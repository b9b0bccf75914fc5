"""One training run from start to verdict: photos, learning, evaluation, gate, publication.

`training.execution` claims the run, keeps it alive and decides what is promoted; here is the work in between. This
module loads torch and is imported by the trainer alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from django.conf import settings

from captioner.inference.loading import thread_count
from models_registry.exceptions import VersionExists
from models_registry.manifest import DataSnapshot, Lineage
from models_registry.models import ModelVersion
from models_registry.versions import version_fetch, version_get, version_publish
from training.descent.checkpoint import CheckpointMismatch, checkpoint_step
from training.exceptions import NothingLearned, NothingToLearn
from training.judging.association import Association, association_test
from training.judging.calibration import calibration_refit
from training.judging.figures import caption_figures
from training.judging.gate import Decision, Measured, Question, decide
from training.judging.golden import golden_check
from training.judging.measure import ReferenceSet, latency_ratio, measure
from training.learning import provenance
from training.learning.blending import Blend, blend_find, groups_inner
from training.learning.config import LearnConfig
from training.learning.curation import Snapshot
from training.learning.finetune import Correction, Finetuning, TrainingSet, identity_of
from training.learning.model import FeatureCaptioner
from training.learning.photos import RunPhotos, holdout_references, references_of, snapshot_budget
from training.learning.processes import learn_in_processes, process_count
from training.models import TrainingRun
from training.progress import Tick
from training.services import run_folder, run_look
from training.uses import SNAPSHOT_FILE

COMPARISONS = 200  # of held-out photos; blind votes end after 120


@dataclass
class Workspace:
    """The run's folder, its versions and how it reports. Nothing in the folder outlives the run but its outcome."""

    folder: Path
    base: ModelVersion
    champion: ModelVersion
    tick: Tick


@dataclass(frozen=True)
class Compared:
    """What candidate and champion say of a held-out photo."""

    photo: str  # SHA-256 of the upload
    candidate: str
    champion: str


@dataclass(frozen=True)
class Outcome:
    candidate: ModelVersion
    decision: Decision
    report: dict[str, Any]
    counts: dict[str, int]  # the snapshot's, and what came of it
    comparisons: list[Compared]
    snapshot: Snapshot  # what of it was learned from and judged by
    chose_by: Collection[int]  # numbers of the feedback that was kept aside, to choose how much is kept


def learning_folder(run: TrainingRun) -> Path:
    """Where the descent of a run keeps its checkpoint and its curve."""
    return run_folder(run) / "learning"


def run_work(
    run: TrainingRun, snapshot: Snapshot, base: ModelVersion, champion: ModelVersion, tick: Tick
) -> Outcome:
    """Do the whole run, from wherever an earlier attempt stopped.

    Raises `NothingToLearn`, `NothingLearned`, `DatasetError` for photo sets that cannot be used, and what `tick`
    raises.
    """
    tick("Loading the base", 0, 1)
    torch.set_num_threads(settings.TRAINING_THREADS or max(1, thread_count() // 2))
    config = LearnConfig(seed=run.seed)
    work = Workspace(run_folder(run), base, champion, tick)
    captioner = FeatureCaptioner.load(version_fetch(base))
    photos = RunPhotos(captioner, snapshot_budget(snapshot, config.max_rows), tick)
    snapshot = photos.snapshot
    corrected = [row for row in snapshot.of("train") if row.ideal]
    aside = groups_inner(row.group for row in corrected)
    inner = [row for row in corrected if row.group in aside]
    if len(aside) == len({row.group for row in corrected}):
        raise NothingToLearn(
            "Corrections of one photo alone: it takes some to learn from and some to choose by."
            if corrected
            else "No approved correction to learn from; ratings alone teach nothing."
        )
    corrections = [Correction(photos.index[row.photo], row.ideal) for row in corrected]
    kept_aside = {photos.index[row.photo] for row in inner}
    data = TrainingSet(
        photos.features,
        [row for row in corrections if row.photo not in kept_aside],
        photos.replay,
        [row for row in corrections if row.photo in kept_aside],
    )
    # Light edits choose only where there is nothing else: whoever said nearly what was served could not be beaten.
    said = references_of([row for row in inner if not row.is_light_edit] or inner)
    aside_set, group_of = photos.judged_by(said), {row.photo: row.group for row in snapshot.rows}
    blend = _learn(work, captioner, data, config, snapshot, aside_set, [group_of[photo] for photo in said])
    chose_by = frozenset(row.feedback for row in inner)
    if not blend.share:
        raise NothingLearned(
            f"Nothing learned yet from {len(data.corrections)} corrections: on {len(said)} photos kept aside no "
            f"average with the base is surely better than the base itself (at best {blend.at_best}). What serves "
            "stays; the next run tries again with what is approved until then.",
            {"learned": asdict(blend)},
            snapshot,
            chose_by,
        )
    # Asked once: meanwhile somebody may write of a photo, or delete one.
    judging = {photo: said for photo, said in holdout_references(snapshot).items() if photo in photos.index}
    holdout = photos.judged_by(judging)
    counts = snapshot.counts | {
        "holdout_photos": len(holdout.references),
        "corrections_cut": sum(captioner.is_cut(row.ideal, config.max_tokens) for row in corrections),
        "replayed_photos": len({row.photo for row in photos.replay}),
        "kept_quarters": round(4 * blend.share),
    }
    folder = _candidate_write(work, captioner, snapshot)
    refitted = calibration_refit(captioner.predictor(), [aside_set, *photos.kept.values()], tick)
    if refitted:
        refitted[0].write(folder)
    association = association_test(photos.features, [(row.photo, row.ideal) for row in corrections])
    decision, report, comparisons = _evaluate(
        work,
        folder,
        holdout,
        list(judging),
        photos.kept,
        snapshot,
        association,
        counts["replayed_photos"],
        run_look(run, champion),
    )
    report |= {
        "learned": asdict(blend),
        "reliability": [asdict(each) for each in refitted[1]] if refitted else [],
    }
    candidate = _publish(work, folder, snapshot, config, report, decision, counts)
    return Outcome(candidate, decision, report, counts, comparisons, snapshot, chose_by)


def _learn(
    work: Workspace,
    captioner: FeatureCaptioner,
    data: TrainingSet,
    config: LearnConfig,
    snapshot: Snapshot,
    inner: ReferenceSet,
    groups: Sequence[str],
) -> Blend:
    """Leave in `captioner` as much of what can be learned as holds for photos that were kept aside."""
    taught = [captioner.tokenise(row.ideal, config.max_tokens) for row in data.corrections]
    captioner.length_allow(max(map(len, taught)))
    replayed = provenance.text_digest(*(row.caption for row in data.replay))
    identity = f"{work.base.pk} {snapshot.sha256} {replayed}"
    folder = work.folder / "learning"
    try:
        checkpoint_step(folder, identity_of(config, identity))
    except CheckpointMismatch:
        # The settings changed between two attempts; the later ones count.
        shutil.rmtree(folder)
    if (processes := process_count(config)) > 1:
        # They leave the last checkpoint, and nothing to do but to load it.
        learn_in_processes(captioner.folder, data, config, folder, identity, processes, work.tick)
    learning = Finetuning(captioner, data, config, folder, identity)
    learning.run(work.tick)
    captioner.adapters_merge()
    return blend_find(captioner, learning.base, inner, groups, work.tick)


def _candidate_write(work: Workspace, captioner: FeatureCaptioner, snapshot: Snapshot) -> Path:
    """The folder of the candidate: its weights and what they were learned from."""
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
    photos: Sequence[str],
    kept: Mapping[Question, ReferenceSet],
    snapshot: Snapshot,
    association: Association | None,
    replayed: int,
    look: int,
) -> tuple[Decision, dict[str, Any], list[Compared]]:
    """Candidate, champion and base on the same photos, each as its published files load; they share an encoder.

    `photos` are the names of those held out.
    """
    candidate, champion = FeatureCaptioner.load(folder), FeatureCaptioner.load(version_fetch(work.champion))
    versions = {"candidate": candidate, "champion": champion}
    if work.base != work.champion:
        versions["base"] = FeatureCaptioner.load(version_fetch(work.base))
    sets = {"holdout": holdout} | {str(question): photos for question, photos in kept.items()}
    said = {
        name: {role: measure(version.predictor(), photo_set, work.tick) for role, version in versions.items()}
        for name, photo_set in sets.items()
    }
    measured = {
        name: Measured(by["candidate"], by["champion"], by.get("base", by["champion"]))
        for name, by in said.items()
    }
    timed = next((s.features for s in sets.values() if len(s.references)), holdout.features)
    golden_passed, golden_note = golden_check(folder)
    group_of = {row.photo: row.group for row in snapshot.rows}
    decision = decide(
        holdout=measured["holdout"],
        kept={question: measured[question] for question in kept},
        corrections=[row.ideal for row in snapshot.of("train") if row.ideal],
        people=[group[0] for group in holdout.references],
        association=association,
        replayed=replayed,
        latency_ratio=latency_ratio(candidate.predictor(), champion.predictor(), timed),
        golden_captioned=golden_passed,
        golden_note=golden_note,
        groups=[group_of[photo] for photo in photos],
        look=look,
    )
    table = {
        name: {role: caption_figures(row.captions, sets[name].references) for role, row in rows.items()}
        for name, rows in said.items()
    }
    # The same photos in every run, and no sentence in the report, which nothing is ever deleted from.
    both = zip(
        photos, measured["holdout"].candidate.captions, measured["holdout"].champion.captions, strict=True
    )
    comparisons = [Compared(*each) for each in islice(both, COMPARISONS)]
    return decision, {**decision.to_dict(), "figures": table}, comparisons


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
    metrics = {
        f"{kind}-{role}": row for kind, rows in report["figures"].items() for role, row in rows.items() if row
    }
    if bins := report["reliability"]:
        # A fit on one half of the photos kept aside, on the other; what the version holds is fitted on all.
        metrics["photos kept aside, by their confidence"] = {
            f"{each['count']} captions, {each['confidence']:.0%} sure: accepted %": round(
                100 * each["accepted"], 1
            )
            for each in bins
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
            model_name=f"{manifest.model_name.removesuffix('-learned')}-learned",
            origin=f"learned from feedback, starting at {work.base.pk}",
            licence=manifest.licence,
            lineage=lineage,
        )
    except VersionExists as error:
        # An earlier attempt got this far: the same base, feedback and seed give the same bytes.
        return version_get(error.version)
