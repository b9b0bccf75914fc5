"""What two versions make of the same photos: captions, scores, time per token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor

from training.data.features import Features
from training.judging.gate import (
    MAX_LATENCY_RATIO,
    Measured,
    distinct_share,
    function_word_endings,
    mean_length,
)
from training.judging.scores import captions_score
from training.learning.model import FeatureCaptioner
from training.progress import Tick, untold

TIMED_PHOTOS = 15
STRANGERS = 5
TIMED_REPEATS = 3
TIMED_ROUNDS = 4


@dataclass(frozen=True)
class PhotoSet:
    """Photos as features (photos, patches, width), and what people would say about each."""

    features: Features
    references: Sequence[Sequence[str]]


def measure(captioner: FeatureCaptioner, photos: PhotoSet, tick: Tick = untold) -> Measured:
    """Caption every photo of the set; per-photo CIDEr-D in points, document frequencies from the set's references."""
    if not len(photos.references):
        return Measured((), ())
    captions = captioner.captions(photos.features, tick, "Judging")
    own = captions_score(captions, photos.references).cider_d_each
    return Measured(captions, own, _strangers(captions, photos.references))


def _strangers(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """What each photo's references give on average to the captions of a few other photos."""
    shifts = sorted({len(captions) * part // (STRANGERS + 1) for part in range(1, STRANGERS + 1)} - {0})
    rounds = [
        captions_score([*captions[shift:], *captions[:shift]], references).cider_d_each for shift in shifts
    ]
    return [fmean(scores) for scores in zip(*rounds, strict=True)]


def figures(measured: Measured, references: Sequence[Sequence[str]]) -> dict[str, float]:
    """One row of the report: scores in points, shares in percent, length in words."""
    if not measured.captions:
        return {}
    scores = captions_score(measured.captions, references)
    row = {
        "cider_d": fmean(measured.cider_d),
        **{f"bleu_{n}": score for n, score in enumerate(scores.bleu, start=1)},
        "rouge_l": scores.rouge_l,
        "distinct": 100 * distinct_share(measured.captions),
        "function_word_endings": 100 * function_word_endings(measured.captions),
        "length": mean_length(measured.captions),
    }
    return {name: round(value, 2) for name, value in row.items()}


def latency_ratio(
    candidate: FeatureCaptioner, champion: FeatureCaptioner, features: Features
) -> float | None:
    """Seconds per token, candidate over champion, one photo at a time; None without photos.

    Per token, because longer captions rightly take longer. What looks too slow is measured again, and the smallest
    ratio counts: a busy machine hits one of the two now and then, a slow candidate is slow every time.
    """
    if not len(features):
        return None
    clocks = (_TokenClock(candidate), _TokenClock(champion))
    photos = [torch.from_numpy(np.array(row))[None, None] for row in features[:TIMED_PHOTOS]]
    for clock in clocks:
        clock(photos[0])  # the first call is slower
    smallest = float("inf")
    for _ in range(TIMED_ROUNDS):
        smallest = min(smallest, _latency_ratio_once(*clocks, photos))
        if smallest <= MAX_LATENCY_RATIO:
            break
    return smallest


def _latency_ratio_once(candidate: _TokenClock, champion: _TokenClock, photos: Sequence[Tensor]) -> float:
    """Median over photos. The two take turns and the best of a few repeats counts, against all else that runs."""
    ratios: list[float] = []
    for photo in photos:
        turns = [(candidate(photo), champion(photo)) for _ in range(TIMED_REPEATS)]
        ratios.append(min(ours for ours, _ in turns) / min(theirs for _, theirs in turns))
    return float(median(ratios))


class _TokenClock:
    def __init__(self, captioner: FeatureCaptioner) -> None:
        self._predictor = captioner.predictor()
        captioner.parts.model.eval()

    def __call__(self, photo: Tensor) -> float:
        started = time.perf_counter()
        [[best, *_]] = self._predictor.predict(photo, self._predictor.default_parameters)
        return (time.perf_counter() - started) / max(1, len(best.token_log_probabilities))
