"""Caption metrics in pure Python: BLEU-1..4, ROUGE-L, CIDEr-D, as the COCO caption evaluation defines them.

All scores are percentages of the conventional unit: a BLEU of 0.191 is 19.1 and a CIDEr-D of 0.600 is 60.0.
Candidates are one caption per photo, references several captions per photo, in the same order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from training.data.caption_text import Words, caption_words

MAX_N = 4
CIDER_SIGMA = 6.0
CIDER_SCALE = 10.0
ROUGE_BETA = 1.2

Vector = dict[Words, float]


def ngram_counts(words: Words) -> list[Counter[Words]]:
    """Counts of the n-grams of a caption, one Counter for each n from 1 to 4."""
    return [Counter(words[i : i + n] for i in range(len(words) - n + 1)) for n in range(1, MAX_N + 1)]


@dataclass(frozen=True)
class CaptionScores:
    """Percentages over one set of photos; `cider_d` is the mean of `cider_d_each`, one figure per photo."""

    bleu: tuple[float, float, float, float]
    rouge_l: float
    cider_d: float
    cider_d_each: tuple[float, ...]


def captions_score(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Score one candidate per photo; the document frequencies come from these references."""
    if len(candidates) != len(references):
        raise ValueError(
            f"{len(candidates)} candidates for {len(references)} photos: give one caption per photo."
        )
    words = [caption_words(candidate) for candidate in candidates]
    others = [[caption_words(reference) for reference in group] for group in references]
    each = CiderD(others).scores(words)
    return CaptionScores(bleu(words, others), rouge_l(words, others), sum(each) / len(each), tuple(each))


def bleu(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]]
) -> tuple[float, float, float, float]:
    """Corpus BLEU-1..4 (Papineni et al. 2002): clipped precisions, closest reference length, no smoothing."""
    matched, proposed = [0] * MAX_N, [0] * MAX_N
    length = reference_length = 0
    for words, group in zip(candidates, references, strict=True):
        length += len(words)
        reference_length += min((abs(len(r) - len(words)), len(r)) for r in group)[1]
        grams = [ngram_counts(reference) for reference in group]
        for n, counts in enumerate(ngram_counts(words)):
            proposed[n] += counts.total()
            matched[n] += sum(min(c, max(g[n][gram] for g in grams)) for gram, c in counts.items())
    if length == 0:
        return (0.0, 0.0, 0.0, 0.0)
    brevity = min(1.0, math.exp(1.0 - reference_length / length))
    precisions = [m / p if p else 0.0 for m, p in zip(matched, proposed, strict=True)]
    # Geometric means of the first one to four precisions.
    one, two, three, four = (
        100.0 * brevity * math.prod(precisions[:n]) ** (1 / n) for n in range(1, MAX_N + 1)
    )
    return one, two, three, four


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Mean ROUGE-L F (Lin 2004), beta 1.2; precision and recall are each the best over the references."""
    total = 0.0
    for words, group in zip(candidates, references, strict=True):
        common = [_common_length(words, reference) for reference in group]
        precision = max((c / len(words) for c in common if words), default=0.0)
        recall = max(c / len(r) for c, r in zip(common, group, strict=True)) if all(group) else 0.0
        if precision and recall:
            total += (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)
    return 100.0 * total / len(candidates)


def _common_length(first: Words, second: Words) -> int:
    """Length of the longest common subsequence, by rows of the classic dynamic programme."""
    row = [0] * (len(second) + 1)
    for a in first:
        previous = row
        row = [0]
        for index, b in enumerate(second):
            row.append(previous[index] + 1 if a == b else max(previous[index + 1], row[index]))
    return row[-1]


class CiderD:
    """CIDEr-D (Vedantam et al. 2015, arXiv:1411.5726, eq. 1-4) against fixed references.

    TF-IDF vectors of 1..4-grams, clipped cosine similarity, Gaussian length penalty with sigma 6, scale 10.
    The document frequency of an n-gram is the number of photos with it in any reference, out of all photos
    given here.
    """

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        counted = [[ngram_counts(words) for words in group] for group in references]
        self._frequency: Counter[Words] = Counter()
        for group in counted:
            self._frequency.update({gram for counts in group for grams in counts for gram in grams})
        self._log_photos = math.log(max(1, len(references)))
        self._references = [[self._vectors(counts) for counts in group] for group in counted]
        self._lengths = [[len(words) for words in group] for group in references]

    def scores(self, candidates: Sequence[Words]) -> list[float]:
        """CIDEr-D of one candidate per photo, in percent (100 = the conventional 1.0)."""
        if len(candidates) != len(self._references):
            raise ValueError(f"{len(candidates)} candidates for {len(self._references)} photos.")
        return [self.score(photo, words) for photo, words in enumerate(candidates)]

    def score(self, photo: int, words: Words) -> float:
        """CIDEr-D of one candidate against the references of the photo with that index, in percent."""
        vectors = self._vectors(ngram_counts(words))
        total = 0.0
        for reference, length in zip(self._references[photo], self._lengths[photo], strict=True):
            penalty = math.exp(-((len(words) - length) ** 2) / (2 * CIDER_SIGMA**2))
            total += penalty * sum(map(_clipped_cosine, vectors, reference)) / MAX_N
        return 100.0 * CIDER_SCALE * total / len(self._references[photo])

    def _vectors(self, counts: list[Counter[Words]]) -> list[tuple[Vector, float]]:
        vectors = []
        for grams in counts:
            vector = {
                g: c * (self._log_photos - math.log(max(1, self._frequency[g]))) for g, c in grams.items()
            }
            vectors.append((vector, math.sqrt(sum(value * value for value in vector.values()))))
        return vectors


def _clipped_cosine(candidate: tuple[Vector, float], reference: tuple[Vector, float]) -> float:
    (ours, our_norm), (theirs, their_norm) = candidate, reference
    if not our_norm or not their_norm:
        return 0.0
    product = sum(min(value, theirs[gram]) * theirs[gram] for gram, value in ours.items() if gram in theirs)
    return product / (our_norm * their_norm)
