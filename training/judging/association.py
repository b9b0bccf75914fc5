"""Do captions belong to the photos they were written for? Asked of the feedback itself, whatever was learned from it.

Captions that were dealt to wrong photos still teach how people talk, and what they talk of; a candidate that learned
nothing else scores better on held-out photos than the base. But only captions that belong to their photos are more
alike where the photos look alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.caption_text import caption_words
from training.data.features import PhotoFeatures

NEIGHBOURS = 5
MIN_ROWS = 30
MAX_ROWS = 1000  # drawn where there are more; the matrix of likenesses is as large as their square
PERMUTATIONS = 9_999

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Association:
    """Mean likeness (0..1) of `rows` captions to those of the photos that look most alike.

    `dealt` is the same when the captions are dealt to the photos at random, and `p` the share of deals that come out at
    least as alike: the chance of seeing this of captions that have nothing to do with their photos.
    """

    alike: float
    dealt: float
    p: float
    rows: int

    def __str__(self) -> str:
        return (
            f"{self.alike:.2f} alike where photos are, {self.dealt:.2f} when dealt at random; "
            f"by chance in {self.p:.2%} of deals ({self.rows} corrections)"
        )


def association_test(
    features: Floats | PhotoFeatures, rows: Sequence[tuple[int, str]], *, seed: int = 0
) -> Association | None:
    """Tests `rows`, each the index of a photo and a caption, on features (photos, patches, width).

    A permutation test (Mantel 1967) on the nearest neighbours of each photo (cosine of its mean features), the likeness
    of captions being the cosine of their words, weighted by rarity. None with fewer than `MIN_ROWS` rows.
    """
    if len(rows) < MIN_ROWS:
        return None
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(rows), min(len(rows), MAX_ROWS), replace=False)
    rows = [rows[index] for index in chosen]
    looks = np.stack([np.asarray(features[[photo]])[0].mean(0) for photo, _ in rows])
    alikeness = _cosine(looks - looks.mean(0))
    np.fill_diagonal(alikeness, -np.inf)
    neighbours = np.argsort(-alikeness, axis=1)[:, :NEIGHBOURS]  # of each row, the rows most alike to it
    likeness = _likeness([caption for _, caption in rows])

    def dealt(order: NDArray[np.intp]) -> float:
        return float(likeness[order[:, None], order[neighbours]].mean())

    alike = dealt(np.arange(len(rows)))
    null = np.array([dealt(generator.permutation(len(rows))) for _ in range(PERMUTATIONS)])
    p = (1 + int((null >= alike).sum())) / (1 + PERMUTATIONS)
    return Association(alike, float(null.mean()), p, len(rows))


def _likeness(captions: Sequence[str]) -> Floats:
    """Cosines (captions, captions) of the captions' words, each weighted by the logarithm of its rarity."""
    words = [set(caption_words(caption)) for caption in captions]
    used_by = Counter(word for caption in words for word in caption)
    column = {word: index for index, word in enumerate(sorted(used_by))}
    weights = np.zeros((len(captions), len(column)), np.float32)
    for row, caption in enumerate(words):
        for word in caption:
            weights[row, column[word]] = np.log(len(captions) / used_by[word])
    return _cosine(weights)


def _cosine(vectors: Floats) -> Floats:
    """Cosines (n, n) of vectors (n, width); that with a vector of zeros is 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1)
    return np.asarray(unit @ unit.T, np.float32)
