"""From untrusted bytes to a photo: upright, in sRGB, small enough to store, without metadata.

Limits are checked before pixels are decoded, and photos are decoded side by side as far as memory allows.
No Django, no torch.
"""

import contextlib
import ctypes
import hashlib
import io
import itertools
import math
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pillow_heif
from PIL import GifImagePlugin, Image, ImageCms, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from captioner.exceptions import InvalidImage, Overloaded
from captioner.intake.containers import MAX_PROFILE_BYTES, PhotoFile, photo_file, photo_format

MAX_BYTES = 16 * 2**20
MAX_PIXELS = 33_000_000
MAX_SIDE = 16_384
MAX_STORED_SIDE = 1280
SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".webp", ".gif", ".heic", ".heif", ".hif"))

# What all photos being decoded in this process may take together, in bytes. It holds the hungriest photo
# allowed: a WebP of MAX_PIXELS, of which libwebp keeps two canvases while Pillow makes two more copies.
DECODE_MEMORY = 512 * 2**20
_WEBP_BYTES_PER_PIXEL = 16
# Up to 4:2:0 or 8 bits; then 4:4:4 with 10 bits and more (measured with libheif 1.23).
_HEIF_BYTES_PER_PIXEL, _DEEP_HEIF_BYTES_PER_PIXEL = 12, 20
# A palette image, the same in RGBA, and with its alpha multiplied in for resizing.
_PLAIN_BYTES_PER_PIXEL = 1 + 4 + 4
_COEFFICIENT_BYTES = 2
_RETRY_SECONDS = 3.0  # the largest photos take a second or two

# Not AVIF: its decoder follows the size in the pixel stream, whatever size the file has announced.
_ALLOWED = "Send a JPEG, PNG, WebP, GIF or HEIC photo"
_LIMITS = f"the limit is {MAX_PIXELS // 10**6} megapixels and {MAX_SIDE:,} pixels a side"

# Plugins by name, not `Image.open`: nothing is guessed, and Pillow's own limits, which are global to the
# process and far above ours, stay as they are and warn about nothing.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "HEIF": pillow_heif.HeifImageFile,
}
pillow_heif.options.THUMBNAILS = False
pillow_heif.options.DEPTH_IMAGES = False
pillow_heif.options.AUX_IMAGES = False
pillow_heif.options.DECODE_THREADS = 1

# EXIF 2.32, tag 0x0112: how to turn the stored pixels so that they are upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {Image.Transpose(turn) for orientation, turn in _UPRIGHT.items() if orientation >= 5}
_ORIENTATION_TAG, _SHORT = 0x0112, 3
_M_ARENA_MAX = -8  # malloc.h
_HEIF_EXTENT = re.compile(rb"ispe\0...(.{8})", re.DOTALL)
_TILING = ("num_columns", "num_rows", "tile_width", "tile_height")


@dataclass(frozen=True)
class DecodedPhoto:
    """`image`: RGB in sRGB, upright, no metadata, at most MAX_STORED_SIDE on its long side.

    `sha256`: of the uploaded bytes, in hex. `width` and `height`: of the original, upright, in pixels.
    """

    image: Image.Image
    sha256: str
    width: int
    height: int


class _MemoryBudget:
    """Lets photos be decoded side by side as long as what they are expected to take fits into `total`."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._freed = threading.Condition()
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def reserve(self, size: int, deadline: float) -> Iterator[None]:
        """Raises `Overloaded` when there is no room until `deadline` (of `time.monotonic`)."""
        size = min(size, self._total)  # what can never fit waits until it is alone
        # Who waits keeps the turn, so that a stream of small photos cannot starve a large one.
        with _within(self._turn, deadline), self._freed:
            if not self._freed.wait_for(lambda: self._free >= size, timeout=_seconds_until(deadline)):
                raise _overloaded()
            self._free -= size
        try:
            yield
        finally:
            with self._freed:
                self._free += size
                self._freed.notify()


@contextlib.contextmanager
def _within(lock: "threading.Lock | threading.Semaphore", deadline: float) -> Iterator[None]:
    """Hold `lock`. Raises `Overloaded` when it cannot be had until `deadline` (of `time.monotonic`)."""
    if not lock.acquire(timeout=_seconds_until(deadline)):
        raise _overloaded()
    try:
        yield
    finally:
        lock.release()


def _seconds_until(deadline: float) -> float:
    return min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)


def _overloaded() -> Overloaded:
    message = "Photos come in faster than they can be read. Try again in a few seconds."
    return Overloaded(message, retry_after=_RETRY_SECONDS)


def _share_one_heap() -> None:
    """Have all threads allocate from one heap, where the C library is glibc.

    By default it gives each thread its own and keeps there what was freed: 16 threads that decode photos of
    12 megapixels took 535 MB so, 134 MB with one heap; eight that decode the largest, 2,300 MB and 540 MB.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


_share_one_heap()
_budget = _MemoryBudget(DECODE_MEMORY)
# What the budget does not count, stripped copies of uploads and photos of stored size, this number bounds.
_decoders = threading.BoundedSemaphore(4)


def decode(data: bytes, *, max_wait_seconds: float = math.inf) -> DecodedPhoto:
    """Read an uploaded photo: its first frame, upright, in sRGB, on white where it is transparent.

    Raises `InvalidImage`, and nothing else, for bytes that are no photo or exceed the limits; `Overloaded` when
    the photo would have to wait longer than `max_wait_seconds` for others to be decoded.
    """
    deadline = time.monotonic() + max_wait_seconds
    if not data:
        raise InvalidImage(f"The upload is empty. {_ALLOWED}.", reason="empty")
    if len(data) > MAX_BYTES:
        message = f"The photo takes more than {MAX_BYTES // 2**20} MB. Send a smaller copy of it."
        raise InvalidImage(message, reason="too_large")
    file_format = photo_format(data)
    if file_format is None:
        raise InvalidImage(f"This is no photo this service can read. {_ALLOWED}.", reason="not_an_image")
    try:
        with _within(_decoders, deadline):
            image, width, height = _read(data, file_format, deadline)
    except (InvalidImage, Overloaded):
        raise
    except Exception as error:
        # The one boundary between hostile bytes and a dozen decoders. What those raise is undocumented and
        # changes: besides OSError there are SyntaxError, ValueError, TypeError, EOFError, RuntimeError,
        # MemoryError, struct.error, LookupError, AssertionError, ... A list would miss the next one.
        error.__traceback__ = None  # its frames hold the pixels for as long as somebody holds the error
        raise _explained(error, data) from error
    return DecodedPhoto(image, hashlib.sha256(data).hexdigest(), width, height)


def encode(image: Image.Image) -> bytes:
    """The JPEG that is stored: the same bytes for the same pixels, no EXIF, profile or comment."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88, subsampling="4:2:0", exif=b"", icc_profile=None, comment=None)
    return buffer.getvalue()


def difference_hash(image: Image.Image) -> str:
    """64 bits as 16 hex digits: where the photo gets brighter from left to right, on a grid of 9 x 8 grey cells.

    Copies of a photo that were scaled, re-encoded or slightly changed differ in few bits; others in about half.
    (N. Krawetz, "Kind of Like That", 2013.)
    """
    cells = image.resize((9, 8), Image.Resampling.BOX, reducing_gap=2.0).convert("L").tobytes()
    rows = (cells[start : start + 9] for start in range(0, 72, 9))
    bits = "".join("01"[right > left] for row in rows for left, right in itertools.pairwise(row))
    return f"{int(bits, 2):016x}"


def _read(data: bytes, file_format: str, deadline: float) -> tuple[Image.Image, int, int]:
    """The photo as it will be stored, and the upright width and height of the original."""
    photo = photo_file(data, file_format)
    source = _OPENERS[file_format](io.BytesIO(photo.data))
    width, height = source.size
    _check_size(width, height)
    profile = photo.icc_profile or source.info.get("icc_profile") or b""
    transpose = _UPRIGHT.get(_orientation(photo.exif or source.info.get("exif") or b""))
    with _budget.reserve(_expected_memory(source, photo), deadline):
        if file_format == "JPEG":
            source.draft(None, _stored_size(width, height))
        source.load()
        image = _shrunk(source, _stored_size(width, height))
        del source  # and with it the full-size pixels, while they are still accounted for
    image = _srgb(_on_white(image), profile)
    if transpose is not None:
        image = image.transpose(transpose)
        width, height = (height, width) if transpose in _SIDEWAYS else (width, height)
    image.info = {}
    return image, width, height


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        megapixels = width * height / 1e6
        message = f"The photo has {width:,} x {height:,} pixels ({megapixels:,.0f} megapixels); {_LIMITS}."
        raise InvalidImage(f"{message} Send a smaller copy of it.", reason="too_many_pixels")


def _expected_memory(source: ImageFile.ImageFile, photo: PhotoFile) -> int:
    """Upper bound of the bytes that decoding and shrinking takes."""
    pixels = source.width * source.height
    if isinstance(source, JpegImagePlugin.JpegImageFile):
        coefficients = _COEFFICIENT_BYTES * source.layers * pixels if photo.all_at_once else 0
        return coefficients + 4 * min(pixels, (2 * MAX_STORED_SIDE) ** 2)
    if source.format == "HEIF":
        return _expected_heif_memory(source, photo.data)
    return pixels * (_WEBP_BYTES_PER_PIXEL if source.format == "WEBP" else _PLAIN_BYTES_PER_PIXEL)


def _expected_heif_memory(source: ImageFile.ImageFile, data: bytes) -> int:
    """As `_expected_memory`; raises `InvalidImage` if pictures behind the visible one exceed the limits.

    What a HEIF file shows may be cut out of larger pictures or composed of them. libheif decodes none larger
    than the `ispe` property it comes with (ISO/IEC 23008-12, 6.5.3), so each of those is held to the limits.
    """
    extents = [struct.unpack(">II", extent) for extent in _HEIF_EXTENT.findall(data)]
    for width, height in extents:
        _check_size(width, height)
    tiling = source.info.get("tiling") or dict.fromkeys(_TILING, 0)
    if math.prod(tiling[key] for key in _TILING) > 2 * MAX_PIXELS:
        raise InvalidImage(
            "The photo's tiles hold far more than the photo: export it again.", reason="corrupt"
        )
    is_deep = source.info["bit_depth"] > 8 and source.info.get("chroma") != 420
    bytes_per_pixel = _DEEP_HEIF_BYTES_PER_PIXEL if is_deep else _HEIF_BYTES_PER_PIXEL
    expected = bytes_per_pixel * max((width * height for width, height in extents), default=MAX_PIXELS)
    if expected > DECODE_MEMORY:
        limit = DECODE_MEMORY // bytes_per_pixel // 10**6
        message = f"A HEIC of this colour depth may have {limit} megapixels. Send a smaller copy, or a JPEG."
        raise InvalidImage(message, reason="too_many_pixels")
    return expected


def _orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in the first directory of an EXIF block; 1 where none can be read.

    Not left to Pillow, which reads all tags, and warns about each that is broken, for the one that matters.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = ">" if tiff.startswith(b"MM") else "<"
    try:
        (directory,) = struct.unpack_from(order + "L", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHLH", tiff, entry)
            if (tag, kind) == (_ORIENTATION_TAG, _SHORT):
                return int(value)
    except struct.error:  # cut off: no reason to refuse the pixels
        pass
    return 1


def _stored_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, MAX_STORED_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shrunk(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A copy of `size` (width, height), 8 bits per channel, in L, RGB, RGBA or CMYK."""
    if image.mode.startswith("I;16"):  # conversion alone would clip at 255
        image = image.point(lambda value: value / 256).convert("L")
    elif image.has_transparency_data and image.mode != "RGBA":
        image = image.convert("RGBA")
    elif image.mode in ("1", "P"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    # Hamming looks like bicubic here, in two thirds of the time; the gap first averages whole pixels.
    return image.resize(size, Image.Resampling.HAMMING, reducing_gap=1.5)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    background = Image.new("RGB", image.size, "white")
    background.paste(image, mask=image.getchannel("A"))
    return background


def _srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An RGB copy of `image`, converted by its ICC profile unless that is missing, broken or a trap."""
    # lcms takes quadratic time for a chain of "multi process elements" (ICC 4.3), which no camera writes.
    if profile and len(profile) <= MAX_PROFILE_BYTES and b"mpet" not in profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                srgb = ImageCms.createProfile("sRGB")
                return ImageCms.buildTransform(source, srgb, image.mode, "RGB").apply(image)
        except (ImageCms.PyCMSError, OSError):
            pass  # colours as most programs would show them
    return image.convert("RGB")


def _explained(error: Exception, data: bytes) -> InvalidImage:
    if isinstance(error, Image.DecompressionBombError):
        return InvalidImage(f"The photo is far too large; {_LIMITS}.", reason="too_many_pixels")
    is_cut_riff = data.startswith(b"RIFF") and int.from_bytes(data[4:8], "little") + 8 > len(data)
    is_cut = isinstance(error, EOFError) or re.search("truncated|end of file", str(error), re.IGNORECASE)
    if is_cut_riff or is_cut:
        return InvalidImage(
            "The photo ends too early: the file is incomplete. Upload it again.", reason="truncated"
        )
    return InvalidImage("The photo is damaged and cannot be read. Export it again.", reason="corrupt")
