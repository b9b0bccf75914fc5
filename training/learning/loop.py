"""The learning run in torch: corrections, ratings and replayed captions move a base's decoder.

Every step seeds torch from (seed, step) before it draws anything, so that the step number is the whole state of
sampler and generators: a run that was killed continues from its checkpoint to the very same weights.

Where accelerate finds itself to be one of several processes (`training.learning.processes` starts them), each takes its
share of the rows of every step, and the gradients are added up: together they take the step that one alone would take.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from training.data.features import FeatureFiles, Features
from training.descent.precision import bf16_is_fast
from training.learning import objective
from training.learning.config import LearnConfig
from training.learning.model import FeatureCaptioner, labels_pad

CHECKPOINT = "checkpoint.safetensors"
CURVE = "curve.jsonl"
Losses = dict[str, float]
SEED_STRIDE = 1_000_003  # a prime, so that (seed, step) and (seed, pass) rarely meet


# --- What every descent here shares ---


def schedule(step: int, steps: int, warmup: int, decay: float) -> float:
    """Share of the peak learning rate: warm-up, plateau, linear decay to zero over the last part `decay` (0..1).

    (arXiv:2405.18392.) The plateau knows nothing of the end.
    """
    return min(1.0, (step + 1) / max(1, warmup), (steps - step) / max(1, round(steps * decay)))


def parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW groups of one module: matrices and filters decay, biases, norms and gains do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]


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


# --- What is learned from ---


class Correction(NamedTuple):
    """A caption that somebody wrote for the photo at index `photo`; `rejected` is the model's, where it was worse."""

    photo: int
    ideal: str
    rejected: str = ""


class Rating(NamedTuple):
    """A logged caption of the photo at index `photo`, rated `z` standard deviations above its rater's mean."""

    photo: int
    caption: str
    z: float


class Replay(NamedTuple):
    """A caption of the photo at index `photo` that the base knew, so that it is not forgotten."""

    photo: int
    caption: str


@dataclass(frozen=True)
class TrainingSet:
    """Features (photos, patches, width) and what was said about the photos."""

    features: Features | FeatureFiles
    corrections: Sequence[Correction] = ()
    ratings: Sequence[Rating] = ()
    replay: Sequence[Replay] = ()

    def ratings_count(self, config: LearnConfig) -> bool:
        """Whether the ratings are enough to learn from: a minimum of rows, above and below the raters' means."""
        signs = {rating.z > 0 for rating in self.ratings if rating.z}
        return config.rating_weight > 0 and len(self.ratings) >= config.rating_min_rows and len(signs) == 2

    def steps(self, config: LearnConfig) -> int:
        """Optimiser steps of a run: so many passes over the corrections, or over the ratings where there are more."""
        rows = max(len(self.corrections), len(self.ratings) if self.ratings_count(config) else 0)
        wanted = max(config.min_steps, round(config.passes * rows / config.batch))
        return min(config.max_steps, wanted, max(1, config.max_passes * rows // config.batch))


class Row(NamedTuple):
    """One caption of the photo at index `photo` as label ids, and its mean log-probability under the base."""

    photo: int
    ids: list[int]
    base: float = 0.0


@dataclass
class Batch:
    """Rows of one step in consecutive parts: ideal, rejected, replay, rated, stranger."""

    rows: list[Row] = field(default_factory=list)
    parts: dict[str, slice] = field(default_factory=dict)
    preferred: list[int] = field(
        default_factory=list
    )  # those of "ideal" that "rejected" has a counterpart for
    z: Tensor = field(default_factory=lambda: torch.zeros(0))

    def add(self, part: str, rows: Sequence[Row]) -> None:
        first = len(self.rows)
        self.rows += rows
        self.parts[part] = slice(first, len(self.rows))

    def weights(self, config: LearnConfig) -> dict[str, float]:
        """What the losses of `batch_losses` are means over: how many tokens, pairs and ratings."""
        tokens = {part: sum(len(row.ids) for row in self.rows[where]) for part, where in self.parts.items()}
        rated = self.z.exp().sum().item() if config.rating_loss == "regression" else len(self.z)
        return {
            "ideal": tokens["ideal"],
            "preference": len(self.preferred),
            "rating": rated,
            "replay": tokens["replay"],
            "kl": tokens["replay"],
        }


class Sampler:
    """Draws the rows of a step. Captions are tokenised, and scored by the base, once."""

    def __init__(self, data: TrainingSet, captioner: FeatureCaptioner, config: LearnConfig) -> None:
        self.config = config

        def row(photo: int, caption: str) -> Row:
            return Row(photo, captioner.tokenise(caption, config.max_tokens))

        self.ideal = [row(c.photo, c.ideal) for c in data.corrections]
        self.rejected = [row(c.photo, c.rejected) if c.rejected else None for c in data.corrections]
        ratings = data.ratings if data.ratings_count(config) else ()
        self.rated = [row(r.photo, r.caption) for r in ratings]
        # The same captions, each with another photo.
        others = [*ratings[1:], *ratings[:1]]
        self.strangers = [row(r.photo, o.caption) for r, o in zip(ratings, others, strict=True)]
        self.z = [r.z for r in ratings]
        self.replay = [row(r.photo, r.caption) for r in data.replay]

    def score(self, base_score: Callable[[Sequence[Row]], Sequence[float]]) -> None:
        """Have the base score all captions that it is compared on."""
        pairs = [(index, row) for index, row in enumerate(self.rejected) if row]
        paired = [index for index, _ in pairs]
        for rows, indexes in (
            (self.ideal, paired),
            (self.rejected, paired),
            (self.rated, None),
            (self.strangers, None),
        ):
            chosen = list(range(len(rows))) if indexes is None else indexes
            scored = [row for row in (rows[index] for index in chosen) if row]
            for index, row, base in zip(chosen, scored, base_score(scored), strict=True):
                rows[index] = row._replace(base=base)

    def at(self, step: int, rank: int = 0, processes: int = 1) -> Batch:
        """The batch of a step, or the share of process `rank` of so many; equal steps draw equal batches.

        Of each part a share has every `processes`-th row; an ideal caption stays with its rejected one.
        """
        batch, share = Batch(), slice(rank, None, processes)
        corrections = self._draw(len(self.ideal), step, stream=0)[share]
        batch.add("ideal", [self.ideal[index] for index in corrections])
        pairs = [
            (row, rejected) for row, index in enumerate(corrections) if (rejected := self.rejected[index])
        ]
        batch.preferred = [row for row, _ in pairs]
        batch.add("rejected", [rejected for _, rejected in pairs])
        replay = self._draw(len(self.replay), step, stream=1)[share]
        batch.add("replay", [self.replay[index] for index in replay])
        ratings = self._draw(len(self.rated), step, stream=2)[share]
        batch.add("rated", [self.rated[index] for index in ratings])
        batch.add("stranger", [self.strangers[index] for index in ratings])
        batch.z = torch.tensor([self.z[index] for index in ratings])
        return batch

    def _draw(self, count: int, step: int, stream: int) -> list[int]:
        if not count:
            return []
        # Each kind of row has its own order: streams of equal seeds do not meet.
        return batch_indexes(count, self.config.batch, self.config.seed * 3 + stream, step).tolist()


# --- The run ---


def batch_losses(
    logits: Tensor,
    labels: Tensor,
    base_replay: Tensor,
    batch: Batch,
    config: LearnConfig,
    everyones: Callable[[Tensor], Tensor] = lambda own: own,
) -> dict[str, Tensor]:
    """The weighted losses of a batch by name; their sum is what is descended.

    `logits` (rows, T, V) and `labels` (rows, T) of all rows, `base_replay` the base's logits of the replayed ones.
    Where `batch` is a share, `everyones` makes one value for each stranger of the whole step of those of the share.
    """
    parts = batch.parts
    ideal, replay, rejected = parts["ideal"], parts["replay"], parts["rejected"]
    rated, stranger = parts["rated"], parts["stranger"]
    said = objective.caption_log_probabilities(logits, labels)
    base = torch.tensor([row.base for row in batch.rows], device=said.device)
    if config.rating_loss == "regression":
        rating = objective.regression_loss(said[rated], batch.z)
    else:
        drift = everyones((said[stranger] - base[stranger]).detach())
        rating = objective.rating_loss(said[rated], base[rated], drift, batch.z, config.rating_beta)
    preference = objective.preference_loss(
        said[ideal][batch.preferred],
        said[rejected],
        base[ideal][batch.preferred],
        base[rejected],
        config.preference_beta,
    )
    replayed = objective.caption_cross_entropy(logits[replay], labels[replay], config.label_smoothing)
    return {
        "ideal": objective.caption_cross_entropy(logits[ideal], labels[ideal], config.label_smoothing),
        "preference": config.preference_weight * preference,
        "rating": config.rating_weight * rating,
        "replay": config.replay_weight * replayed,
        "kl": config.kl_weight * objective.base_divergence(logits[replay], base_replay, labels[replay]),
    }


class CheckpointMismatch(ValueError):
    """The folder holds the checkpoint of another run: other data or other settings."""


def checkpoint_step(folder: Path, config: LearnConfig, identity: str) -> int:
    """The step after which the checkpoint in `folder` was written, 0 without one. Raises `CheckpointMismatch`."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    if facts["identity"] != _identity(config, identity):
        raise CheckpointMismatch(f"{path} belongs to a run with other data or settings; remove it.")
    return int(facts["step"])


def curve_after(folder: Path, step: int) -> list[Losses]:
    """What was logged after `step`, in order: the step and its losses."""
    path = folder / CURVE
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines[step:] if line.endswith("\n")]  # the last may be half written


def curve_cut(folder: Path, step: int) -> None:
    """Drop what was logged after `step`; it is about to be done again."""
    path = folder / CURVE
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    path.write_text("".join(lines[:step]))


def _identity(config: LearnConfig, identity: str) -> str:
    return json.dumps([identity, asdict(config)], sort_keys=True)


class Learning:
    """One run over `data` in `folder`, resumed where a checkpoint of the same run lies there.

    `identity` is what must agree for a resume to be meaningful, the hash of the data for one; the number of processes
    need not. The first process alone writes.
    """

    def __init__(
        self, captioner: FeatureCaptioner, data: TrainingSet, config: LearnConfig, folder: Path, identity: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)  # adapters start at random
        self.captioner, self.data, self.config, self.folder = captioner, data, config, folder
        self.identity = identity
        self.base = captioner.frozen_copy()
        lr = config.lr
        if captioner.parameter_count() > config.lora_above:
            captioner.adapters_add(config.lora_rank)
            lr = config.lora_lr
        self.steps, self.lr = data.steps(config), lr
        self.step = checkpoint_step(folder, config, identity)
        self.sampler = Sampler(data, captioner, config)
        # bf16 where the hardware has matrix units for it; the same machine gives the same bits every time.
        cuda = torch.cuda.is_available()
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else bf16_is_fast()
        self.accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no")
        self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes
        model = captioner.parts.model.to(self.accelerator.device)
        self.base.parts.model.to(self.accelerator.device)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, lr, config.weight_decay), lr=lr, betas=(0.9, 0.98)
        )
        if self.step:
            self._load()
        if self.rank == 0:
            curve_cut(folder, self.step)
        if self.step < self.steps:
            self.sampler.score(self._base_scores)

    def run(
        self, tick: Callable[[int, int, Losses], None] = lambda *_: None, until: int | None = None
    ) -> None:
        """Descend to the end, or to step `until`; `tick(step, steps, losses)` after each step may raise to stop."""
        stop = min(self.steps, until or self.steps)
        while self.step < stop:
            losses = self._descend()
            if self.rank == 0:
                self._log(losses)
                if self.step == self.steps or self.step % self.config.save_every == 0:
                    self.save()
            tick(self.step, self.steps, losses)
        self.captioner.parts.model.to("cpu").eval()

    def _descend(self) -> Losses:
        share = schedule(self.step, self.steps, self.config.warmup, self.config.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * share
        # Dropout differs between processes, as it does between the rows of one.
        torch.manual_seed(self.config.seed * SEED_STRIDE + self.step + self.rank * SEED_STRIDE**2)
        whole = self.sampler.at(self.step)
        batch = self.sampler.at(self.step, self.rank, self.processes) if self.processes > 1 else whole
        features, labels = self._tensors(batch.rows)
        batch.z, replay = batch.z.to(labels.device), batch.parts["replay"]
        self.captioner.parts.model.train()
        with self.accelerator.autocast():
            with torch.no_grad():
                base_replay = self._base_logits(features[replay], labels[replay])
            logits = self.captioner.logits(features, labels)
        losses = batch_losses(
            logits, labels, base_replay, batch, self.config, lambda own: self._everyones(own, len(whole.z))
        )
        # Means over a share weigh as much as the share: added up, they are the means over the whole.
        own, all_ = batch.weights(self.config), whole.weights(self.config)
        parts = torch.stack([loss * (own[name] / (all_[name] or 1)) for name, loss in losses.items()])
        torch.autograd.backward(parts.sum())
        self._gradients_add()
        nn.utils.clip_grad_norm_(self.trained.values(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        parts = self._sum(parts.detach())
        return {"loss": parts.sum().item()} | dict(zip(losses, parts.tolist(), strict=True))

    # --- Between processes; with one alone nothing happens here ---

    def _sum(self, own: Tensor) -> Tensor:
        """The sum of what all processes have."""
        return cast(Tensor, self.accelerator.reduce(own, "sum")) if self.processes > 1 else own

    def _everyones(self, own: Tensor, count: int) -> Tensor:
        """All `count` values of a step, of which these are every so manieth; no gradient passes."""
        everyones = own.new_zeros(count)
        everyones[self.rank :: self.processes] = own
        return self._sum(everyones) if count else everyones

    def _gradients_add(self) -> None:
        if self.processes == 1:
            return
        gradients = [parameter.grad for parameter in self.trained.values() if parameter.grad is not None]
        total = self._sum(nn.utils.parameters_to_vector(gradients))
        nn.utils.vector_to_parameters(total, gradients)

    def _tensors(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Features (rows, patches, width) and labels (rows, T)."""
        device = self.accelerator.device
        features = torch.from_numpy(self.data.features[[row.photo for row in rows]])
        return features.to(device), labels_pad([row.ids for row in rows]).to(device)

    def _base_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        if not len(labels):
            return torch.zeros(0, labels.shape[1], 1, device=labels.device)
        return self.base.logits(features, labels)

    @torch.no_grad()
    def _base_scores(self, rows: Sequence[Row], batch: int = 64) -> list[float]:
        """Mean log-probability per token of each row under the base."""
        own, scores = rows[self.rank :: self.processes], list[float]()
        for start in range(0, len(own), batch):
            features, labels = self._tensors(own[start : start + batch])
            with self.accelerator.autocast():
                logits = self.base.logits(features, labels)
            scores += objective.caption_log_probabilities(logits, labels).tolist()
        found = torch.tensor(scores, device=self.accelerator.device)
        return cast(list[float], self._everyones(found, len(rows)).tolist())

    def _log(self, losses: Losses) -> None:
        line = {"step": self.step, **{name: float(f"{loss:.5g}") for name, loss in losses.items()}}
        with (self.folder / CURVE).open("a") as curve:
            curve.write(json.dumps(line) + "\n")

    # --- Checkpoints: safetensors, so that nothing stored is ever unpickled ---

    def save(self) -> None:
        """Write weights and moments under a temporary name, then rename: a kill leaves the old or the new one."""
        tensors = {f"weight.{name}": p.detach().contiguous() for name, p in self.trained.items()}
        for name, parameter in self.trained.items():
            for moment in _MOMENTS:
                tensors[f"{moment}.{name}"] = self.optimizer.state[parameter][moment].contiguous()
        partial = self.folder / f"{CHECKPOINT}.partial"
        facts = {"identity": _identity(self.config, self.identity), "step": str(self.step)}
        save_file(tensors, partial, facts)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(self.folder / CHECKPOINT)

    @torch.no_grad()
    def _load(self) -> None:
        device = self.accelerator.device
        with safe_open(self.folder / CHECKPOINT, "pt") as file:
            for name, parameter in self.trained.items():
                parameter.copy_(file.get_tensor(f"weight.{name}"))
                state = {moment: file.get_tensor(f"{moment}.{name}").to(device) for moment in _MOMENTS}
                self.optimizer.state[parameter] = {"step": torch.tensor(float(self.step)), **state}


_MOMENTS = ("exp_avg", "exp_avg_sq")
