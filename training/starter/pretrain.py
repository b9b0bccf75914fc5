"""Stage 1: the encoder learns to see by naming 64-pixel photos of two labelled sets."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.pixels import Pixels, sheets_load
from training.descent.sampler import batch_indexes
from training.descent.schedule import parameter_groups
from training.starter.augment import batch_crop, photos_stack
from training.starter.config import EncoderConfig, FitConfig, PretrainConfig
from training.starter.fit import Fit, half_where_fast
from training.starter.network import Classifier, resnet_build


class LabelledPhotos:
    """Photos of several sets side by side with labels numbered through: set after set, none shared."""

    def __init__(self, sets: list[tuple[Pixels, list[int]]]) -> None:
        self.sets = [pixels for pixels, _ in sets]
        self.starts = np.cumsum([0] + [len(pixels) for pixels in self.sets])
        self.labels = torch.tensor([label for _, labels in sets for label in labels])

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indexes: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised photos (B, 3, H, W) and labels (B,) of the given indexes."""
        owners = np.searchsorted(self.starts, indexes.numpy(), side="right") - 1
        places = [
            (self.sets[owner], index - self.starts[owner])
            for owner, index in zip(owners, indexes.numpy(), strict=True)
        ]
        return photos_stack(places), self.labels[indexes]


def labelled_load(data: Path, cache: Path, size: int) -> tuple[LabelledPhotos, LabelledPhotos, int]:
    """Training photos (Tiny-ImageNet and others), Tiny-ImageNet validation photos, number of labels."""
    train, val = (sheets_load(data, cache, name, size) for name in ("tiny-train", "tiny-val"))
    pixels, labels = sheets_load(data, cache, "labelled", size)
    first = len(json.loads((data / "tiny_imagenet/classes.json").read_text()))
    numbers = {name: first + index for index, name in enumerate(sorted(set(labels)))}
    others = (pixels, [numbers[name] for name in labels])
    return LabelledPhotos([train, others]), LabelledPhotos([val]), first + len(numbers)


def pretrain(
    data: Path, run: Path, config: PretrainConfig, encoder: EncoderConfig, until: int | None = None
) -> Classifier:
    """Train (or continue) the classifier in `run/pretrain`; the caches lie in `run/cache`."""
    torch.manual_seed(config.seed)
    train, val, labels = labelled_load(data, run / "cache", config.size)
    model = Classifier(resnet_build(encoder), encoder.hidden_sizes[-1], labels)
    steps = int(config.passes * len(train) / config.batch)
    first_steps = int(config.first_passes * len(train) / config.batch)
    descent = FitConfig(
        steps,
        config.lr,
        config.seed,
        warmup=config.warmup,
        save_every=config.save_every,
        eval_every=500,
        threads=config.threads,
    )
    groups = parameter_groups(model, config.lr, config.weight_decay)
    # The length is left out: it may be changed while the learning rate is on its plateau.
    identity = {"stage": asdict(replace(config, passes=0)), "encoder": asdict(encoder)}
    fit = Fit(model, groups, descent, run / "pretrain", identity)

    def batch_at(step: int) -> tuple[Tensor, Tensor]:
        images, targets = train.take(batch_indexes(len(train), config.batch, config.seed, step))
        size = config.first_size if step < first_steps else config.size
        return batch_crop(images, size, config.smallest_crop, torch.rand(len(images)) < 0.5), targets

    def loss_of(view: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(view(images), targets, label_smoothing=config.label_smoothing)

    fit.run(batch_at, loss_of, lambda trained: {"tiny_val_top1": top1(trained, val)}, until)
    model.encoder.save_pretrained(run / "encoder")
    return model


@torch.inference_mode()
def top1(model: nn.Module, photos: LabelledPhotos) -> float:
    """Share of `photos` whose best label among all labels is the right one."""
    right = 0
    for indexes in torch.split(torch.arange(len(photos)), 250):
        images, targets = photos.take(indexes)
        with half_where_fast():
            right += int((model(images).argmax(1) == targets).sum())
    return right / len(photos)
