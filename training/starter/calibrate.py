"""Stage 5: how often are captions of a given certainty right? Fitted on validation photos, shipped with the weights."""

from __future__ import annotations

import io
import logging
from pathlib import Path

from PIL import Image

from captioner.inference.calibration import Calibration
from captioner.inference.loading import load_model
from captioner.inference.predictor import Predictor
from training.data.caption_text import caption_normalise
from training.data.photo_sets import photos_read
from training.judging.calibration import (
    ACCEPTED,
    ACCEPTED_CIDER_D,
    calibration_error,
    calibration_fit,
    reliability,
)
from training.judging.captioning import candidates_find
from training.judging.quality.report import reliability_rows
from training.judging.scores import captions_score
from training.judging.tables import table_markdown
from training.starter.card import section_write

logger = logging.getLogger(__name__)

SET, SPLIT = "flickr8k", "val"


def calibrate(data: Path, output: Path) -> Calibration:
    """Fit the confidence of the weights in `output`; write it beside them and its reliability into their card.

    The reliability is that of a fit on every other photo, on the photos between; what ships is fitted on all.
    """
    predictor = Predictor(load_model(output), output.name)
    photos = list(photos_read(data / SET / f"{SPLIT}.tar"))
    images = (Image.open(io.BytesIO(photo.data)).convert("RGB") for photo in photos)
    found = [best for best, *_ in candidates_find(predictor, map(predictor.preprocess, images))]
    references = [[caption_normalise(text) for text in photo.captions] for photo in photos]
    scores = captions_score([candidate.caption for candidate in found], references).cider_d_each
    accepted = [score >= ACCEPTED_CIDER_D for score in scores]
    means = [candidate.log_probability / len(candidate.token_log_probabilities) for candidate in found]
    halfway = calibration_fit(means[::2], accepted[::2])
    bins = reliability([halfway.confidence([mean]) for mean in means[1::2]], accepted[1::2])
    calibration = calibration_fit(means, accepted)
    calibration.write(output)
    text = f"""\
The confidence of a caption is the share of such captions that are accepted. No person has judged them:
accepted means {ACCEPTED}.
Fitted on half of the {SET} {SPLIT} photos, it says this of the {len(means[1::2])} others (mean gap
{100 * calibration_error(bins):.1f} points); what ships is fitted on both halves.

{table_markdown(reliability_rows(bins), words=1)}"""
    section_write(output, "Confidence", text)
    logger.info(text)
    return calibration
