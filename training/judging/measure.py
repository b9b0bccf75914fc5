"""What two versions make of the same photos: captions, scores, time per token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor

from captioner.inference.predictor import Predictor
from training.data.features import Features, PhotoFeatures
from training.judging.captioning import features_caption
from training.judging.gate import MAX_LATENCY_RATIO, ScoredCaptions
from training.judging.scores import captions_score
from training.progress import Tick, untold

TIMED_PHOTOS = 15
STRANGERS = 5
TIMED_REPEATS = 3
TIMED_ROUNDS = 4


@dataclass(frozen=True)
class ReferenceSet:
    """Photos as features (photos, patches, width), and what people would say about each."""

    features: Features | PhotoFeatures
    references: Sequence[Sequence[str]]


def measure(predictor: Predictor, photos: ReferenceSet, tick: Tick = untold) -> ScoredCaptions:
    """Returns a caption of every photo and its CIDEr-D in points, document frequencies from the set's references.

    `predictor` takes features, as that of a captioner whose encoder was taken out.
    """
    if not len(photos.references):
        return ScoredCaptions((), ())
    captions = features_caption(predictor, photos.features, tick, "Judging")
    own = captions_score(captions, photos.references).cider_d_each
    return ScoredCaptions(captions, own, strangers_score(captions, photos.references))


def strangers_score(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Returns what each photo's references give on average to the captions of a few other photos."""
    shifts = sorted({len(captions) * part // (STRANGERS + 1) for part in range(1, STRANGERS + 1)} - {0})
    rounds = [
        captions_score([*captions[shift:], *captions[:shift]], references).cider_d_each for shift in shifts
    ]
    return [fmean(scores) for scores in zip(*rounds, strict=True)]


def latency_ratio(
    candidate: Predictor, champion: Predictor, features: Features | PhotoFeatures
) -> float | None:
    """Returns seconds per token, candidate over champion, one photo at a time; None without photos.

    Per token, because longer captions rightly take longer. The two take turns, the best of a few repeats counts, and of
    the photos their median. What looks too slow is measured again, and the smallest ratio counts: a busy machine hits
    one of the two now and then, a slow candidate is slow every time.
    """
    if not len(features):
        return None
    photos = [torch.from_numpy(np.array(row))[None, None] for row in features[:TIMED_PHOTOS]]
    for predictor in (candidate, champion):
        _token_seconds(predictor, photos[0])  # the first call is slower
    smallest = float("inf")
    for _ in range(TIMED_ROUNDS):
        ratios = []
        for photo in photos:
            turns = [
                (_token_seconds(candidate, photo), _token_seconds(champion, photo))
                for _ in range(TIMED_REPEATS)
            ]
            ratios.append(min(ours for ours, _ in turns) / min(theirs for _, theirs in turns))
        smallest = min(smallest, median(ratios))
        if smallest <= MAX_LATENCY_RATIO:
            break
    return float(smallest)


def _token_seconds(predictor: Predictor, photo: Tensor) -> float:
    """How long one caption takes per token, the end of the caption included."""
    started = time.perf_counter()
    [[best, *_]] = predictor.predict(photo, predictor.default_parameters)
    return (time.perf_counter() - started) / max(1, len(best.token_log_probabilities))
