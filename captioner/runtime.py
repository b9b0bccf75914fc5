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
from dataclasses import asdict, dataclass, field
from datetime import datetime
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
from models_registry.exceptions import NoChampion, RegistryError
from models_registry.models import Alias, ModelVersion

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5  # between two looks at the registry: a rollback to a warm version takes no longer
_CHECK_SECONDS = 5.0  # between two looks at how a challenger does
_RETRY_SECONDS = (2.0, 60.0)  # after a version could not be loaded: at first, at most


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
    started_at: datetime = field(default_factory=timezone.now)


_state = _State()
_lock = threading.Lock()  # held while anything is loaded
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
    threading.Thread(target=_follow_forever, name="registry-follower", daemon=True).start()


def engine_load(max_wait_seconds: float | None = None) -> Engine:
    """Load and warm the champion in this thread, unless that was done; a command drains it when it is done.

    `max_wait_seconds` bounds the queue, by default as the settings say.

    Raises `RegistryError` when there is no usable version, `IncompatibleModel` when it is no captioner.
    """
    with _lock:
        if _state.engine is None:
            _engine_make(registry.champion_get, max_wait_seconds)
    return engine()


def engine_refresh(max_wait_seconds: float | None = None) -> Engine:
    """`engine_load`; where an engine was loaded before, it is brought to the champion of now.

    For workers that live long and do not follow the registry. A champion that cannot be loaded leaves the one before.
    """
    engine = engine_load(max_wait_seconds)
    with _lock:
        _follow(Alias.Name.CHAMPION, registry.aliases_get().get(Alias.Name.CHAMPION), _champion_follow)
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
    status: dict[str, Any] = {"state": _state.name, "pid": os.getpid(), "alerts": _alerts()}
    engine = _state.engine
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


def _engine_make(champion: Callable[[], ModelVersion], max_wait_seconds: float | None = None) -> None:
    _state.name, _state.reason = "loading", "The model is being loaded; try again in a few seconds."
    started = time.monotonic()
    bound = settings.CAPTION_MAX_WAIT_SECONDS if max_wait_seconds is None else max_wait_seconds
    try:
        _state.engine = Engine(version_load(champion()), max_wait_seconds=bound)
        _state.engine.batcher.on_batch = metrics.batch_done
    except Exception as error:
        if _state.name == "loading":
            _state.name, _state.reason = "failed", f"The model could not be loaded: {error}"
        raise
    if _state.name == "loading":  # and not told to drain meanwhile
        _state.name = "ready"
    seconds = time.monotonic() - started
    metrics.model_loaded(_state.engine.model_name, _state.engine.model_version, seconds)
    logger.info("Serving %s, loaded and warmed in %.1f s.", _state.engine.model_version, seconds)


# --- Following the registry ---------------------------------------------------------------------------------------


def registry_follow() -> None:
    """Serve what the registry says now; what cannot be loaded leaves the old version serving, and an alert.

    Raises `DatabaseError`.
    """
    wanted = registry.aliases_get()
    with _lock:
        _follow(Alias.Name.CHAMPION, wanted.get(Alias.Name.CHAMPION), _champion_follow)
        if _state.engine is not None:
            _follow(Alias.Name.CHALLENGER, wanted.get(Alias.Name.CHALLENGER), _challenger_follow)
            challenger = _state.engine.challenger
            metrics.canary_share.set(challenger.rollout.canary_share if challenger else 0)


def _follow_forever() -> None:
    reported_at = checked_at = -float("inf")
    said: list[str] = []
    while not _stop.is_set():
        try:
            registry_follow()
            now = time.monotonic()
            if now - checked_at > _CHECK_SECONDS and _state.engine is not None and _state.engine.challenger:
                trials.challenger_check()
                checked_at = now
            if now - reported_at > processes.REPORT_SECONDS or _alerts() != said:
                _report()
                reported_at, said = now, _alerts()
        except DatabaseError as error:
            _database_failed(error)
        finally:
            connection.close()
        _stop.wait(_LOOK_SECONDS)


def _follow(
    alias: Alias.Name, version: ModelVersion | None, serve: Callable[[ModelVersion | None], None]
) -> None:
    trouble = _state.troubles.get(alias)
    pk = version.pk if version else ""
    if trouble is not None and trouble.version == pk and time.monotonic() < trouble.retry_at:
        return
    try:
        serve(version)
    except (CaptionerError, RegistryError) as error:
        _trouble_note(alias, pk, str(error))
    except DatabaseError:
        raise
    except Exception as error:
        # Broken weights make the libraries raise almost anything; whatever it is, the old version goes on serving.
        logger.exception("The %s %s cannot be served.", alias, pk)
        _trouble_note(alias, pk, f"{type(error).__name__}: {error}")
    else:
        if _state.troubles.pop(alias, None):
            logger.warning("The trouble with the %s is over.", alias)


def _trouble_note(alias: str, version: str, error: str) -> None:
    before = _state.troubles.get(alias)
    first, most = _RETRY_SECONDS
    delay = min(2 * before.delay, most) if before is not None and before.version == version else first
    message = f"The {alias} {version} cannot be served: {error}" if version else error
    _state.troubles[alias] = _Trouble(version, message, delay, time.monotonic() + delay)
    if before is None or before.message != message:
        logger.error(message)


def _champion_follow(version: ModelVersion | None) -> None:
    engine = _state.engine
    if engine is None:
        _engine_make(registry.champion_get)
        return
    if version is None:
        raise NoChampion("There is no champion any more; the last one goes on serving.")
    if version.pk == engine.model_version:
        return
    started = time.monotonic()
    loaded = engine.loaded(version.pk) or _load_beside(engine, version)
    engine.champion_swap(loaded)
    seconds = time.monotonic() - started
    metrics.model_loaded(version.model_name, version.pk, seconds)
    logger.info("Serving %s, swapped in within %.1f s.", version, seconds)
    memory_return()


def _challenger_follow(version: ModelVersion | None) -> None:
    engine = _state.engine
    assert engine is not None  # noqa: S101  the caller has looked
    standing = engine.challenger
    if standing is not None and (version is None or version.pk != standing.version.model_version):
        engine.challenger_stop()
        memory_return()
        logger.info("The challenger %s is tried no more.", standing.version.model_version)
    if version is None:
        return
    rollout = registry.rollout_get()
    if engine.challenger is not None:
        engine.challenger.rollout = rollout
        return
    if version.pk != engine.model_version:
        loaded = engine.loaded(version.pk) or _load_beside(engine, version)
        engine.challenger_start(loaded, rollout, _shadow_report)
        logger.info("Trying the challenger %s: %s.", version, rollout)


def _shadow_report(caption: uuid.UUID, model_version: str, outcome: Prediction | Exception) -> None:
    try:
        trials.trial_record(caption, model_version, outcome)
    finally:
        connection.close()  # the thread that calls this lives long and seldom needs it


def _load_beside(engine: Engine, version: ModelVersion) -> LoadedVersion:
    """Load a version while others serve. Three versions at most are in memory: the one before the last goes first."""
    if engine.challenger is not None and engine.previous is not None:
        engine.previous = None
        memory_return()
    loaded = version_load(version)
    version_warm(loaded)
    needed = {each.model_version for each in engine.versions()} | {version.pk}
    if removed := cache.cache_clean(keep=needed):
        logger.info("Removed from the cache of fetched versions: %s.", ", ".join(removed))
    return loaded


def _alerts() -> list[str]:
    return [trouble.message for trouble in list(_state.troubles.values())]


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
        _state.name, _state.reason = "failed", f"The database cannot be asked what to serve: {error}"
    logger.warning("The database cannot be asked what to serve: %s", error)
