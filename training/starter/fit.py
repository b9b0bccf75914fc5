"""How the starter descends: a batch is split over threads, and matrices learn with Muon.

The descent itself is that of all trainings here, `training.descent.loop`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.descent.curve import Figures
from training.descent.loop import Descent
from training.descent.precision import bf16_is_fast
from training.starter.config import FitConfig
from training.starter.dropout import generator_set
from training.starter.muon import Muon, matrices_of


def half_where_fast() -> torch.autocast:
    """Computes in bf16 where the CPU has matrix units (AMX); with AVX-512 alone that is slower than fp32."""
    # Without its cache of cast weights: threads would share it, and what is cast where none is needed has no gradient.
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_fast(), cache_enabled=False)


class Shards:
    """Splits a batch over threads, each with its own view of the model, and adds up the gradients.

    Views share parameters but not buffers, so batch normalisation sees its shard alone; its statistics are
    averaged afterwards. One thread per core needs no barrier inside every operation: on a busy machine that
    is 1.5x faster than as many threads within each operation, and the result depends on no thread's timing.
    Each view draws its dropout from a generator of its own.
    """

    def __init__(self, model: nn.Module, threads: int) -> None:
        self.model = model
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        shared = {id(parameter): parameter for parameter in model.parameters()}
        self.views = [model, *(copy.deepcopy(model, shared) for _ in range(threads - 1))]
        self.generators = [torch.Generator() for _ in self.views]
        for view, generator in zip(self.views, self.generators, strict=True):
            generator_set(view, generator)
        self.pool = ThreadPoolExecutor(threads)

    def backward(
        self, batch: tuple[Tensor, ...], loss_of: Callable[..., Tensor]
    ) -> tuple[float, list[Tensor | None]]:
        """Mean loss and gradients of `loss_of(view, *shard)` over shards of the batch, by how many rows each has."""
        for generator in self.generators:
            generator.manual_seed(int(torch.randint(2**62, ())))
        rows, used = len(batch[0]), min(len(self.views), len(batch[0]))
        # Every so many rows: what comes last in a batch is of another kind, and each view wants some of it.
        shards = [tuple(tensor[first::used] for tensor in batch) for first in range(used)]
        jobs = [
            self.pool.submit(self._shard, loss_of, view, shard, len(shard[0]) / rows)
            for view, shard in zip(self.views, shards, strict=False)
        ]
        results = [job.result() for job in jobs]
        gradients = [
            None if parts[0] is None else torch.stack(parts).sum(0)
            for parts in zip(*(gradient for _, gradient in results), strict=True)
        ]
        self.share_buffers(used)
        return sum(loss for loss, _ in results), gradients

    def _shard(
        self, loss_of: Callable[..., Tensor], view: nn.Module, shard: tuple[Tensor, ...], weight: float
    ) -> Any:
        with half_where_fast():
            loss = loss_of(view, *shard) * weight
        mine = [p for p in view.parameters() if p.requires_grad]
        return float(loss.detach()), torch.autograd.grad(loss, mine, allow_unused=True)

    @torch.no_grad()
    def share_buffers(self, used: int = 1) -> None:
        """Give all views the mean of the buffers of the first `used` ones; the model is the first."""
        for same in zip(*(view.buffers() for view in self.views), strict=True):
            if same[0].is_floating_point():
                same[0].copy_(torch.stack(same[:used]).mean(0))
            for other in same[1:]:
                other.copy_(same[0])


def groups_split(
    groups: list[dict[str, Any]], matrices: list[Tensor]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Optimiser groups of only `matrices`, and of all others, with the settings they have in `groups`."""
    chosen = {id(parameter) for parameter in matrices}
    within, others = (
        [group | {"params": [p for p in group["params"] if (id(p) in chosen) is wanted]} for group in groups]
        for wanted in (True, False)
    )
    return [group for group in within if group["params"]], [group for group in others if group["params"]]


class Fit:
    """A descent of `model` in `folder`, see `training.descent.loop.Descent`, to which the arguments go."""

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        config: FitConfig,
        folder: Path,
        identity: dict[str, Any] | None = None,
    ) -> None:
        # How this CPU likes convolutions: channels last ran 1.3x faster in fp32, 13x slower in bf16.
        layout = torch.contiguous_format if bf16_is_fast() else torch.channels_last
        model.to(memory_format=layout)  # type: ignore[call-overload]
        self.shards = Shards(model, config.threads)
        matrices, others = groups_split(groups, matrices_of(model) if config.muon else [])
        muon = [Muon(matrices, config.lr, self.shards.pool)] if config.muon else []
        self.descent = Descent(model, others, config, folder, identity, others=muon)
        self.shards.share_buffers()

    def run(
        self,
        batch_at: Callable[[int], tuple[Tensor, ...]],
        loss_of: Callable[..., Tensor],
        evaluate: Callable[[nn.Module], Figures] | None = None,
        until: int | None = None,
    ) -> None:
        """Train to the end of the schedule, or to step `until`, saving on the way.

        `batch_at(step)` draws a batch, `loss_of(view, *batch)` is the scalar loss of the model or of a view of it;
        `evaluate(model)` returns named figures and is given the averaged weights when `ema_decay` is set.
        """
        torch.set_num_threads(1)

        def gradients(step: int) -> Figures:
            for view in self.shards.views:
                view.train()
            loss, gradients = self.shards.backward(batch_at(step), loss_of)
            for parameter, gradient in zip(self.shards.parameters, gradients, strict=True):
                parameter.grad = gradient
            return {"loss": loss}

        self.descent.run(gradients, evaluate, until=until)
