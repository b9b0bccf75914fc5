"""What a descent is made of; loads no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DescentConfig:
    """How long and how fast to descend; `steps`, `warmup` and every `..._every` are optimiser steps.

    `lr` is the peak. With `ema_decay` above 0 an exponential moving average of the weights is kept, too.
    """

    steps: int
    lr: float
    seed: int = 0
    warmup: int = 200
    decay: float = 0.3
    clip: float = 1.0
    ema_decay: float = 0.0
    save_every: int = 100
    log_every: int = 10
    eval_every: int = 0
