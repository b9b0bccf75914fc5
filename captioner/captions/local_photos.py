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
from captioner.inference.types import Prediction
from captioner.intake.decode import photo_decode
from captioner.serving.process import serving


def photos_predict(
    paths: Sequence[Path], **wishes: int | None
) -> Iterator[tuple[Path, Prediction | CaptionerError]]:
    """Caption local photos without logging them, in the order of `paths`; `wishes` as in `parameters_from`.

    A photo that cannot be captioned yields its error. Raises what `Serving.load` raises.
    """
    # Whoever captions a folder waits as long as it takes.
    engine = serving.load(max_wait_seconds=math.inf)
    parameters = parameters_from(engine.default_parameters, **wishes)
    waiting: deque[tuple[Path, Future[Prediction] | CaptionerError]] = deque()
    for path in paths:
        if len(waiting) > settings.CAPTION_MAX_BATCH:
            yield _outcome(*waiting.popleft())
        try:
            image = photo_decode(path.read_bytes()).image
            waiting.append((path, engine.submit(image, parameters, deadline=math.inf)))
        except OSError as error:
            message = f"The file cannot be read: {error.strerror}."
            waiting.append((path, InvalidImage(message, reason="corrupt")))
        except InvalidImage as error:
            waiting.append((path, error))
    yield from (_outcome(*entry) for entry in waiting)


def _outcome(
    path: Path, entry: "Future[Prediction] | CaptionerError"
) -> tuple[Path, Prediction | CaptionerError]:
    return path, entry if isinstance(entry, CaptionerError) else entry.result()
