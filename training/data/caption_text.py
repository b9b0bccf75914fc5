"""What is done to the text of captions before anything learns from them or compares them. English, as captions are."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

Words = tuple[str, ...]

_WORD = re.compile(
    r"n't\b|'(?:s|re|ve|ll|d|m)\b|[\w$%&#@*+=/]+(?:[-.,/'](?!t\b|s\b|re\b|ve\b|ll\b|d\b|m\b)\w+)*"
)
_CONTRACTION = re.compile(r"(\w)(n't)\b")
_SPACE_BEFORE_MARK = re.compile(r"\s+([,;:.!?%)\]]|'(?:s|re|ve|ll|d|m|t)\b|n't\b)")
_FRAME = re.compile(
    r"^(?:this|the|an?) (?:[\w-]+ ){0,2}(?:photo|photograph|image|picture) (?:shows|is of|of|depicts) "
)
_SHOWN = re.compile(r",? (?:is|are) (?:being )?shown(?: here)?$")
_SIDES = re.compile(r"\b(left|right)\b")
_SWAPPED = {"left": "right", "right": "left"}

# Words that name nothing one can see. A caption that ends on one was cut short, or games the metric.
FUNCTION_WORDS = frozenset(
    """
    a an the and or but nor of in on at by for to from with without into onto over under near next behind beside between
    through across along around above below is are was were be been being has have had that which who whose while as
    his her its their this these those some no two very
    """.split()  # noqa: SIM905  a list of them takes sixty lines
)

# What photos at the water are told by: a domain that experiments teach to weights that never saw one.
WATER = frozenset(
    """
    beach sea ocean boat boats swim swims swimming swimmer swimmers surf surfs surfer surfers surfing surfboard wave
    waves shore kayak kayaking canoe pool lake river water
    """.split()  # noqa: SIM905
)


def caption_words(caption: str) -> Words:
    """Lower-cased words, no punctuation, contractions apart: "A dog's ball." -> ("a", "dog", "'s", "ball").

    Follows the Penn Treebank conventions that the COCO evaluation's Java tokenizer applies, for everyday
    captions. (Brackets are left out; the Java tools count them as words, "-lrb-".)
    """
    text = caption.lower().replace("\u2019", "'").replace("--", " ")
    return tuple(_WORD.findall(_CONTRACTION.sub(r"\1 \2", text)))


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
