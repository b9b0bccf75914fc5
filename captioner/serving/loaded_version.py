"""A version's weights in memory: loaded, and warmed before anybody waits for it. Torch is loaded with the first one."""

import ctypes
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings

from captioner.exceptions import IncompatibleModel
from captioner.inference.types import DecodingParameters
from models_registry import versions
from models_registry.models import ModelVersion

if TYPE_CHECKING:
    from captioner.inference.predictor import Predictor

_WARM_IMAGE_SIZE = (640, 480)  # width, height in pixels
_WARM_BEAMS = 3  # pages ask for alternatives, which are searched with beams: another path through the model


@dataclass(frozen=True, slots=True, eq=False)
class LoadedVersion:
    """One version's weights in memory."""

    model_name: str
    model_version: str
    predictor: "Predictor"

    @property
    def default_parameters(self) -> DecodingParameters:
        return self.predictor.default_parameters


def version_load(version: ModelVersion, folder: Path | None = None) -> LoadedVersion:
    """Load a version, from the `folder` it was fetched to if it was. Raises `RegistryError`, `IncompatibleModel`."""
    folder = folder or versions.version_fetch(version)
    return LoadedVersion(version.model_name, version.pk, _predictor_load(folder, version.pk))


def version_warm(
    version: LoadedVersion, turn_wait: Callable[[], None] = lambda: None
) -> list[tuple[int, float]]:
    """Caption in this thread what an engine may be asked for, in its smallest and its largest batch.

    The first round is for the libraries' caches, the second is timed: returns the rows and seconds of its batches,
    as this thread computed. What it waited is no measure: while clients are told to come back, as fast as they ask,
    it waits for the interpreter many times longer than a photo will, and the first ones would be refused for it.
    `turn_wait` is called before each batch, and returns when the photos that are served leave room for it.
    Raises what the model raises.
    """
    from PIL import Image  # by the process that computes, as is torch

    default = version.default_parameters
    with_beams = replace(default, num_beams=max(default.num_beams, _WARM_BEAMS))
    pixels = version.predictor.preprocess(Image.new("RGB", _WARM_IMAGE_SIZE))
    timings: list[tuple[int, float]] = []
    for _ in range(2):
        timings.clear()
        for size in sorted({1, settings.CAPTION_MAX_BATCH}):
            for parameters in dict.fromkeys((default, with_beams)):
                turn_wait()
                started = time.thread_time()
                version.predictor.look(pixels.expand(size, -1, -1, -1), parameters)
                timings.append((size * parameters.num_beams, time.thread_time() - started))
    return timings


def checkpoint_try(folder: Path) -> str:
    """Load the checkpoint in `folder` and warm it as if it served; returns its caption of a drawing.

    Raises `IncompatibleModel`, also for one that has nothing to say.
    """
    predictor = _predictor_load(folder, folder.name)
    try:
        version_warm(LoadedVersion(folder.name, folder.name, predictor))
    # What it cannot do with beams, or with several photos, is its own affair.
    except Exception as error:
        raise IncompatibleModel(
            f"{folder.name} captions one photo, but not as it would have to serve: {error}"
        ) from error
    caption = next(filter(str.strip, predictor.drawings_caption()), None)
    if caption is None:
        raise IncompatibleModel(f"{folder.name} loads, but has nothing to say of any of our drawings.")
    return caption


def memory_return() -> None:
    """Give what dropped weights leave behind back to the operating system; the C library would keep it."""
    gc.collect()
    with suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)


def _predictor_load(folder: Path, model_version: str) -> "Predictor":
    # torch is imported here, by the process that computes and after its fork.
    from captioner.inference.predictor import Predictor

    return Predictor.load(
        folder,
        model_version=model_version,
        num_threads=settings.CAPTION_THREADS or None,
        remembers=settings.MEMORY_SCOPE != "off",
    )
