"""Stage 5: how often are captions of a given certainty right? Fitted on validation photos, shipped with the weights."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import torch
from PIL import Image

from captioner.inference.calibration import Calibration
from captioner.inference.loading import load_model
from captioner.inference.predictor import Predictor
from captioner.inference.types import Candidate
from training.data.datasets import caption_normalise, photos_read
from training.judging.calibration import (
    ACCEPTED,
    ACCEPTED_CIDER_D,
    Bin,
    calibration_error,
    calibration_fit,
    reliability,
)
from training.judging.scores import captions_score
from training.starter.card import section_write

logger = logging.getLogger(__name__)

SET, SPLIT = "flickr8k", "val"
BATCH = 32


def calibrate(data: Path, output: Path) -> Calibration:
    """Fit the confidence of the weights in `output`; write it beside them and its reliability into their card.

    The reliability is that of a fit on every other photo, on the photos between; what ships is fitted on all.
    """
    predictor = Predictor(load_model(output), output.name)
    photos = list(photos_read(data / SET / f"{SPLIT}.tar"))
    found: list[Candidate] = []
    for start in range(0, len(photos), BATCH):
        part = [Image.open(io.BytesIO(photo.data)).convert("RGB") for photo in photos[start : start + BATCH]]
        pixels = torch.stack([predictor.preprocess(image) for image in part])
        found += [best for best, *_ in predictor.predict(pixels, predictor.default_parameters)]
        logger.info("%d of %d photos captioned", len(found), len(photos))
    references = [[caption_normalise(text) for text in photo.captions] for photo in photos]
    scores = captions_score([candidate.caption for candidate in found], references).cider_d_each
    accepted = [score >= ACCEPTED_CIDER_D for score in scores]
    means = [candidate.log_probability / len(candidate.token_log_probabilities) for candidate in found]
    halfway = calibration_fit(means[::2], accepted[::2])
    bins = reliability([halfway.confidence([mean]) for mean in means[1::2]], accepted[1::2])
    calibration = calibration_fit(means, accepted)
    calibration.write(output)
    text = _reliability_text(bins)
    section_write(output, "Confidence", text)
    logger.info(text)
    return calibration


def _reliability_text(bins: list[Bin]) -> str:
    count = sum(each.count for each in bins)
    rows = [
        f"| {each.count} | {100 * each.confidence:.0f} % | {100 * each.accepted:.0f} % |" for each in bins
    ]
    return "\n".join(
        [
            "The confidence of a caption is the share of such captions that are accepted. No person has judged them:",
            f"accepted means {ACCEPTED}.",
            f"Fitted on half of the {SET} {SPLIT} photos, it says this of the {count} others (mean gap",
            f"{100 * calibration_error(bins):.1f} points); what ships is fitted on both halves.",
            "",
            "| Captions | mean confidence | accepted |",
            "| ---: | ---: | ---: |",
            *rows,
        ]
    )
