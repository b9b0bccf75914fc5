"""Show remembered photos to an encoder that has not seen them: it serves since yesterday, or they are older than it.

The engine captions them with a single word: nearly all of that is the encoder's pass.
"""

import logging
import math
import time
from itertools import islice

from celery import current_app
from django.conf import settings
from django.core.cache import cache
from kombu.exceptions import ChannelError, OperationalError

from captioner.captions.memory import remembered_without_vector, vectors_keep
from captioner.captions.photos import photo_open
from captioner.exceptions import InvalidImage
from captioner.inference.types import DecodingParameters, Prediction
from captioner.models import Photo, PhotoVector
from captioner.serving.engine import Engine
from captioner.serving.process import serving

logger = logging.getLogger(__name__)

_TASK = "captioner.tasks.photos_look_task"
_LOCK = "captioner-photos-look"
_SECONDS = 10.0  # of one message, so that jobs get their turn
_LOCKED_SECONDS = 120
_MESSAGE_SECONDS = 60  # after which a message is worth nothing: another one came
_PHOTOS = 1000  # of one message at most
_ONE_WORD = DecodingParameters(num_captions=1, num_beams=1, max_new_tokens=1)


def photos_look_enqueue() -> None:
    """Have a worker look at what is missing; while the broker is away, somebody asks again later."""
    try:
        current_app.send_task(_TASK, retry=False, expires=_MESSAGE_SECONDS)
    except (OperationalError, ChannelError, OSError) as error:
        logger.warning("The broker cannot be reached; remembered photos wait to be looked at: %s", error)


def photos_look(seconds: float = _SECONDS) -> int:
    """Look at remembered photos that the champion's encoder has not seen, for about so many seconds.

    Returns how many corrections are left without a vector. One worker does it at a time, as far as they share a cache.
    Raises what `Serving.load` raises, `StorageUnavailable` and `DatabaseError`.
    """
    if settings.MEMORY_SCOPE == "off" or not cache.add(_LOCK, True, timeout=_LOCKED_SECONDS):
        return 0
    try:
        engine = serving.refresh(max_wait_seconds=math.inf)
        encoder = engine.champion.predictor.encoder
        if not encoder:
            return 0
        ends_at, missing, done = time.monotonic() + seconds, remembered_without_vector(encoder), 0
        pks = iter(missing.values_list("caption__photo", flat=True).distinct().order_by()[:_PHOTOS])
        while time.monotonic() < ends_at and (part := list(islice(pks, settings.CAPTION_MAX_BATCH))):
            photos = list(Photo.objects.filter(pk__in=part))
            vectors_keep(_vectors(engine, photos, encoder))
            done += len(photos)
        left = missing.count()
        if done:
            logger.info(
                "Looked at %d remembered photos with the encoder %s; %d are left.", done, encoder, left
            )
        return left if done else 0
    finally:
        cache.delete(_LOCK)


def _vectors(engine: Engine, photos: list[Photo], encoder: str) -> list[PhotoVector]:
    """What the encoder sees of these photos; nothing of those that are lost or broken."""
    from captioner.intake.decode import photo_decode

    under_way = []
    for photo in photos:
        future = None
        try:
            with photo_open(photo) as file:
                image = photo_decode(file.read()).image
            future = engine.submit(image, _ONE_WORD, deadline=math.inf)
        except (FileNotFoundError, InvalidImage) as error:
            logger.warning("%s cannot be looked at: %s", photo, error)
        under_way.append((photo, future))
    seen: list[PhotoVector] = []
    for photo, future in under_way:
        prediction: Prediction | None = future.result() if future else None
        if prediction is None or prediction.encoder == encoder:
            vector = prediction.vector if prediction else b""
            seen.append(PhotoVector(photo=photo, encoder=encoder, vector=vector))
    return seen
