"""Captions of validation photos while the starter is made, found as the service would find them."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, ViTImageProcessorPil

from captioner.inference.loading import CaptioningModel
from captioner.inference.predictor import Predictor
from training.data.pixels import Pixels
from training.judging.captioning import candidates_find
from training.starter.augment import pixels_normalise
from training.starter.config import PIXEL_MEAN, PIXEL_STD

BICUBIC = 3


@dataclass(frozen=True)
class Decoding:
    """Arguments of `generate()` that are chosen on validation photos and shipped as the defaults."""

    num_beams: int = 1
    no_repeat_ngram_size: int = 3
    length_penalty: float = 1.0
    max_new_tokens: int = 24

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `generate()`; the length penalty means nothing to greedy decoding."""
        arguments = asdict(self)
        if self.num_beams == 1:
            del arguments["length_penalty"]
        return arguments


def image_processor(size: int) -> ViTImageProcessorPil:
    """The image processor of photos squashed to `size` pixels a side."""
    return ViTImageProcessorPil(
        size={"height": size, "width": size},
        resample=BICUBIC,
        image_mean=[PIXEL_MEAN] * 3,
        image_std=[PIXEL_STD] * 3,
    )


def pixels_caption(
    model: Any, tokenizer: PreTrainedTokenizerBase, pixels: Pixels, decoding: Decoding
) -> list[str]:
    """Returns one caption per photo (photos, size, size, 3), uint8, by the engine; `model` is in eval mode."""
    searched = copy.copy(model)  # the same weights, with a decoding of its own
    searched.generation_config = copy.deepcopy(model.generation_config)
    searched.generation_config.update(**decoding.arguments())
    parts = CaptioningModel(searched, tokenizer, image_processor(model.config.encoder.image_size))
    photos = (pixels_normalise(torch.from_numpy(photo[None].copy()))[0] for photo in pixels)
    return [best.caption for best, *_ in candidates_find(Predictor(parts, "starter"), photos)]
