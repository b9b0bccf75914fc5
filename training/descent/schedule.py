"""How fast which parameters move."""

from __future__ import annotations

from typing import Any

from torch import nn


def schedule(step: int, steps: int, warmup: int, decay: float) -> float:
    """Share of the peak learning rate: warm-up, plateau, linear decay to zero over the last part `decay` (0..1).

    (arXiv:2405.18392.) The plateau knows nothing of the end, which may change until the decay begins.
    """
    return min(1.0, (step + 1) / max(1, warmup), (steps - step) / max(1, round(steps * decay)))


def parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW groups of one module: matrices and filters decay, biases, norms and gains do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]
