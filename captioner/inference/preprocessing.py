"""An RGB image -> the model's input tensor, exactly as the checkpoint's own image processor computes it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

Preprocess = Callable[[Image.Image], torch.Tensor]

_PLAIN_METHODS = ("preprocess", "process_image", "_preprocess", "resize", "rescale", "normalize")


def make_preprocess(image_processor: Any) -> Preprocess:
    """A thread-safe function from an RGB image to float32 pixels of shape (3, height, width).

    A processor that only resizes to a fixed size, rescales and normalises is replaced by a table look-up with
    the same result to the bit; any other is called itself.
    """
    if _is_plain(image_processor):
        return _table_preprocess(image_processor)

    def preprocess(image: Image.Image) -> torch.Tensor:
        pixels: torch.Tensor = image_processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    return preprocess


def _is_plain(processor: Any) -> bool:
    from transformers.image_processing_backends import PilBackend

    return (
        isinstance(processor, PilBackend)
        and all(getattr(type(processor), name) is getattr(PilBackend, name) for name in _PLAIN_METHODS)
        and all((processor.do_resize, processor.do_rescale, processor.do_normalize))
        and not any((processor.do_center_crop, processor.do_pad))
        and bool(processor.size.height and processor.size.width)
    )


def _table_preprocess(processor: Any) -> Preprocess:
    size = (processor.size.width, processor.size.height)
    resample = (
        Image.Resampling.BILINEAR if processor.resample is None else Image.Resampling(processor.resample)
    )
    # After resizing, a pixel's value depends on nothing but its byte: let the processor map all 256 bytes
    # once.
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    tables = processor(images=ramp, do_resize=False, return_tensors="np")["pixel_values"][0].reshape(3, 256)

    def preprocess(image: Image.Image) -> torch.Tensor:
        values = np.asarray(image.resize(size, resample))
        return torch.from_numpy(np.stack([tables[channel][values[..., channel]] for channel in range(3)]))

    return preprocess
