"""The one bridge between Django and torch: this process's engine, from registry to weights to captions.

The engine is made once per process and after the fork; torch is imported only when it is made. A web worker starts
it in the background (`engine_start`) so that liveness probes answer while it loads; a command just asks for it
(`engine_load`).
"""

import logging
import os
import threading
import time
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from PIL import Image

from captioner import metrics
from captioner.exceptions import CaptionerError, ModelUnavailable
from captioner.inference.types import DecodingParameters, Prediction
from models_registry import services as registry
from models_registry.exceptions import RegistryError

if TYPE_CHECKING:
    from captioner.inference.batcher import Batcher
    from captioner.inference.predictor import Precision, Predictor

logger = logging.getLogger(__name__)

_TEST_IMAGE_SIZE = (640, 480)  # width, height in pixels
_WARM_BEAMS = 3  # pages ask for alternatives, which are searched with beams: another path through the model


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded, warmed model version with its inference thread."""

    model_name: str
    model_version: str
    predictor: "Predictor"
    batcher: "Batcher"

    @property
    def default_parameters(self) -> DecodingParameters:
        return self.predictor.default_parameters

    def submit(
        self, image: Image.Image, parameters: DecodingParameters, deadline: float
    ) -> "Future[Prediction]":
        """Queue one RGB image; `deadline` is in `time.monotonic()` seconds. Raises `Overloaded`, `ModelUnavailable`."""
        return self.batcher.submit(self.predictor.preprocess(image), parameters, deadline)


@dataclass(slots=True)
class _State:
    name: str = "stopped"  # stopped, loading, ready, failed, draining
    engine: Engine | None = None
    reason: str = "The model has not been asked for yet."


_state = _State()
_lock = threading.Lock()


def engine() -> Engine:
    """This process's engine. Raises `ModelUnavailable` while there is none; see `engine_start`."""
    if _state.engine is None:
        raise ModelUnavailable(_state.reason)
    return _state.engine


def engine_start() -> None:
    """Load and warm the champion in a background thread; `engine_status` says when it is ready."""
    threading.Thread(target=_load_or_log, name="engine-loader", daemon=True).start()


def engine_load(max_wait_seconds: float | None = None) -> Engine:
    """Load and warm the champion in this thread, unless that was done; a command drains it when it is done.

    `max_wait_seconds` bounds the queue, by default as the settings say.

    Raises `RegistryError` when there is no usable version, `IncompatibleModel` when it is no captioner.
    """
    with _lock:
        if _state.engine is None:
            _load(settings.CAPTION_MAX_WAIT_SECONDS if max_wait_seconds is None else max_wait_seconds)
    return engine()


def engine_drain(timeout: float) -> bool:
    """Refuse new work at once and finish what was accepted, for at most `timeout` seconds.

    Returns whether nothing runs any more; a model that is still being loaded cannot be stopped.
    """
    engine_drain_begin()
    if _state.engine is None:
        return not _lock.locked()
    return _state.engine.batcher.drain(timeout)


def engine_drain_begin() -> None:
    """Turn `/readyz` red, so that new requests are sent elsewhere; those this process has accepted are answered."""
    _state.name, _state.reason = "draining", "This process is shutting down."


def engine_status() -> dict[str, Any]:
    """What `/readyz` shows: the state, the version that serves, and how it is served."""
    status: dict[str, Any] = {"state": _state.name, "pid": os.getpid()}
    if _state.name != "ready" or _state.engine is None:
        return status | {"reason": _state.reason}
    return status | {
        "model": {"name": _state.engine.model_name, "version": _state.engine.model_version},
        "precision": asdict(_state.engine.predictor.precision),
        "queue": asdict(_state.engine.batcher.stats()),
    }


def checkpoint_try(folder: Path) -> str:
    """Load the checkpoint in `folder` and caption a test image with it. Raises `IncompatibleModel`."""
    predictor = _predictor_load(folder, folder.name, "fp32")
    pixels = predictor.preprocess(Image.linear_gradient("L").convert("RGB"))
    [[best, *_]] = predictor.predict(pixels[None], predictor.default_parameters)
    return best.caption


def _load_or_log() -> None:
    try:
        engine_load()
    except (CaptionerError, RegistryError, OSError) as error:
        logger.error("No model can be served: %s", error)


def _load(max_wait_seconds: float) -> None:
    _state.name, _state.reason = "loading", "The model is being loaded; try again in a few seconds."
    started = time.monotonic()
    try:
        _state.engine = _champion_load(max_wait_seconds)
    except Exception as error:
        _state.name, _state.reason = "failed", f"The model could not be loaded: {error}"
        raise
    if _state.name == "loading":  # and not told to drain meanwhile
        _state.name = "ready"
    seconds = time.monotonic() - started
    metrics.model_loaded(_state.engine.model_name, _state.engine.model_version, seconds)
    logger.info("Serving %s, loaded and warmed in %.1f s.", _state.engine.model_version, seconds)


def _champion_load(max_wait_seconds: float) -> Engine:
    from captioner.inference.batcher import Batcher

    version = registry.champion_get()
    predictor = _predictor_load(
        registry.version_fetch(version), version.pk, cast("Precision", settings.CAPTION_PRECISION)
    )
    batcher = Batcher(predictor, max_batch=settings.CAPTION_MAX_BATCH, max_wait_seconds=max_wait_seconds)
    default = predictor.default_parameters
    with_beams = replace(default, num_beams=max(default.num_beams, _WARM_BEAMS))
    pixels = predictor.preprocess(Image.new("RGB", _TEST_IMAGE_SIZE))
    batcher.warm_up(pixels, *dict.fromkeys((default, with_beams)))
    batcher.on_batch = metrics.batch_done
    return Engine(version.model_name, version.pk, predictor, batcher)


def _predictor_load(folder: Path, version: str, precision: "Precision") -> "Predictor":
    # torch is imported here, by the process that computes and after its fork.
    from captioner.inference.predictor import Predictor

    return Predictor.load(
        folder, model_version=version, precision=precision, num_threads=settings.CAPTION_THREADS or None
    )
