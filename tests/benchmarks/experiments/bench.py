"""Photos, people's sentences, learning and measuring, shared by the experiments. No Django.

The new domain is Flickr8k's photos at the water: of each photo five people wrote a sentence, and a correction is one of
them. The original photos are Flickr8k's others. The base to teach is one that never saw a photo at the water (the
starter's recipe makes it, stage `base`); of the bundled weights, which learned from Flickr8k's training photos, only
the validation photos are new.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.data.anchor import anchor_sets
from training.data.caption_text import WATER, captions_mention
from training.data.features import FeatureStore, PhotoFeatures
from training.data.photo_sets import PhotoSet, ReferencePhoto, photo_sets_read
from training.judging.gate import ScoredCaptions
from training.judging.measure import ReferenceSet, measure
from training.learning.blending import Blend, blend_find, groups_inner
from training.learning.config import LearnConfig
from training.learning.finetune import Correction, Finetuning, Replay, TrainingSet
from training.learning.model import FeatureCaptioner
from training.progress import Tick, untold

STARTER = Path(__file__).resolve().parents[3] / "models_registry" / "starter"
# A photo is of the domain when at least three of the five who described it mention the water.
SAID_BY = 3
PEOPLE = 20
HOLDOUT_PHOTOS = 240
POOL_PHOTOS = 1000  # of the domain, that corrections are drawn from; more would only take longer to look at
ORIGINAL_PHOTOS = 240


@dataclass
class Bench:
    """What the experiments share: domain photos in a fixed order, held-out ones first, then those that are replayed."""

    base: Path
    folder: Path
    photos: list[ReferencePhoto]  # of the domain
    features: PhotoFeatures  # of the domain's photos, then of the replayed ones
    held_out: int
    replay: list[Replay]
    original: ReferenceSet

    @property
    def holdout(self) -> ReferenceSet:
        """The domain photos that no run learns from, with all five captions."""
        captions = [list(photo.captions) for photo in self.photos[: self.held_out]]
        return ReferenceSet(self.features[: self.held_out], captions)

    def corrections(self, count: int, seed: int) -> list[Correction]:
        """What simulated people, each with some of the photos, wrote of `count` photos; others for each seed.

        Raises `ValueError` where there are fewer.
        """
        return corrections_draw(self.photos, self.held_out, count, seed)

    def learn(
        self,
        corrections: Sequence[Correction],
        seed: int,
        config: LearnConfig,
        run: Path | None = None,
        tick: Tick = untold,
    ) -> tuple[FeatureCaptioner, Blend]:
        """A candidate that learned from these as a run does, and how much of it was kept.

        It is resumed where a checkpoint lies in the folder `run`; without one nothing is left behind.
        """
        captioner = FeatureCaptioner.load(self.base)
        config = replace(config, seed=seed)
        aside = groups_inner(str(row.photo) for row in corrections)
        inner = [row for row in corrections if str(row.photo) in aside]
        taught = [row for row in corrections if str(row.photo) not in aside]
        captioner.length_allow(
            max(len(captioner.tokenise(row.ideal, config.max_tokens)) for row in corrections)
        )
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            data = TrainingSet(self.features, taught, self.replay, inner)
            learning = Finetuning(captioner, data, config, run or Path(scratch), "experiment")
            learning.run(tick)
        captioner.adapters_merge()
        judged = ReferenceSet(self.features.of([row.photo for row in inner]), [[row.ideal] for row in inner])
        groups = [str(row.photo) for row in inner]
        return captioner, blend_find(captioner, learning.base, judged, groups, tick)

    def scores(self, captioner: FeatureCaptioner, tick: Tick = untold) -> Scores:
        predictor = captioner.predictor()
        return Scores(measure(predictor, self.holdout, tick), measure(predictor, self.original, tick))


@dataclass(frozen=True)
class Scores:
    """One version on the held-out domain photos and on the original ones."""

    domain: ScoredCaptions
    original: ScoredCaptions


def corrections_draw(
    photos: Sequence[ReferencePhoto], held_out: int, count: int, seed: int
) -> list[Correction]:
    """See `Bench.corrections`."""
    generator = random.Random(seed)
    chosen = generator.sample(range(held_out, len(photos)), count)
    # A person keeps to one of the five columns of sentences.
    column = [generator.randrange(5) for _ in range(PEOPLE)]
    said = [photos[index].captions for index in chosen]
    ideals = [captions[column[generator.randrange(PEOPLE)] % len(captions)] for captions in said]
    return [Correction(index, ideal) for index, ideal in zip(chosen, ideals, strict=True)]


def domain_read(data: Path, base: Path) -> tuple[list[ReferencePhoto], int, list[ReferencePhoto]]:
    """The domain's photos in a fixed order, how many of them, the first, are held out, and validation photos without
    any water. The bundled starter knows Flickr8k's training photos; its domain is of the others."""
    splits = photo_sets_read([data / "flickr8k"])["flickr8k"]
    known = base.resolve() == STARTER
    water = [
        photo
        for photo in [*splits["val"], *([] if known else splits["train"])]
        if captions_mention(photo.captions, WATER) >= SAID_BY
    ]
    dry = [photo for photo in splits["val"] if not captions_mention(photo.captions, WATER)]
    random.Random(0).shuffle(water)
    random.Random(0).shuffle(dry)
    held_out = min(HOLDOUT_PHOTOS, len(water) // 2)
    return water[: held_out + POOL_PHOTOS], held_out, dry


def bench_open(data: Path, base: Path, folder: Path, tick: Tick = untold) -> Bench:
    """Read Flickr8k below `data` and cache what the base's encoder sees of it in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    captioner = FeatureCaptioner.load(base)
    water, held_out, dry = domain_read(data, base)
    replayed, _ = anchor_sets()
    store = FeatureStore(folder / captioner.encoder_digest())
    domain, held_on, original = (
        store.put_set(photos, captioner.encode_images, tick)
        for photos in (photo_set(water), replayed, photo_set(dry[:ORIGINAL_PHOTOS]))
    )
    return Bench(
        base=base,
        folder=folder,
        photos=water,
        features=PhotoFeatures([*domain.paths, *held_on.paths]),
        held_out=held_out,
        replay=[
            Replay(len(water) + index, caption)
            for index, group in enumerate(replayed.captions)
            for caption in group
        ],
        original=ReferenceSet(original, [list(photo.captions) for photo in dry[:ORIGINAL_PHOTOS]]),
    )


def photo_set(photos: Sequence[ReferencePhoto]) -> PhotoSet:
    """Photos that were read already, as a set."""
    captions = [list(photo.captions) for photo in photos]
    return PhotoSet(Path(), captions, "", lambda: (photo.data for photo in photos))
