"""How good are weights? Every set of captioned photos, captioned by them, by baselines that do not write, by people.

What is measured is what would be served: the engine's own decoding of the checkpoint, in single precision.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image

from captioner.inference.predictor import Predictor
from captioner.inference.types import Candidate, DecodingParameters
from training.data.duplicates import near_duplicates
from training.data.photo_sets import TRAIN, ReferencePhoto, Splits
from training.exceptions import DatasetError
from training.judging.calibration import ACCEPTED_CIDER_D, Bin, reliability
from training.judging.captioning import BATCH, candidates_find
from training.judging.figures import caption_figures
from training.judging.quality.baselines import Neighbours, Pooled, people
from training.judging.scores import captions_score
from training.learning.model import FeatureCaptioner
from training.progress import Tick, untold

ALTERNATIVES = 3


@dataclass(frozen=True)
class EvaluationRow:
    """One way to caption the photos of a set, judged on so many references per photo.

    Figures are those of `caption_figures`.
    """

    way: str
    references: float
    figures: dict[str, float]


@dataclass(frozen=True)
class JudgedPhoto:
    """A photo of a validation or test split with everything that was said about it, and the caption's CIDEr-D."""

    photo: ReferencePhoto
    candidates: tuple[Candidate, ...]
    neighbour: str
    cider_d: float


@dataclass(frozen=True)
class SplitReport:
    """One split of one set. `reliability` is empty for weights that were never calibrated."""

    name: str
    split: str
    constant: str
    rows: list[EvaluationRow]
    reliability: list[Bin]
    photos: list[JudgedPhoto]


@dataclass(frozen=True)
class Evaluation:
    """`left_out` training photos repeat what a photo to be judged on shows, and were no neighbours."""

    reports: list[SplitReport]
    train_photos: int
    left_out: int


def evaluate(
    folder: Path, sets: Mapping[str, Splits], tick: Tick = untold, limit: int | None = None
) -> Evaluation:
    """Judges the checkpoint in `folder` on all splits but "train", at most `limit` photos of each split.

    Baselines know the training photos of the set itself, or of all sets where it has none. Raises
    `IncompatibleModel`, and `DatasetError` where there is nothing to judge on or no training photo.
    """
    sets = {name: {split: part[:limit] for split, part in splits.items()} for name, splits in sets.items()}
    if not any(split != TRAIN for splits in sets.values() for split in splits):
        raise DatasetError("All photos are of the split train: there is nothing to judge on.")
    captioner = FeatureCaptioner.load(folder)
    predictor = captioner.predictor()
    repeated = {duplicate.train for duplicate in near_duplicates(sets, tick)}
    known: dict[str, tuple[Pooled, list[tuple[str, ...]]]] = {}
    for name, splits in sets.items():
        train = [photo for photo in splits.get(TRAIN, ()) if f"{name}/{photo.key}" not in repeated]
        if train:
            encoded = _encoded(captioner, predictor, f"{name} {TRAIN}", train, tick)
            pooled = np.concatenate([features_pool(features) for features in encoded])
            known[name] = pooled, [photo.captions for photo in train]
    if not known:
        raise DatasetError(
            "No photo is of the split train: the baselines have nothing to take captions from."
        )
    memories = {name: Neighbours(*each) for name, each in known.items()}
    [everybody, *others] = memories.values()
    if others:
        captions = [group for _, groups in known.values() for group in groups]
        everybody = Neighbours(np.concatenate([pooled for pooled, _ in known.values()]), captions)
    judge = _Judge(captioner, predictor, everybody, tick)
    reports = [
        judge.report(name, split, photos, memories.get(name, everybody), bool(others))
        for name, splits in sets.items()
        for split, photos in splits.items()
        if split != TRAIN
    ]
    return Evaluation(reports, sum(len(groups) for _, groups in known.values()), len(repeated))


@dataclass(frozen=True)
class _Judge:
    """Captions the photos of one split after the other in all ways, and scores them."""

    captioner: FeatureCaptioner
    predictor: Predictor
    everybody: Neighbours
    tick: Tick

    def report(
        self, name: str, split: str, photos: list[ReferencePhoto], memory: Neighbours, several: bool
    ) -> SplitReport:
        ways = decodings(self.predictor.default_parameters)
        found: dict[str, list[tuple[Candidate, ...]]] = {way: [] for way in ways}
        parts = []
        for features in _encoded(self.captioner, self.predictor, f"{name} {split}", photos, self.tick):
            parts.append(features_pool(features))
            for way, parameters in ways.items():
                found[way] += candidates_find(self.predictor, features[:, None], parameters)
        pooled, references = np.concatenate(parts), [photo.captions for photo in photos]
        neighbour = memory.captions(pooled)
        captioned = {
            "constant caption": [memory.constant] * len(photos),
            "nearest neighbour": neighbour,
            **({"nearest, of all sets": self.everybody.captions(pooled)} if several else {}),
            **{way: [best.caption for best, *_ in candidates] for way, candidates in found.items()},
        }
        each = fmean(map(len, references))
        rows = [
            EvaluationRow(way, each, caption_figures(captions, references))
            for way, captions in captioned.items()
        ]
        # One person against the four others, averaged over who is the one.
        if persons := [caption_figures(captions, others) for captions, others in people(references)]:
            means = {name: round(fmean(figures[name] for figures in persons), 2) for name in persons[0]}
            rows.append(EvaluationRow("people", len(persons) - 1, means))
        shipped = list(found.values())[-1]
        scores = captions_score([best.caption for best, *_ in shipped], references).cider_d_each
        judged = [JudgedPhoto(*each) for each in zip(photos, shipped, neighbour, scores, strict=True)]
        sure = {
            place: confidence
            for place, photo in enumerate(judged)
            if (confidence := photo.candidates[0].confidence) is not None
        }
        accepted = [judged[place].cider_d >= ACCEPTED_CIDER_D for place in sure]
        bins = reliability(list(sure.values()), accepted) if sure else []
        return SplitReport(name, split, memory.constant, rows, bins, judged)


def decodings(shipped: DecodingParameters) -> dict[str, DecodingParameters]:
    """Greedy decoding and, where it differs, the decoding that the checkpoint ships with, which comes last."""
    if shipped.num_beams == 1:
        return {"greedy, as shipped": shipped}
    beams = replace(shipped, num_captions=min(ALTERNATIVES, shipped.num_beams))
    greedy = replace(shipped, num_beams=1, num_captions=1)
    return {"greedy": greedy, f"{shipped.num_beams} beams, as shipped": beams}


def _encoded(
    captioner: FeatureCaptioner, predictor: Predictor, what: str, photos: Sequence[ReferencePhoto], tick: Tick
) -> Iterator[torch.Tensor]:
    """Yields the encoder's view (B, patches, width) of so many photos at a time, preprocessed as the engine does."""
    for start in range(0, len(photos), BATCH):
        part = photos[start : start + BATCH]
        images = [Image.open(io.BytesIO(photo.data)).convert("RGB") for photo in part]
        yield captioner.encode(torch.stack([predictor.preprocess(image) for image in images]))
        tick(what, start + len(part), len(photos))


def features_pool(features: torch.Tensor) -> Pooled:
    """(photos, patches, width) -> means over the patches, of unit length: (photos, width)."""
    pooled: Pooled = torch.nn.functional.normalize(features.float().mean(1), dim=1).numpy()
    return pooled
