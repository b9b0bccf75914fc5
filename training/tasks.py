"""Celery tasks of the learning loop: thin callers of services. Their names are stored in schedules and messages."""

import logging

from celery import shared_task
from django.conf import settings

from training import services
from training.learning.yielding import yield_processor

logger = logging.getLogger(__name__)


@shared_task
def run_start_task() -> None:
    """What the schedule in the admin points at."""
    services.run_request_scheduled()


@shared_task
def runs_sweep_task() -> None:
    if handed_out := services.runs_sweep():
        logger.warning("Handed out %d training runs again.", handed_out)


@shared_task
def features_forget_task() -> None:
    """Consumed by the trainer, on whose machine the features are."""
    if forgotten := services.features_forget():
        logger.info("Forgot what was seen of %d deleted photos.", forgotten)


@shared_task
def run_execute_task(run_id: int) -> None:
    """Consumed by the trainer alone (the queue "training"), in a process of its own."""
    from training.execution import run_execute  # it loads torch, which no other process of Celery needs

    yield_processor(settings.TRAINING_NICENESS)
    run_execute(run_id)
