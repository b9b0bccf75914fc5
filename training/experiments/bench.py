"""Photos, simulated users and measuring, shared by the experiments. No Django.

The new domain is a catalogue: small photos of 27 kinds (flowers, rooms, scenes, things) out of sets labelled by
kind, which people describe in the catalogue's own plain style. The original photos are Flickr8k's.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.captioner import Captioner, Features
from training.config import LearnConfig
from training.evaluate import PhotoSet, measure
from training.gate import Decision, Interval, Measured, decide, paired_bootstrap
from training.loop import Correction, Learning, Rating, Replay, TrainingSet
from training.photo_sets import PhotoSetFile, photo_set_open
from training.starter.dataset import sheets_cache

CATALOGUE = ("houses", "flower_photos", "sun_scenes", "imagenette")
TILE = 96  # pixels
DOMAIN_PHOTOS = 1400
HOLDOUT_PHOTOS = 300
ORIGINAL_PHOTOS = 300
REPLAY_PHOTOS = 1000
STYLES = ("a photo of {}", "a close view of {}", "this picture shows {}")


@dataclass
class Bench:
    """Everything the experiments share, decoded and encoded once in `folder`."""

    base: Path
    folder: Path
    features: Features  # of the domain's photos, then of the replayed ones
    ideals: list[str]  # one per domain photo, what a person would write
    logged: list[str]  # what the base wrote
    replay: list[Replay]
    original: PhotoSet

    @property
    def holdout(self) -> PhotoSet:
        """The domain photos that no run learns from."""
        return PhotoSet(self.features[:HOLDOUT_PHOTOS], [[ideal] for ideal in self.ideals[:HOLDOUT_PHOTOS]])

    def corrections(self, count: int, seed: int) -> list[Correction]:
        """`count` photos that simulated people corrected, others for each seed."""
        pool = range(HOLDOUT_PHOTOS, len(self.ideals))
        chosen = random.Random(seed).sample(pool, count)
        return [Correction(index, self.ideals[index], self.logged[index]) for index in chosen]

    def learn(
        self, corrections: Sequence[Correction], config: LearnConfig, ratings: Sequence[Rating] = ()
    ) -> Captioner:
        """A candidate that learned from these; the run's folder is gone afterwards."""
        captioner, run = Captioner.load(self.base), self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        data = TrainingSet(self.features, corrections, ratings, self.replay)
        Learning(captioner, data, config, run, "experiment").run()
        shutil.rmtree(run)
        return captioner

    def scores(self, captioner: Captioner) -> Scores:
        return Scores(measure(captioner, self.holdout), measure(captioner, self.original))


@dataclass(frozen=True)
class Scores:
    """One version on the held-out domain photos and on the original ones."""

    domain: Measured
    original: Measured

    def against(self, base: Scores) -> tuple[Interval, Interval]:
        """Gain on the domain and on the original photos over `base`."""
        return (
            paired_bootstrap(self.domain.cider_d, base.domain.cider_d),
            paired_bootstrap(self.original.cider_d, base.original.cider_d),
        )

    def gate(self, champion: Scores) -> Decision:
        """What the gate says of this candidate; speed and clean loading are taken for granted here."""
        return decide(
            candidate=self.domain,
            champion=champion.domain,
            original_candidate=self.original,
            original_champion=champion.original,
            latency_ratio=1.0,
            golden_captioned=True,
        )


def bench_open(data: Path, base: Path, folder: Path) -> Bench:
    """Read the photo sets below `data` (see the starter's training) and cache what they give in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    captioner = Captioner.load(base)
    images, ideals = _catalogue(data, folder)
    domain = captioner.features_write(images, len(ideals), folder / "domain.npy")
    train = photo_set_open(data / "flickr8k/train.tar", REPLAY_PHOTOS)
    val = photo_set_open(data / "flickr8k/val.tar", ORIGINAL_PHOTOS)
    features = np.concatenate([domain, _features(captioner, train, folder / "replay.npy")])
    logged = _cached_captions(captioner, domain, folder / "logged.json")
    replay = [Replay(len(domain) + index, c) for index, group in enumerate(train.captions) for c in group]
    original = PhotoSet(_features(captioner, val, folder / "original.npy"), val.captions)
    return Bench(base, folder, features, ideals, logged, replay, original)


def _features(captioner: Captioner, photos: PhotoSetFile, path: Path) -> Features:
    return captioner.features_write(photos.images(), len(photos), path)


def _cached_captions(captioner: Captioner, features: Features, path: Path) -> list[str]:
    if not path.exists():
        path.write_text(json.dumps(captioner.captions(features)))
    return list(json.loads(path.read_text()))


def _catalogue(data: Path, folder: Path) -> tuple[Iterator[Image.Image], list[str]]:
    """Photos of the catalogue in a random but fixed order, and the caption a person would write for each."""
    labels = json.loads((data / "labelled/labels.json").read_text())
    pixels, flat = sheets_cache(folder / "labelled.npy", data / "labelled/sheets.tar", labels, TILE)
    generator = random.Random(0)
    chosen = [index for index, label in enumerate(flat) if label.split("/")[0] in CATALOGUE]
    chosen = generator.sample(chosen, min(DOMAIN_PHOTOS, len(chosen)))
    ideals = [
        generator.choice(STYLES).format(_with_article(flat[index].split("/", 1)[1])) for index in chosen
    ]
    return (Image.fromarray(np.asarray(pixels[index])) for index in chosen), ideals


def _with_article(label: str) -> str:
    name = label.split(" (")[0].lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
