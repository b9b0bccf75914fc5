"""What people wrote of COCO photos, and what versions might say of them: the gate is tried without training any.

Versions are made of real sentences: one as good as people says what another person wrote of the photo, a weaker one
what somebody wrote of a photo like it, and one that learned by heart what somebody wrote of any photo.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.caption_text import FUNCTION_WORDS, caption_words
from training.judging.gate import ScoredCaptions
from training.judging.scores import CiderD

SENTENCES = Path("text") / "coco_val2017_captions.jsonl"


@dataclass(frozen=True)
class Described:
    """A photo by what five people wrote of it."""

    name: str
    captions: tuple[str, ...]


def photos_described(data: Path) -> list[Described]:
    """Returns photos of the shared set of captions below `data`, each with five captions."""
    lines = (data / SENTENCES).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Described(row["image"], tuple(row["captions"][:5])) for row in rows if len(row["captions"]) >= 5]


class Judge:
    """CIDEr-D of any sentence on photos with these references; document frequencies from the set."""

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self._scorer = CiderD([[caption_words(each) for each in group] for group in references])

    def scored(self, captions: Sequence[str]) -> ScoredCaptions:
        """A caption for each of the first photos. Style alone is taken to be worth nothing."""
        scores = [self._scorer.score(photo, caption_words(each)) for photo, each in enumerate(captions)]
        return ScoredCaptions(captions, scores, [0.0] * len(captions))


def captions_borrowed(photos: Sequence[Described]) -> list[str]:
    """Returns, for each photo, a sentence of the other photo of which people used most of the same words: what a
    captioner says that sees a photo's things but not how they belong together."""
    named = [
        frozenset(word for caption in photo.captions for word in caption_words(caption)) - FUNCTION_WORDS
        for photo in photos
    ]
    using: dict[str, list[int]] = defaultdict(list)
    for number, words in enumerate(named):
        for word in words:
            using[word].append(number)
    said = []
    for number, words in enumerate(named):
        shared: dict[int, float] = defaultdict(float)
        for word in sorted(words):  # sums, and which of equals is the first, hang on the order
            for other in using[word]:
                shared[other] += 1 / len(using[word])  # rare words tell more
        shared.pop(number, None)
        said.append(photos[max(shared, key=shared.__getitem__, default=0)].captions[0])
    return said


def captions_dealt(
    captions: Sequence[str], others: Sequence[str], chosen: Sequence[int], seed: int
) -> list[str]:
    """Returns `captions` with sentences drawn from `others` in the chosen places."""
    generator, changed = random.Random(seed), list(captions)
    for place in chosen:
        changed[place] = generator.choice(others)
    return changed
