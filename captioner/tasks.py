"""The Celery tasks of the captioning app: thin callers of services.

Schedules in the database and messages under way name a task by its place, so all stand here, where they always stood.
"""

import logging
import uuid

from celery import shared_task
from django.core.management import call_command

from captioner.captions.captions import captions_sweep
from captioner.captions.photos import photos_sweep
from captioner.captions.vectors import photos_look, photos_look_enqueue
from captioner.http import idempotency
from captioner.importing import services as imports
from captioner.jobs import sweeps, worker

logger = logging.getLogger(__name__)


@shared_task
def job_photos_caption_task(job_id: str, indexes: list[int]) -> None:
    worker.job_photos_caption(uuid.UUID(job_id), indexes)


@shared_task
def jobs_sweep_task() -> None:
    if found := sweeps.jobs_sweep():
        logger.warning("Enqueued %d photos of jobs that no message led to.", found)


@shared_task
def requests_sweep_task() -> None:
    """Hourly: what requests left behind that nobody will ask for any more."""
    if swept := sweeps.uploads_sweep():
        logger.info("Removed what was left of %d jobs.", swept)
    idempotency.requests_sweep()


@shared_task
def captions_sweep_task() -> None:
    if swept := captions_sweep():
        logger.info("Removed %d captions that their owners had deleted.", swept)


@shared_task
def photos_sweep_task() -> None:
    logger.info("Removed %d photos that no caption shows any more.", photos_sweep())


@shared_task
def photos_look_task() -> None:
    """Sent by processes that find remembered photos which their encoder has not seen; goes on until there are none."""
    if photos_look():
        photos_look_enqueue()


@shared_task
def model_import_task(import_id: int) -> None:
    """Consumed by the trainer, in a process of its own."""
    imports.import_execute(import_id)


@shared_task
def imports_sweep_task() -> None:
    if handed_out := imports.imports_sweep():
        logger.info("Handed out %d models that are wanted.", handed_out)


@shared_task
def sessions_clear_task() -> None:
    call_command("clearsessions")
