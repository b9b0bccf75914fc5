"""Celery tasks of the captioning app: thin callers of services."""

import logging

from celery import shared_task
from django.core.management import call_command

from captioner import services

logger = logging.getLogger(__name__)


@shared_task
def photos_sweep_task() -> None:
    logger.info("Removed %d photos that no caption shows any more.", services.photos_sweep())


@shared_task
def sessions_clear_task() -> None:
    call_command("clearsessions")
