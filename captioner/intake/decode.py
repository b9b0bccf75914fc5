"""From untrusted bytes to a photo: upright, in sRGB, small enough to store, without metadata. No Django, no torch."""

import contextlib
import hashlib
import io
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pillow_heif
from PIL import GifImagePlugin, Image, ImageCms, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from captioner.exceptions import InvalidImage, Overloaded
from captioner.intake import hashes
from captioner.intake.containers import photo_check, photo_strip
from captioner.intake.limits import MAX_PROFILE_BYTES, MAX_STORED_SIDE, SIZE_LIMIT
from captioner.intake.memory import BUDGET, DECODERS, expected_memory, held_until
from captioner.intake.orientation import upright

# Plugins by name, not `Image.open`: nothing is guessed, and Pillow's own limits, which are global to the
# process and far above ours, stay as they are and warn about nothing.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "HEIF": pillow_heif.HeifImageFile,
}


@dataclass(frozen=True)
class DecodedPhoto:
    """`image`: RGB in sRGB, upright, no metadata, at most MAX_STORED_SIDE on its long side.

    `sha256`: of the uploaded bytes, in hex. `width` and `height`: of the original, upright, in pixels.
    """

    image: Image.Image
    sha256: str
    width: int
    height: int

    @cached_property
    def jpeg(self) -> bytes:
        """What is stored: the same bytes for the same pixels, no EXIF, profile or comment. Encoded when first read."""
        buffer = io.BytesIO()
        self.image.save(
            buffer, "JPEG", quality=88, subsampling="4:2:0", exif=b"", icc_profile=None, comment=None
        )
        return buffer.getvalue()

    @cached_property
    def difference_hash(self) -> str:
        return hashes.difference_hash(self.image)


def photo_decode(data: bytes, *, max_wait_seconds: float = math.inf) -> DecodedPhoto:
    """Read an uploaded photo: its first frame, upright, in sRGB, on white where it is transparent.

    Raises `InvalidImage`, and nothing else, for bytes that are no photo or exceed the limits; `Overloaded` when
    the photo would have to wait longer than `max_wait_seconds` for others to be decoded.
    """
    deadline = time.monotonic() + max_wait_seconds
    file_format = photo_check(data)
    try:
        image, width, height = _read(data, file_format, deadline)
    except (InvalidImage, Overloaded):
        raise
    except Exception as error:
        # The one boundary between hostile bytes and a dozen decoders. What those raise is undocumented and
        # changes: besides OSError there are SyntaxError, ValueError, TypeError, EOFError, RuntimeError,
        # MemoryError, struct.error, LookupError, AssertionError, ... A list would miss the next one.
        error.__traceback__ = None  # its frames hold the pixels for as long as somebody holds the error
        if isinstance(error, Image.DecompressionBombError):
            message, reason = f"The photo is far too large; {SIZE_LIMIT}.", "too_many_pixels"
        elif (
            isinstance(error, EOFError)
            or re.search("truncated|end of file", str(error), re.IGNORECASE)
            or (data.startswith(b"RIFF") and int.from_bytes(data[4:8], "little") + 8 > len(data))
        ):
            message = "The photo ends too early: the file is incomplete. Upload it again."
            reason = "truncated"
        else:
            message, reason = "The photo is damaged and cannot be read. Export it again.", "corrupt"
        raise InvalidImage(message, reason=reason) from error
    return DecodedPhoto(image, hashlib.sha256(data).hexdigest(), width, height)


def _read(data: bytes, file_format: str, deadline: float) -> tuple[Image.Image, int, int]:
    """The photo as it will be stored, and the upright width and height of the original."""
    with held_until(DECODERS, deadline):
        photo = photo_strip(data, file_format)
        if (
            file_format == "HEIF"
        ):  # the library has these for the whole process only, and none of it is of use here
            options = pillow_heif.options
            options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
            options.DECODE_THREADS = 1
        source = _OPENERS[file_format](io.BytesIO(photo.data))
        width, height = source.size
        scale = min(1.0, MAX_STORED_SIDE / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        profile = photo.icc_profile or source.info.get("icc_profile") or b""
        exif = photo.exif or source.info.get("exif") or b""
        with BUDGET.reserve(expected_memory(source, photo), deadline):
            if file_format == "JPEG":
                source.draft(None, size)
            source.load()
            if photo.continued:
                other = JpegImagePlugin.JpegImageFile(io.BytesIO(photo.continued))
                other.draft(None, size)
                if other.tobytes() != source.tobytes():
                    raise EOFError("Rows are missing.")
                del other
            image: Image.Image = source
            if image.mode.startswith("I;16"):  # conversion alone would clip at 255
                image = image.point(lambda value: value / 256).convert("L")
            elif image.has_transparency_data and image.mode != "RGBA":
                image = image.convert("RGBA")
            elif image.mode in ("1", "P"):
                image = image.convert("L" if image.mode == "1" else "RGB")
            # Hamming looks like bicubic here, in two thirds of the time; the gap first averages whole pixels.
            image = image.resize(size, Image.Resampling.HAMMING, reducing_gap=1.5)
            del source  # and with it the full-size pixels, while they are still accounted for
        if image.mode == "RGBA":
            opaque = Image.new("RGB", size, "white")
            opaque.paste(image, mask=image.getchannel("A"))
            image = opaque
        # lcms takes quadratic time for a chain of "multi process elements" (ICC 4.3), which no camera writes.
        if profile and len(profile) <= MAX_PROFILE_BYTES and b"mpet" not in profile:
            # Where the profile is broken: colours as most programs would show them.
            with contextlib.suppress(ImageCms.PyCMSError, OSError):
                colours = ImageCms.ImageCmsProfile(io.BytesIO(profile))
                if "sRGB" not in ImageCms.getProfileDescription(colours):
                    srgb = ImageCms.createProfile("sRGB")
                    image = ImageCms.buildTransform(colours, srgb, image.mode, "RGB").apply(image)
        image, is_turned = upright(image.convert("RGB"), exif)
    image.info = {}
    return (image, height, width) if is_turned else (image, width, height)
