"""What is done to the text of captions before anything learns from them: English, as most captions are."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from captioner.captions.text import FUNCTION_WORDS, Words, caption_words, is_unspaced

__all__ = [
    "FUNCTION_WORDS",
    "Words",
    "caption_mirror",
    "caption_normalise",
    "caption_plain",
    "caption_words",
    "is_unspaced",
]

_SPACE_BEFORE_MARK = re.compile(r"\s+([,;:.!?%)\]]|'(?:s|re|ve|ll|d|m|t)\b|n't\b)")
_FRAME = re.compile(
    r"^(?:this|the|an?) (?:[\w-]+ ){0,2}(?:photo|photograph|image|picture) (?:shows|is of|of|depicts) "
)
_SHOWN = re.compile(r",? (?:is|are) (?:being )?shown(?: here)?$")
_SIDES = re.compile(r"\b(left|right)\b")
_SWAPPED = {"left": "right", "right": "left"}

# What photos at the water are told by: a domain that experiments teach to weights that never saw one.
WATER = frozenset(
    """
    beach sea ocean boat boats swim swims swimming swimmer swimmers surf surfs surfer surfers surfing surfboard wave
    waves shore kayak kayaking canoe pool lake river water
    """.split()  # noqa: SIM905
)


def caption_normalise(text: str) -> str:
    """Lower-case, single-spaced caption without a final full stop: "A dog 's ball ." -> "a dog's ball"."""
    text = " ".join(text.lower().replace("`", "'").replace("\u2019", "'").split())
    text = re.sub(r'\s*"\s*|\s+-+\s+', " ", text)
    text = _SPACE_BEFORE_MARK.sub(r"\1", text)
    return " ".join(text.split()).rstrip(" .,;:!").strip()


def caption_plain(text: str) -> str:
    """A normalised caption without its frame: "this photo shows a dog" and "a dog is shown here" -> "a dog"."""
    return _SHOWN.sub("", _FRAME.sub("", text)) or text


def caption_mirror(text: str) -> str:
    """The caption of the mirrored photo: "left" and "right" change places."""
    return _SIDES.sub(lambda match: _SWAPPED[match.group()], text)


def captions_mention(captions: Sequence[str], words: Collection[str]) -> int:
    """How many of the captions use one of the words."""
    return sum(not set(words).isdisjoint(caption_words(caption)) for caption in captions)
