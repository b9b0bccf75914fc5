"""How the starter descends: a batch is split over threads, matrices learn with Muon, dropout repeats to the last bit.

The descent itself is that of all trainings here, `training.descent.loop`; its curves are drawn here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from training.descent.curve import Figures, curve_read, curve_thin
from training.descent.loop import Descent
from training.descent.precision import bf16_is_fast
from training.judging.charts import Points, line_chart
from training.starter.config import FitConfig

# Its rate is handed on to the attention kernel, which draws by itself.
ATTENTION = "attn_dropout"


class Dropout(nn.Module):
    """While training, zeroes elements at `rate`, drawn from `generator`, and scales up the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None  # torch's own, until `generator_set`

    def forward(self, inputs: Tensor) -> Tensor:
        """A tensor of the same shape."""
        if not self.training:
            return inputs
        kept = torch.empty_like(inputs).bernoulli_(1.0 - self.rate, generator=self.generator)
        return inputs * kept.div_(1.0 - self.rate)


def dropout_insert(model: nn.Module, rate: float) -> None:
    """Put a `Dropout` of `rate` wherever the model has one of torch's, but for those of attention weights."""
    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if isinstance(module, nn.Dropout) and name != ATTENTION:
            setattr(model.get_submodule(parent), name, Dropout(rate))


def generator_set(model: nn.Module, generator: torch.Generator) -> None:
    """Let every `Dropout` of the model draw from `generator`."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.generator = generator


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


# What a line of the curve says of the step and not of the model.
_OF_THE_STEP = {"step", "of", "lr", "loss", "steps_per_s"}


def curves_plot(stage: Path) -> list[Path]:
    """Write `loss.svg` and `validation.svg` beside `curve.jsonl` in the folder `stage`; returns those written.

    A picture without a point is not written. Steps that a resumed run did again count once, as done last.
    """
    once: dict[tuple[float, bool], Figures] = {
        (line["step"], "loss" in line): line for line in curve_read(stage)
    }
    losses = curve_thin([line for line in once.values() if "loss" in line])
    shown: dict[str, list[tuple[float, float]]] = {}
    for line in once.values():
        for name in (name for name in line if name not in _OF_THE_STEP):
            shown.setdefault(name, []).append((line["step"], line[name]))
    drawn: dict[str, Points] = {"loss": [(line["step"], line["loss"]) for line in losses]}
    charts = {
        "loss.svg": line_chart(drawn, title=f"Loss of {stage.name}", x_label="step", y_label="loss"),
        "validation.svg": line_chart(shown, title=f"Validation of {stage.name}", x_label="step"),
    }
    written = []
    for name, chart in charts.items():
        if chart:
            (stage / name).write_text(chart + "\n", encoding="utf-8")
            written.append(stage / name)
    return written
