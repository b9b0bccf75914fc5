"""From photos to captions, one way for all that judges: the engine's own, so that what is judged is what is served."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from captioner.inference.predictor import Predictor
from captioner.inference.types import Candidate, DecodingParameters
from training.data.features import Features, PhotoFeatures
from training.progress import Tick, untold

BATCH = 32


def candidates_find(
    predictor: Predictor,
    photos: Iterable[Tensor],
    parameters: DecodingParameters | None = None,
    *,
    tick: Tick = untold,
    what: str = "Captioning",
    total: int = 0,
) -> list[tuple[Candidate, ...]]:
    """Returns the captions of each photo, best first, searched for as the checkpoint asks unless `parameters` say else.

    A photo is what the predictor's model looks at: pixels (3, height, width), or features (1, patches, width) where a
    `CachedEncoder` stands in for its encoder.
    """
    found: list[tuple[Candidate, ...]] = []
    remaining = iter(photos)
    while part := list(islice(remaining, BATCH)):
        found += predictor.predict(torch.stack(part), parameters or predictor.default_parameters)
        tick(what, len(found), total)
    return found


def features_caption(
    predictor: Predictor, features: Features | PhotoFeatures, tick: Tick = untold, what: str = "Captioning"
) -> list[str]:
    """Returns the best caption for each row of features (photos, patches, width)."""
    photos = (torch.from_numpy(np.array(row))[None] for row in features)
    found = candidates_find(predictor, photos, tick=tick, what=what, total=len(features))
    return [best.caption for best, *_ in found]
