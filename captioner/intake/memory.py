"""How much memory decoding a photo takes, and waiting until there is as much.

Limits are checked before pixels are decoded, and photos are decoded side by side as far as memory allows.
"""

import contextlib
import math
import re
import struct
import threading
import time
from collections.abc import Iterator

from PIL import ImageFile, JpegImagePlugin

from captioner.exceptions import InvalidImage, Overloaded
from captioner.intake.containers import PhotoFile
from captioner.intake.limits import (
    DECODE_MEMORY,
    MAX_DECODERS,
    MAX_PIXELS,
    MAX_SIDE,
    MAX_STORED_SIDE,
    SIZE_LIMIT,
)

_WEBP_BYTES_PER_PIXEL = 16
# Up to 4:2:0 or 8 bits; then 4:4:4 with 10 bits and more (measured with libheif 1.23).
_HEIF_BYTES_PER_PIXEL, _DEEP_HEIF_BYTES_PER_PIXEL = 12, 20
# A palette image, the same in RGBA, and with its alpha multiplied in for resizing.
_PLAIN_BYTES_PER_PIXEL = 1 + 4 + 4
_COEFFICIENT_BYTES = 2
_HEIF_EXTENT = re.compile(rb"ispe\0...(.{8})", re.DOTALL)
_TILING = ("num_columns", "num_rows", "tile_width", "tile_height")
_RETRY_SECONDS = 3.0  # the largest photos take a second or two


class MemoryBudget:
    """Lets photos be decoded side by side as long as what they are expected to take fits into `total`."""

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self._freed = threading.Condition()
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def reserve(self, size: int, deadline: float) -> Iterator[None]:
        """Raises `Overloaded` when there is no room until `deadline` (of `time.monotonic`)."""
        size = min(size, self.total)  # what can never fit waits until it is alone
        # Who waits keeps the turn, so that a stream of small photos cannot starve a large one.
        with held_until(self._turn, deadline), self._freed:
            if not self._freed.wait_for(lambda: self.free >= size, timeout=_seconds_until(deadline)):
                raise _overloaded()
            self.free -= size
        try:
            yield
        finally:
            with self._freed:
                self.free += size
                self._freed.notify()


BUDGET = MemoryBudget(DECODE_MEMORY)
DECODERS = threading.BoundedSemaphore(MAX_DECODERS)


@contextlib.contextmanager
def held_until(lock: "threading.Lock | threading.Semaphore", deadline: float) -> Iterator[None]:
    """Hold `lock`. Raises `Overloaded` when it cannot be had until `deadline` (of `time.monotonic`)."""
    if not lock.acquire(timeout=_seconds_until(deadline)):
        raise _overloaded()
    try:
        yield
    finally:
        lock.release()


def expected_memory(source: ImageFile.ImageFile, photo: PhotoFile) -> int:
    """Upper bound of the bytes that decoding and shrinking `source`, opened from `photo`, takes.

    Raises `InvalidImage` when the photo, or a picture hidden behind it, exceeds the limits.
    """
    size_check(*source.size)
    pixels = source.width * source.height
    if isinstance(source, JpegImagePlugin.JpegImageFile):
        coefficients = _COEFFICIENT_BYTES * source.layers * pixels if photo.all_at_once else 0
        return coefficients + 4 * min(pixels, (2 * MAX_STORED_SIDE) ** 2)
    if source.format == "WEBP":
        return pixels * _WEBP_BYTES_PER_PIXEL
    if source.format != "HEIF":
        return pixels * _PLAIN_BYTES_PER_PIXEL
    # What a HEIF file shows may be cut out of larger pictures or composed of them. libheif decodes none larger
    # than the `ispe` property it comes with (ISO/IEC 23008-12, 6.5.3), so each of those is held to the limits.
    extents = [struct.unpack(">II", extent) for extent in _HEIF_EXTENT.findall(photo.data)]
    for width, height in extents:
        size_check(width, height)
    tiling = source.info.get("tiling") or dict.fromkeys(_TILING, 0)
    if math.prod(tiling[key] for key in _TILING) > 2 * MAX_PIXELS:
        message = "The photo's tiles hold far more than the photo: export it again."
        raise InvalidImage(message, reason="corrupt")
    is_deep = source.info["bit_depth"] > 8 and source.info.get("chroma") != 420
    bytes_per_pixel = _DEEP_HEIF_BYTES_PER_PIXEL if is_deep else _HEIF_BYTES_PER_PIXEL
    expected = bytes_per_pixel * max((width * height for width, height in extents), default=MAX_PIXELS)
    if expected > DECODE_MEMORY:
        limit = DECODE_MEMORY // bytes_per_pixel // 10**6
        message = f"A HEIC of this colour depth may have {limit} megapixels. Send a smaller copy, or a JPEG."
        raise InvalidImage(message, reason="too_many_pixels")
    return expected


def size_check(width: int, height: int) -> None:
    """Raises `InvalidImage` for more pixels than are taken in."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        megapixels = width * height / 1e6
        message = f"The photo has {width:,} x {height:,} pixels ({megapixels:,.0f} megapixels); {SIZE_LIMIT}."
        raise InvalidImage(f"{message} Send a smaller copy of it.", reason="too_many_pixels")


def _seconds_until(deadline: float) -> float:
    return min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)


def _overloaded() -> Overloaded:
    message = "Photos come in faster than they can be read. Try again in a few seconds."
    return Overloaded(message, retry_after=_RETRY_SECONDS)
