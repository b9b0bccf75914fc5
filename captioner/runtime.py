"""This process's engine, from registry to captions, and the thread that keeps it at what the registry says.

The engine is made once per process and after the fork; torch is imported only when it is made. A web worker starts
it in the background (`engine_start`), so that liveness probes answer while it loads, and follows the registry from then
on; a command just asks for what serves now (`engine_load`).
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone
from PIL import Image

from captioner import metrics, trials
from captioner.exceptions import CaptionerError, ModelUnavailable
from captioner.inference.types import Prediction
from captioner.serving import Engine, LoadedVersion, memory_return, version_load, version_warm
from models_registry import cache, processes
from models_registry import services as registry
from models_registry.exceptions import NoChampion, RegistryError, StoreUnavailable
from models_registry.models import Alias, ModelVersion

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25  # between two looks at the registry: a rollback to a warm version takes no longer
_CHECK_SECONDS = 5.0  # between two looks at how a challenger does
_RETRY_SECONDS = (2.0, 60.0)  # after a version could not be loaded: at first, at most
_STALE_SECONDS = 60.0  # without a look at the registry that worked
_TURN_SECONDS = 1.0  # that warming a new version leaves to queued photos, before each of its batches

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
class _Trouble:
    """Why what an alias points at is not served here, and when to try again."""

    version: str
    message: str
    delay: float
    retry_at: float  # time.monotonic()


@dataclass(slots=True)
class _State:
    name: str = "stopped"  # stopped, loading, ready, failed, draining
    engine: Engine | None = None
    reason: str = "The model has not been asked for yet."
    troubles: dict[str, _Trouble] = field(default_factory=dict)  # by alias
    looked_at: float | None = None  # time.monotonic() of the follower's last look that worked
    look_failed: bool = False  # in a way that nobody foresaw
    loader: threading.Thread | None = None
    started_at: datetime = field(default_factory=timezone.now)


_state = _State()
_lock = threading.Lock()  # held while anything is loaded
_switching = threading.Lock()  # held for a moment, while what is loaded takes or leaves its place
_stop = threading.Event()


# --- The engine -------------------------------------------------------------------------------------------------


def engine() -> Engine:
    """This process's engine. Raises `ModelUnavailable` while there is none; see `engine_start`."""
    if _state.engine is None:
        raise ModelUnavailable(_state.reason)
    return _state.engine


def engine_start() -> None:
    """Load and warm the champion in a background thread, which follows the registry from then on.

    `engine_status` says when the engine is ready.
    """
    _stop.clear()
    _state.looked_at = time.monotonic()
    threading.Thread(target=_follow_forever, name="registry-follower", daemon=True).start()


def engine_load(max_wait_seconds: float | None = None) -> Engine:
    """Load and warm the champion in this thread, unless that was done; a command drains it when it is done.

    `max_wait_seconds` bounds the queue, by default as the settings say.

    Raises `RegistryError` when there is no usable version, `IncompatibleModel` when it is no captioner.
    """
    with _lock:
        if _state.engine is None:
            with suppress(_PreviousServes):
                _engine_make(max_wait_seconds)
    return engine()


def engine_refresh(max_wait_seconds: float | None = None) -> Engine:
    """`engine_load`; where an engine was loaded before, it is brought to the champion of now.

    For workers that live long and do not follow the registry. A champion that cannot be loaded leaves the one before.
    """
    engine = engine_load(max_wait_seconds)
    for missing in _look(Alias.Name.CHAMPION):
        _load(*missing)
    return engine


def engine_drain(timeout: float) -> bool:
    """Refuse new work at once and finish what was accepted, for at most `timeout` seconds.

    Returns whether nothing runs any more; a model that is being loaded cannot be stopped.
    """
    engine_drain_begin()
    drained = _state.engine is None or _state.engine.drain(timeout)
    # A look at the registry is over in a moment; loading is not.
    if not _lock.acquire(timeout=1.0):
        return False
    _lock.release()
    return drained


def engine_drain_begin() -> None:
    """Turn `/readyz` red, so that new requests are sent elsewhere; those this process has accepted are answered."""
    _state.name, _state.reason = "draining", "This process is shutting down."
    _stop.set()


def engine_status() -> dict[str, Any]:
    """What `/readyz` shows: the state, the versions in memory, how they are served, and what is wrong."""
    status: dict[str, Any] = {
        "state": _state.name,
        "pid": os.getpid(),
        "alerts": _alerts(),
        "seconds_since_look": _seconds_since_look(),
    }
    engine = _state.engine
    if _state.name == "ready" and engine is not None and not engine.batcher.stats().is_alive:
        return status | {"state": "failed", "reason": _THREAD_DIED}
    if _state.name != "ready" or engine is None:
        return status | {"reason": _state.reason}
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
        "precision": asdict(engine.champion.predictor.precision),
        "queue": asdict(engine.batcher.stats()),
    }


def checkpoint_try(folder: Path) -> str:
    """Load the checkpoint in `folder` and caption a test image with it. Raises `IncompatibleModel`."""
    from captioner.inference.predictor import Predictor

    predictor = Predictor.load(
        folder,
        model_version=folder.name,
        precision="fp32",
        num_threads=settings.CAPTION_THREADS or None,
    )
    pixels = predictor.preprocess(Image.linear_gradient("L").convert("RGB"))
    [[best, *_]] = predictor.predict(pixels[None], predictor.default_parameters)
    return best.caption


class _PreviousServes(Exception):
    """The champion cannot be loaded, so the version before it serves; `__cause__` says why."""


def _engine_make(max_wait_seconds: float | None = None) -> None:
    """Make the engine. Raises `_PreviousServes` once it serves the previous champion, and what loading raises."""
    _state.name, _state.reason = "loading", "The model is being loaded; try again in a few seconds."
    started = time.monotonic()
    bound = settings.CAPTION_MAX_WAIT_SECONDS if max_wait_seconds is None else max_wait_seconds
    trouble: Exception | None = None
    try:
        champion = registry.champion_get()
        try:
            engine = _engine_load(champion, bound)
        except Exception as error:  # noqa: BLE001  broken weights make the libraries raise almost anything
            trouble = error
            engine = _engine_load_previous(error, bound)
    except Exception as error:
        if _state.name == "loading":
            _state.name, _state.reason = "failed", f"The model could not be loaded: {_public(error)}"
        raise
    engine.batcher.on_batch = metrics.batch_done
    _state.engine = engine
    if _state.name == "loading":  # and not told to drain meanwhile
        _state.name = "ready"
    seconds = time.monotonic() - started
    metrics.model_loaded(engine.model_name, engine.model_version, seconds)
    logger.info("Serving %s, loaded and warmed in %.1f s.", engine.model_version, seconds)
    if trouble is not None:
        _trouble_note(Alias.Name.CHAMPION, champion.pk, trouble)
        raise _PreviousServes from trouble


def _engine_load(version: ModelVersion, max_wait_seconds: float) -> Engine:
    return Engine(version_load(version), max_wait_seconds=max_wait_seconds)


def _engine_load_previous(trouble: Exception, max_wait_seconds: float) -> Engine:
    """The engine with the previous champion; raises `trouble`, the champion's, when that cannot be had either."""
    previous = registry.champion_previous()
    if previous is None:
        raise trouble
    try:
        return _engine_load(previous, max_wait_seconds)
    except Exception:
        logger.exception("The previous champion %s cannot be served either.", previous)
        raise trouble from None


# --- Following the registry ---------------------------------------------------------------------------------------


def registry_follow() -> None:
    """Serve what the registry says now; what cannot be loaded leaves the old version serving, and an alert.

    Raises `DatabaseError`.
    """
    for _ in Alias.Name:  # the champion first; what else is missing shows once there is an engine
        for missing in _look(*Alias.Name)[:1]:
            _load(*missing)


def _follow_forever() -> None:
    """Look and look again; loading, which takes long, is done by a second thread."""
    turn = _Turn()
    while not _stop.is_set():
        try:
            turn.take()
            _state.looked_at, _state.look_failed = time.monotonic(), False
        except DatabaseError as error:
            _database_failed(error)
        except Exception:  # whatever it is, this thread must not end before the process
            if not _state.look_failed:
                logger.exception("A look at the registry failed.")
            _state.look_failed = True
        finally:
            _connection_close()
        _stop.wait(_LOOK_SECONDS)


class _Turn:
    """What the follower does again and again: look, check the challenger, report."""

    def __init__(self) -> None:
        self._reported_at = self._checked_at = -float("inf")
        self._said: list[str] = []

    def take(self) -> None:
        self._load_missing(_look(*Alias.Name))
        now = time.monotonic()
        if now - self._checked_at > _CHECK_SECONDS and _state.engine is not None and _state.engine.challenger:
            trials.challenger_check()
            self._checked_at = now
        if now - self._reported_at > processes.REPORT_SECONDS or _alerts() != self._said:
            _report()
            self._reported_at, self._said = now, _alerts()

    def _load_missing(self, missing: list["_Missing"]) -> None:
        if missing and (_state.loader is None or not _state.loader.is_alive()):
            _state.loader = threading.Thread(
                target=_load_in_background, args=missing[0], name="loader", daemon=True
            )
            _state.loader.start()


_Missing = tuple[Alias.Name, ModelVersion | None]


def _look(*aliases: Alias.Name) -> list[_Missing]:
    """Do what the registry asks for and needs no loading; returns what does, the champion first."""
    with _switching:
        # Read inside: otherwise what was read before a switch could undo it.
        wanted = registry.aliases_get()
        engine = _state.engine
        if engine is None:
            missing = [(Alias.Name.CHAMPION, wanted.get(Alias.Name.CHAMPION))]
            return [each for each in missing if not _is_postponed(*each)]
        missing = [
            (alias, version)
            for alias, version in ((alias, wanted.get(alias)) for alias in aliases)
            if not _is_postponed(alias, version)
            and not _attempt(alias, version, partial(_SERVE[alias], engine, version))
        ]
        challenger = engine.challenger
        metrics.canary_share.set(challenger.rollout.canary_share if challenger else 0)
    if engine.stopped_forget():
        memory_return()
    return missing


def _load(alias: Alias.Name, version: ModelVersion | None) -> None:
    """Load what is missing and let it take its place, if it is wanted still."""
    with _lock:
        _attempt(alias, version, partial(_load_and_serve, alias, version))


def _load_in_background(alias: Alias.Name, version: ModelVersion | None) -> None:
    try:
        _load(alias, version)
    except Exception:  # the database, most likely; the next look begins anew
        logger.exception("Loading the %s was interrupted.", alias)
    finally:
        _connection_close()


def _load_and_serve(alias: Alias.Name, version: ModelVersion | None) -> bool:
    engine = _state.engine
    if engine is None:
        _engine_make()
        return True
    assert version is not None  # noqa: S101  nothing to load is not missing
    started = time.monotonic()
    loaded = _load_beside(engine, version)
    with _switching:
        is_wanted = registry.aliases_get().get(alias) == version
        if is_wanted:
            _SERVE[alias](engine, version, loaded)
    seconds = time.monotonic() - started
    if is_wanted:
        metrics.model_load_seconds.set(seconds)
        logger.info("The %s %s was loaded and warmed in %.1f s.", alias, version, seconds)
    else:
        logger.info("The %s %s is wanted no more; loaded for nothing.", alias, version)
    del loaded
    memory_return()
    return True


def _is_postponed(alias: Alias.Name, version: ModelVersion | None) -> bool:
    trouble = _state.troubles.get(alias)
    pk = version.pk if version else ""
    return trouble is not None and trouble.version == pk and time.monotonic() < trouble.retry_at


def _attempt(alias: Alias.Name, version: ModelVersion | None, step: Callable[[], bool]) -> bool:
    """Take `step`; returns whether nothing is left to do for now, be it that there is trouble."""
    try:
        is_done = step()
    except DatabaseError:
        raise
    except _PreviousServes:  # which is noted already
        return True
    except Exception as error:  # noqa: BLE001  broken weights make the libraries raise almost anything
        _trouble_note(alias, version.pk if version else "", error)
        return True
    if is_done and alias in _state.troubles:
        del _state.troubles[alias]
        logger.warning("The trouble with the %s is over.", alias)
    return is_done


def _public(error: Exception) -> str:
    """What anybody may read about `error`."""
    if isinstance(error, StoreUnavailable):
        return _STORE_AWAY
    if isinstance(error, DatabaseError):
        return _DATABASE_AWAY
    return str(error) if isinstance(error, (CaptionerError, RegistryError)) else _DEFECT


def _trouble_note(alias: str, version: str, error: Exception) -> None:
    before = _state.troubles.get(alias)
    first, most = _RETRY_SECONDS
    delay = min(2 * before.delay, most) if before is not None and before.version == version else first
    message = f"The {alias} {version} cannot be served: {_public(error)}" if version else _public(error)
    _state.troubles[alias] = _Trouble(version, message, delay, time.monotonic() + delay)
    if before is None or before.message != message:
        is_expected = isinstance(error, (CaptionerError, RegistryError))
        logger.error("%s (%s)", message, error, exc_info=None if is_expected else error)


def _champion_follow(
    engine: Engine, version: ModelVersion | None, loaded: LoadedVersion | None = None
) -> bool:
    """Serve `version`; returns whether it does, or must be loaded first."""
    if version is None:
        raise NoChampion("There is no champion any more; the last one goes on serving.")
    if version.pk == engine.model_version:
        return True
    started = time.monotonic()
    loaded = loaded or engine.loaded(version.pk)
    if loaded is None:
        return False
    engine.champion_swap(loaded)
    seconds = time.monotonic() - started
    metrics.model_loaded(version.model_name, version.pk, seconds)
    logger.info("Serving %s.", version)
    return True


def _challenger_follow(
    engine: Engine, version: ModelVersion | None, loaded: LoadedVersion | None = None
) -> bool:
    """Try `version`; returns whether it is tried, or must be loaded first."""
    standing = engine.challenger
    if standing is not None and (version is None or version.pk != standing.version.model_version):
        engine.challenger_stop()
        logger.info("The challenger %s is tried no more.", standing.version.model_version)
    if version is None:
        return True
    rollout = registry.rollout_get()
    if engine.challenger is not None:
        engine.challenger.rollout = rollout
        return True
    if version.pk == engine.model_version:
        return True
    loaded = loaded or engine.loaded(version.pk)
    if loaded is None:
        return False
    engine.challenger_start(loaded, rollout, _shadow_report)
    logger.info("Trying the challenger %s: %s.", version, rollout)
    return True


_SERVE = {Alias.Name.CHAMPION: _champion_follow, Alias.Name.CHALLENGER: _challenger_follow}


def _shadow_report(caption: uuid.UUID, model_version: str, outcome: Prediction | Exception) -> None:
    try:
        trials.trial_record(caption, model_version, outcome)
    finally:
        _connection_close()  # the thread that calls this lives long and seldom needs it


def _load_beside(engine: Engine, version: ModelVersion) -> LoadedVersion:
    """Load a version while others serve. Three versions at most are in memory: the one before the last goes first."""
    folder = registry.version_fetch(version)  # what cannot be had costs nothing that is warm
    with _switching:
        is_crowded = engine.challenger is not None and engine.previous is not None
        if is_crowded:
            engine.previous = None
    if is_crowded:
        memory_return()
    loaded = version_load(version, folder)
    version_warm(loaded, partial(engine.turn_wait, _TURN_SECONDS))
    needed = {each.model_version for each in engine.versions()} | {version.pk}
    if removed := cache.cache_clean(keep=needed):
        logger.info("Removed from the cache of fetched versions: %s.", ", ".join(removed))
    return loaded


def _alerts() -> list[str]:
    alerts = [trouble.message for trouble in list(_state.troubles.values())]
    if _state.look_failed:
        alerts.append(_LOOK_FAILED)
    if (seconds := _seconds_since_look()) is not None and seconds > _STALE_SECONDS:
        alerts.append(_STALE)
    return alerts


def _seconds_since_look() -> float | None:
    """None in a process that does not follow the registry."""
    return None if _state.looked_at is None else round(time.monotonic() - _state.looked_at, 1)


def _connection_close() -> None:
    with suppress(Exception):  # one that is broken already
        connection.close()


def _report() -> None:
    engine = _state.engine
    challenger = engine.challenger if engine else None
    processes.process_report(
        state=_state.name,
        champion=engine.model_version if engine else "",
        previous=engine.previous.model_version if engine and engine.previous else "",
        challenger=challenger.version.model_version if challenger else "",
        alerts=_alerts(),
        started_at=_state.started_at,
    )


def _database_failed(error: DatabaseError) -> None:
    if _state.engine is None and _state.name != "draining":
        _state.name, _state.reason = "failed", _DATABASE_AWAY
    logger.warning("The database cannot be asked what to serve: %s", error)
