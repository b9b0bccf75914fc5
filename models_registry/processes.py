"""Which processes serve, with what, and what troubles them: each tells now and then, the admin shows it."""

import os
import socket
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from django.utils import timezone

from models_registry.models import Promotion, ServingProcess

REPORT_SECONDS = 10
_SILENT_AFTER = timedelta(seconds=6 * REPORT_SECONDS)
_FORGOTTEN_AFTER = timedelta(days=1)
_NEWS_FOR = timedelta(days=1)


def process_report(
    *, state: str, champion: str, previous: str, challenger: str, alerts: list[str], started_at: datetime
) -> None:
    """Say how this process is."""
    memory_mb = None
    with suppress(OSError):  # a system without it
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        memory_mb = pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000
    ServingProcess.objects.update_or_create(
        name=f"{socket.gethostname()}/{os.getpid()}",
        defaults={
            "state": state,
            "champion": champion,
            "previous": previous,
            "challenger": challenger,
            "alerts": alerts,
            "memory_mb": memory_mb,
            "started_at": started_at,
            "seen_at": timezone.now(),
        },
    )
    ServingProcess.objects.filter(seen_at__lt=timezone.now() - _FORGOTTEN_AFTER).delete()


def processes_alive() -> list[ServingProcess]:
    """Those that were heard of lately."""
    return list(ServingProcess.objects.filter(seen_at__gte=timezone.now() - _SILENT_AFTER))


def alerts_current() -> list[str]:
    """What does not work as it should, for people: trouble of processes, and a challenger that was taken back."""
    alerts = [f"{process.name}: {text}" for process in processes_alive() for text in process.alerts]
    # News until somebody acts, or for a day.
    lately = Promotion.objects.filter(created_at__gte=timezone.now() - _NEWS_FOR)
    last = lately.select_related("version").first()
    if last is not None and (last.action, last.cause) == (Promotion.Action.CLEAR, Promotion.Cause.BREACH):
        alerts.append(f"The challenger {last.version_id} was taken back by itself: {last.reason}")
    return alerts
