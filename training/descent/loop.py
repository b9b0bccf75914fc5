"""The loop of every training here: descend, log, evaluate, save; a killed run ends with the very same weights.

Every step seeds torch from (seed, step) before anything is drawn, so that the step number is the whole state of
sampler and generators: a run that was killed repeats from its checkpoint exactly what it would have done.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from training.descent.checkpoint import checkpoint_read, checkpoint_step, checkpoint_write
from training.descent.config import DescentConfig
from training.descent.curve import Figures, curve_append, curve_cut
from training.descent.sampler import SEED_STRIDE
from training.descent.schedule import schedule
from training.progress import Tick, untold

logger = logging.getLogger(__name__)

BETAS = (0.9, 0.98)
AVERAGE_WARMUP = 10  # steps; the early weights are worthless, so that the window grows with the run


class Descent:
    """One run of `model` in `folder`, resumed where a checkpoint of the same run lies there.

    `groups` of parameters learn with AdamW, those of the optimisers `others` with these. `identity`, plain JSON, is
    what must agree for a resume to be meaningful. Of several processes that descend together (equal weights, each with
    the gradients of all) the one of `rank` 0 alone writes. Raises `CheckpointMismatch`.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[dict[str, Any]],
        config: DescentConfig,
        folder: Path,
        identity: Any = None,
        *,
        others: Sequence[torch.optim.Optimizer] = (),
        rank: int = 0,
    ) -> None:
        self.model, self.config, self.folder, self.identity, self.rank = model, config, folder, identity, rank
        self.optimizers = [*others, torch.optim.AdamW(list(groups), lr=config.lr, betas=BETAS)]
        self.peaks = [[float(group["lr"]) for group in each.param_groups] for each in self.optimizers]
        kept = model.state_dict().keys()
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = self.trained | {
            name: buffer for name, buffer in model.named_buffers() if name in kept
        }
        self.average = {n: w.detach().clone() for n, w in self.weights.items()} if config.ema_decay else {}
        # The best figure so far and its step; of a descent that began with the best weights, step 0.
        self.best = {n: w.detach().clone() for n, w in self.weights.items()} if config.patience else {}
        self.best_seen = torch.tensor([math.inf, 0.0], dtype=torch.float64)
        folder.mkdir(parents=True, exist_ok=True)
        self.step = checkpoint_step(folder, identity)
        if self.step:
            stored = checkpoint_read(folder)
            self._put({name: stored[f"weight.{name}"] for name in self.weights})
            for name, mean in self.average.items():
                mean.copy_(stored[f"average.{name}"])
            for name, weight in self.best.items():
                weight.copy_(stored[f"best.{name}"])
            self.best_seen = stored.get("best_seen", self.best_seen)
            owners = {
                id(p): each
                for each in self.optimizers
                for group in each.param_groups
                for p in group["params"]
            }
            for key, value in stored.items():
                moment, _, name = key.partition(".")
                if (parameter := self.trained.get(name)) is not None and moment not in (
                    "weight",
                    "average",
                    "best",
                ):
                    # AdamW counts its steps on the CPU.
                    placed = value.to(parameter.device) if value.ndim else value
                    owners[id(parameter)].state[parameter][moment] = placed
        if rank == 0:
            curve_cut(folder, self.step)

    def run(
        self,
        gradients: Callable[[int], Figures],
        evaluate: Callable[[nn.Module], Figures] | None = None,
        tick: Tick = untold,
        until: int | None = None,
    ) -> None:
        """Descend to the end of the schedule, or to step `until`, saving on the way.

        `gradients(step)` leaves the gradients of a step in the parameters and returns its losses. `evaluate(model)`
        returns named figures and is given the averaged weights where there are any. `tick` is told each step and may
        raise to stop.
        """
        stop = min(self.config.steps, until or self.config.steps)
        started, seen = time.monotonic(), list[Figures]()
        if evaluate and self.config.patience and self.step == 0:
            self._compare(self.with_average(evaluate))
        while self.step < stop and not self.is_stale:
            seen.append(self._descend(gradients))
            figures: Figures = {}
            if self.step % self.config.log_every == 0 or self.step == stop:
                figures = {name: fmean(losses[name] for losses in seen) for name in seen[0]}
                logger.debug("%.2f steps/s", len(seen) / (time.monotonic() - started))
                started, seen = time.monotonic(), []
            if evaluate and self._is_due(self.config.eval_every):
                evaluated = self.with_average(evaluate)
                figures |= evaluated
                self._compare(evaluated)
            if figures:
                self._log(figures)
            if self._is_due(self.config.save_every) or self.is_stale:
                self.save()
            tick("Learning", self.step, self.config.steps)
        if self.step == self.config.steps or self.is_stale:
            self._put(self.best)

    @property
    def is_stale(self) -> bool:
        """Whether the last `patience` evaluations brought nothing better."""
        waited = self.step - int(self.best_seen[1])
        return 0 < self.config.patience * self.config.eval_every <= waited

    def _compare(self, figures: Figures) -> None:
        if self.best and figures[self.config.watched] < self.best_seen[0]:
            self.best_seen = torch.tensor([figures[self.config.watched], self.step], dtype=torch.float64)
            for name, weight in self.best.items():
                weight.copy_((self.average or self.weights)[name].detach())

    def _is_due(self, every: int) -> bool:
        return self.step == self.config.steps or (every > 0 and self.step % every == 0)

    def _descend(self, gradients: Callable[[int], Figures]) -> Figures:
        share = schedule(self.step, self.config.steps, self.config.warmup, self.config.decay)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
        # What is dropped differs between processes, as it does between the rows of one.
        torch.manual_seed(self.config.seed * SEED_STRIDE + self.step + self.rank * SEED_STRIDE**2)
        self.model.train()
        losses = gradients(self.step)
        nn.utils.clip_grad_norm_(self.trained.values(), self.config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        decay = min(self.config.ema_decay, self.step / (self.step + AVERAGE_WARMUP))
        for name, mean in self.average.items():
            if mean.is_floating_point():
                mean.lerp_(self.weights[name].detach(), 1.0 - decay)
        return losses

    def with_average(self, use: Callable[[nn.Module], Figures]) -> Figures:
        """Call `use` with the averaged weights in the model (if any), then put the raw ones back."""
        raw = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self._put(self.average)
        self.model.eval()
        try:
            return use(self.model)
        finally:
            self._put(raw)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.weights[name].copy_(value)

    def _log(self, figures: Figures) -> None:
        if self.rank == 0:
            line = {"of": self.config.steps, "lr": self.optimizers[0].param_groups[0]["lr"], **figures}
            logger.debug(json.dumps({"step": self.step, **line}))
            curve_append(self.folder, self.step, line)

    def save(self) -> None:
        """Write weights, averages, the best weights and the optimisers' moments."""
        if self.rank:
            return
        tensors = {f"weight.{name}": weight for name, weight in self.weights.items()}
        tensors |= {f"average.{name}": mean for name, mean in self.average.items()}
        if self.best:
            tensors |= {f"best.{name}": weight for name, weight in self.best.items()}
            tensors["best_seen"] = self.best_seen
        for optimizer in self.optimizers:
            for name, parameter in self.trained.items():
                for moment, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"{moment}.{name}"] = value
        checkpoint_write(self.folder, tensors, self.step, self.identity)
