"""The thread that keeps this process's engine at what the registry says: looking, loading, swapping.

It looks often and never waits for what takes long: a second thread loads what is missing beside what serves, and what
is in memory already takes its place at once. What cannot be loaded leaves the old version serving, and an alert.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from django.db import DatabaseError, connection

from captioner.ops import metrics
from captioner.serving import runtime, trials
from captioner.serving.engine import Engine, LoadedVersion, memory_return, version_load, version_warm
from models_registry import cache, processes, promotions, versions
from models_registry.exceptions import NoChampion
from models_registry.models import Alias, ModelVersion

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25  # between two looks at the registry: a rollback to a warm version takes no longer
_CHECK_SECONDS = 5.0  # between two looks at how a challenger does
_TURN_SECONDS = 1.0  # that warming a new version leaves to queued photos, before each of its batches

_switching = threading.Lock()  # held for a moment, while what is loaded takes or leaves its place


def engine_start() -> None:
    """Load and warm the champion in a background thread, which follows the registry from then on.

    `runtime.engine_status` says when the engine is ready.
    """
    runtime.stopping.clear()
    runtime.state.looked()  # from now on it counts how long ago the last one was
    for alias in Alias.Name:
        metrics.versions_refused.labels(alias).set(0)  # shown from the start
    threading.Thread(target=_follow_forever, name="registry-follower", daemon=True).start()


def engine_refresh(max_wait_seconds: float | None = None) -> Engine:
    """`runtime.engine_load`; where an engine was loaded before, it is brought to the champion of now.

    For workers that live long and do not follow the registry. A champion that cannot be loaded leaves the one before.
    """
    engine = runtime.engine_load(max_wait_seconds)
    for missing in _look(Alias.Name.CHAMPION):
        _load(*missing)
    return engine


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
    while not runtime.stopping.is_set():
        try:
            turn.take()
            runtime.state.looked()
        except DatabaseError as error:
            runtime.state.database_failed(error)
        except Exception:  # whatever it is, this thread must not end before the process
            if not runtime.state.look_failed:
                logger.exception("A look at the registry failed.")
            runtime.state.look_failed = True
        finally:
            _connection_close()
        runtime.stopping.wait(_LOOK_SECONDS)


class _Turn:
    """What the follower does again and again: look, check the challenger, report."""

    def __init__(self) -> None:
        self._reported_at = self._checked_at = -float("inf")
        self._said: list[str] = []
        self._loader: threading.Thread | None = None

    def take(self) -> None:
        self._load_missing(_look(*Alias.Name))
        now = time.monotonic()
        if (
            now - self._checked_at > _CHECK_SECONDS
            and runtime.state.engine is not None
            and runtime.state.engine.challenger
        ):
            trials.challenger_check()
            self._checked_at = now
        if now - self._reported_at > processes.REPORT_SECONDS or runtime.state.alerts != self._said:
            _report()
            self._reported_at, self._said = now, runtime.state.alerts

    def _load_missing(self, missing: list["_Missing"]) -> None:
        if missing and (self._loader is None or not self._loader.is_alive()):
            self._loader = threading.Thread(
                target=_load_in_background, args=missing[0], name="loader", daemon=True
            )
            self._loader.start()


_Missing = tuple[Alias.Name, ModelVersion | None]


def _look(*aliases: Alias.Name) -> list[_Missing]:
    """Do what the registry asks for and needs no loading; returns what does, the champion first."""
    with _switching:
        # Read inside: otherwise what was read before a switch could undo it.
        wanted = promotions.aliases_get()
        engine = runtime.state.engine
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
    with runtime.loading:
        if not runtime.stopping.is_set():  # nobody would drain it
            _attempt(alias, version, partial(_load_and_serve, alias, version))


def _load_in_background(alias: Alias.Name, version: ModelVersion | None) -> None:
    try:
        _load(alias, version)
    except Exception:  # the database, most likely; the next look begins anew
        logger.exception("Loading the %s was interrupted.", alias)
    finally:
        _connection_close()


def _load_and_serve(alias: Alias.Name, version: ModelVersion | None) -> bool:
    engine = runtime.state.engine
    if engine is None:
        runtime.engine_make()
        return True
    assert version is not None  # noqa: S101  nothing to load is not missing
    started = time.monotonic()
    loaded = _load_beside(engine, version)
    with _switching:
        is_wanted = promotions.aliases_get().get(alias) == version
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
    return runtime.state.is_postponed(alias, version.pk if version else "")


def _attempt(alias: Alias.Name, version: ModelVersion | None, step: Callable[[], bool]) -> bool:
    """Take `step`; returns whether nothing is left to do for now, be it that there is trouble."""
    try:
        is_done = step()
    except DatabaseError:
        raise
    except runtime.PreviousServes:  # which is noted already
        return True
    except Exception as error:  # noqa: BLE001  broken weights make the libraries raise almost anything
        runtime.state.trouble_note(alias, version.pk if version else "", error)
        return True
    if is_done:
        runtime.state.trouble_end(alias)
    return is_done


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
    rollout = promotions.rollout_get()
    if engine.challenger is not None:
        engine.challenger.rollout = rollout
        return True
    if version.pk == engine.model_version:
        return True
    loaded = loaded or engine.loaded(version.pk)
    if loaded is None:
        return False
    engine.challenger_start(loaded, rollout, trials.trial_record)
    logger.info("Trying the challenger %s: %s.", version, rollout)
    return True


_SERVE = {Alias.Name.CHAMPION: _champion_follow, Alias.Name.CHALLENGER: _challenger_follow}


def _load_beside(engine: Engine, version: ModelVersion) -> LoadedVersion:
    """Load a version while others serve. Three versions at most are in memory: the one before the last goes first."""
    folder = versions.version_fetch(version)  # what cannot be had costs nothing that is warm
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


def _connection_close() -> None:
    with suppress(Exception):  # one that is broken already
        connection.close()


def _report() -> None:
    engine = runtime.state.engine
    challenger = engine.challenger if engine else None
    processes.process_report(
        state=runtime.state.name,
        champion=engine.model_version if engine else "",
        previous=engine.previous.model_version if engine and engine.previous else "",
        challenger=challenger.version.model_version if challenger else "",
        alerts=runtime.state.alerts,
        started_at=runtime.state.started_at,
    )
