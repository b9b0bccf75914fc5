"""Cut an uploaded photo file down to what its pixels need, before an image library parses it.

Libraries keep every metadata segment of a file, in Python, before they even report the photo's size: 64 kB
of compressed text in a PNG cost 250 MB, 4 MB of tiny Exif segments in a JPEG hold the interpreter for five
seconds. Nothing that is cut here is of use afterwards: comments, text, thumbnails, animation frames after
the first, and what lies behind the end of the picture (a phone's gain map or film, an MPO's second picture,
a zip archive).

Bytes in, bytes out: no image library here.
"""

import contextlib
import re
import zlib
from dataclasses import dataclass

from captioner.exceptions import InvalidImage
from captioner.intake.limits import MAX_BYTES, MAX_PIECES, MAX_PROFILE_BYTES, MAX_SCANS

# Not AVIF: its decoder follows the size in the pixel stream, whatever size the file has announced.
ALLOWED = "Send a JPEG, PNG, WebP, GIF or HEIC photo"

_JPEG_MARKER = re.compile(
    rb"\xff[^\x00\x01\xd0-\xd8\xff]"
)  # neither stuffing nor fill bytes nor without a body
_JPEG_COLOUR_SEGMENTS = (0xE0, 0xEE)  # JFIF and Adobe say how the pixels' colours were transformed
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_JPEG_RARE_FRAMES = (
    0xC3,
    0xC5,
    0xC6,
    0xC7,
    0xC9,
    0xCA,
    0xCB,
    0xCD,
    0xCE,
    0xCF,
    0xDE,
)  # lossless, arithmetic, ...
_JPEG_START_OF_SCAN, _JPEG_END, _JPEG_COMMENT = 0xDA, 0xD9, 0xFE
_JPEG_ENDING = b"\xff\xd9"
# Pixels that no photo has, for every place in one that restarts its decoder.
_JPEG_NO_PIXELS = b"".join(b"\xa5\x5a\xc3" * 20 + bytes([0xFF, 0xD0 + n % 8]) for n in range(16))
_PNG_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_WEBP_PICTURES = (b"VP8 ", b"VP8L", b"ANMF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")


@dataclass(frozen=True)
class PhotoFile:
    """`data`: a photo file of the same format without metadata; `exif` and `icc_profile`: taken out of it.

    `all_at_once`: a decoder of this JPEG keeps the coefficients of all pixels, at whatever scale it decodes.
    `continued`: of a JPEG without an end, the same with other pixels after what there is. It shows the same picture if
    none of that is missing.
    """

    data: bytes
    exif: bytes = b""
    icc_profile: bytes = b""
    all_at_once: bool = False
    continued: bytes = b""


def photo_format(data: bytes) -> str | None:
    """The format that the first bytes announce, by Pillow's name; `None` if this service does not read it."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIF"
    return None


def photo_check(data: bytes) -> str:
    """The format of an uploaded photo, as `photo_format` tells it.

    Raises `InvalidImage` for what is seen not to be a photo of ours without being decoded.
    """
    if not data:
        raise InvalidImage(f"The upload is empty. {ALLOWED}.", reason="empty")
    if len(data) > MAX_BYTES:
        message = f"The photo takes more than {MAX_BYTES // 2**20} MB. Send a smaller copy of it."
        raise InvalidImage(message, reason="too_large")
    if (file_format := photo_format(data)) is None:
        raise InvalidImage(f"This is no photo this service can read. {ALLOWED}.", reason="not_an_image")
    return file_format


def photo_strip(data: bytes, file_format: str) -> PhotoFile:
    """Strip a file of a format `photo_format` knows; raises `InvalidImage` if it is made to stall a decoder.

    HEIF files come back as they are, and so do whole WebP ones: their libraries leave metadata alone until asked.
    """
    strips = {"JPEG": _strip_jpeg, "PNG": _strip_png, "GIF": _strip_gif, "WEBP": _strip_webp}
    strip = strips.get(file_format, PhotoFile)
    return strip(data)


def _strip_jpeg(data: bytes) -> PhotoFile:
    """The first picture of a JPEG or MPO file: its segments up to the end of the picture, without metadata."""
    kept: list[bytes | memoryview] = [data[:2]]
    exif, profile_parts = b"", {}
    components = scans = 0
    all_at_once = is_ended = False
    position, view = 2, memoryview(data)
    for _ in range(MAX_PIECES):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            break
        start, marker = found.start(), data[found.start() + 1]
        if marker == _JPEG_END:
            is_ended = True
            break
        position = start + 2 + int.from_bytes(view[start + 2 : start + 4])
        if marker == _JPEG_START_OF_SCAN:  # which takes its pixels along
            following = _JPEG_MARKER.search(data, position)
            position = following.start() if following else len(data)
        segment = view[start:position]
        head = bytes(segment[4:18])
        if marker == 0xE1 and head.startswith(b"Exif\0\0"):
            exif = exif or bytes(segment[10:])
        elif marker == 0xE2 and head.startswith(b"ICC_PROFILE\0"):
            profile_parts[head[12:13]] = bytes(segment[18:])
        elif marker in _JPEG_RARE_FRAMES or (marker in _JPEG_FRAMES and components):
            message = "This rare kind of JPEG is not supported: save it as a usual one."
            raise InvalidImage(message, reason="not_an_image")
        elif marker in _JPEG_FRAMES and len(head) > 5:
            components, all_at_once = head[5], marker == 0xC2
        elif marker == _JPEG_START_OF_SCAN:
            scans += 1
            all_at_once |= head[:1] != bytes([components])
        if scans > MAX_SCANS:
            message = f"The JPEG has more than {MAX_SCANS} scans: export it again."
            raise InvalidImage(message, reason="corrupt")
        is_metadata = marker == _JPEG_COMMENT or 0xE0 <= marker <= 0xEF
        if not is_metadata or marker in _JPEG_COLOUR_SEGMENTS:
            kept.append(segment)
    else:
        raise _too_many_pieces()
    icc_profile = b"".join(part for _, part in sorted(profile_parts.items()))
    stripped = b"".join(kept)
    if is_ended or not scans:
        return PhotoFile(stripped + (_JPEG_ENDING if is_ended else b""), exif, icc_profile, all_at_once)
    # Some cameras and optimisers leave out the end or half of it, or fill up with zeros, of which one may be pixels.
    stripped = stripped.removesuffix(b"\xff")
    zeros = len(stripped) - len(stripped.rstrip(b"\0"))
    stripped = stripped[: len(stripped) - max(0, zeros - 1)]
    continued = stripped + _JPEG_NO_PIXELS + _JPEG_ENDING
    return PhotoFile(stripped + _JPEG_ENDING, exif, icc_profile, all_at_once, continued)


def _strip_png(data: bytes) -> PhotoFile:
    """The picture of a PNG file; of an animated one, what programs show that know no animation."""
    kept: list[bytes | memoryview] = [data[:8]]
    exif = icc_profile = b""
    position, view = 8, memoryview(data)
    for _ in range(MAX_PIECES):
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(view[position : position + 4])
        chunk = view[position:end]
        if kind in _PNG_PIXEL_CHUNKS:
            kept.append(chunk)
        elif kind == b"eXIf":
            exif = bytes(chunk[8:-4])
        elif kind == b"iCCP":
            _, _, method_and_profile = bytes(chunk[8:-4]).partition(b"\0")
            with contextlib.suppress(zlib.error):
                inflate = zlib.decompressobj().decompress
                icc_profile = inflate(method_and_profile[1:], MAX_PROFILE_BYTES)
        if kind == b"IEND" or end >= len(data):
            return PhotoFile(b"".join(kept), exif, icc_profile)
        position = end
    raise _too_many_pieces()


def _strip_gif(data: bytes) -> PhotoFile:
    """The screen, the palette, the transparent colour and the first frame of a GIF file."""
    has_palette, palette_bytes = data[10:11] >= b"\x80", 6 << int.from_bytes(data[10:11]) % 8
    position = screen_end = 13 + (palette_bytes if has_palette else 0)
    control = b""
    inside_extension = False
    for _ in range(MAX_PIECES):
        first = data[position : position + 1]
        if not first:
            raise InvalidImage("The GIF ends before its first picture: upload it again.", reason="truncated")
        if inside_extension:  # a list of blocks that start with their length, up to an empty one
            inside_extension = first != b"\0"
            position += 1 + first[0]
        elif first == b"!":
            if data[position + 1 : position + 3] == b"\xf9\x04":
                control = data[position : position + 8]
            inside_extension = True
            position += 2
        elif first == b",":
            # No canvas is kept for the next frame, as there is none. A control block that is cut short goes.
            control = control[:3] + bytes([control[3] & 0b11100011]) + control[4:] if control[7:] else b""
            return PhotoFile(data[:screen_end] + control + data[position:])
        else:
            position += 1
    raise _too_many_pieces()


def _strip_webp(data: bytes) -> PhotoFile:
    """A WebP file as it is, but one that ends too early only up to its picture, if that is whole."""
    if int.from_bytes(data[4:8], "little") + 8 <= len(data):
        return PhotoFile(data)
    position = 12
    for _ in range(MAX_PIECES):
        kind, size = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        position += 8 + size
        if position > len(data) or not kind:
            break
        if kind in _WEBP_PICTURES:
            picture = data[12:position] + b"\0" * (size % 2)
            return PhotoFile(b"RIFF" + (len(picture) + 4).to_bytes(4, "little") + b"WEBP" + picture)
        position += size % 2
    return PhotoFile(data)


def _too_many_pieces() -> InvalidImage:
    return InvalidImage(
        f"The photo is made of more than {MAX_PIECES:,} pieces: export it again.", reason="corrupt"
    )
