"""What captions are worth that come without a captioner: a neighbour's, and another person's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.data.caption_text import Words, caption_words
from training.judging.scores import CiderD, ngram_counts

NEIGHBOURS = 90  # the baseline was strongest with it, by CIDEr-D on Flickr8k and COCO val
CONSTANTS_TRIED = 100
CONSTANTS_JUDGED_ON = 400
PEOPLE = 5  # captions per photo from which people are compared with each other

Pooled = NDArray[np.float32]


@dataclass(frozen=True)
class _Vector:
    """TF-IDF weights of a caption's n-grams; those of each n have unit length together."""

    grams: NDArray[np.int64]
    weights: NDArray[np.float64]


class Neighbours:
    """Captions a photo with a caption of the training photos it resembles most (Devlin et al. 2015, arXiv:1505.04467).

    `features` (photos, width) are unit vectors. Of all captions of the `NEIGHBOURS` nearest photos (by cosine) that
    one is taken which agrees best with the others, by the mean of CIDEr's cosines of TF-IDF vectors of 1..4-grams.
    """

    def __init__(
        self, features: Pooled, captions: Sequence[Sequence[str]], neighbours: int = NEIGHBOURS
    ) -> None:
        if len(features) != len(captions) or not len(captions):
            raise ValueError(f"{len(features)} photos for {len(captions)} groups of captions.")
        self._features, self._captions = features, captions
        self._neighbours = min(neighbours, len(captions))
        counted = [[ngram_counts(caption_words(caption)) for caption in group] for group in captions]
        frequency: Counter[Words] = Counter()
        for group in counted:
            frequency.update({gram for counts in group for grams in counts for gram in grams})
        numbers = {gram: number for number, gram in enumerate(frequency)}
        rarity = {gram: math.log(len(captions) / count) for gram, count in frequency.items()}
        self._vectors: list[list[_Vector]] = []
        for group in counted:
            self._vectors.append([])
            for counts in group:
                grams, weights = list[int](), list[float]()
                for same_length in counts:
                    own = {gram: count * rarity[gram] for gram, count in same_length.items()}
                    norm = math.sqrt(sum(weight * weight for weight in own.values())) or 1.0
                    grams += [numbers[gram] for gram in own]
                    weights += [weight / norm for weight in own.values()]
                self._vectors[-1].append(_Vector(np.array(grams, np.int64), np.array(weights, np.float64)))

    def captions(self, features: Pooled) -> list[str]:
        """Returns one caption for each row of unit features (photos, width)."""
        orders = (np.argsort(-(self._features @ row), kind="stable") for row in features)
        return [self._agreed(order[: self._neighbours].tolist()) for order in orders]

    @cached_property
    def constant(self) -> str:
        """The one caption that fits these photos best by CIDEr-D, out of two that fit many.

        Where every photo has captions of its own none is common, and the one that agrees best with all is the better.
        """
        judged = self._captions[:: -(-len(self._captions) // CONSTANTS_JUDGED_ON)]
        judges = CiderD([[caption_words(caption) for caption in group] for group in judged])
        return max(
            (constant_caption(self._captions), self._agreed(range(len(self._captions)))),
            key=lambda caption: sum(judges.scores([caption_words(caption)] * len(judged))),
        )

    def _agreed(self, photos: Sequence[int]) -> str:
        captions = [caption for photo in photos for caption in self._captions[photo]]
        vectors = [vector for photo in photos for vector in self._vectors[photo]]
        grams, places = np.unique(np.concatenate([v.grams for v in vectors]), return_inverse=True)
        weights = np.concatenate([v.weights for v in vectors])
        total = np.bincount(places, weights, minlength=len(grams))
        # What a caption has in common with itself does not count.
        agreement = weights * (total[places] - weights)
        owners = np.repeat(np.arange(len(vectors)), [len(v.grams) for v in vectors])
        scores = np.bincount(owners, agreement, minlength=len(vectors))
        return captions[int(scores.argmax())]


def constant_caption(references: Sequence[Sequence[str]]) -> str:
    """Returns the one caption that fits the given (training) photos best by CIDEr-D, out of the commonest references.

    A baseline that never looks: a captioner that does not beat it has learned nothing from photos.
    """
    common = Counter(caption for group in references for caption in group).most_common(CONSTANTS_TRIED)
    judged = references[:CONSTANTS_JUDGED_ON]
    judges = CiderD([[caption_words(caption) for caption in group] for group in judged])
    return max(
        (caption for caption, _ in common),
        key=lambda caption: sum(judges.scores([caption_words(caption)] * len(judged))),
    )


def people(references: Sequence[Sequence[str]]) -> list[tuple[list[str], list[list[str]]]]:
    """Returns each person's captions and those of the four others; nothing unless every photo has five."""
    if not references or any(len(group) < PEOPLE for group in references):
        return []
    return [
        (
            [group[person] for group in references],
            [[*group[:person], *group[person + 1 : PEOPLE]] for group in references],
        )
        for person in range(PEOPLE)
    ]
