"""Which items a step takes: a function of seed and step alone, so that a resumed run takes the same."""

from __future__ import annotations

import torch
from torch import Tensor

SEED_STRIDE = 1_000_003  # a prime, so that (seed, step) and (seed, pass) rarely meet


def permutation_at(count: int, seed: int, epoch: int) -> Tensor:
    """The order in which pass number `epoch` visits `count` items."""
    generator = torch.Generator().manual_seed(seed * SEED_STRIDE + epoch)
    return torch.randperm(count, generator=generator)


def batch_indexes(count: int, batch: int, seed: int, step: int) -> Tensor:
    """Item indexes (batch,) of a step; passes follow each other without a gap, each in its own order."""
    first = step * batch
    positions = range(first, first + batch)
    orders = {epoch: permutation_at(count, seed, epoch) for epoch in {p // count for p in positions}}
    return torch.stack([orders[p // count][p % count] for p in positions])
