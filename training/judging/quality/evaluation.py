"""How good are weights? Every set of captioned photos, captioned by them, by baselines that do not write, by people.

What is measured is what would be served: the engine's own decoding of the checkpoint, in single precision.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image

from captioner.inference.predictor import Predictor
from captioner.inference.types import Candidate, DecodingParameters
from training.data.datasets import Photo
from training.data.duplicates import near_duplicates
from training.data.photo_sets import TRAIN, Splits
from training.exceptions import DatasetError
from training.judging.calibration import ACCEPTED_CIDER_D, Bin, reliability
from training.judging.gate import Measured
from training.judging.measure import figures
from training.judging.quality.baselines import Neighbours, Pooled, constant_choose, people
from training.judging.scores import captions_score
from training.learning.model import FeatureCaptioner
from training.progress import Tick, untold
from training.starter.evaluate import captions_repeating

BATCH = 32
ALTERNATIVES = 3


@dataclass(frozen=True)
class Row:
    """One way to caption the photos of a set, judged on so many references per photo.

    Figures are in percent of the usual unit, `length` in words.
    """

    way: str
    references: float
    figures: dict[str, float]


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo of a validation or test split with everything that was said about it, and the caption's CIDEr-D."""

    photo: Photo
    candidates: tuple[Candidate, ...]
    neighbour: str
    cider_d: float


@dataclass(frozen=True)
class SetReport:
    """One split of one set. `reliability` is empty for weights that were never calibrated."""

    name: str
    split: str
    constant: str
    rows: list[Row]
    reliability: list[Bin]
    photos: list[CaptionedPhoto]


@dataclass(frozen=True)
class Evaluation:
    """`left_out` training photos repeat what a photo to be judged on shows, and were no neighbours."""

    reports: list[SetReport]
    train_photos: int
    left_out: int


@dataclass(frozen=True)
class _Memory:
    """Training photos to take captions from."""

    photos: list[Photo]
    features: Pooled

    def neighbours(self) -> Neighbours:
        return Neighbours(self.features, self.captions)

    @property
    def captions(self) -> list[tuple[str, ...]]:
        return [photo.captions for photo in self.photos]


def evaluate(
    folder: Path, sets: Mapping[str, Splits], tick: Tick = untold, limit: int | None = None
) -> Evaluation:
    """Judge the checkpoint in `folder` on all splits but "train", at most `limit` photos of each split.

    Baselines know the training photos of the set itself, or of all sets where it has none. Raises
    `IncompatibleModel`, and `DatasetError` where there is nothing to judge on or no training photo.
    """
    sets = {name: {split: part[:limit] for split, part in splits.items()} for name, splits in sets.items()}
    if not any(split != TRAIN for splits in sets.values() for split in splits):
        raise DatasetError("All photos are of the split train: there is nothing to judge on.")
    captioner = FeatureCaptioner.load(folder)
    repeated = {duplicate.train for duplicate in near_duplicates(sets, tick)}
    train = {name: _without(splits.get(TRAIN, ()), name, repeated) for name, splits in sets.items()}
    memories = {name: _memory(captioner, name, photos, tick) for name, photos in train.items() if photos}
    if not memories:
        raise DatasetError(
            "No photo is of the split train: the baselines have nothing to take captions from."
        )
    everything = _Memory(
        [photo for memory in memories.values() for photo in memory.photos],
        np.concatenate([memory.features for memory in memories.values()]),
    )
    judge = _Judge(captioner, everything.neighbours() if len(memories) > 1 else None, tick)
    reports = [
        judge.report(name, split, photos, memories.get(name, everything))
        for name, splits in sets.items()
        for split, photos in splits.items()
        if split != TRAIN
    ]
    return Evaluation(reports, len(everything.photos), len(repeated))


def _without(photos: Sequence[Photo], name: str, repeated: set[str]) -> list[Photo]:
    return [photo for photo in photos if f"{name}/{photo.key}" not in repeated]


class _Judge:
    """Captions the photos of one split after the other in all ways, and scores them."""

    def __init__(self, captioner: FeatureCaptioner, everybody: Neighbours | None, tick: Tick) -> None:
        self._captioner, self._everybody, self._tick = captioner, everybody, tick
        self._predictor = captioner.predictor()
        self._own: tuple[_Memory, Neighbours, str] | None = None

    def report(self, name: str, split: str, photos: list[Photo], memory: _Memory) -> SetReport:
        neighbours, constant = self._baselines(memory)
        what = f"{name} {split}"
        pooled, found = self._caption(what, photos)
        references = [photo.captions for photo in photos]
        neighbour = neighbours.captions(pooled)
        ways = {
            "constant caption": [constant] * len(photos),
            "nearest neighbour": neighbour,
            **({"nearest, of all sets": self._everybody.captions(pooled)} if self._everybody else {}),
            **{way: [best.caption for best, *_ in candidates] for way, candidates in found.items()},
        }
        rows = [_row(way, captions, references) for way, captions in ways.items()]
        shipped = list(found.values())[-1]
        scores = captions_score([best.caption for best, *_ in shipped], references).cider_d_each
        judged = [CaptionedPhoto(*each) for each in zip(photos, shipped, neighbour, scores, strict=True)]
        return SetReport(name, split, constant, rows + _people_rows(references), _reliability(judged), judged)

    def _baselines(self, memory: _Memory) -> tuple[Neighbours, str]:
        if self._own is None or self._own[0] is not memory:
            neighbours = memory.neighbours()
            self._own = (memory, neighbours, constant_choose(memory.captions, neighbours))
        return self._own[1:]

    def _caption(
        self, what: str, photos: Sequence[Photo]
    ) -> tuple[Pooled, dict[str, list[tuple[Candidate, ...]]]]:
        """Unit features (photos, width), and each photo's candidates by way of decoding, the shipped one last."""
        ways = decodings(self._predictor.default_parameters)
        found: dict[str, list[tuple[Candidate, ...]]] = {way: [] for way in ways}
        pooled = []
        for start in range(0, len(photos), BATCH):
            features = features_of(self._captioner, self._predictor, photos[start : start + BATCH])
            pooled.append(features_pool(features))
            for way, parameters in ways.items():
                found[way] += self._predictor.predict(features[:, None], parameters)
            self._tick(what, min(start + BATCH, len(photos)), len(photos))
        return np.concatenate(pooled), found


def decodings(shipped: DecodingParameters) -> dict[str, DecodingParameters]:
    """Greedy decoding and, where it differs, the decoding that the checkpoint ships with, which comes last."""
    if shipped.num_beams == 1:
        return {"greedy, as shipped": shipped}
    beams = replace(shipped, num_captions=min(ALTERNATIVES, shipped.num_beams))
    greedy = replace(shipped, num_beams=1, num_captions=1)
    return {"greedy": greedy, f"{shipped.num_beams} beams, as shipped": beams}


def features_of(captioner: FeatureCaptioner, predictor: Predictor, photos: Sequence[Photo]) -> torch.Tensor:
    """The encoder's view (photos, patches, width) of encoded photos, preprocessed as the engine does."""
    images = [Image.open(io.BytesIO(photo.data)).convert("RGB") for photo in photos]
    return captioner.encode(torch.stack([predictor.preprocess(image) for image in images]))


def features_pool(features: torch.Tensor) -> Pooled:
    """(photos, patches, width) -> means over the patches, of unit length: (photos, width)."""
    pooled: Pooled = torch.nn.functional.normalize(features.float().mean(1), dim=1).numpy()
    return pooled


def _memory(captioner: FeatureCaptioner, name: str, photos: list[Photo], tick: Tick) -> _Memory:
    predictor, pooled = captioner.predictor(), []
    for start in range(0, len(photos), BATCH):
        pooled.append(features_pool(features_of(captioner, predictor, photos[start : start + BATCH])))
        tick(f"{name} {TRAIN}", min(start + BATCH, len(photos)), len(photos))
    return _Memory(photos, np.concatenate(pooled))


def _row(way: str, captions: Sequence[str], references: Sequence[Sequence[str]]) -> Row:
    return Row(way, fmean(map(len, references)), _figures(captions, references))


def _figures(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    measured = Measured(captions, captions_score(captions, references).cider_d_each)
    return {**figures(measured, references), "repeating": round(captions_repeating(captions), 2)}


def _people_rows(references: Sequence[Sequence[str]]) -> list[Row]:
    """One person against the four others, averaged over who is the one."""
    each = [_figures(captions, others) for captions, others in people(references)]
    if not each:
        return []
    return [Row("people", len(each) - 1, {name: round(fmean(f[name] for f in each), 2) for name in each[0]})]


def _reliability(photos: Sequence[CaptionedPhoto]) -> list[Bin]:
    judged = [(each.candidates[0].confidence, each.cider_d >= ACCEPTED_CIDER_D) for each in photos]
    known = [(confidence, accepted) for confidence, accepted in judged if confidence is not None]
    if not known:
        return []
    return reliability([confidence for confidence, _ in known], [accepted for _, accepted in known])
