"""What this process serves: one object owns the engine, its state, its lock and whoever loads.

There is one per process, made after the fork; torch is imported with the first version. A command just asks for what
serves now (`load`); a web worker keeps at what the registry says, step by step: see `follower`.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from captioner.captions.memory import memory
from captioner.exceptions import CaptionerError, ModelUnavailable
from captioner.ops import metrics
from captioner.serving import trials
from captioner.serving.engine import Engine
from captioner.serving.loaded_version import LoadedVersion, memory_return, version_load, version_warm
from models_registry import cache, promotions, versions
from models_registry.exceptions import NoChampion, RegistryError, StoreUnavailable
from models_registry.models import Alias, ModelVersion

logger = logging.getLogger(__name__)

RETRY_SECONDS = (2.0, 60.0)  # after a version could not be loaded: at first, at most
STALE_SECONDS = 60.0  # without a look at the registry that worked
_TURN_SECONDS = 1.0  # that warming a new version leaves to queued photos, before each of its batches

# Shown to anybody who asks: nothing of what a server told us, which may name hosts and users.
_STORE_AWAY = "The store of the weights cannot be reached; the log says more."
_DATABASE_AWAY = "The database cannot be asked what to serve; the log says more."
_DEFECT = "It cannot be loaded; the log says why."
_THREAD_DIED = (
    "The thread that captions photos has ended; this process needs a restart, and the log says why."
)
LOOK_FAILED = "A look at the registry failed; the log says why."
STALE = "The registry was not looked at for more than a minute; what serves here may be out of date."


@dataclass(slots=True)
class Trouble:
    """Why what an alias points at is not served here, and when to try again."""

    version: str
    message: str
    delay: float
    retry_at: float  # time.monotonic()


class Change(NamedTuple):
    """What a step did: a version serves from now on, is tried, is tried no more, or is being loaded."""

    action: Literal["serve", "try", "end", "load"]
    version: str


def in_thread(work: Callable[[], None]) -> None:
    """Do `work` in a thread of its own."""

    def run() -> None:
        try:
            work()
        finally:
            with suppress(Exception):  # one that is broken already
                connection.close()

    threading.Thread(target=run, name="loader", daemon=True).start()


class Serving:
    """The engine of this process and what is wrong with it. All methods may be called from any thread.

    `run` does what it is given, which loads a version and takes its time.
    """

    def __init__(self, run: Callable[[Callable[[], None]], None] = in_thread) -> None:
        self.state = "stopped"  # stopped, loading, ready, failed, draining
        self.reason = "The model has not been asked for yet."
        self.troubles: dict[Alias.Name, Trouble] = {}
        self.looked_at: float | None = None  # time.monotonic() of the last look at the registry that worked
        self.started_at = timezone.now()
        self.stopping = threading.Event()
        self._run = run
        self._engine: Engine | None = None
        self._loaded: LoadedVersion | None = None  # and without a place in the engine yet
        self._loading = threading.Lock()  # held while anything is loaded
        self._switching = threading.Lock()  # held for a moment, while versions take or leave their places
        self._look_failed = False  # in a way that nobody foresaw

    # --- For whoever captions --------------------------------------------------------------------------------------

    def engine(self) -> Engine:
        """This process's engine. Raises `ModelUnavailable` while there is none."""
        if self._engine is None:
            raise ModelUnavailable(self.reason)
        return self._engine

    def load(self, max_wait_seconds: float | None = None) -> Engine:
        """Load and warm the champion in this thread, unless that was done; a command drains it when it is done.

        `max_wait_seconds` bounds the queue, by default as the settings say.

        Raises `RegistryError` when there is no usable version, `IncompatibleModel` when it is no captioner.
        """
        with self._loading:
            if self._engine is None:
                self._engine_make(max_wait_seconds)
        return self.engine()

    def refresh(self, max_wait_seconds: float | None = None) -> Engine:
        """`load`; where an engine was loaded before, it is brought to the champion of now.

        For workers that live long and do not follow the registry. A champion that cannot be loaded leaves the one
        before.
        """
        engine = self.load(max_wait_seconds)
        with self._loading:
            _, missing = self._look([Alias.Name.CHAMPION])
            for alias, version in missing:
                self._missing_load(alias, version)
                self._look([Alias.Name.CHAMPION])
        return engine

    # --- For whoever follows the registry --------------------------------------------------------------------------

    def follow_begin(self) -> None:
        """From now on it counts how long ago the last look at the registry was, and alerts are shown from zero."""
        self.looked_at = time.monotonic()
        for alias in Alias.Name:
            metrics.versions_refused.labels(alias).set(0)

    def step(self) -> list[Change]:
        """Look at the registry once and do what it asks for; returns what was done.

        What is in memory takes or leaves its place at once. What is not is loaded by `run`, one version at a time and
        the champion first, and takes its place in a later step, if it is wanted still. What cannot be loaded leaves the
        old version serving, and an alert. Raises `DatabaseError`.
        """
        # Taken before the look: what a loader brought meanwhile would otherwise be seen as missing, and loaded again.
        may_load = not self.stopping.is_set() and self._loading.acquire(blocking=False)
        try:
            changes, missing = self._look(list(Alias.Name))
            if may_load and missing:
                alias, version = missing[0]

                def work() -> None:
                    try:
                        self._missing_load(alias, version)
                    finally:
                        self._loading.release()

                self._run(work)  # RuntimeError where the system has no thread left
                may_load = False  # it is the loader's now
                changes.append(Change("load", version.pk if version else ""))
        finally:
            if may_load:
                self._loading.release()
        self.looked_at = time.monotonic()
        metrics.registry_looked_at.set_to_current_time()
        return changes

    def turn_done(self) -> None:
        """A step worked, and whatever its follower does besides."""
        self._look_failed = False

    def turn_failed(self, error: Exception) -> None:
        """A step, or what its follower does besides, raised `error`; one that keeps coming is logged once."""
        if not isinstance(error, DatabaseError):
            if not self._look_failed:
                logger.error("A look at the registry failed.", exc_info=error)
            self._look_failed = True
            return
        if self._engine is None and self.state != "draining":
            self.state, self.reason = "failed", _DATABASE_AWAY
        logger.warning("The database cannot be asked what to serve: %s", error)

    # --- For whoever ends it ---------------------------------------------------------------------------------------

    def drain_begin(self) -> None:
        """Turn `/readyz` red, so that new requests are sent elsewhere; those this process has accepted are answered."""
        self.state, self.reason = "draining", "This process is shutting down."
        self.stopping.set()

    def drain(self, timeout: float) -> bool:
        """Refuse new work at once and finish what was accepted, for at most `timeout` seconds.

        Returns whether nothing runs any more; a model that is being loaded cannot be stopped.
        """
        self.drain_begin()
        # The end of a load is waited for, not all of it. What it ends with has a thread to be drained, too.
        is_loading = not self._loading.acquire(timeout=1.0)
        if not is_loading:
            self._loading.release()
        return (self._engine is None or self._engine.drain(timeout)) and not is_loading

    # --- For whoever asks how it is --------------------------------------------------------------------------------

    @property
    def alerts(self) -> list[str]:
        """What does not work as it should, for anybody to read."""
        alerts = [trouble.message for trouble in list(self.troubles.values())]
        if self._look_failed:
            alerts.append(LOOK_FAILED)
        if self.looked_at is not None and time.monotonic() - self.looked_at > STALE_SECONDS:
            alerts.append(STALE)
        return alerts + memory.alerts

    @property
    def versions(self) -> dict[str, str]:
        """The ids of what is in memory: `champion`, `previous` and `challenger`, each empty where there is none."""
        engine = self._engine
        challenger = engine.challenger if engine else None
        return {
            "champion": engine.model_version if engine else "",
            "previous": engine.previous.model_version if engine and engine.previous else "",
            "challenger": challenger.version.model_version if challenger else "",
        }

    @property
    def encoders(self) -> list[str]:
        """The names of the encoders in memory, the champion's first; see `Embedder.encoder`."""
        engine = self._engine
        return list(dict.fromkeys(each.predictor.encoder for each in engine.versions())) if engine else []

    def status(self) -> dict[str, Any]:
        """What `/readyz` shows: the state, the versions in memory, how they are served, and what is wrong."""
        status: dict[str, Any] = {
            "state": self.state,
            "pid": os.getpid(),
            "alerts": self.alerts,
            # None in a process that does not follow the registry.
            "seconds_since_look": self.looked_at and round(time.monotonic() - self.looked_at, 1),
        }
        engine = self._engine
        if self.state == "ready" and engine is not None and not engine.batcher.stats().is_alive:
            return status | {"state": "failed", "reason": _THREAD_DIED}
        if self.state != "ready" or engine is None:
            return status | {"reason": self.reason}
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

    # --- Looking ---------------------------------------------------------------------------------------------------

    def _look(
        self, aliases: list[Alias.Name]
    ) -> tuple[list[Change], list[tuple[Alias.Name, ModelVersion | None]]]:
        """Do what the registry asks for and needs no loading; returns what was done, and what must be loaded first."""
        changes: list[Change] = []
        missing: list[tuple[Alias.Name, ModelVersion | None]] = []
        with self._switching:
            # Read inside: otherwise what was read before a switch could undo it.
            wanted = promotions.aliases_get()
            loaded, self._loaded = self._loaded, None
            engine = self._engine
            for alias in aliases if engine is not None else [Alias.Name.CHAMPION]:
                version = wanted.get(alias)
                trouble, pk = self.troubles.get(alias), version.pk if version else ""
                if trouble and trouble.version == pk and time.monotonic() < trouble.retry_at:
                    continue  # it is too early to try this version again
                if engine is None:
                    missing.append((alias, version))
                    continue
                follow = self._champion_follow if alias == Alias.Name.CHAMPION else self._challenger_follow
                try:
                    is_done = follow(engine, version, loaded, changes)
                except DatabaseError:
                    raise
                except Exception as error:  # noqa: BLE001  whatever it is, the old version goes on serving
                    self._trouble_note(alias, version, error)
                    continue
                if not is_done:
                    missing.append((alias, version))
                elif self.troubles.pop(alias, None) is not None:
                    logger.warning("The trouble with the %s is over.", alias)
                    metrics.versions_refused.labels(alias).set(0)
            if engine is None:
                return changes, missing
            metrics.canary_share.set(engine.challenger.rollout.canary_share if engine.challenger else 0)
        for change in changes:
            logger.info("%s: %s", change.action, change.version)
        if loaded is not None and engine.loaded(loaded.model_version) is None:
            logger.info("%s is wanted no more; loaded for nothing.", loaded.model_version)
        is_dropped = engine.stopped_forget() or loaded is not None or bool(changes)
        del loaded
        if is_dropped:
            memory_return()
        return changes, missing

    def _champion_follow(
        self,
        engine: Engine,
        version: ModelVersion | None,
        loaded: LoadedVersion | None,
        changes: list[Change],
    ) -> bool:
        """Serve `version`, be it `loaded` or in the engine; returns whether it does, or must be loaded first."""
        if version is None:
            raise NoChampion("There is no champion any more; the last one goes on serving.")
        if version.pk == engine.model_version:
            return True
        if loaded is None or loaded.model_version != version.pk:
            loaded = engine.loaded(version.pk)
        if loaded is None:
            return False
        before = engine.champion
        engine.champion_swap(loaded)
        metrics.model_info.labels(before.model_name, before.model_version).set(0)
        metrics.model_info.labels(loaded.model_name, loaded.model_version).set(1)
        changes.append(Change("serve", version.pk))
        return True

    def _challenger_follow(
        self,
        engine: Engine,
        version: ModelVersion | None,
        loaded: LoadedVersion | None,
        changes: list[Change],
    ) -> bool:
        """Try `version`, be it `loaded` or in the engine; returns whether it is tried, or must be loaded first."""
        standing = engine.challenger
        if standing is not None and (version is None or version.pk != standing.version.model_version):
            engine.challenger_stop()
            changes.append(Change("end", standing.version.model_version))
        if version is None or version.pk == engine.model_version:
            return True
        rollout = promotions.rollout_get()
        if engine.challenger is not None:
            engine.challenger.rollout = rollout
            return True
        if loaded is None or loaded.model_version != version.pk:
            loaded = engine.loaded(version.pk)
        if loaded is None:
            return False
        engine.challenger_start(loaded, rollout, trials.trial_record)
        changes.append(Change("try", version.pk))
        return True

    # --- Loading ---------------------------------------------------------------------------------------------------

    def _missing_load(self, alias: Alias.Name, version: ModelVersion | None) -> None:
        """Bring a version into memory, for the next look; what cannot be is noted as trouble. Call while `_loading`.

        Beside the engine at most three versions are in memory: the one before the last goes first.
        """
        engine, started = self._engine, time.monotonic()
        try:
            if engine is None or version is None:
                self._engine_make()
                return
            folder = versions.version_fetch(version)  # what cannot be had costs nothing that is warm
            with self._switching:
                is_crowded = engine.challenger is not None and engine.previous is not None
                if is_crowded:
                    engine.previous = None
            if is_crowded:
                memory_return()
            loaded = version_load(version, folder)
            version_warm(loaded, partial(engine.turn_wait, _TURN_SECONDS))
            with self._switching:
                self._loaded = loaded
            needed = {each.model_version for each in engine.versions()} | {version.pk}
            if removed := cache.cache_clean(keep=needed):
                logger.info("Removed from the cache of fetched versions: %s.", ", ".join(removed))
        except DatabaseError as error:  # the next look begins anew
            logger.warning("Loading the %s was interrupted: %s", alias, error)
        except Exception as error:  # noqa: BLE001  broken weights make the libraries raise almost anything
            self._trouble_note(alias, version, error)
        else:
            seconds = time.monotonic() - started
            metrics.model_load_seconds.set(seconds)
            logger.info("%s was loaded and warmed in %.1f s.", version, seconds)

    def _engine_make(self, max_wait_seconds: float | None = None) -> None:
        """Make the engine, with the previous champion where this one cannot be had. Raises what loading raises."""
        self.state, self.reason = "loading", "The model is being loaded; try again in a few seconds."
        started = time.monotonic()
        bound = settings.CAPTION_MAX_WAIT_SECONDS if max_wait_seconds is None else max_wait_seconds

        def made(version: ModelVersion) -> Engine:
            loaded = version_load(version)
            return Engine(loaded, max_wait_seconds=bound, timings=version_warm(loaded))

        try:
            champion = promotions.champion_get()
            try:
                engine = made(champion)
            except Exception as error:
                previous = promotions.champion_previous()
                if previous is None:
                    raise
                try:
                    engine = made(previous)
                except Exception:
                    logger.exception("The previous champion %s cannot be served either.", previous)
                    raise error from None
                self._trouble_note(Alias.Name.CHAMPION, champion, error)
        except Exception as error:
            if self.state == "loading":
                self.state, self.reason = "failed", f"The model could not be loaded: {_public(error)}"
            raise
        engine.batcher.on_batch = metrics.batch_done
        self._engine = engine
        if self.stopping.is_set():  # meanwhile, and whoever drains does not wait for this thread
            self.drain_begin()
            engine.drain(timeout=1.0)
            return
        self.state = "ready"
        seconds = time.monotonic() - started
        metrics.model_info.labels(engine.model_name, engine.model_version).set(1)
        metrics.model_load_seconds.set(seconds)
        logger.info("Serving %s, loaded and warmed in %.1f s.", engine.model_version, seconds)

    # --- Trouble ---------------------------------------------------------------------------------------------------

    def _trouble_note(self, alias: Alias.Name, version: ModelVersion | None, error: Exception) -> None:
        """What `alias` points at cannot be served, because of `error`; it is tried again later and later."""
        pk = version.pk if version else ""
        before = self.troubles.get(alias)
        first, most = RETRY_SECONDS
        delay = min(2 * before.delay, most) if before is not None and before.version == pk else first
        message = f"The {alias} {pk} cannot be served: {_public(error)}" if pk else _public(error)
        self.troubles[alias] = Trouble(pk, message, delay, time.monotonic() + delay)
        if before is None or before.message != message:
            is_expected = isinstance(error, (CaptionerError, RegistryError))
            logger.error("%s (%s)", message, error, exc_info=None if is_expected else error)
        metrics.versions_refused.labels(alias).set(1)


def _public(error: Exception) -> str:
    """What anybody may read about `error`."""
    if isinstance(error, StoreUnavailable):
        return _STORE_AWAY
    if isinstance(error, DatabaseError):
        return _DATABASE_AWAY
    return str(error) if isinstance(error, (CaptionerError, RegistryError)) else _DEFECT


serving = Serving()
