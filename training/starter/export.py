"""Stage 4: choose size and decoding on validation photos and write the folder that ships."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    VisionEncoderDecoderModel,
)

from captioner.inference import efficientnet_lite
from captioner.inference.efficientnet_lite import CaptionerConfig, CaptionerModel, EfficientNetLiteConfig
from training.data.duplicates import duplicates_cache
from training.data.photo_sets import TRAIN
from training.judging.figures import caption_figures
from training.starter.caption import SETS, CaptionedPhotos, captioned_load, photos_of
from training.starter.card import attribution_write, card_write
from training.starter.network import Decoding, captioner_resize, image_processor, pixels_caption
from training.starter.reward import JUDGED

logger = logging.getLogger(__name__)

OWN_ENCODER = "dpt"
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
    """Write the captioner of `run/rewarded` to `output`, with the size of photos and the decoding that suit it."""
    source = run / "rewarded"
    trained = VisionEncoderDecoderModel.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    scored = []
    # Maps of the published eye are kept for one size; only the own encoder's positions are made for others.
    for scale in scales if trained.config.encoder.model_type == OWN_ENCODER else (1.0,):
        # Judged as it ships: half-precision weights, read back into single precision.
        model = captioner_resize(trained, scale).half().float().eval()
        size = model.config.encoder.image_size
        val = [captioned_load(data, run / "cache", name, "val", size) for name in JUDGED]
        scored += [(*each, model) for each in decodings_score(model, tokenizer, val, decodings)]
    _, decoding, model = max(scored, key=lambda each: each[0])
    folder_write(model, tokenizer, decoding, output)
    card_write(output, run, decoding)
    twins = duplicates_cache(data, run / "cache/near-duplicates.json")
    attribution_write(output, {name: photos_of(data, name, TRAIN, twins) for name in SETS})


def decodings_score(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    sets: Sequence[CaptionedPhotos],
    decodings: Sequence[Decoding],
) -> Iterator[tuple[float, Decoding]]:
    """Mean CIDEr-D of each decoding over the sets, each of which counts the same; logs all figures."""
    size = model.config.encoder.image_size
    for decoding in decodings:
        found = [
            caption_figures(pixels_caption(model, tokenizer, photos.pixels, decoding), photos.captions)
            for photos in sets
        ]
        for name, figures in zip(JUDGED, found, strict=True):
            logger.info(json.dumps({"size": size, **asdict(decoding), "set": name, **figures}))
        yield fmean(figures["cider_d"] for figures in found), decoding


def folder_write(model: Any, tokenizer: PreTrainedTokenizerBase, decoding: Decoding, output: Path) -> None:
    """Save what the transformers Auto classes load, weights in half precision."""
    for name, value in decoding.arguments().items():
        setattr(model.generation_config, name, value)
    model.half().save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)  # safetensors writes for its owner alone
    _load_in_single_precision(output / "config.json")
    code_carry(output)
    tokenizer.save_pretrained(output)
    image_processor(model.config.encoder.image_size).save_pretrained(output)


def _load_in_single_precision(config: Path) -> None:
    # from_pretrained follows the dtype written here, and half precision is slow and inexact on a CPU.
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))


def code_carry(folder: Path) -> None:
    """Let plain transformers load the captioner in `folder`, if it is told to trust the code there.

    Does nothing where all classes are its own. The service runs its own code and never what lies in a folder.
    """
    config = json.loads((folder / "config.json").read_text())
    if config["encoder"]["model_type"] != EfficientNetLiteConfig.model_type:
        return
    code = Path(efficientnet_lite.__file__)
    shutil.copyfile(code, folder / code.name)
    classes = {"AutoConfig": CaptionerConfig, "AutoModelForImageTextToText": CaptionerModel}
    config["auto_map"] = {auto: f"{code.stem}.{own.__name__}" for auto, own in classes.items()}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
