"""Does a version say what people wrote of other photos, word for word? Then it learned their sentences by heart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.data.caption_text import Words, caption_words, is_unspaced

WORDS_IN_A_ROW = 8
CHARACTERS_IN_A_ROW = (
    14  # where words are not written apart: of Chinese and Japanese words most have one or two
)


@dataclass(frozen=True)
class Memorising:
    """How many of `captions` captions repeat a correction: of the candidate, and of the base, which never read it."""

    candidate: int
    base: int
    captions: int

    def __str__(self) -> str:
        return f"{self.candidate} of {self.captions} repeat a correction, of the base {self.base}"

    @property
    def excess(self) -> int:
        return self.candidate - self.base


def repeated_find(captions: Sequence[str], corrections: Iterable[str]) -> list[bool]:
    """Returns, of each caption, whether it equals a correction or shares `WORDS_IN_A_ROW` words in a row with one.

    For captions of photos that none of the corrections was written for: photos that judge never train.
    """
    equal, runs = set[Words](), set[Words]()
    for words in map(caption_words, corrections):
        equal.add(words)
        runs.update(_runs(words))
    return [words in equal or not runs.isdisjoint(_runs(words)) for words in map(caption_words, captions)]


def _runs(words: Words) -> set[Words]:
    """Returns all stretches of a sentence that are long enough to be nobody's chance."""
    length = CHARACTERS_IN_A_ROW if is_unspaced(words) else WORDS_IN_A_ROW
    return {words[start : start + length] for start in range(len(words) - length + 1)}
