"""Stage 3: choose the decoding on validation photos and write the folder that ships."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    VisionEncoderDecoderModel,
    ViTImageProcessorPil,
)

from training.photo_sets import TRAIN
from training.starter.caption import SETS, CaptionedPhotos, captioned_load, photos_of
from training.starter.card import attribution_write, card_write
from training.starter.config import PIXEL_MEAN, PIXEL_STD
from training.starter.duplicates import duplicates_cache
from training.starter.evaluate import Decoding, encode, generate, report

logger = logging.getLogger(__name__)

BICUBIC = 3
DECODING_PHOTOS = 400
DECODINGS = (
    Decoding(num_beams=1),
    *(Decoding(num_beams=3, length_penalty=penalty) for penalty in (0.4, 0.7, 1.0)),
)


def export(data: Path, run: Path, output: Path, decodings: tuple[Decoding, ...] = DECODINGS) -> None:
    """Write the captioner of `run/captioner` to `output`, with the decoding that suits it."""
    source = run / "captioner"
    model = VisionEncoderDecoderModel.from_pretrained(source, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    # Judged as it ships: half-precision weights, read back into single precision.
    model = model.half().float()
    size = model.config.encoder.image_size
    val = captioned_load(data, run / "cache", SETS[0], "val", size)
    decoding = decoding_choose(model, tokenizer, val, decodings)
    folder_write(model, tokenizer, decoding, output)
    card_write(output, run, decoding)
    twins = duplicates_cache(data, run / "cache/near-duplicates.json")
    attribution_write(output, {name: photos_of(data, name, TRAIN, twins) for name in SETS})


def decoding_choose(
    model: Any, tokenizer: PreTrainedTokenizerBase, photos: CaptionedPhotos, decodings: tuple[Decoding, ...]
) -> Decoding:
    """The decoding with the best CIDEr-D on the first of these photos; logs the figures of each."""
    states = encode(model, photos.pixels[:DECODING_PHOTOS])
    references = photos.captions[:DECODING_PHOTOS]
    scored = []
    for decoding in decodings:
        figures = report(generate(model, tokenizer, states, decoding), references)
        logger.info(json.dumps({**asdict(decoding), **figures}))
        scored.append((figures["cider_d"], decoding))
    return max(scored, key=lambda pair: pair[0])[1]


def folder_write(model: Any, tokenizer: PreTrainedTokenizerBase, decoding: Decoding, output: Path) -> None:
    """Save what the transformers Auto classes load, weights in half precision."""
    for name, value in decoding.arguments().items():
        setattr(model.generation_config, name, value)
    model.half().save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)  # safetensors writes for its owner alone
    _load_in_single_precision(output / "config.json")
    tokenizer.save_pretrained(output)
    size = model.config.encoder.image_size
    ViTImageProcessorPil(
        size={"height": size, "width": size},
        resample=BICUBIC,
        image_mean=[PIXEL_MEAN] * 3,
        image_std=[PIXEL_STD] * 3,
    ).save_pretrained(output)


def _load_in_single_precision(config: Path) -> None:
    # from_pretrained follows the dtype written here, and half precision is slow and inexact on a CPU.
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
