"""The words: layers of attention and a decoder learn to describe photos from what the eye sees of them.

The eye's convolutions stay as they are, so that both stages here, people's captions word by word and then what whole
captions score, learn from maps that are kept on disk: a pass over the photos is a matter of minutes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, VisionEncoderDecoderModel

from training.data.caption_text import WATER, caption_mirror, captions_mention
from training.data.duplicates import duplicates_cache
from training.data.photo_sets import TRAIN
from training.descent.checkpoint import CHECKPOINT
from training.descent.curve import Figures
from training.descent.sampler import batch_indexes
from training.judging.figures import caption_figures
from training.starter.caption import (
    SETS,
    captioned_load,
    captions_choose,
    captions_pad,
    captions_tokenise,
    fit_config,
    groups_of,
    identity_of,
)
from training.starter.concepts import Concept, concepts_load
from training.starter.config import CaptionConfig, DecoderConfig, RewardConfig
from training.starter.eye import (
    FIRST_CROP,
    Maps,
    backbone_away,
    eye_freeze,
    eye_load,
    is_mirrored,
    maps_cache,
)
from training.starter.fit import Fit, dropout_insert
from training.starter.network import (
    Decoding,
    caption_loss,
    captioner_build,
    folder_write,
    inputs_caption,
    tokenizer_train,
)
from training.starter.reward import JUDGED, SelfCritic

# Of each concept; the photos are small, and more of a kind tell little more.
CONCEPT_PHOTOS = 20


@dataclass(frozen=True)
class SeenPhotos:
    """What the eye sees of photos in each view, (photos, channels, h, w), and their captions."""

    views: list[Maps]
    captions: list[list[str]]


def seen_load(
    data: Path,
    run: Path,
    name: str,
    split: str,
    encoder: Any,
    without: Collection[str] = (),
    views: Sequence[int] = (0,),
    threads: int = 2,
) -> SeenPhotos:
    """A split of a set as the eye sees it; looked at once per view and kept under `run/cache`."""
    size, cache = encoder.config.image_size, run / "cache"
    photos = captioned_load(data, cache, name, split, size, without)
    places = [(photos.pixels, index) for index in range(len(photos.pixels))]
    maps = [
        maps_cache(cache / f"eye-{name}-{split}-{view}.npy", encoder.backbone, places, size, view, threads)
        for view in views
    ]
    return SeenPhotos(maps, photos.captions)


def concepts_see(run: Path, encoder: Any, concepts: Sequence[Concept], threads: int = 2) -> list[SeenPhotos]:
    """A few photos of each concept as the eye sees them, each with all captions about such things."""
    places = [
        concept.photos[index]
        for number, concept in enumerate(concepts)
        for index in np.random.default_rng(number).permutation(len(concept.photos))[:CONCEPT_PHOTOS]
    ]
    path, size = run / "cache/eye-concepts.npy", encoder.config.image_size
    maps = maps_cache(path, encoder.backbone, places, size, threads=threads)
    seen, start = [], 0
    for concept in concepts:
        end = start + min(CONCEPT_PHOTOS, len(concept.photos))
        seen.append(SeenPhotos([maps[start:end]], [concept.captions]))
        start = end
    return seen


class MapBatches:
    """Draws photos in a view of theirs with up to `captions_each` of their captions as padded token labels.

    A share of `erased` of their places is blank. `labelled` photos of concepts come along with each batch.
    """

    def __init__(
        self,
        sets: Sequence[SeenPhotos],
        concepts: Sequence[SeenPhotos],
        tokenizer: PreTrainedTokenizerBase,
        config: CaptionConfig,
    ) -> None:
        self.config = config
        self.photos = [(photos, index) for photos in sets for index in range(len(photos.captions))]
        captions = [group for photos in sets for group in photos.captions]
        mirrored = [[caption_mirror(caption) for caption in group] for group in captions]
        self.tokens = [captions_tokenise(each, tokenizer, config.max_tokens) for each in (captions, mirrored)]
        spoken = captions_tokenise([seen.captions[0] for seen in concepts], tokenizer, config.max_tokens)
        self.concepts = list(zip(concepts, spoken, strict=True))

    def __len__(self) -> int:
        return len(self.photos)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Maps (B, channels, h, w) and labels (B, captions_each, longest) of a step."""
        each = self.config.captions_each
        maps, captions = [], []
        for index in batch_indexes(len(self), self.config.batch, self.config.seed, step).tolist():
            photos, place = self.photos[index]
            view = int(torch.randint(len(photos.views), ()))
            maps.append(photos.views[view][place])
            captions.append(captions_choose(self.tokens[int(is_mirrored(view))][index], each))
        for _ in range(self.config.labelled if self.concepts else 0):
            seen, spoken = self.concepts[int(torch.randint(len(self.concepts), ()))]
            maps.append(seen.views[0][int(torch.randint(len(seen.views[0]), ()))])
            captions.append(captions_choose(spoken, each))
        stacked = maps_stack(maps)
        kept = torch.rand(len(stacked), 1, *stacked.shape[2:]) >= self.config.erased
        return stacked * kept, captions_pad(captions)


def maps_stack(maps: Sequence[Maps]) -> Tensor:
    """float16 maps (channels, h, w) -> (B, channels, h, w) in single precision."""
    return torch.from_numpy(np.array(maps, np.float32))


def keep_best(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    backbone: nn.Module,
    vals: Sequence[SeenPhotos],
    folder: Path,
) -> Figures:
    """Score greedy captions of validation photos; save to `folder` when none before scored better on the first set."""
    scored = [
        caption_figures(
            inputs_caption(model, tokenizer, (maps_stack([seen])[0] for seen in val.views[0]), Decoding()),
            val.captions,
        )
        for val in vals
    ]
    figures = scored[0]
    for name, each in zip(
        JUDGED[1:], scored[1:], strict=False
    ):  # the experiments' base is judged on the first alone
        figures |= {f"{name}_cider_d": each["cider_d"]}
    record = folder / "val.json"
    best = json.loads(record.read_text())["cider_d"] if record.exists() else -1.0
    if figures["cider_d"] > best:
        away, model.encoder.backbone = model.encoder.backbone, backbone
        model.save_pretrained(folder)
        model.encoder.backbone = away
        tokenizer.save_pretrained(folder)
        record.write_text(json.dumps(figures))
    return figures


def words(
    data: Path,
    run: Path,
    config: CaptionConfig,
    decoder: DecoderConfig,
    views: int = 1,
    until: int | None = None,
) -> Any:
    """Train (or continue) in `run/words` from `run/eye`; the best so far goes to `run/captioner`.

    So many `views` of each photo are looked at: as it is, mirrored, then crops of both.
    """
    encoder, cache = eye_load(run), run / "cache"
    twins = duplicates_cache(data, cache / "near-duplicates.json")
    train = [seen_load(data, run, name, TRAIN, encoder, twins, range(views), config.threads) for name in SETS]
    vals = [seen_load(data, run, name, "val", encoder, threads=config.threads) for name in JUDGED]
    spoken = [text for photos in train for group in photos.captions for text in group]
    concepts = concepts_load(data, cache, config.labelled_size, spoken)
    shown = concepts_see(run, encoder, concepts, config.threads)
    flickr8k, coco, openstax = train
    visited = [flickr8k, *[coco] * config.coco_visits, openstax]
    return _describe(run, encoder, visited, shown, vals, config, decoder, until)


def base(
    data: Path, run: Path, config: CaptionConfig, decoder: DecoderConfig, until: int | None = None
) -> Any:
    """Train (or continue) in `run/base` what experiments on the learning loop start from; it ships with nothing.

    It learns from Flickr8k alone, and from no photo of which a caption mentions `WATER`: a domain is left to be
    learned from corrections. The best so far, as a checkpoint that can be served, goes to `run/base/captioner`.
    """
    encoder = eye_load(run)
    twins = duplicates_cache(data, run / "cache/near-duplicates.json")
    train = seen_dry(seen_load(data, run, SETS[0], TRAIN, encoder, twins, threads=config.threads))
    val = seen_dry(seen_load(data, run, SETS[0], "val", encoder, threads=config.threads))
    model = _describe(run / "base", encoder, [train], [], [val], config, decoder, until)
    best = run / "base/captioner"
    tokenizer = AutoTokenizer.from_pretrained(best)
    folder_write(
        VisionEncoderDecoderModel.from_pretrained(best, dtype=torch.float32),
        tokenizer,
        Decoding(num_beams=3),
        best,
    )
    return model


def seen_dry(photos: SeenPhotos) -> SeenPhotos:
    """Those of which no caption mentions `WATER`."""
    kept = [place for place, group in enumerate(photos.captions) if not captions_mention(group, WATER)]
    return SeenPhotos([maps[kept] for maps in photos.views], [photos.captions[place] for place in kept])


def _describe(
    folder: Path,
    encoder: Any,
    visited: Sequence[SeenPhotos],
    concepts: Sequence[SeenPhotos],
    vals: Sequence[SeenPhotos],
    config: CaptionConfig,
    decoder: DecoderConfig,
    until: int | None,
) -> Any:
    """Train (or continue) in `folder/words` on `visited` photos; the best so far goes to `folder/captioner`."""
    torch.manual_seed(config.seed)
    once = {id(photos): photos for photos in [*visited, *concepts]}.values()
    tokenizer = tokenizer_train(
        [text for photos in once for group in photos.captions for text in group],
        decoder.vocabulary,
        decoder.positions,
    )
    model = captioner_build(encoder, decoder, tokenizer)
    dropout_insert(model, config.dropout)
    batches = MapBatches(visited, concepts, tokenizer, config)

    def loss_of(view: nn.Module, maps: Tensor, labels: Tensor) -> Tensor:
        return caption_loss(view, maps, labels, config.label_smoothing)

    with backbone_away(model.encoder) as backbone:
        fit = Fit(
            model,
            groups_of(model, model.encoder.backbone, config),
            fit_config(config, len(batches)),
            folder / "words",
            identity_of(config) | {"decoder": asdict(decoder), "views": len(visited[0].views)},
        )
        fit.run(
            batches.at,
            loss_of,
            lambda trained: keep_best(trained, tokenizer, backbone, vals, folder / "captioner"),
            until,
        )
    return model


class MapRewardBatches:
    """Draws whole photos, mirrored or not, and says which they are: `RewardBatches`, on maps."""

    def __init__(self, sets: Sequence[SeenPhotos], config: RewardConfig) -> None:
        self.config = config
        self.photos = [(photos, index) for photos in sets for index in range(len(photos.captions))]
        first = len(sets[0].captions)
        self.visits = [*range(first), *list(range(first, len(self.photos))) * config.coco_visits]

    def __len__(self) -> int:
        return len(self.visits)

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps (B, channels, h, w), numbers of the photos, whether mirrored, and seeds (B,)."""
        chosen = batch_indexes(len(self), self.config.batch, self.config.seed, step).tolist()
        numbers = [self.visits[index] for index in chosen]
        places = [self.photos[number] for number in numbers]
        views = [int(torch.randint(len(photos.views), ())) for photos, _ in places]
        maps = [photos.views[view][index] for (photos, index), view in zip(places, views, strict=True)]
        mirrored = torch.tensor([is_mirrored(view) for view in views])
        return maps_stack(maps), torch.tensor(numbers), mirrored, torch.randint(2**62, (len(numbers),))


def reward(data: Path, run: Path, config: RewardConfig, views: int = 1, until: int | None = None) -> Any:
    """Train (or continue) `run/captioner` in `run/reward`; the best so far, itself included, goes to `run/rewarded`.

    With two `views` or more half of the photos are mirrored; crops are no measure of what it says of whole photos.
    Raises ResumeMismatchError where what is to be continued began with another captioner.
    """
    source, best = run / "captioner", run / "rewarded"
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = VisionEncoderDecoderModel.from_pretrained(source, dtype=torch.float32)
    eye_freeze(model.encoder)
    twins = duplicates_cache(data, run / "cache/near-duplicates.json")
    train = [
        seen_load(data, run, name, TRAIN, model.encoder, twins, range(min(views, FIRST_CROP)), config.threads)
        for name in JUDGED
    ]
    vals = [seen_load(data, run, name, "val", model.encoder, threads=config.threads) for name in JUDGED]
    critic = SelfCritic([group for photos in train for group in photos.captions], tokenizer, config)
    batches = MapRewardBatches(train, config)
    with backbone_away(model.encoder) as backbone:
        fit = Fit(
            model,
            groups_of(model, model.encoder, config),
            fit_config(config, len(batches), muon=False),
            run / "reward",
            identity_of(config)
            | {"captioner": sha256((source / "model.safetensors").read_bytes()).hexdigest(), "views": views},
        )
        if not (run / "reward" / CHECKPOINT).exists():  # a new run: what an older one left is not its best
            shutil.rmtree(best, ignore_errors=True)
            keep_best(model.eval(), tokenizer, backbone, vals, best)
        fit.run(
            batches.at,
            critic.loss,
            lambda trained: keep_best(trained, tokenizer, backbone, vals, best),
            until,
        )
    return model
