"""The learning loop's verbs: request a run, hand it to the trainer, cancel it, try it again.

One run at a time: rows that say "queued" or "running" are unique in the database. What the trainer does with a run is
in `training.execution`, what follows from its verdict in `training.decisions`.
"""

from __future__ import annotations

import logging
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import current_app
from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerDown

from captioner.models import Feedback, Photo
from models_registry.models import ModelVersion
from training.exceptions import RunRefused
from training.models import TrainingRun

logger = logging.getLogger(__name__)

EXECUTE_TASK = "training.tasks.run_execute_task"
MAX_SEED = 2**31 - 1  # what the column holds
CHUNK = 500  # photos that are asked for in one query
_Status = TrainingRun.Status


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
    if forgotten_count():
        return ""
    new = feedback_new_count()
    if new < settings.TRAINING_MIN_NEW_FEEDBACK:
        return (
            f"{new} corrections were approved since the last run; "
            f"it takes {settings.TRAINING_MIN_NEW_FEEDBACK} (TRAINING_MIN_NEW_FEEDBACK)."
        )
    return ""


def feedback_new_count() -> int:
    """How many corrections were approved since the last run that came to an end took its snapshot.

    Ratings teach nothing by themselves, and start no run.
    """
    last = _last_run()
    approved = Feedback.objects.filter(status=Feedback.Status.APPROVED).exclude(ideal_caption="")
    return (approved.filter(reviewed_at__gt=last.started_at) if last else approved).count()


def run_look(run: TrainingRun, champion: ModelVersion) -> int:
    """The how-manieth comparison with this champion, from 1, the run's would be.

    Every run that could have promoted its candidate counts, for as long as that champion is compared with: whatever the
    salt that splits the photos, the seed, and who asked for the run.
    """
    others = TrainingRun.objects.filter(champion=champion).exclude(pk=run.pk)
    return (others.aggregate(latest=Max("look"))["latest"] or 0) + 1


def forgotten_count() -> int:
    """How many versions learned from what was deleted, or replaced by its author, since the last run began.

    The next run starts without it, even if nothing else is new.
    """
    marked = ModelVersion.objects.filter(retired_at=None, rows_deleted_at__isnull=False)
    last = _last_run()
    return (marked.filter(rows_deleted_at__gt=last.started_at) if last else marked).count()


def _last_run() -> TrainingRun | None:
    """The last run that came to an end after it had taken its snapshot."""
    return TrainingRun.objects.filter(
        status__in=(*TrainingRun.LEARNED, _Status.UNCHANGED, _Status.FAILED), started_at__isnull=False
    ).first()


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
    # By its name: the task's module imports what executes runs, and that imports this one.
    task = current_app.signature(EXECUTE_TASK, args=[run.pk])
    try:
        task.apply_async(retry=False)
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


# --- What the trainer's machine keeps ---


def runs_folder() -> Path:
    """Where this machine keeps a folder for each of its runs, named by their numbers."""
    return Path(settings.DATA_DIR) / "training" / "runs"


def run_folder(run: TrainingRun) -> Path:
    return runs_folder() / str(run.pk)


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


def features_folder() -> Path:
    """Where this machine keeps what encoders see of photos: a folder for each encoder, logged photos apart."""
    return Path(settings.DATA_DIR) / "training" / "features"


def features_forget() -> int:
    """Remove what this machine keeps of photos that were deleted since; returns of how many."""
    from training.data.features import FeatureStore  # it loads numpy and Pillow

    removed = 0
    for folder in features_folder().glob("*/photos"):
        store = FeatureStore(folder)
        names = sorted(store.names())
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            known = set(Photo.objects.filter(sha256__in=chunk).values_list("sha256", flat=True))
            gone = [name for name in chunk if name not in known]
            store.remove(gone)
            removed += len(gone)
    return removed
