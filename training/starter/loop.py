"""The starter's training loop: descent, a curve in JSONL, checkpoints from which a killed run ends the same.

Every step seeds torch from (seed, step) before it draws data, augmentation and dropout, so the step number is
the whole state of sampler and generators: a resumed run repeats exactly what an uninterrupted one would do.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.descent.precision import bf16_is_fast
from training.learning import loop
from training.starter.config import LoopConfig
from training.starter.dropout import generator_set
from training.starter.muon import Muon, matrices_of

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.jsonl"
Metrics = dict[str, float]


class ResumeMismatchError(ValueError):
    """The run folder holds a checkpoint of another configuration."""


def schedule(step: int, config: LoopConfig) -> float:
    """Share of the peak learning rate, see `training.learning.loop.schedule`; the length may change on the plateau."""
    return loop.schedule(step, config.steps, config.warmup, config.decay)


def half_where_fast() -> torch.autocast:
    """Computes in bf16 where the CPU has matrix units (AMX); with AVX-512 alone that is slower than fp32."""
    # Without its cache of cast weights: threads would share it, and what is cast where none is needed has no gradient.
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_fast(), cache_enabled=False)


def layout_fast() -> torch.memory_format:
    """How this CPU likes the weights of convolutions: channels last ran 1.3x faster in fp32, 13x slower in bf16."""
    return torch.contiguous_format if bf16_is_fast() else torch.channels_last


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
        self.views = [model] + [_view(model) for _ in range(threads - 1)]
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


def _view(model: nn.Module) -> nn.Module:
    """A copy of the module tree around the very same parameters."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


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
    """One run of the loop over `model`, resumed from `folder` when a checkpoint of the same run is there.

    `batch_at(step)` draws a batch, `loss_of(view, *batch)` is the scalar loss of the model or of a view of
    it; `evaluate(model)` returns named figures and is given the averaged weights when `ema_decay` is set.
    `identity` is what else must agree for a resume to be meaningful.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        config: LoopConfig,
        folder: Path,
        identity: dict[str, Any] | None = None,
    ) -> None:
        self.model = model.to(memory_format=layout_fast())  # type: ignore[call-overload]
        self.config, self.folder = config, folder
        self.identity = json.loads(json.dumps(identity or {}))
        self.average = {k: v.clone() for k, v in model.state_dict().items()} if config.ema_decay else {}
        self.shards = Shards(model, config.threads)
        matrices, others = groups_split(groups, matrices_of(model) if config.muon else [])
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=config.lr, betas=(0.9, 0.98))
        ]
        if config.muon:
            self.optimizers.insert(0, Muon(matrices, config.lr, self.shards.pool))
        self.peaks = [[float(group["lr"]) for group in each.param_groups] for each in self.optimizers]
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        batch_at: Callable[[int], tuple[Tensor, ...]],
        loss_of: Callable[..., Tensor],
        evaluate: Callable[[nn.Module], Metrics] | None = None,
        until: int | None = None,
    ) -> None:
        """Train to the end of the schedule, or to step `until`, saving on the way."""
        torch.set_num_threads(1)
        self.load()
        stop = min(self.config.steps, until or self.config.steps)
        started, first, losses = time.monotonic(), self.step, list[float]()
        while self.step < stop:
            losses.append(self._descend(batch_at, loss_of))
            if self.step % self.config.log_every == 0 or self.step == stop:
                speed = (self.step - first) / (time.monotonic() - started)
                self._log({"loss": sum(losses) / len(losses), "steps_per_s": speed})
                losses.clear()
            if evaluate and self._due(self.config.eval_every):
                self._log(self.with_average(evaluate))
            if self._due(self.config.save_every):
                self.save()

    def _due(self, every: int) -> bool:
        return self.step == self.config.steps or (every > 0 and self.step % every == 0)

    def _descend(
        self, batch_at: Callable[[int], tuple[Tensor, ...]], loss_of: Callable[..., Tensor]
    ) -> float:
        share = schedule(self.step, self.config)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
        torch.manual_seed(self.config.seed * loop.SEED_STRIDE + self.step)
        for view in self.shards.views:
            view.train()
        loss, gradients = self.shards.backward(batch_at(self.step), loss_of)
        for parameter, gradient in zip(self.shards.parameters, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(self.shards.parameters, self.config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self._average()
        return loss

    @torch.no_grad()
    def _average(self) -> None:
        # The early weights are worthless: the window grows with the run until it reaches ema_decay.
        decay = min(self.config.ema_decay, self.step / (self.step + 10))
        weights = self.model.state_dict()
        for name, mean in self.average.items():
            if mean.is_floating_point():
                mean.lerp_(weights[name], 1.0 - decay)

    def with_average(self, use: Callable[[nn.Module], Metrics]) -> Metrics:
        """Call `use` with the averaged weights in the model (if any), then put the raw ones back."""
        raw = {name: value.clone() for name, value in self.model.state_dict().items()}
        if self.average:
            self.model.load_state_dict(self.average)
        self.model.eval()
        try:
            return use(self.model)
        finally:
            self.model.load_state_dict(raw)

    def _log(self, figures: Metrics) -> None:
        line = {
            "step": self.step,
            "of": self.config.steps,
            "lr": self.optimizers[0].param_groups[0]["lr"],
            **figures,
        }
        line = {
            key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in line.items()
        }
        logger.info(json.dumps(line))
        with (self.folder / CURVE).open("a") as curve:
            curve.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write the checkpoint under a temporary name, then rename: a kill leaves the old or the new one."""
        state = {
            "step": self.step,
            "identity": json.dumps(self.identity),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = self.folder / f"{CHECKPOINT}.partial"
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / CHECKPOINT)

    def load(self) -> None:
        """Continue from the checkpoint in the folder, if any; ResumeMismatchError for another run's."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        if json.loads(state["identity"]) != self.identity:
            raise ResumeMismatchError(
                f"{path} was written with other settings: choose another --run folder or delete it."
            )
        self.model.load_state_dict(state["model"])
        self.shards.share_buffers()
        self.average = state["average"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = int(state["step"])
