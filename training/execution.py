"""What the trainer does with a run: claim it, keep it alive, take it to its end, whatever that is.

One run at a time: its holder proves to be alive by writing its heartbeat. Who finds a run whose heart has stopped takes
it over and continues from its checkpoint. This module loads torch and is imported by the trainer alone.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection

from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from captioner.models import FeedbackUse, Photo
from models_registry.models import ModelVersion
from models_registry.promotions import champion_get
from models_registry.versions import version_get
from training.decisions import run_promote
from training.descent.curve import curve_read, curve_thin
from training.exceptions import (
    DatasetError,
    NothingLearned,
    NothingNew,
    NothingToLearn,
    RunCancelled,
    RunLost,
)
from training.learning import pipeline
from training.learning.curation import Snapshot
from training.learning.snapshot import snapshot_freeze
from training.models import Comparison, TrainingRun
from training.services import run_folder, run_folders_tidy
from training.uses import uses_record

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
_WRITE_SECONDS = 2.0  # how often progress is written at most
_Status, _Verdict = TrainingRun.Status, TrainingRun.Verdict


def run_execute(run_id: int) -> TrainingRun | None:
    """Do the run with this id, from its last checkpoint if there is one.

    Returns None when there is nothing to do: it was done, cancelled, or is in good hands. What goes wrong is recorded
    in the run, which is then tried again, `MAX_ATTEMPTS` times in all.
    """
    run = run_claim(run_id)
    if run is None:
        run_folders_tidy()
        return None
    try:
        # An earlier attempt may have got as far as the verdict, and what it promoted must not be judged against itself.
        if not run.verdict:
            run_judge(run)
        if run.verdict == _Verdict.PASSED:
            run_promote(run)
        _run_end(run, _Status.FINISHED)
    except RunLost:
        logger.warning("%s was taken over by another worker.", run)
    except RunCancelled:
        _run_end(run, _Status.CANCELLED, error="Cancelled.")
    except NothingLearned as error:
        run.report = error.report
        snapshot_uses_record(None, error.snapshot, error.chose_by)
        _run_end(run, _Status.UNLEARNED, error=str(error))
    except NothingNew as error:
        _run_end(run, _Status.UNCHANGED, error=str(error))
    except NothingToLearn as error:
        _run_end(run, _Status.FAILED, error=str(error))
    except DatasetError as error:
        # Trying again changes nothing until somebody mends the set; the feedback is still to be learned from.
        _run_end(run, _Status.QUARANTINED, error=str(error))
    except Exception as error:
        logger.exception("%s failed in attempt %d.", run, run.attempts)
        told = f"{type(error).__name__}: {error}"
        if run.attempts >= MAX_ATTEMPTS or not run_give_back(run, told):
            _run_end(run, _Status.QUARANTINED, error=told)
    run_folders_tidy()
    return TrainingRun.objects.filter(pk=run_id).first()


def run_claim(run_id: int) -> TrainingRun | None:
    """Make this process the holder of the run if it is queued or stale; counts the attempt."""
    try:
        with transaction.atomic():
            run = TrainingRun.objects.select_for_update().filter(pk=run_id).first()
            if run is None or not (run.status == _Status.QUEUED or run.is_stale):
                return None
            now = timezone.now()
            if run.cancel_requested or run.attempts >= MAX_ATTEMPTS:
                run.status = _Status.CANCELLED if run.cancel_requested else _Status.QUARANTINED
                run.error = run.error or f"Its process died {run.attempts} times without saying why."
                run.finished_at = now
                run.save(update_fields=["status", "error", "finished_at"])
                return None
            run.status, run.worker, run.attempts = _Status.RUNNING, uuid.uuid4(), run.attempts + 1
            # Of the first attempt, which takes the snapshot: what is approved later is new to the next run.
            run.heartbeat_at, run.started_at = now, run.started_at or now
            run.save(update_fields=["status", "worker", "attempts", "heartbeat_at", "started_at"])
            return run
    except IntegrityError:
        logger.info("Training run %d waits: another one is running.", run_id)
        return None


def run_judge(run: TrainingRun) -> None:
    """Learn, judge and publish; keeps the candidate and the verdict in the run.

    Raises `NothingNew` where exactly this was learned before, and what `run_work` does.
    """
    tick = Heartbeat(run).tick
    tick("Collecting feedback", 0, 0)
    snapshot = snapshot_freeze(run_folder(run), tick)
    champion = champion_get()
    # Every run starts from the base and from all feedback, never from a champion that was learned itself.
    origin = champion.facts.lineage.base
    base = version_get(origin) if origin else champion
    same = run_same(run, snapshot.sha256, base)
    run.base, run.champion, run.data_sha256, run.counts = base, champion, snapshot.sha256, snapshot.counts
    _run_save(run, "base", "champion", "data_sha256", "counts")
    # Not so where the champion learned from what was deleted since: it is to be replaced by what did not.
    if same is not None and not champion.deleted_rows:
        raise NothingNew(
            f"Exactly this feedback was learned from in {same}: {same.final_verdict or same.get_status_display()}. "
            "The next run learns as soon as a correction more is approved."
        )
    outcome = pipeline.run_work(run, snapshot, base, champion, tick)
    run.candidate, run.report, run.verdict = outcome.candidate, outcome.report, str(outcome.decision.verdict)
    run.counts, run.look, run.is_harmful = outcome.counts, outcome.decision.look, outcome.decision.is_harmful
    outcome_record(run, outcome)
    _run_save(run, "candidate", "report", "verdict", "counts", "look", "is_harmful")


def outcome_record(run: TrainingRun, outcome: pipeline.Outcome) -> None:
    """Keep what became of each correction, and what candidate and champion say of held-out photos."""
    snapshot_uses_record(outcome.candidate, outcome.snapshot, outcome.chose_by)
    named = [each.photo for each in outcome.comparisons]
    photos = dict(Photo.objects.filter(sha256__in=named).values_list("sha256", "pk"))
    comparisons = [
        Comparison(run=run, photo_id=photos[each.photo], candidate=each.candidate, champion=each.champion)
        for each in outcome.comparisons
        if each.photo in photos
    ]
    Comparison.objects.bulk_create(
        comparisons, ignore_conflicts=True
    )  # an attempt may have come this far before


def snapshot_uses_record(version: ModelVersion | None, snapshot: Snapshot, chose_by: Collection[int]) -> None:
    """Keep what became of each correction of a snapshot: in `version`, or in a run that learned nothing yet."""
    role = FeedbackUse.Role
    corrections = {row.feedback: row for row in snapshot.rows if row.ideal}
    roles = {number: (role.LEFT_OUT, reason) for number, reason in snapshot.left_out.items()}
    for number, row in corrections.items():
        taught = role.CHOSE if number in chose_by else role.TAUGHT
        roles[number] = (role.TESTS if row.split == "holdout" else taught, "")
    uses_record(version, roles, {number: row.ideal for number, row in corrections.items()})


def run_same(run: TrainingRun, data_sha256: str, base: ModelVersion) -> TrainingRun | None:
    """The last run that learned what `run` would learn, whatever its verdict.

    The schedule asks for feedback, a person also for a seed.
    """
    same = TrainingRun.objects.filter(status__in=TrainingRun.LEARNED, data_sha256=data_sha256, base=base)
    return (same if run.trigger == TrainingRun.Trigger.SCHEDULE else same.filter(seed=run.seed)).first()


def run_give_back(run: TrainingRun, error: str) -> bool:
    """Queue a run that this process holds again, unless another one is queued; says whether it could.

    The sweep hands it out in a minute, which gives whatever was wrong time to pass.
    """
    held = TrainingRun.objects.filter(pk=run.pk, worker=run.worker, status=_Status.RUNNING)
    try:
        held.update(status=_Status.QUEUED, error=error, worker=None)
    except IntegrityError:
        return False
    return True


def _run_save(run: TrainingRun, *fields: str) -> None:
    """Write fields of a run that this process still holds. Raises `RunLost`."""
    values = {field: getattr(run, field) for field in fields}
    if not TrainingRun.objects.filter(pk=run.pk, worker=run.worker, status=_Status.RUNNING).update(**values):
        raise RunLost(f"{run} is not ours any more.")


def _run_end(run: TrainingRun, status: TrainingRun.Status, *, error: str = "") -> None:
    run.status, run.error, run.finished_at = status, error, timezone.now()
    held = TrainingRun.objects.filter(pk=run.pk, worker=run.worker)
    held.update(
        status=status,
        error=error,
        report=run.report,
        finished_at=run.finished_at,
        promoted_to=run.promoted_to,
    )


class Heartbeat:
    """Writes how far a run is; finds out whether it is to stop."""

    def __init__(self, run: TrainingRun) -> None:
        self.run, self._written = run, 0.0

    def tick(self, stage: str, done: int, total: int) -> None:
        """Raises `RunCancelled` or `RunLost`; a database that is away for a moment is waited for."""
        if time.monotonic() - self._written < _WRITE_SECONDS and stage == self.run.stage and done < total:
            return
        self.run.stage, self.run.done, self.run.total = stage, done, total
        self.run.heartbeat_at = timezone.now()
        self.run.curve = curve_thin(curve_read(pipeline.learning_folder(self.run)))
        try:
            _run_save(self.run, "stage", "done", "total", "heartbeat_at", "curve")
            cancelled = TrainingRun.objects.filter(pk=self.run.pk, cancel_requested=True).exists()
        except OperationalError:
            logger.warning("The database is away; %s goes on.", self.run)
            connection.close()
            return
        self._written = time.monotonic()
        if cancelled:
            raise RunCancelled
