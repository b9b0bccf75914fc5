"""The thread that keeps this process's engine at what the registry says: it looks, checks the challenger, reports."""

import logging
import threading
import time
from contextlib import suppress

from django.db import connection

from captioner.serving import trials
from captioner.serving.process import Change, Serving, serving
from models_registry import processes

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25  # between two looks at the registry: a rollback to a warm version takes no longer
_CHECK_SECONDS = 5.0  # between two looks at how a challenger does


def engine_start() -> None:
    """Load and warm the champion in the background, and follow the registry from then on; see `Serving.status`."""
    serving.follow_begin()
    threading.Thread(target=Follower(serving).run, name="registry-follower", daemon=True).start()


class Follower:
    """Takes a step whenever it is time, and tells the registry now and then how this process is."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._reported_at = self._checked_at = -float("inf")
        self._said: list[str] = []

    def run(self) -> None:
        """Until the process is told to stop."""
        while not self._serving.stopping.is_set():
            try:
                self.turn()
                self._serving.turn_done()
            except Exception as error:  # noqa: BLE001  whatever it is, this thread must not end before the process
                self._serving.turn_failed(error)
            finally:
                with suppress(Exception):  # a connection that is broken already
                    connection.close()
            self._serving.stopping.wait(_LOOK_SECONDS)

    def turn(self) -> list[Change]:
        """One step, and what is due besides; returns what the step did. Raises `DatabaseError`."""
        changes = self._serving.step()
        now, alerts = time.monotonic(), self._serving.alerts
        if now - self._checked_at > _CHECK_SECONDS and self._serving.versions["challenger"]:
            trials.challenger_check()
            self._checked_at = now
        if now - self._reported_at > processes.REPORT_SECONDS or alerts != self._said:
            processes.process_report(
                state=self._serving.state,
                alerts=alerts,
                started_at=self._serving.started_at,
                **self._serving.versions,
            )
            self._reported_at, self._said = now, alerts
        return changes
