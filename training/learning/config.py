"""What one run of the learning loop is made of; written into its checkpoints and into the version it publishes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LearnConfig:
    """Weights of the losses, length and speed of the descent; `..._every` and `warmup` are optimiser steps.

    A step takes `batch` corrections and as many replayed captions. It ends after `passes` over the corrections or
    `max_steps`, or earlier: after `patience` evaluations on the inner split without a better one.
    """

    passes: float = 10.0
    max_steps: int = 1500
    batch: int = 8
    lr: float = 1e-4
    lora_lr: float = 2e-4
    weight_decay: float = 0.01
    warmup: int = 10
    clip: float = 1.0
    max_tokens: int = 64  # of a caption; fewer where the decoder has fewer positions

    label_smoothing: float = 0.1
    kl_weight: float = 10.0  # of staying with the base on the replayed photos

    lora_above: int = 100_000_000  # decoder parameters; smaller decoders are trained whole
    lora_rank: int = 16
    seed: int = 0
    threads: int = 0  # 0: one per core this process may use
    eval_every: int = 10
    save_every: int = 50
    patience: int = 5

    @property
    def max_rows(self) -> int:
        """Corrections that the steps of a run can visit at all."""
        return self.max_steps * self.batch
