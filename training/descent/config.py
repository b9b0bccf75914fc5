"""What a descent is made of; loads no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DescentConfig:
    """How long and how fast to descend; `steps`, `warmup` and every `..._every` are optimiser steps.

    `lr` is the peak. With `ema_decay` above 0 an exponential moving average of the weights is kept, too. With a
    `patience` above 0 it ends after so many evaluations without a better one, by the figure `watched`, of which less
    is better; it then ends with the weights that were best, be it those it began with.
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
    patience: int = 0
    watched: str = "held_out"
