"""The threads that keep this process at what the registry says, and its memory at what was approved."""

import logging
import threading
import time
from contextlib import suppress

from django.conf import settings
from django.db import connection

from captioner.captions.memory import memory
from captioner.captions.vectors import photos_look_enqueue
from captioner.serving import trials
from captioner.serving.process import Change, Serving, serving
from models_registry import processes

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25  # between two looks at the registry: a rollback to a warm version takes no longer
_CHECK_SECONDS = 5.0  # between two looks at how a challenger does
_REMEMBER_SECONDS = 1.0  # between two looks at what was approved
_ASK_SECONDS = 20.0  # after which workers are asked once more to look at remembered photos


def engine_start() -> None:
    """Load and warm the champion in the background, and follow the registry from then on; see `Serving.status`."""
    serving.follow_begin()
    threading.Thread(target=Follower(serving).run, name="registry-follower", daemon=True).start()
    if settings.MEMORY_SCOPE != "off":
        threading.Thread(target=MemoryFollower(serving).run, name="memory-follower", daemon=True).start()


class Follower:
    """Takes a step whenever it is time, and tells the registry now and then how this process is."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._reported_at = self._checked_at = -float("inf")
        self._said: list[str] = []

    def run(self) -> None:
        """Until the process is told to stop.

        Its connection to SQLite stays open: with the last one SQLite deletes its journal, and where the disk is full
        there is no room to make it again, without which nothing can be read.
        """
        while not self._serving.stopping.is_set():
            try:
                self.turn()
                self._serving.turn_done()
            except Exception as error:  # noqa: BLE001  whatever it is, this thread must not end before the process
                self._serving.turn_failed(error)
            finally:
                if connection.vendor != "sqlite":
                    with suppress(Exception):  # a connection that is broken already
                        connection.close()
            self._serving.stopping.wait(_LOOK_SECONDS)
        with suppress(Exception):
            connection.close()

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


class MemoryFollower:
    """Keeps the list of remembered photos up to date, and has workers look at what the encoders here have not seen.

    In a thread of its own: the first look may take seconds.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._asked_at = -float("inf")
        self._failed = False

    def run(self) -> None:
        """Until the process is told to stop."""
        while not self._serving.stopping.wait(_REMEMBER_SECONDS):
            try:
                self.turn()
                self._failed = False
            except Exception:  # whatever it is, this thread must not end before the process
                if not self._failed:
                    logger.exception("What was approved lately cannot be remembered.")
                self._failed = True
            finally:
                with suppress(Exception):  # a connection that is broken already
                    connection.close()

    def turn(self) -> None:
        """One look. Raises `DatabaseError`."""
        missing = memory.look(self._serving.encoders)
        if missing and time.monotonic() - self._asked_at > _ASK_SECONDS:
            self._asked_at = time.monotonic()
            photos_look_enqueue()
