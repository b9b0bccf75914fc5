"""What one run of the learning loop is made of; written into its checkpoints and into the version it publishes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LearnConfig:
    """Weights of the losses, length and speed of the descent; `..._every` and `warmup` are optimiser steps.

    A step takes `batch` corrections and as many replayed captions.
    """

    passes: float = 3.0  # over the corrections
    min_steps: int = 120
    max_passes: int = 20  # so that a few rows are not learned by heart; goes before min_steps
    max_steps: int = 4000
    batch: int = 8
    lr: float = 5e-4
    lora_lr: float = 2e-4
    weight_decay: float = 0.01
    warmup: int = 20
    decay: float = 0.3
    clip: float = 1.0
    max_tokens: int = 24

    label_smoothing: float = 0.1
    kl_weight: float = 10.0  # of staying with the base on the replayed photos

    lora_above: int = 100_000_000  # decoder parameters; smaller decoders are trained whole
    lora_rank: int = 16
    seed: int = 0
    threads: int = 0  # 0: one per core this process may use
    save_every: int = 50
