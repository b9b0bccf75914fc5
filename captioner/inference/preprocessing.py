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
    from transformers.image_processing_backends import PilBackend

    is_plain = (
        isinstance(image_processor, PilBackend)
        and all(getattr(type(image_processor), name) is getattr(PilBackend, name) for name in _PLAIN_METHODS)
        and all((image_processor.do_resize, image_processor.do_rescale, image_processor.do_normalize))
        and not any((image_processor.do_center_crop, image_processor.do_pad))
        and bool(image_processor.size.height and image_processor.size.width)
    )
    if not is_plain:
        return lambda image: image_processor(images=image, return_tensors="pt")["pixel_values"][0]
    size = (image_processor.size.width, image_processor.size.height)
    resample = (
        Image.Resampling.BILINEAR
        if image_processor.resample is None
        else Image.Resampling(image_processor.resample)
    )
    # After resizing, a pixel's value depends on nothing but its byte: let the processor map all 256 bytes
    # once.
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    tables = image_processor(images=ramp, do_resize=False, return_tensors="np")["pixel_values"][0].reshape(
        3, 256
    )

    def preprocess(image: Image.Image) -> torch.Tensor:
        values = np.asarray(image.resize(size, resample))
        return torch.from_numpy(np.stack([tables[channel][values[..., channel]] for channel in range(3)]))

    return preprocess
