"""The figures of one row of a report: what captions score, and what scores miss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from training.data.caption_text import FUNCTION_WORDS, caption_words
from training.judging.scores import captions_score

REPEATED_WORDS = 3


def caption_figures(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Returns scores in points, shares in percent and the length in words; nothing without captions."""
    if not captions:
        return {}
    scores = captions_score(captions, references)
    figures = {
        "cider_d": scores.cider_d,
        **{f"bleu_{n}": score for n, score in enumerate(scores.bleu, start=1)},
        "rouge_l": scores.rouge_l,
        "distinct": 100 * distinct_share(captions),
        "function_word_endings": 100 * function_word_endings(captions),
        "repeating": 100 * repeating_share(captions),
        "length": mean_length(captions),
    }
    return {name: round(value, 2) for name, value in figures.items()}


def function_word_endings(captions: Sequence[str]) -> float:
    """Share (0..1) of captions whose last word is a function word; an empty caption counts as one."""
    ends = [(caption_words(caption) or ("the",))[-1] for caption in captions]
    return sum(word in FUNCTION_WORDS for word in ends) / len(ends)


def distinct_share(captions: Sequence[str]) -> float:
    """Share (0..1) of captions that differ from all others before them."""
    return len(set(captions)) / len(captions) if captions else 0.0


def repeating_share(captions: Sequence[str]) -> float:
    """Share (0..1) of captions in which some `REPEATED_WORDS` words in a row occur twice."""
    repeating = 0
    for words in map(caption_words, captions):
        runs = Counter(zip(*(words[start:] for start in range(REPEATED_WORDS)), strict=False))
        repeating += any(count > 1 for count in runs.values())
    return repeating / len(captions)


def mean_length(captions: Sequence[str]) -> float:
    """Words per caption."""
    return sum(len(caption_words(caption)) for caption in captions) / len(captions) if captions else 0.0
