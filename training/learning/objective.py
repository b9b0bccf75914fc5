"""The losses of the learning loop, each a function of logits or log-probabilities; no model, no data.

L = XE(ideal) + w_p DPO(ideal over logged) + w_r KTO(rated) + w_k KL(base || model on replay) + w_b XE(replay)

The divergence is what keeps a candidate from forgetting; w_b is 0 unless somebody wants to see what that does.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100  # as a label: not a token of the caption


def caption_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy per token, in nats, of logits (B, T, V) against labels (B, T); zero without any caption."""
    if not len(labels):
        return logits.sum() * 0.0
    return functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=label_smoothing
    )


def caption_log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean log-probability per token, in nats, of each caption: logits (B, T, V), labels (B, T) -> (B,).

    Length-normalised, so that no loss below can be lowered by making captions shorter or longer.
    """
    real = labels != IGNORED
    chosen = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return (chosen * real).sum(1) / real.sum(1).clamp(min=1)


def preference_loss(
    chosen: Tensor, rejected: Tensor, base_chosen: Tensor, base_rejected: Tensor, beta: float
) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7) on mean log-probabilities per token, each (B,).

    -log sigmoid(beta * [(chosen - base_chosen) - (rejected - base_rejected)]), averaged; zero without any pair.
    """
    if not len(chosen):
        return chosen.sum() * 0.0
    margin = (chosen - base_chosen) - (rejected - base_rejected)
    return -functional.logsigmoid(beta * margin).mean()


def rating_loss(rated: Tensor, base_rated: Tensor, drift: Tensor, z: Tensor, beta: float) -> Tensor:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, eq. 7) weighted by abs(z); log-probabilities are (B,).

    A caption rated above what its rater usually gives (z > 0) is desirable, one below is not. The reference point is
    how far the model has moved from the base at large, the mean of `drift` (strangers,): by how much captions of other
    photos became more probable. Zero without any rating.
    """
    if not len(rated):
        return rated.sum() * 0.0
    moved = drift.mean().detach().clamp(min=0.0)
    gain = torch.where(z > 0, 1.0, -1.0) * (rated - base_rated - moved)
    return (z.abs() * (1.0 - torch.sigmoid(beta * gain))).mean()


def regression_loss(rated: Tensor, z: Tensor) -> Tensor:
    """Reward-weighted regression (Peters and Schaal 2007): -exp(z) log p, weights normalised; the ablation of KTO."""
    if not len(rated):
        return rated.sum() * 0.0
    weights = torch.softmax(z, 0)
    return -(weights * rated).sum()


def base_divergence(logits: Tensor, base_logits: Tensor, labels: Tensor) -> Tensor:
    """KL(base || model), in nats per token, over the tokens of the captions; zero without any caption."""
    real = labels != IGNORED
    if not len(labels):
        return logits.sum() * 0.0
    model, base = logits[real].log_softmax(-1), base_logits[real].log_softmax(-1)
    return functional.kl_div(model, base, reduction="batchmean", log_target=True)


def ratings_standardise(ratings: list[tuple[str, float]], prior: float = 2.0) -> list[float]:
    """How far each (rater, rating) lies from what this rater usually gives, in that rater's standard deviations.

    Raters differ in strictness and in how much of the scale they use. Mean and variance are drawn towards those of
    all raters with the weight of `prior` ratings, so that somebody's second rating is not taken for an extreme.
    """
    if not ratings:
        return []
    mean, variance = _moments([rating for _, rating in ratings])
    own: dict[str, list[float]] = {}
    for rater, rating in ratings:
        own.setdefault(rater, []).append(rating)
    scales: dict[str, tuple[float, float]] = {}
    for rater, given in own.items():
        own_mean, own_variance = _moments(given)
        weight = len(given) / (len(given) + prior)
        scales[rater] = (
            weight * own_mean + (1 - weight) * mean,
            (weight * own_variance + (1 - weight) * variance) ** 0.5,
        )
    return [
        (rating - scales[rater][0]) / scales[rater][1] if scales[rater][1] else 0.0
        for rater, rating in ratings
    ]


def _moments(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / len(values)
