"""The learning run in torch: corrections move a base's decoder, and replayed photos hold it near the base.

Where torchrun started this process (`training.learning.processes`), each of them takes its share of the rows of every
step, and the gradients are added up: together they take the step that one alone would take.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from training.data.features import Features, PhotoFeatures
from training.descent.config import DescentConfig
from training.descent.curve import Figures
from training.descent.loop import Descent
from training.descent.precision import bf16_is_fast
from training.descent.sampler import batch_indexes
from training.descent.schedule import parameter_groups
from training.learning.config import LearnConfig
from training.learning.model import FeatureCaptioner, labels_pad
from training.learning.objective import base_divergence, caption_cross_entropy
from training.progress import Tick, untold

INNER_ROWS = 400  # of the inner split; more would only take longer
EVALUATED = 32  # at a time


class Correction(NamedTuple):
    """A caption that somebody wrote for the photo at index `photo`."""

    photo: int
    ideal: str


class Replay(NamedTuple):
    """A caption of the photo at index `photo` that the base knew, so that it is not forgotten."""

    photo: int
    caption: str


@dataclass(frozen=True)
class TrainingSet:
    """Features (photos, patches, width) and what was said about the photos.

    `inner` are corrections that are not learned from: by them the descent is told when to stop.
    """

    features: Features | PhotoFeatures
    corrections: Sequence[Correction] = ()
    replay: Sequence[Replay] = ()
    inner: Sequence[Correction] = ()

    def steps(self, config: LearnConfig) -> int:
        """Optimiser steps of a run at most: so many passes over the corrections."""
        return min(config.max_steps, max(1, round(config.passes * len(self.corrections) / config.batch)))


class Target(NamedTuple):
    """A caption of the photo at index `photo` as label ids."""

    photo: int
    ids: list[int]


class Finetuning:
    """One run over `data` in `folder`, resumed where a checkpoint of the same run lies there.

    `identity` is what must agree for a resume to be meaningful, the hash of the data for one; the number of processes
    need not. Raises `CheckpointMismatch`.
    """

    def __init__(
        self, captioner: FeatureCaptioner, data: TrainingSet, config: LearnConfig, folder: Path, identity: str
    ) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)  # adapters start at random
        self.rank, self.processes, self.device = processes_join()
        self.captioner, self.data, self.config = captioner, data, config
        self.base = captioner.frozen_copy()
        lr = config.lr
        if captioner.parameter_count() > config.lora_above:
            captioner.adapters_add(config.lora_rank)
            lr = config.lora_lr
        self.corrections, self.inner = (
            [Target(row.photo, captioner.tokenise(row.ideal, config.max_tokens)) for row in rows]
            for rows in (data.corrections, data.inner[:INNER_ROWS])
        )
        self.replay = [
            Target(row.photo, captioner.tokenise(row.caption, config.max_tokens)) for row in data.replay
        ]
        # bf16 where the hardware has matrix units for it; the same machine gives the same bits every time.
        cuda = self.device.type == "cuda"
        self.bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else bf16_is_fast()
        model = captioner.parts.model.to(self.device)
        self.base.parts.model.to(self.device)
        descent = DescentConfig(
            data.steps(config),
            lr,
            config.seed,
            warmup=config.warmup,
            decay=0.0,  # where it will end is not known; the average with the base is what calms it down
            clip=config.clip,
            save_every=config.save_every,
            log_every=1,
            eval_every=config.eval_every,
            patience=config.patience if data.inner else 0,
            watched="inner",
        )
        self.descent = Descent(
            model,
            parameter_groups(model, lr, config.weight_decay),
            descent,
            folder,
            identity_of(config, identity),
            rank=self.rank,
        )

    def run(self, tick: Tick = untold, until: int | None = None) -> None:
        """Descend to the end, or to step `until`; `tick` is told each step and may raise to stop.

        At the end the model has the weights that were best on the inner split; the base's, if it never got better.
        """
        evaluate = self.inner_loss if self.inner else None
        self.descent.run(self.gradients, evaluate, tick, until)
        for each in (self.captioner, self.base):  # what is judged next is judged as it serves
            each.parts.model.to("cpu").eval()

    @torch.inference_mode()
    def inner_loss(self, _: nn.Module) -> Figures:
        """Cross-entropy of what people said of the inner split's photos, in nats per token."""
        total = torch.zeros(2, device=self.device, dtype=torch.float64)  # nats, tokens
        mine = self.inner[self.rank :: self.processes]
        for start in range(0, len(mine), EVALUATED):
            rows = mine[start : start + EVALUATED]
            features, labels = self.inputs(rows)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.captioner.logits(features, labels)
            nats = caption_cross_entropy(logits, labels).double() * tokens(rows)
            total += torch.stack([nats, torch.full_like(nats, tokens(rows))])
        if self.processes > 1:
            distributed.all_reduce(total)
        return {"inner": float(total[0] / total[1])}

    def inputs(self, rows: Sequence[Target]) -> tuple[Tensor, Tensor]:
        """Features (rows, patches, width) and labels (rows, tokens) of captions."""
        features = torch.from_numpy(self.data.features[[row.photo for row in rows]])
        return features.to(self.device), labels_pad([row.ids for row in rows]).to(self.device)

    def gradients(self, step: int) -> Figures:
        """Leave the gradients of a step in the parameters; its losses, each a mean over the tokens of the step."""
        corrections = self.rows_at(self.corrections, step, stream=0)
        replay = self.rows_at(self.replay, step, stream=1)
        # Of each kind a process has every so manieth row.
        mine, mine_replayed = (rows[self.rank :: self.processes] for rows in (corrections, replay))
        rows, first = [*mine, *mine_replayed], len(mine)
        features, labels = self.inputs(rows)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.captioner.logits(features, labels)
            with torch.no_grad():
                known = (
                    self.base.logits(features[first:], labels[first:]) if mine_replayed else logits[first:]
                )
        losses = torch.stack(
            [
                caption_cross_entropy(logits[:first], labels[:first], self.config.label_smoothing),
                self.config.kl_weight * base_divergence(logits[first:], known, labels[first:]),
            ]
        )
        # Means over a share weigh as much as the share: added up, they are the means over the whole.
        shares = [tokens(mine) / tokens(corrections), tokens(mine_replayed) / max(1, tokens(replay))]
        losses = losses * torch.tensor(shares, device=self.device)
        torch.autograd.backward(losses.sum())
        losses = losses.detach()
        if self.processes > 1:
            gradients = [p.grad for p in self.descent.trained.values() if p.grad is not None]
            total = nn.utils.parameters_to_vector(gradients)
            distributed.all_reduce(total)
            nn.utils.vector_to_parameters(total, gradients)
            distributed.all_reduce(losses)
        ideal, divergence = losses.tolist()
        return {"loss": ideal + divergence, "ideal": ideal, "kl": divergence}

    def rows_at(self, targets: Sequence[Target], step: int, stream: int) -> list[Target]:
        """The rows of a step, whoever has them; each stream has its own order. None where there are no targets."""
        if not targets:
            return []
        chosen = batch_indexes(len(targets), self.config.batch, self.config.seed * 2 + stream, step)
        return [targets[index] for index in chosen.tolist()]


def tokens(rows: Sequence[Target]) -> int:
    return sum(len(row.ids) for row in rows)


def identity_of(config: LearnConfig, identity: str) -> list[Any]:
    """What of a run must agree for it to be continued."""
    return [identity, asdict(config)]


def processes_join() -> tuple[int, int, torch.device]:
    """Rank among the processes of this run, their number, and where this one computes."""
    cuda = torch.cuda.is_available()
    if not distributed.is_torchelastic_launched():
        return 0, 1, torch.device("cuda" if cuda else "cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo")
    return distributed.get_rank(), distributed.get_world_size(), device
