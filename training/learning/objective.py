"""The losses of the learning loop, each a function of logits; no model, no data.

L = XE(ideal) + w KL(base || model on replayed photos); the divergence is what keeps a candidate from forgetting.
"""

from __future__ import annotations

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


def base_divergence(logits: Tensor, base_logits: Tensor, labels: Tensor) -> Tensor:
    """KL(base || model), in nats per token, over the tokens of the captions; zero without any caption."""
    real = labels != IGNORED
    if not len(labels):
        return logits.sum() * 0.0
    model, base = logits[real].log_softmax(-1), base_logits[real].log_softmax(-1)
    return functional.kl_div(model, base, reduction="batchmean", log_target=True)
