"""The learning loop's verbs: request a run, execute it, keep it alive, cancel it, decide on it.

One run at a time: a row that says "running" is unique in the database, and its holder proves to be alive by writing
its heartbeat. Who finds a run whose heart has stopped takes it over and continues from its checkpoint.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from captioner.models import Feedback
from models_registry import promotions, versions
from models_registry.exceptions import RegistryError
from models_registry.models import Alias, ModelVersion, Promotion
from training.exceptions import (
    DatasetError,
    NothingNew,
    NothingToLearn,
    RunCancelled,
    RunLost,
    RunRefused,
)
from training.models import TrainingRun

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
MAX_SEED = 2**31 - 1  # what the column holds
CURVE_POINTS = 200
_WRITE_SECONDS = 2.0  # how often progress is written at most
_Status, _Verdict = TrainingRun.Status, TrainingRun.Verdict


# --- Asking for a run ---------------------------------------------------------------------------------------------


def run_request(*, by: User | None = None, seed: int = 0) -> TrainingRun:
    """Queue a run and tell the trainer. Raises `RunRefused` while another one is queued or running.

    The same feedback is learned from again with another `seed` only, of 0 to `MAX_SEED`.
    """
    if not 0 <= seed <= MAX_SEED:
        raise RunRefused(f"{seed} is no seed; give a whole number from 0 to {MAX_SEED}.")
    return _run_create(TrainingRun.Trigger.PERSON, requested_by=by, seed=seed)


def run_request_scheduled() -> TrainingRun | None:
    """Queue a run if there is anything new to learn: what the schedule calls. Returns None when there is not."""
    reason = run_needless()
    if reason:
        logger.info("No training: %s", reason)
        return None
    try:
        return _run_create(TrainingRun.Trigger.SCHEDULE)
    except RunRefused as error:
        logger.info("No training: %s", error)
        return None


def run_needless() -> str:
    """Why a scheduled run would be pointless now, or an empty string."""
    if TrainingRun.objects.filter(status__in=TrainingRun.UNFINISHED).exists():
        return "another run is queued or running."
    new = feedback_new_count()
    if new < settings.TRAINING_MIN_NEW_FEEDBACK:
        return (
            f"{new} pieces of feedback were approved since the last run; "
            f"it takes {settings.TRAINING_MIN_NEW_FEEDBACK} (TRAINING_MIN_NEW_FEEDBACK)."
        )
    return ""


def feedback_new_count() -> int:
    """How much feedback was approved since the last run that came to an end took its snapshot."""
    last = TrainingRun.objects.filter(
        status__in=(_Status.FINISHED, _Status.UNCHANGED, _Status.FAILED), started_at__isnull=False
    ).first()
    approved = Feedback.objects.filter(status=Feedback.Status.APPROVED)
    return (approved.filter(reviewed_at__gt=last.started_at) if last else approved).count()


def _run_create(trigger: TrainingRun.Trigger, **fields: Any) -> TrainingRun:
    if TrainingRun.objects.filter(status__in=TrainingRun.UNFINISHED).exists():
        raise RunRefused("Another run is queued or running; wait for it, or cancel it first.")
    try:
        with transaction.atomic():
            run = TrainingRun.objects.create(trigger=trigger, **fields)
            transaction.on_commit(lambda: run_enqueue(run))
    except IntegrityError:
        raise RunRefused("Somebody else has just asked for a run.") from None
    return run


def run_enqueue(run: TrainingRun) -> None:
    """Tell the trainer about a queued run. A broker that is down does no harm: the sweep finds the run again."""
    from kombu.exceptions import OperationalError as BrokerDown

    from training.tasks import run_execute_task

    try:
        run_execute_task.apply_async(args=[run.pk], retry=False)
    except (BrokerDown, OSError) as error:
        logger.warning("%s waits for the next sweep: the broker cannot be reached (%s).", run, error)


def runs_sweep() -> int:
    """Hand runs out again that nobody works on: queued ones that were not picked up, and stale ones."""
    run_folders_tidy()
    waiting = timezone.now() - timedelta(seconds=60)
    lost = [run for run in TrainingRun.objects.filter(status=_Status.RUNNING) if run.is_stale]
    queued = TrainingRun.objects.filter(status=_Status.QUEUED, created_at__lt=waiting)
    for run in [*lost, *queued]:
        run_enqueue(run)
    return len(lost) + len(queued)


# --- Executing it -------------------------------------------------------------------------------------------------


def run_execute(run_id: int) -> TrainingRun | None:
    """Do the run with this id, from its last checkpoint if there is one. What the trainer calls.

    Returns None when there is nothing to do: it was done, cancelled, or is in good hands. What goes wrong is recorded
    in the run, which is then tried again, `MAX_ATTEMPTS` times in all.
    """
    run = run_claim(run_id)
    if run is not None:
        _run_attempt(run)
    run_folders_tidy()
    return TrainingRun.objects.filter(pk=run_id).first() if run is not None else None


def run_claim(run_id: int) -> TrainingRun | None:
    """Make this process the holder of the run if it is queued or stale; counts the attempt."""
    try:
        with transaction.atomic():
            run = TrainingRun.objects.select_for_update().filter(pk=run_id).first()
            if run is None or not (run.status == _Status.QUEUED or run.is_stale):
                return None
            if run.cancel_requested or run.attempts >= MAX_ATTEMPTS:
                _run_give_up(run)
                return None
            run.status, run.worker, run.attempts = _Status.RUNNING, uuid.uuid4(), run.attempts + 1
            run.heartbeat_at = timezone.now()
            # Of the first attempt, which takes the snapshot: what is approved later is new to the next run.
            run.started_at = run.started_at or run.heartbeat_at
            run.save(update_fields=["status", "worker", "attempts", "heartbeat_at", "started_at"])
            return run
    except IntegrityError:
        logger.info("Training run %d waits: another one is running.", run_id)
        return None


def _run_give_up(run: TrainingRun) -> None:
    run.status = _Status.CANCELLED if run.cancel_requested else _Status.QUARANTINED
    run.error = run.error or f"Its process died {run.attempts} times without saying why."
    run.finished_at = timezone.now()
    run.save(update_fields=["status", "error", "finished_at"])


def _run_attempt(run: TrainingRun) -> None:
    try:
        # An earlier attempt may have got as far as the verdict, and what it promoted must not be judged against itself.
        if not run.verdict:
            _run_judge(run)
        if run.verdict == _Verdict.PASSED:
            _run_promote(run)
        _run_end(run, _Status.FINISHED)
    except RunLost:
        logger.warning("%s was taken over by another worker.", run)
    except RunCancelled:
        _run_end(run, _Status.CANCELLED, error="Cancelled.")
    except NothingNew as error:
        _run_end(run, _Status.UNCHANGED, error=str(error))
    except NothingToLearn as error:
        _run_end(run, _Status.FAILED, error=str(error))
    except DatasetError as error:
        # Trying again changes nothing until somebody mends the set; the feedback is still to be learned from.
        _run_end(run, _Status.QUARANTINED, error=str(error))
    except Exception as error:
        logger.exception("%s failed in attempt %d.", run, run.attempts)
        _run_retry(run, f"{type(error).__name__}: {error}")


def _run_judge(run: TrainingRun) -> None:
    """Learn, judge and publish; keeps the candidate and the verdict in the run."""
    from training.learning import pipeline
    from training.learning.snapshot import snapshot_freeze

    progress = Progress(run)
    progress.tick("Collecting feedback", 0, 0)
    snapshot = snapshot_freeze(pipeline.run_folder(run))
    champion = promotions.champion_get()
    base = _base_of(champion)
    same = run_same(run, snapshot.sha256, base)
    run.base, run.champion, run.data_sha256, run.counts = base, champion, snapshot.sha256, snapshot.counts
    _run_save(run, "base", "champion", "data_sha256", "counts")
    if same is not None:
        raise NothingNew(
            f"Exactly this feedback was learned from in {same}, verdict: {same.final_verdict}. "
            f"To learn from it once more, give another seed: manage.py train now --seed {same.seed + 1}"
        )
    outcome = pipeline.run_work(run, snapshot, base, champion, progress.tick)
    run.candidate, run.report, run.verdict = outcome.candidate, outcome.report, str(outcome.decision.verdict)
    run.counts = outcome.counts
    _run_save(run, "candidate", "report", "verdict", "counts")


def run_same(run: TrainingRun, data_sha256: str, base: ModelVersion) -> TrainingRun | None:
    """The last finished run that learned what `run` would learn, whatever its verdict.

    The schedule asks for feedback, a person also for a seed.
    """
    same = TrainingRun.objects.filter(status=_Status.FINISHED, data_sha256=data_sha256, base=base)
    return (same if run.trigger == TrainingRun.Trigger.SCHEDULE else same.filter(seed=run.seed)).first()


def _base_of(champion: ModelVersion) -> ModelVersion:
    """Every run starts from the base and from all feedback, never from a champion that was learned itself."""
    base = champion.facts.lineage.base
    return versions.version_get(base) if base else champion


def _run_save(run: TrainingRun, *fields: str) -> None:
    """Write fields of a run that this process still holds. Raises `RunLost`."""
    values = {field: getattr(run, field) for field in fields}
    if not TrainingRun.objects.filter(pk=run.pk, worker=run.worker, status=_Status.RUNNING).update(**values):
        raise RunLost(f"{run} is not ours any more.")


def _run_end(run: TrainingRun, status: TrainingRun.Status, *, error: str = "") -> None:
    run.status, run.error, run.finished_at = status, error, timezone.now()
    held = TrainingRun.objects.filter(pk=run.pk, worker=run.worker)
    held.update(status=status, error=error, finished_at=run.finished_at, promoted_to=run.promoted_to)


def _run_retry(run: TrainingRun, error: str) -> None:
    held = TrainingRun.objects.filter(pk=run.pk, worker=run.worker, status=_Status.RUNNING)
    if run.attempts >= MAX_ATTEMPTS:
        held.update(status=_Status.QUARANTINED, error=error, finished_at=timezone.now())
        return
    try:
        # The sweep hands it out again in a minute, which gives whatever was wrong time to pass.
        held.update(status=_Status.QUEUED, error=error, worker=None)
    except IntegrityError:  # another one is queued already: this one has had its chance
        held.update(status=_Status.QUARANTINED, error=error, finished_at=timezone.now())


def runs_folder() -> Path:
    """Where this machine keeps a folder for each of its runs, named by their numbers."""
    return Path(settings.DATA_DIR) / "training" / "runs"


def run_folders_tidy() -> None:
    """Remove what this machine keeps of runs that have ended, or that nobody knows.

    It holds features of people's photos, which must not outlive the run; another worker may go on with one that lives.
    """
    # In this order: what is begun meanwhile is not among the folders.
    folders = [path for path in runs_folder().glob("*") if path.is_dir()]
    alive = TrainingRun.objects.filter(status__in=TrainingRun.UNFINISHED).values_list("pk", flat=True)
    names = set(map(str, alive))
    for folder in folders:
        if folder.name not in names:
            shutil.rmtree(folder, ignore_errors=True)


class Progress:
    """Writes how far a run is, and with it the heartbeat; finds out whether the run is to stop."""

    def __init__(self, run: TrainingRun) -> None:
        self.run, self._written, self._curve = run, 0.0, list[dict[str, float]](run.curve)

    def tick(self, stage: str, done: int, total: int, losses: Mapping[str, float] | None = None) -> None:
        """Raises `RunCancelled` or `RunLost`; a database that is away for a moment is waited for."""
        if losses:
            # After a resume the steps since the checkpoint come again.
            while self._curve and self._curve[-1]["step"] >= losses["step"]:
                self._curve.pop()
            self._curve.append({name: round(value, 4) for name, value in losses.items()})
        if time.monotonic() - self._written < _WRITE_SECONDS and stage == self.run.stage and done < total:
            return
        self.run.stage, self.run.done, self.run.total = stage, done, total
        self.run.heartbeat_at, self.run.curve = timezone.now(), curve_thin(self._curve)
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


def curve_thin(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """At most `CURVE_POINTS` points: means of equal stretches, each at its last step."""
    size = -(-len(curve) // CURVE_POINTS) or 1
    parts = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [
        {name: round(sum(point.get(name, 0.0) for point in part) / len(part), 4) for name in part[-1]}
        | {"step": part[-1]["step"]}
        for part in parts
    ]


# --- Deciding -----------------------------------------------------------------------------------------------------


def _run_promote(run: TrainingRun) -> None:
    """Make a candidate that passed the gate what the policy says, once: people may have taken it back since.

    One that was judged against another champion is left alone.
    """
    if settings.TRAINING_PROMOTE_TO == "nothing" or run.candidate is None:
        return
    alias = Alias.Name(settings.TRAINING_PROMOTE_TO)
    by_this_run = f"Passed the gate in {run}:"
    promoted = Promotion.objects.filter(alias=alias, version=run.candidate, reason__startswith=by_this_run)
    if not promoted.exists():
        if (champion := promotions.champion_get()) != run.champion:
            logger.warning("%s was judged against %s; now %s serves.", run, run.champion, champion)
            return
        reason = f"{by_this_run} {run.report.get('reason', '')}"
        promotions.version_promote(
            run.candidate, alias=alias, reason=reason, report=run.report, expected=run.champion
        )
    run.promoted_to = alias.value


def run_cancel(run: TrainingRun) -> None:
    """Stop a run at its next step, or at once where nobody works on it. Raises `RunRefused` for one that has ended."""
    with transaction.atomic():
        run = TrainingRun.objects.select_for_update().get(pk=run.pk)
        if run.status not in TrainingRun.UNFINISHED:
            raise RunRefused(f"This run has ended already: {run.get_status_display().lower()}.")
        run.cancel_requested = True
        run.save(update_fields=["cancel_requested"])
        if run.status == _Status.QUEUED or run.is_stale:
            run.status, run.finished_at, run.error = _Status.CANCELLED, timezone.now(), "Cancelled."
            run.save(update_fields=["status", "finished_at", "error"])
    run_folders_tidy()


def run_overrule(run: TrainingRun, verdict: str, *, reason: str, by: User) -> str:
    """Let a reviewer's verdict count instead of the gate's; returns what became of the candidate.

    "passed" promotes as the policy says, "rejected" takes back what serves or is tried. What serves changes
    first, which asks the store and takes its time; a decision that is cut short there is simply made again.

    Raises `RunRefused` without a reason, for a run without a candidate, for a verdict that stands already, for a
    candidate that was judged against another champion than serves now, and for what the registry refuses.
    """
    if verdict not in (_Verdict.PASSED, _Verdict.REJECTED):
        raise RunRefused(f"A reviewer decides “passed” or “rejected”, not “{verdict}”.")
    run.refresh_from_db()
    if run.status != _Status.FINISHED or run.candidate is None:
        raise RunRefused("Only a finished run with a candidate can be decided on.")
    if run.final_verdict == verdict:
        raise RunRefused(f"That is the verdict already: {verdict}.")
    try:
        reason = promotions.reason_require(reason)
        reason_logged = f"{reason} (overruling the gate in {run})"
        if verdict == _Verdict.PASSED:
            promoted_to, told = _candidate_promote(run, run.candidate, reason_logged, by)
        else:
            promoted_to, told = _candidate_withdraw(run.candidate, reason_logged, by)
    except RegistryError as error:
        raise RunRefused(str(error)) from error
    decided = TrainingRun.objects.filter(pk=run.pk, overruled_at=run.overruled_at).update(
        overruled_by=by,
        overruled_at=timezone.now(),
        overruled_to=verdict,
        overruled_reason=reason,
        promoted_to=promoted_to,
    )
    if not decided:
        raise RunRefused("Somebody else decided on this run just now; look again at what serves.")
    return told


def run_overrule_moves(run: TrainingRun, verdict: str) -> bool:
    """Whether a reviewer's verdict would change what serves or is tried."""
    standing = {alias for alias, version in promotions.aliases_get().items() if version == run.candidate}
    if verdict == _Verdict.REJECTED:
        return bool(standing)
    policy = settings.TRAINING_PROMOTE_TO
    return policy != "nothing" and not standing & {Alias.Name.CHAMPION, policy}


def _candidate_promote(run: TrainingRun, candidate: ModelVersion, reason: str, by: User) -> tuple[str, str]:
    """What it was promoted to, and that in words."""
    if not run_overrule_moves(run, _Verdict.PASSED):
        return run.promoted_to, f"What serves stays: TRAINING_PROMOTE_TO is {settings.TRAINING_PROMOTE_TO}."
    if (champion := promotions.champion_get()) != run.champion:
        raise RunRefused(
            f"{candidate} was compared with {run.champion}, and since then {champion} has become the champion. "
            "Train again to compare them, or promote it in the registry, on the version's own page."
        )
    alias = Alias.Name(settings.TRAINING_PROMOTE_TO)
    promotions.version_promote(
        candidate, alias=alias, reason=reason, by=by, report=run.report, expected=run.champion
    )
    return alias.value, f"{candidate} is the {alias.value}."


def _candidate_withdraw(candidate: ModelVersion, reason: str, by: User) -> tuple[str, str]:
    """That it is promoted to nothing any more, and what serves instead in words."""
    if promotions.champion_get() == candidate:
        previous = promotions.champion_rollback(reason=reason, by=by, expected=candidate)
        return "", f"{previous} is the champion again."
    if promotions.challenger_clear(reason=reason, by=by, only=candidate):
        return "", f"{candidate} is no challenger any more."
    return "", f"{candidate} does not serve."


def run_retry(run: TrainingRun) -> None:
    """Give a quarantined run its attempts back. Raises `RunRefused`."""
    try:
        with transaction.atomic():
            changed = TrainingRun.objects.filter(pk=run.pk, status=_Status.QUARANTINED).update(
                status=_Status.QUEUED, attempts=0, error="", finished_at=None, worker=None
            )
    except IntegrityError:
        raise RunRefused("Another run is queued; wait for it, or cancel it first.") from None
    if not changed:
        raise RunRefused("Only a quarantined run can be tried again.")
    run_enqueue(run)
