"""What the version that serves now says of a photo that was captioned before: anew, or from one of its words on."""

import time
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from captioner.captions.photos import photo_open
from captioner.exceptions import DeadlineExceeded
from captioner.inference.types import DecodingParameters, NextWords, Prediction
from captioner.models import Caption
from captioner.serving.process import serving

_ASKED, _TRIED = 5, 8  # next words that are shown; the most probable tokens that they are sought among


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A caption rewritten from one of its words on: the words before it, the one in its place, those after."""

    kept: str
    word: str  # empty where the caption ends there
    rest: str

    @property
    def text(self) -> str:
        return " ".join(part for part in (self.kept, self.word, self.rest) if part)


def caption_write_again(caption: Caption) -> tuple[str, str]:
    """Returns the caption that the version that serves now writes by the decoding parameters of then, and its id.

    Raises what `caption_create` does but for `ClientGone`, and `FileNotFoundError` where the photo is lost.
    """
    prediction = _ask(caption, DecodingParameters(**caption.decoding))
    return prediction.candidates[0].caption, prediction.model_version


def caption_next_words(caption: Caption, place: int) -> list[Rewriting]:
    """Other words for the model's word at `place`, from 0, most probable first, each with a rest that follows from it.

    Raises `IndexError` where there is no such word, and what `caption_write_again` does.
    """
    words = [str(word["text"]) for word in caption.words]
    word, before = words[place], words[:place]
    kept = " ".join(before)
    length = DecodingParameters(**caption.decoding).max_new_tokens
    prediction = _ask(caption, NextWords(_ASKED, _TRIED, length, kept))
    found: dict[str, Rewriting] = {word: Rewriting(kept, word, "")}
    for candidate in prediction.beams or prediction.candidates:
        said = [each.text for each in candidate.words]
        if said[:place] == before and (place or said):  # else its first token went on with the word before
            new = said[place] if len(said) > place else ""
            found.setdefault(new, Rewriting(kept, new, " ".join(said[place + 1 :])))
    del found[word]
    return list(found.values())[:_ASKED]


def _ask(caption: Caption, parameters: DecodingParameters) -> Prediction:
    """What the champion predicts for the photo of a caption."""
    from captioner.intake.decode import photo_decode  # and Pillow, with the first photo

    started, engine = time.monotonic(), serving.engine()
    with photo_open(caption.photo) as file:
        photo = photo_decode(file.read(), max_wait_seconds=settings.CAPTION_MAX_WAIT_SECONDS)
    deadline = started + settings.CAPTION_TIMEOUT_SECONDS
    future = engine.submit(photo.image, parameters, deadline)
    if not connection.in_atomic_block:
        connection.close()  # while this thread waits: waiting requests may outnumber connections
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except FutureTimeout:
        raise DeadlineExceeded(
            f"No caption within {settings.CAPTION_TIMEOUT_SECONDS} seconds; please try again."
        ) from None
    finally:
        future.cancel()
