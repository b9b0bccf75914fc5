"""Caption photos of this machine without logging them: `manage.py caption`."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from django.conf import settings

from captioner.captions.captions import parameters_from
from captioner.exceptions import (
    CaptionerError,
    InvalidImage,
)
from captioner.inference.types import DecodingParameters, Prediction
from captioner.intake.decode import photo_decode
from captioner.serving import runtime
from captioner.serving.engine import Engine


def photos_predict(
    paths: Sequence[Path], **wishes: int | None
) -> Iterator[tuple[Path, Prediction | CaptionerError]]:
    """Caption local photos without logging them, in the order of `paths`; `wishes` as in `parameters_from`.

    A photo that cannot be captioned yields its error. Raises what `runtime.engine_load` raises.
    """
    # Whoever captions a folder waits as long as it takes.
    engine = runtime.engine_load(max_wait_seconds=math.inf)
    parameters = parameters_from(engine.default_parameters, **wishes)
    waiting: deque[tuple[Path, Future[Prediction] | CaptionerError]] = deque()
    for path in paths:
        if len(waiting) > settings.CAPTION_MAX_BATCH:
            yield _photo_outcome(*waiting.popleft())
        waiting.append((path, _photo_submit(engine, path, parameters)))
    yield from (_photo_outcome(*entry) for entry in waiting)


def _photo_submit(
    engine: Engine, path: Path, parameters: DecodingParameters
) -> "Future[Prediction] | CaptionerError":
    try:
        return engine.submit(photo_decode(path.read_bytes()).image, parameters, deadline=math.inf)
    except OSError as error:
        return InvalidImage(f"The file cannot be read: {error.strerror}.", reason="corrupt")
    except InvalidImage as error:
        return error


def _photo_outcome(
    path: Path, entry: "Future[Prediction] | CaptionerError"
) -> tuple[Path, Prediction | CaptionerError]:
    return path, entry if isinstance(entry, CaptionerError) else entry.result()
