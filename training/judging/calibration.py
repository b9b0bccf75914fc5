"""Fits how often captions of a given certainty are accepted, and measures whether that holds on other photos.

Of what nobody learned from: of a version that learned from feedback these are the photos by which its share was chosen,
one number of five, and the half of the anchor set that judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from captioner.inference.calibration import Calibration
from captioner.inference.predictor import Predictor
from training.judging.captioning import candidates_find
from training.judging.measure import ReferenceSet
from training.judging.scores import captions_score
from training.progress import Tick, untold

# No person has looked: a caption counts as accepted when it scores at least this CIDEr-D against its photo's
# references, about half of what one person's caption scores against those of four others.
ACCEPTED_CIDER_D = 40.0
ACCEPTED = f"CIDEr-D of at least {ACCEPTED_CIDER_D:g} against the photo's reference captions"

_NEWTON_STEPS = 100
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Bin:
    """Captions of similar confidence: their mean confidence, and the share of them that was accepted."""

    count: int
    confidence: float
    accepted: float


def calibration_fit(mean_log_probabilities: Sequence[float], accepted: Sequence[bool]) -> Calibration:
    """Logistic regression of `accepted` on the mean token log-probability, by Newton's method.

    The targets are softened as by Platt (1999), so that separable data have a finite fit. Raises `ValueError` unless
    some captions were accepted and some were not.
    """
    x, y = np.asarray(mean_log_probabilities, float), np.asarray(accepted, bool)
    positive, negative = int(y.sum()), int((~y).sum())
    if not positive or not negative:
        raise ValueError(f"{positive} captions were accepted and {negative} were not; both kinds are needed.")
    targets = np.where(y, (positive + 1) / (positive + 2), 1 / (negative + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)
    weights = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        share = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (targets - share)
        curvature = (design * (share * (1 - share))[:, None]).T @ design + _TOLERANCE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights += step
        if np.abs(step).max() < _TOLERANCE:
            break
    return Calibration(float(weights[0]), float(weights[1]), ACCEPTED)


def reliability(confidences: Sequence[float], accepted: Sequence[bool], bins: int = 10) -> list[Bin]:
    """Captions in bins of equal width from 0 to 1, the empty ones left out, lowest confidence first."""
    confidence, hit = np.asarray(confidences, float), np.asarray(accepted, float)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        Bin(int(mine.sum()), float(confidence[mine].mean()), float(hit[mine].mean()))
        for mine in (place == index for index in range(bins))
        if mine.any()
    ]


def calibration_measure(
    mean_log_probabilities: Sequence[float], accepted: Sequence[bool]
) -> tuple[Calibration, list[Bin]]:
    """A fit on all captions, and how reliable a fit on every other one is on those between, and the other way round.

    Raises `ValueError` unless of both halves some were accepted and some were not.
    """
    said = np.zeros(len(accepted))
    for half in (0, 1):
        fitted = calibration_fit(mean_log_probabilities[half::2], accepted[half::2])
        said[1 - half :: 2] = [fitted.confidence([mean]) for mean in mean_log_probabilities[1 - half :: 2]]
    return calibration_fit(mean_log_probabilities, accepted), reliability(said.tolist(), accepted)


def calibration_refit(
    predictor: Predictor, sets: Sequence[ReferenceSet], tick: Tick = untold
) -> tuple[Calibration, list[Bin]] | None:
    """`calibration_measure` on photos as features with what people said of each; None where it cannot be fitted."""
    means: list[float] = []
    accepted: list[bool] = []
    for photos in sets:
        rows = (torch.from_numpy(np.array(row))[None] for row in photos.features)
        found = candidates_find(predictor, rows, tick=tick, what="Calibrating", total=len(photos.features))
        best = [candidates[0] for candidates in found]
        scores = captions_score([each.caption for each in best], photos.references).cider_d_each
        accepted += [score >= ACCEPTED_CIDER_D for score in scores]
        means += [each.log_probability / max(1, len(each.token_log_probabilities)) for each in best]
    try:
        return calibration_measure(means, accepted)
    except ValueError:
        return None


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error (Naeini et al. 2015): the mean gap of confidence and acceptance, by captions."""
    return sum(each.count * abs(each.confidence - each.accepted) for each in bins) / sum(
        b.count for b in bins
    )
