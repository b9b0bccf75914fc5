"""Muon: momentum whose update of each weight matrix is made orthogonal, so that all its directions learn at one speed.

(Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.) `torch.optim.Muon` takes no convolutions and computes
in bf16, which many CPUs have to emulate.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

# The quintic of the article: it lifts all singular values to between 0.7 and 1.2 or so within five steps.
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315
NEWTON_SCHULZ_STEPS = 5
# Root mean square of an element's update in units of the learning rate; AdamW's is 0.2 to 0.4 (arXiv:2502.16982).
UPDATE_RMS = 0.5


def matrices_of(model: nn.Module) -> list[Tensor]:
    """The weights Muon is meant for: those of hidden layers, not embeddings and not what names labels or words."""
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | Conv1D) and not name.endswith("head")
    ]


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix (rows, columns), nearly: singular values of about one.

    Newton-Schulz steps are odd polynomials p(M M^T) M, so they are taken on the small square M M^T alone, and their
    product is applied to M once: for the filters of a convolution less than half of the work.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp_min(1e-12)
    gram = wide @ wide.T
    one = torch.eye(len(gram), dtype=gram.dtype)
    product = one
    for _ in range(NEWTON_SCHULZ_STEPS):
        step = LINEAR * one + CUBIC * gram + QUINTIC * (gram @ gram)
        product = step @ product
        gram = step @ gram @ step
    wide = product.mm(wide)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay; filters (out, in, h, w) are (out, in * h * w) matrices.

    Each parameter is updated by itself, on whichever thread of `pool` is free.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, pool: Executor) -> None:
        super().__init__(groups, {"lr": lr, "momentum": 0.9, "weight_decay": 0.0})
        self.pool = pool

    def step(self) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        jobs = [
            self.pool.submit(
                self._update,
                parameter,
                parameter.grad,
                group["lr"],
                group["momentum"],
                group["weight_decay"],
            )
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        for job in jobs:
            job.result()

    @torch.no_grad()
    def _update(
        self, parameter: Tensor, gradient: Tensor, lr: float, momentum: float, weight_decay: float
    ) -> None:
        state = self.state[parameter]
        mean = state.setdefault("mean", torch.zeros_like(gradient)).lerp_(gradient, 1 - momentum)
        matrix = gradient.lerp(mean, momentum).flatten(1)
        update = orthogonalise(matrix).view_as(parameter)
        # An orthogonal update has rows (or columns) of length one: elements of 1 / sqrt(longer side).
        scale = UPDATE_RMS * max(matrix.shape) ** 0.5
        parameter.mul_(1 - lr * weight_decay).add_(update, alpha=-lr * scale)
