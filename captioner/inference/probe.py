"""Is bf16 worth it here? It doubles the speed of one CPU, ruins that of another, and can change words."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from captioner.inference.types import Candidate

Captioner = Callable[[Tensor], Candidate]

MIN_SPEEDUP = 1.15
MIN_IDENTICAL_SHARE = 0.95
NUM_IMAGES = 20
_NUM_TIMED = 5


@dataclass(frozen=True, slots=True)
class PrecisionReport:
    """What the model computes in, and why.

    `speedup` is fp32 time over bf16 time; None where it was not measured.
    """

    chosen: Literal["fp32", "bf16"]
    reason: str
    speedup: float | None = None
    identical_share: float | None = None


def bf16_is_supported() -> bool:
    """Whether this CPU multiplies bf16 in hardware; without that bf16 is several times slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def bf16_is_fast() -> bool:
    """Whether this CPU has matrix units for bf16 (AMX): AVX-512's bf16 trained 0.7x as fast as fp32.

    ARM's was not measured, and is not taken for fast.
    """
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def compare_precisions(fp32: Captioner, bf16: Captioner, images: list[Tensor]) -> PrecisionReport:
    """Choose bf16 if it is at least `MIN_SPEEDUP` as fast on one image and rewords few enough captions.

    `images` are single preprocessed images of shape (3, height, width); the first few are timed.
    """
    speedup = _speedup(fp32, bf16, images[:_NUM_TIMED])
    if speedup < MIN_SPEEDUP:
        return PrecisionReport(
            "fp32", f"bf16 runs at {speedup:.2f}x the speed; {MIN_SPEEDUP}x is needed.", speedup
        )
    identical = statistics.fmean(fp32(image).caption == bf16(image).caption for image in images)
    measured = f"bf16 runs at {speedup:.2f}x the speed and keeps {identical:.0%} of captions"
    if identical < MIN_IDENTICAL_SHARE:
        return PrecisionReport(
            "fp32", f"{measured}; {MIN_IDENTICAL_SHARE:.0%} are needed.", speedup, identical
        )
    return PrecisionReport("bf16", f"{measured}.", speedup, identical)


def drawn_images(count: int = NUM_IMAGES) -> list[Image.Image]:
    """The same colourful RGB drawings of 320 x 240 pixels on every call."""
    return [_drawn_image(random.Random(seed)) for seed in range(count)]  # noqa: S311


def _drawn_image(generator: random.Random) -> Image.Image:
    def colour() -> tuple[int, int, int]:
        return generator.randrange(256), generator.randrange(256), generator.randrange(256)

    image = Image.new("RGB", (320, 240), colour())
    draw = ImageDraw.Draw(image)
    for _ in range(generator.randrange(3, 12)):
        left, top = generator.randrange(280), generator.randrange(200)
        box = (left, top, left + generator.randrange(20, 160), top + generator.randrange(20, 120))
        shape = generator.choice((draw.ellipse, draw.rectangle))
        shape(box, fill=colour())
    return image


def _speedup(fp32: Captioner, bf16: Captioner, images: list[Tensor]) -> float:
    # Once each to warm up; then in turn, so that whatever else the machine does hits both alike.
    _seconds(fp32, images[0])
    _seconds(bf16, images[0])
    times = [(_seconds(fp32, image), _seconds(bf16, image)) for image in images]
    return statistics.median(time for time, _ in times) / statistics.median(time for _, time in times)


def _seconds(captioner: Captioner, image: Tensor) -> float:
    started = time.perf_counter()
    captioner(image)
    return time.perf_counter() - started
