"""Photos, simulated users and measuring, shared by the experiments. No Django.

The new domain is a catalogue: small photos of 26 kinds (flowers, rooms, scenes, things) out of sets labelled by
kind, described by simulated people (`tests.benchmarks.experiments.people`). The original photos are Flickr8k's.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.experiments.domains import catalogue_photos
from tests.benchmarks.experiments.people import PEOPLE
from training.data.features import Features, features_write
from training.data.photo_sets import PhotoSet, photo_set_open
from training.judging.association import Association, association_test
from training.judging.captioning import features_caption
from training.judging.gate import Decision, ScoredCaptions, decide
from training.judging.measure import ReferenceSet, measure
from training.learning.config import LearnConfig
from training.learning.finetune import Correction, Finetuning, Replay, TrainingSet
from training.learning.model import FeatureCaptioner

DOMAIN_PHOTOS = 1100
HOLDOUT_PHOTOS = 240
ORIGINAL_PHOTOS = 240
REPLAY_PHOTOS = 800


@dataclass
class Bench:
    """Everything the experiments share, decoded and encoded once in `folder`."""

    base: Path
    folder: Path
    features: Features  # of the domain's photos, then of the replayed ones
    ideals: list[str]  # one per domain photo, what a person would write
    logged: list[str]  # what the base wrote
    replay: list[Replay]
    original: ReferenceSet

    @property
    def holdout(self) -> ReferenceSet:
        """The domain photos that no run learns from."""
        return ReferenceSet(
            self.features[:HOLDOUT_PHOTOS], [[ideal] for ideal in self.ideals[:HOLDOUT_PHOTOS]]
        )

    def corrections(self, count: int, seed: int) -> list[Correction]:
        """`count` photos that simulated people corrected, others for each seed."""
        pool = range(HOLDOUT_PHOTOS, len(self.ideals))
        chosen = random.Random(seed).sample(pool, count)
        return [Correction(index, self.ideals[index]) for index in chosen]

    def association(self, corrections: Sequence[Correction]) -> Association | None:
        """Whether what people wrote belongs to their photos, as the gate asks."""
        return association_test(self.features, [(row.photo, row.ideal) for row in corrections])

    def learn(self, corrections: Sequence[Correction], config: LearnConfig) -> FeatureCaptioner:
        """A candidate that learned from these; the run's folder is gone afterwards."""
        captioner = FeatureCaptioner.load(self.base)
        data = TrainingSet(self.features, corrections, self.replay)
        with tempfile.TemporaryDirectory(dir=self.folder) as run:
            Finetuning(captioner, data, config, Path(run), "experiment").run()
        return captioner

    def scores(self, captioner: FeatureCaptioner) -> Scores:
        return Scores(
            measure(captioner.predictor(), self.holdout),
            measure(captioner.predictor(), self.original),
            self.ideals[:HOLDOUT_PHOTOS],
        )


@dataclass(frozen=True)
class Scores:
    """One version on the held-out domain photos and on the original ones."""

    domain: ScoredCaptions
    original: ScoredCaptions
    people: Sequence[str]  # what a person wrote of each domain photo

    def gate(self, champion: Scores, association: Association | None) -> Decision:
        """What the gate says of this candidate; speed and clean loading are taken for granted here."""
        return decide(
            candidate=self.domain,
            champion=champion.domain,
            original_candidate=self.original,
            original_champion=champion.original,
            people=self.people,
            association=association,
            replayed=REPLAY_PHOTOS,
            latency_ratio=1.0,
            golden_captioned=True,
        )


def bench_open(data: Path, base: Path, folder: Path) -> Bench:
    """Read the photo sets below `data` (see the starter's training) and cache what they give in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    captioner = FeatureCaptioner.load(base)
    photos, generator = catalogue_photos(data, folder, DOMAIN_PHOTOS), random.Random(0)
    ideals = [photo.said_by(generator.randrange(PEOPLE), generator) for photo in photos]
    images = (photo.image for photo in photos)
    domain = features_write(folder / "domain.npy", images, len(photos), captioner.encode_images)
    train = photo_set_open(data / "flickr8k/train.tar", REPLAY_PHOTOS)
    val = photo_set_open(data / "flickr8k/val.tar", ORIGINAL_PHOTOS)
    features = np.concatenate([domain, _features(captioner, train, folder / "replay.npy")])
    logged = _cached_captions(captioner, domain, folder / "logged.json")
    replay = [Replay(len(domain) + index, c) for index, group in enumerate(train.captions) for c in group]
    original = ReferenceSet(_features(captioner, val, folder / "original.npy"), val.captions)
    return Bench(base, folder, features, ideals, logged, replay, original)


def _features(captioner: FeatureCaptioner, photos: PhotoSet, path: Path) -> Features:
    return features_write(path, photos.images(), len(photos), captioner.encode_images)


def _cached_captions(captioner: FeatureCaptioner, features: Features, path: Path) -> list[str]:
    if not path.exists():
        path.write_text(json.dumps(features_caption(captioner.predictor(), features)))
    return list(json.loads(path.read_text()))
