"""Stage 2: encoder and decoder together learn to describe photos from several captions of each."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, ResNetModel

from training.data.caption_text import caption_mirror, caption_normalise, caption_plain
from training.data.duplicates import duplicates_cache
from training.data.photo_sets import TRAIN, ReferencePhoto, photos_read
from training.data.pixels import Pixels, pixels_cache
from training.descent.curve import Figures
from training.descent.sampler import batch_indexes
from training.descent.schedule import parameter_groups
from training.exceptions import DatasetError
from training.judging.figures import caption_figures
from training.learning.objective import IGNORED
from training.starter.augment import batch_blur, batch_colour, batch_crop, batch_erase, photos_stack
from training.starter.concepts import Concept, concepts_load
from training.starter.config import CaptionConfig, DecoderConfig, EncoderConfig, FitConfig, RewardConfig
from training.starter.fit import Fit, dropout_insert
from training.starter.network import (
    Decoding,
    caption_loss,
    captioner_build,
    encoder_build,
    inputs_caption,
    pixels_inputs,
    tokenizer_train,
)

SETS = ("flickr8k", "coco", "openstax")
RIGHTS_RESERVED = "NC/ND/all-rights wording"
# Cropped views are cut from a larger copy, so that they are not blown up beyond the photo's own detail.
CACHE_MARGIN = 1.25


@dataclass(frozen=True)
class CaptionedPhotos:
    """Photos (N, side, side, 3) uint8 with their normalised captions."""

    pixels: Pixels
    captions: list[list[str]]


def captioned_load(
    data: Path, cache: Path, name: str, split: str, side: int, without: Collection[str] = ()
) -> CaptionedPhotos:
    """`photos_of` a split of a set, decoded to `side` pixels once and kept in `cache`; what teaches is plain."""
    photos = photos_of(data, name, split, without)
    captions = [[caption_normalise(caption) for caption in photo.captions] for photo in photos]
    if split == TRAIN:
        captions = [[caption_plain(caption) for caption in group] for group in captions]
    return CaptionedPhotos(pixels_cache(cache / f"{name}-{split}-{side}.npy", photos, side), captions)


def photos_of(data: Path, name: str, split: str, without: Collection[str] = ()) -> list[ReferencePhoto]:
    """The photos of one split of one set that are fit to teach, but for those that `without` names ("set/key").

    Raises DatasetError where there is none.
    """
    photos = [
        photo
        for path in sorted((data / name).glob("*.tar"))
        for photo in photos_read(path)
        if photo.record["split"] == split and is_fit(photo) and f"{name}/{photo.key}" not in without
    ]
    if not photos:
        raise DatasetError(
            f"{data / name} has no {split} photos: it needs .tar files of photos and their .json."
        )
    return photos


def is_fit(photo: ReferencePhoto) -> bool:
    """Whether it may teach: its captions tell no names, which nobody can see; its rights allow it; it hurts nobody."""
    record = photo.record
    return not (
        record.get("has_name") or record.get("sensitive") or record.get("photo_rights") == RIGHTS_RESERVED
    )


class CaptionBatches:
    """Draws augmented photos with up to `captions_each` of their captions as padded token labels."""

    def __init__(
        self,
        sets: list[CaptionedPhotos],
        concepts: list[Concept],
        tokenizer: PreTrainedTokenizerBase,
        config: CaptionConfig,
    ) -> None:
        self.config = config
        self.photos = [(photos.pixels, index) for photos in sets for index in range(len(photos.pixels))]
        captions = [group for photos in sets for group in photos.captions]
        self.tokens = [captions_tokenise(captions, tokenizer, config.max_tokens)]
        mirrored = [[caption_mirror(caption) for caption in group] for group in captions]
        self.tokens.append(captions_tokenise(mirrored, tokenizer, config.max_tokens))
        spoken = captions_tokenise([concept.captions for concept in concepts], tokenizer, config.max_tokens)
        self.concepts = list(zip(concepts, spoken, strict=True))

    def __len__(self) -> int:
        return len(self.photos)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, 3, size, size) and labels (B, captions_each, longest) of a step."""
        chosen = batch_indexes(len(self), self.config.batch, self.config.seed, step).tolist()
        mirrored = torch.rand(len(chosen)) < 0.5
        images = photos_stack([self.photos[index] for index in chosen])
        images = self._augmented(batch_blur(images, self.config.labelled_size, self.config.blurred), mirrored)
        each = self.config.captions_each
        captions = [
            captions_choose(self.tokens[int(m)][index], each)
            for index, m in zip(chosen, mirrored, strict=True)
        ]
        if self.concepts and self.config.labelled:
            others, about = self._labelled()
            images, captions = torch.cat([images, others]), captions + about
        return images, captions_pad(captions)

    def _labelled(self) -> tuple[Tensor, list[list[list[int]]]]:
        """Photos of things, any of which is as likely, with captions of others of the kind."""
        count = self.config.labelled
        drawn = [self.concepts[number] for number in torch.randint(len(self.concepts), (count,)).tolist()]
        images = photos_stack([concept.draw() for concept, _ in drawn])
        return self._augmented(images, torch.rand(count) < 0.5), [
            captions_choose(spoken, self.config.captions_each) for _, spoken in drawn
        ]

    def _augmented(self, images: Tensor, mirrored: Tensor) -> Tensor:
        images = batch_crop(images, self.config.size, self.config.smallest_crop, mirrored)
        return batch_erase(batch_colour(images, self.config.colour), self.config.erased)


def captions_choose(captions: list[list[int]], count: int) -> list[list[int]]:
    """So many of a photo's captions, by torch's generator; where it has fewer, empty ones fill up."""
    chosen = torch.randperm(len(captions))[:count].tolist()
    return [captions[index] for index in chosen] + [[]] * (count - len(chosen))


def captions_tokenise(
    captions: list[list[str]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[list[list[int]]]:
    """Token ids of the captions of each photo, each with its end and cut at `max_tokens`."""
    return [[ids[:max_tokens] for ids in tokenizer(group).input_ids] for group in captions]


def captions_pad(captions: list[list[list[int]]]) -> Tensor:
    """Token ids of equally many captions of each photo -> (photos, captions, longest), IGNORED after their end."""
    longest = max(len(ids) for group in captions for ids in group)
    return torch.tensor([[ids + [IGNORED] * (longest - len(ids)) for ids in group] for group in captions])


def caption(
    data: Path,
    run: Path,
    config: CaptionConfig,
    encoder: EncoderConfig,
    decoder: DecoderConfig,
    until: int | None = None,
) -> Any:
    """Train (or continue) in `run/caption` from `run/encoder`; the best so far goes to `run/captioner`."""
    torch.manual_seed(config.seed)
    side, cache = round(config.size * CACHE_MARGIN), run / "cache"
    twins = duplicates_cache(data, cache / "near-duplicates.json")
    train = [captioned_load(data, cache, name, TRAIN, side, without=twins) for name in SETS]
    val = captioned_load(data, cache, SETS[0], "val", config.size)
    words = [text for photos in train for group in photos.captions for text in group]
    concepts = concepts_load(data, cache, config.labelled_size, words)
    tokenizer = tokenizer_train(
        words + [text for concept in concepts for text in concept.captions],
        decoder.vocabulary,
        decoder.positions,
    )
    resnet = ResNetModel.from_pretrained(run / "encoder", dtype=torch.float32)
    model = captioner_build(encoder_build(resnet, encoder, config.size), decoder, tokenizer)
    dropout_insert(model, config.dropout)
    flickr8k, coco, openstax = train
    visited = [flickr8k, *[coco] * config.coco_visits, openstax]
    batches = CaptionBatches(visited, concepts, tokenizer, config)
    fit = Fit(
        model,
        groups_of(model, model.encoder.embeddings.backbone, config),  # what is pretrained
        fit_config(config, len(batches)),
        run / "caption",
        identity_of(config) | {"encoder": asdict(encoder), "decoder": asdict(decoder)},
    )

    def loss_of(view: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return caption_loss(view, images, labels, config.label_smoothing)

    fit.run(batches.at, loss_of, lambda trained: keep_best(trained, tokenizer, val, run / "captioner"), until)
    return model


def fit_config(config: CaptionConfig | RewardConfig, photos: int, muon: bool = True) -> FitConfig:
    """How long and how fast a stage descends that visits so many photos in a pass."""
    return FitConfig(
        max(1, int(config.passes * photos / config.batch)),
        config.lr,
        config.seed,
        muon=muon,
        warmup=config.warmup,
        ema_decay=config.ema_decay,
        save_every=config.save_every,
        eval_every=config.eval_every,
        threads=config.threads,
    )


def identity_of(config: CaptionConfig | RewardConfig) -> dict[str, Any]:
    """What of a stage's settings must agree for it to be continued."""
    # The length is left out: it may be changed while the learning rate is on its plateau.
    return {"stage": asdict(replace(config, passes=0))}


def groups_of(model: Any, slow: nn.Module, config: CaptionConfig | RewardConfig) -> list[dict[str, Any]]:
    """The parameters of its part `slow` move slowly, all others at full speed."""
    spared = {id(parameter) for parameter in slow.parameters()}
    others = nn.ParameterList(p for p in model.parameters() if id(p) not in spared)
    slowly = parameter_groups(slow, config.lr * config.encoder_lr_scale, config.weight_decay)
    return slowly + parameter_groups(others, config.lr, config.weight_decay)


def keep_best(model: Any, tokenizer: PreTrainedTokenizerBase, val: CaptionedPhotos, folder: Path) -> Figures:
    """Score greedy captions of validation photos; save to `folder` when none before scored better."""
    figures = caption_figures(
        inputs_caption(model, tokenizer, pixels_inputs(val.pixels), Decoding()), val.captions
    )
    record = folder / "val.json"
    best = json.loads(record.read_text())["cider_d"] if record.exists() else -1.0
    if figures["cider_d"] > best:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        record.write_text(json.dumps(figures))
    return figures
