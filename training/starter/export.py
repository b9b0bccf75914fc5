"""Stage 4: choose size and decoding on validation photos and write the folder that ships."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    VisionEncoderDecoderModel,
)

from captioner.inference.likeness.embedding import centre_from, pooled
from training.data.duplicates import duplicates_cache
from training.data.photo_sets import TRAIN
from training.judging.figures import caption_figures
from training.starter.caption import SETS, captioned_load, photos_of
from training.starter.card import attribution_write, card_write
from training.starter.eye import backbone_away
from training.starter.network import Decoding, captioner_resize, folder_write, inputs_caption, pixels_inputs
from training.starter.reward import JUDGED
from training.starter.words import maps_stack, seen_load

logger = logging.getLogger(__name__)

OWN_ENCODER = "dpt"
PART = 256  # photos looked at together
# Photos a little larger than those it learned from scored better so far, see EXPERIMENTS (Touvron et al. 2019, "Fixing
# the train-test resolution discrepancy").
SCALES = (1.0, 1.125)
DECODINGS = (
    Decoding(num_beams=1),
    *(Decoding(num_beams=beams, length_penalty=penalty) for beams in (3, 5) for penalty in (0.7, 1.0, 1.3)),
)


def export(
    data: Path,
    run: Path,
    output: Path,
    decodings: Sequence[Decoding] = DECODINGS,
    scales: Sequence[float] = SCALES,
) -> None:
    """Write the captioner to `output`, with the size of photos and the decoding that suit it.

    It is that of `run/rewarded`, or of `run/captioner` where that stage was left out.
    """
    source = run / "rewarded" if (run / "rewarded").exists() else run / "captioner"
    trained = VisionEncoderDecoderModel.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    scored: list[tuple[float, Decoding, Any]] = []
    if trained.config.encoder.model_type == OWN_ENCODER:
        for scale in scales:
            model = _as_it_ships(captioner_resize(trained, scale))
            size = model.config.encoder.image_size
            val = [captioned_load(data, run / "cache", name, "val", size) for name in JUDGED]
            judged = [(list(pixels_inputs(photos.pixels)), photos.captions) for photos in val]
            scored += [(*each, model) for each in decodings_score(model, tokenizer, judged, decodings)]
    else:  # a published eye, whose maps are kept for one size
        model = _as_it_ships(trained)
        seen = [seen_load(data, run, name, "val", model.encoder) for name in JUDGED]
        judged = [(list(maps_stack(list(photos.views[0]))), photos.captions) for photos in seen]
        with backbone_away(model.encoder):
            scored += [(*each, model) for each in decodings_score(model, tokenizer, judged, decodings)]
    _, decoding, model = max(scored, key=lambda each: each[0])
    folder_write(model, tokenizer, decoding, output)
    twins = duplicates_cache(data, run / "cache/near-duplicates.json")
    if hasattr(model.encoder, "backbone"):  # what the memory of corrections compares photos by
        maps = seen_load(data, run, SETS[0], TRAIN, model.encoder, twins).views[0]
        parts = (maps_stack(list(maps[start : start + PART])) for start in range(0, len(maps), PART))
        centre_from(model.encoder.backbone, [pooled(part) for part in parts]).write(output)
    card_write(output, run, decoding)
    attribution_write(output, {name: photos_of(data, name, TRAIN, twins) for name in SETS})


def _as_it_ships(model: Any) -> Any:
    """Weights in half precision, read back into single precision."""
    return model.half().float().eval()


def decodings_score(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    sets: Sequence[tuple[Sequence[Tensor], Sequence[Sequence[str]]]],
    decodings: Sequence[Decoding],
) -> Iterator[tuple[float, Decoding]]:
    """Mean CIDEr-D of each decoding over the sets, each of which counts the same; logs all figures.

    A set is what the encoder takes of its photos, and their captions.
    """
    size = model.config.encoder.image_size
    for decoding in decodings:
        found = [
            caption_figures(inputs_caption(model, tokenizer, inputs, decoding), captions)
            for inputs, captions in sets
        ]
        for name, figures in zip(JUDGED, found, strict=True):
            logger.info(json.dumps({"size": size, **asdict(decoding), "set": name, **figures}))
        yield fmean(figures["cider_d"] for figures in found), decoding
