"""This process's engine: made from the registry, drained, and what it says of itself.

It is made once per process and after the fork; torch is imported only then. A command just asks for what serves now
(`engine_load`); a web worker follows the registry, see `registry_follower`.
"""

import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from captioner.exceptions import CaptionerError, ModelUnavailable
from captioner.ops import metrics
from captioner.serving.engine import Engine, version_load
from models_registry import promotions
from models_registry.exceptions import RegistryError, StoreUnavailable
from models_registry.models import Alias, ModelVersion

logger = logging.getLogger(__name__)

_RETRY_SECONDS = (2.0, 60.0)  # after a version could not be loaded: at first, at most
_STALE_SECONDS = 60.0  # without a look at the registry that worked

# Shown to anybody who asks: nothing of what a server told us, which may name hosts and users.
_STORE_AWAY = "The store of the weights cannot be reached; the log says more."
_DATABASE_AWAY = "The database cannot be asked what to serve; the log says more."
_DEFECT = "It cannot be loaded; the log says why."
_THREAD_DIED = (
    "The thread that captions photos has ended; this process needs a restart, and the log says why."
)
_LOOK_FAILED = "A look at the registry failed; the log says why."
_STALE = "The registry was not looked at for more than a minute; what serves here may be out of date."


@dataclass(slots=True)
class Trouble:
    """Why what an alias points at is not served here, and when to try again."""

    version: str
    message: str
    delay: float
    retry_at: float  # time.monotonic()


@dataclass(slots=True)
class State:
    """What this process serves, and what is wrong with that."""

    name: str = "stopped"  # stopped, loading, ready, failed, draining
    engine: Engine | None = None
    reason: str = "The model has not been asked for yet."
    troubles: dict[str, Trouble] = field(default_factory=dict)  # by alias
    looked_at: float | None = None  # time.monotonic() of the last look at the registry that worked
    look_failed: bool = False  # in a way that nobody foresaw
    started_at: datetime = field(default_factory=timezone.now)

    @property
    def seconds_since_look(self) -> float | None:
        """None in a process that does not follow the registry."""
        return None if self.looked_at is None else round(time.monotonic() - self.looked_at, 1)

    @property
    def alerts(self) -> list[str]:
        """What does not work as it should, for anybody to read."""
        alerts = [trouble.message for trouble in list(self.troubles.values())]
        if self.look_failed:
            alerts.append(_LOOK_FAILED)
        if (seconds := self.seconds_since_look) is not None and seconds > _STALE_SECONDS:
            alerts.append(_STALE)
        return alerts

    def looked(self) -> None:
        """The registry was looked at."""
        self.looked_at, self.look_failed = time.monotonic(), False
        metrics.registry_looked_at.set_to_current_time()

    def trouble_note(self, alias: str, version: str, error: Exception) -> None:
        """What `alias` points at cannot be served, because of `error`; it is tried again later and later."""
        before = self.troubles.get(alias)
        first, most = _RETRY_SECONDS
        delay = min(2 * before.delay, most) if before is not None and before.version == version else first
        message = f"The {alias} {version} cannot be served: {_public(error)}" if version else _public(error)
        self.troubles[alias] = Trouble(version, message, delay, time.monotonic() + delay)
        if before is None or before.message != message:
            is_expected = isinstance(error, (CaptionerError, RegistryError))
            logger.error("%s (%s)", message, error, exc_info=None if is_expected else error)
        metrics.versions_refused.labels(alias).set(1)

    def trouble_end(self, alias: str) -> None:
        if self.troubles.pop(alias, None) is not None:
            logger.warning("The trouble with the %s is over.", alias)
            metrics.versions_refused.labels(alias).set(0)

    def is_postponed(self, alias: str, version: str) -> bool:
        """Whether it is too early to try this version again."""
        trouble = self.troubles.get(alias)
        return trouble is not None and trouble.version == version and time.monotonic() < trouble.retry_at

    def database_failed(self, error: DatabaseError) -> None:
        if self.engine is None and self.name != "draining":
            self.name, self.reason = "failed", _DATABASE_AWAY
        logger.warning("The database cannot be asked what to serve: %s", error)


# Shared with `registry_follower` alone.
state = State()
loading = threading.Lock()  # held while anything is loaded
stopping = threading.Event()


def engine() -> Engine:
    """This process's engine. Raises `ModelUnavailable` while there is none; see `registry_follower`."""
    if state.engine is None:
        raise ModelUnavailable(state.reason)
    return state.engine


def engine_load(max_wait_seconds: float | None = None) -> Engine:
    """Load and warm the champion in this thread, unless that was done; a command drains it when it is done.

    `max_wait_seconds` bounds the queue, by default as the settings say.

    Raises `RegistryError` when there is no usable version, `IncompatibleModel` when it is no captioner.
    """
    with loading:
        if state.engine is None:
            with suppress(PreviousServes):
                engine_make(max_wait_seconds)
    return engine()


def engine_drain(timeout: float) -> bool:
    """Refuse new work at once and finish what was accepted, for at most `timeout` seconds.

    Returns whether nothing runs any more; a model that is being loaded cannot be stopped.
    """
    engine_drain_begin()
    # A look at the registry is over in a moment, loading is not. What it ends with has a thread to be drained, too.
    is_loading = not loading.acquire(timeout=1.0)
    if not is_loading:
        loading.release()
    return (state.engine is None or state.engine.drain(timeout)) and not is_loading


def engine_drain_begin() -> None:
    """Turn `/readyz` red, so that new requests are sent elsewhere; those this process has accepted are answered."""
    state.name, state.reason = "draining", "This process is shutting down."
    stopping.set()


def engine_status() -> dict[str, Any]:
    """What `/readyz` shows: the state, the versions in memory, how they are served, and what is wrong."""
    status: dict[str, Any] = {
        "state": state.name,
        "pid": os.getpid(),
        "alerts": state.alerts,
        "seconds_since_look": state.seconds_since_look,
    }
    engine = state.engine
    if state.name == "ready" and engine is not None and not engine.batcher.stats().is_alive:
        return status | {"state": "failed", "reason": _THREAD_DIED}
    if state.name != "ready" or engine is None:
        return status | {"reason": state.reason}
    challenger = engine.challenger
    return status | {
        "model": {"name": engine.model_name, "version": engine.model_version},
        "previous": engine.previous and {"version": engine.previous.model_version},
        "challenger": challenger
        and {
            "version": challenger.version.model_version,
            "canary_share": challenger.rollout.canary_share,
            "shadow_share": challenger.rollout.shadow_share,
        },
        "queue": asdict(engine.batcher.stats()),
    }


def checkpoint_try(folder: Path) -> str:
    """Load the checkpoint in `folder` and caption a test image with it. Raises `IncompatibleModel`."""
    from captioner.inference.predictor import Predictor

    threads = settings.CAPTION_THREADS or None
    return Predictor.load(folder, model_version=folder.name, num_threads=threads).drawing_caption()


class PreviousServes(Exception):
    """The champion cannot be loaded, so the version before it serves; `__cause__` says why."""


def engine_make(max_wait_seconds: float | None = None) -> None:
    """Make the engine. Raises `PreviousServes` once it serves the previous champion, and what loading raises."""
    state.name, state.reason = "loading", "The model is being loaded; try again in a few seconds."
    started = time.monotonic()
    bound = settings.CAPTION_MAX_WAIT_SECONDS if max_wait_seconds is None else max_wait_seconds
    trouble: Exception | None = None
    try:
        champion = promotions.champion_get()
        try:
            engine = _engine_load(champion, bound)
        except Exception as error:  # noqa: BLE001  broken weights make the libraries raise almost anything
            trouble = error
            engine = _engine_load_previous(error, bound)
    except Exception as error:
        if state.name == "loading":
            state.name, state.reason = "failed", f"The model could not be loaded: {_public(error)}"
        raise
    engine.batcher.on_batch = metrics.batch_done
    state.engine = engine
    if state.name == "loading":  # and not told to drain meanwhile
        state.name = "ready"
    seconds = time.monotonic() - started
    metrics.model_loaded(engine.model_name, engine.model_version, seconds)
    logger.info("Serving %s, loaded and warmed in %.1f s.", engine.model_version, seconds)
    if trouble is not None:
        state.trouble_note(Alias.Name.CHAMPION, champion.pk, trouble)
        raise PreviousServes from trouble


def _engine_load(version: ModelVersion, max_wait_seconds: float) -> Engine:
    return Engine(version_load(version), max_wait_seconds=max_wait_seconds)


def _engine_load_previous(trouble: Exception, max_wait_seconds: float) -> Engine:
    """The engine with the previous champion; raises `trouble`, the champion's, when that cannot be had either."""
    previous = promotions.champion_previous()
    if previous is None:
        raise trouble
    try:
        return _engine_load(previous, max_wait_seconds)
    except Exception:
        logger.exception("The previous champion %s cannot be served either.", previous)
        raise trouble from None


def _public(error: Exception) -> str:
    """What anybody may read about `error`."""
    if isinstance(error, StoreUnavailable):
        return _STORE_AWAY
    if isinstance(error, DatabaseError):
        return _DATABASE_AWAY
    return str(error) if isinstance(error, (CaptionerError, RegistryError)) else _DEFECT
