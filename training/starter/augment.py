"""Augmentation of whole batches: one affine resampling per photo does crop, scale, stretch and mirror."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.data.pixels import Pixels
from training.starter.config import PIXEL_MEAN, PIXEL_STD


def pixels_normalise(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, standardised as the image processor does when serving."""
    return pixels.permute(0, 3, 1, 2).float().div(255.0).sub(PIXEL_MEAN).div(PIXEL_STD).contiguous()


def photos_stack(places: Sequence[tuple[Pixels, int]]) -> Tensor:
    """Standardised photos (B, 3, H, W) that lie at these (pixels, index), all of one size."""
    return pixels_normalise(torch.from_numpy(np.stack([pixels[index] for pixels, index in places])))


def batch_crop(images: Tensor, size: int, smallest: float, mirrored: Tensor) -> Tensor:
    """Resample (B, 3, H, W) to (B, 3, size, size): per side a crop of `smallest`..1 at a random place.

    `mirrored` (B,) bool says which photos to flip left to right.
    """
    count = len(images)
    scale = smallest + (1.0 - smallest) * torch.rand(count, 1).sqrt()
    stretch = torch.empty(count, 2).uniform_(-0.08, 0.08)
    sides = (scale * torch.exp(stretch)).clamp(max=1.0)
    shift = (torch.rand(count, 2) * 2 - 1) * (1 - sides)
    flip = torch.where(mirrored, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = sides[:, 0] * flip
    theta[:, 1, 1] = sides[:, 1]
    theta[:, :, 2] = shift
    grid = functional.affine_grid(theta, [count, 3, size, size], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def batch_colour(images: Tensor, strength: float) -> Tensor:
    """Random brightness, contrast and saturation of standardised (B, 3, H, W), each within +-`strength`."""
    brightness, contrast, saturation = (
        torch.empty(len(images), 1, 1, 1).uniform_(-strength, strength) for _ in range(3)
    )
    grey = images.mean(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    images = grey + (images - grey) * (1 + saturation)
    return (images - mean) * (1 + contrast) + mean + brightness


def batch_blur(images: Tensor, size: int, share: float) -> Tensor:
    """(B, 3, H, W) of which about a `share` shows no more detail than photos of `size` x `size` pixels."""
    chosen = torch.rand(len(images)) < share
    small = functional.interpolate(images[chosen], (size, size), mode="bilinear", antialias=True)
    blurred = images.clone()
    blurred[chosen] = functional.interpolate(small, images.shape[2:], mode="bilinear")
    return blurred


def batch_erase(images: Tensor, share: float) -> Tensor:
    """(B, 3, H, W), a grey box of 1/5 to 1/2 of each side on about a `share` (Cutout, DeVries and Taylor 2017)."""
    height, width = images.shape[2:]
    sides = torch.empty(2, len(images), 1).uniform_(0.2, 0.5)
    starts = torch.rand(2, len(images), 1) * (1 - sides)
    rows, columns = (
        (places >= start) & (places < start + side)
        for places, start, side in zip((_centres(height), _centres(width)), starts, sides, strict=True)
    )
    chosen = torch.rand(len(images), 1, 1) < share
    box = rows[:, :, None] & columns[:, None, :] & chosen
    return images.masked_fill(box[:, None], 0.0)


def _centres(count: int) -> Tensor:
    """The centres of `count` pixels in a row, from 0 to 1."""
    return (torch.arange(count) + 0.5) / count
