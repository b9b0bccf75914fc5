"""Photos nobody should have to send and photos somebody will: builders of bytes, by name.

`BROKEN` must be refused, for the reason in `REASONS`; `ODD` must be captioned, and shows `quadrants()`
upright in its first frame; `LARGE` is as large as a photo may be. All of them are drawn here.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pillow_heif
from PIL import Image, ImageCms

pillow_heif.register_heif_opener()

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (20, 160, 40), (30, 40, 210), (230, 220, 40)
Builder = Callable[[], bytes]


def quadrants(size: tuple[int, int] = (120, 80)) -> Image.Image:
    """Red and green above blue and yellow: every turn and every mirror image of it can be told apart."""
    width, height = size
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    image.paste(BLUE, (0, height // 2, width, height))
    image.paste(YELLOW, (width // 2, height // 2, width, height))
    return image


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def jpeg(**options: Any) -> bytes:
    return saved(quadrants(), "JPEG", **{"quality": 95, **options})


def later_frames() -> list[Image.Image]:
    return [Image.new("RGB", quadrants().size, colour) for colour in ("black", "white")]


# --- parts of files


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(size: tuple[int, int], bits: int, colour_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of raw `rows`, each of which starts with its filter; `extra` chunks come before the pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour_type, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + png_chunk(b"IEND", b"")


def png_with(*chunks: bytes) -> bytes:
    """The quadrants with `chunks` between header and pixels."""
    plain = saved(quadrants(), "PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(*segments: bytes, after: bytes = b"") -> bytes:
    """The quadrants with `segments` before everything else, and `after` behind the end of the picture."""
    plain = jpeg()
    return plain[:2] + b"".join(segments) + plain[2:] + after


def gif(screen: tuple[int, int], frame: tuple[int, int], extensions: bytes = b"") -> bytes:
    """A GIF that announces these sizes; its frame has no more pixels than the first few."""
    header = b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0)
    return header + extensions + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x4c\x01\x00;"


def exif(orientation: int, gps: bool = False) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    if gps:
        tags[0x8825] = {1: "N", 2: (48.0, 51.0, 30.0), 3: "E", 4: (2.0, 17.0, 40.0)}
    return tags.tobytes()


def icc_tag_xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in (x, y, z))


def icc_profile(**tags: bytes) -> bytes:
    """The profile of sRGB with some tags replaced or added, and a description that does not say sRGB."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    table = [
        struct.unpack_from(">4sII", plain, 132 + 12 * i)
        for i in range(struct.unpack_from(">I", plain, 128)[0])
    ]
    contents = {name: plain[offset : offset + size] for name, offset, size in table}
    text = "Colours of a test".encode("utf-16-be")
    contents[b"desc"] = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    contents |= {name.encode(): body for name, body in tags.items()}
    offset, directory, bodies = 132 + 12 * len(contents), b"", b""
    for name, body in contents.items():
        directory += name + struct.pack(">II", offset + len(bodies), len(body))
        bodies += body + b"\0" * (-len(body) % 4)
    profile = plain[4:128] + struct.pack(">I", len(contents)) + directory + bodies
    return struct.pack(">I", len(profile) + 4) + profile


def display_p3() -> bytes:
    """Display P3: the primaries of SMPTE EG 432-1 adapted to D50, with the transfer curve of sRGB."""
    return icc_profile(
        rXYZ=icc_tag_xyz(0.51512, 0.24120, -0.00105),
        gXYZ=icc_tag_xyz(0.29198, 0.69225, 0.04189),
        bXYZ=icc_tag_xyz(0.15710, 0.06657, 0.78407),
    )


def stalling_profile() -> bytes:
    """A chain of 20,000 colour matrices, which take lcms minutes to look at."""
    count = 20_000
    matrix = b"matf\0\0\0\0" + struct.pack(">HH9f3f", 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    positions = struct.pack(">II", 16 + 8 * count, len(matrix)) * count
    return icc_profile(D2B0=b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, count) + positions + matrix)


# --- what must be refused


def png_bomb(size: tuple[int, int] = (9400, 9400), extra: bytes = b"") -> bytes:
    """88 megapixels of one bit in ten kilobytes."""
    width, height = size
    return png(size, 1, 0, (b"\0" * (1 + (width + 7) // 8)) * height, extra)


def animated_png_bomb() -> bytes:
    frame = struct.pack(">IIIIIHHBB", 0, 9400, 9400, 0, 0, 1, 10, 0, 0)
    return png_bomb(extra=png_chunk(b"acTL", struct.pack(">II", 500, 0)) + png_chunk(b"fcTL", frame))


def animated_webp_bomb() -> bytes:
    """An animation of small frames on a canvas of 144 megapixels, which its decoder allocates twice."""
    small = saved(quadrants(), "WEBP", save_all=True, append_images=later_frames())
    at = small.index(b"VP8X") + 12
    return small[:at] + struct.pack("<I", 11_999)[:3] * 2 + small[at + 6 :]


def jpeg_of_many_scans() -> bytes:
    """A progressive JPEG whose last scan is repeated 300 times: each is a walk over all pixels."""
    progressive = jpeg(progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    return progressive[:-2] + scan * 300 + progressive[-2:]


def lossless_jpeg() -> bytes:
    """SOF3, flat grey: a kind of JPEG that decoders know and no camera or browser does."""
    frame = jpeg_segment(0xC3, struct.pack(">BHHB", 8, 64, 64, 1) + b"\x01\x11\x00")
    table = jpeg_segment(0xC4, b"\0\x01" + bytes(15) + b"\0")
    return b"\xff\xd8" + frame + table + jpeg_segment(0xDA, b"\x01\x01\0\x01\0\0") + bytes(512) + b"\xff\xd9"


def heif(**options: Any) -> bytes:
    return saved(quadrants((256, 192)), "HEIF", quality=90, **options)


def heif_with_extent(extent: tuple[int, int], **options: Any) -> bytes:
    """A HEIF file whose last coded picture claims to be of size `extent`."""
    data = heif(**options)
    at = data.rindex(b"ispe") + 8
    return data[:at] + struct.pack(">II", *extent) + data[at + 8 :]


def cut(data: bytes, keep: float = 0.6) -> bytes:
    return data[: int(len(data) * keep)]


BROKEN: dict[str, Builder] = {
    "empty": lambda: b"",
    "17 MB": lambda: jpeg_with(after=bytes(17 * 2**20)),
    "text": lambda: b"I am a photo, honestly.\n" * 50,
    "svg": lambda: (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
    ),
    "html": lambda: b"<!doctype html><title>photo.jpg</title>",
    "pdf": lambda: b"%PDF-1.7\n1 0 obj <<>> endobj\n",
    "zip": lambda: b"PK\x03\x04" + bytes(100),
    "bmp": lambda: saved(quadrants(), "BMP"),
    "tiff": lambda: saved(quadrants(), "TIFF"),
    "avif": lambda: saved(quadrants(), "AVIF"),
    "lossless jpeg": lossless_jpeg,
    "jpeg of two frames": lambda: jpeg_with(jpeg_segment(0xC0, b"\x08\0\x08\0\x08\x01\x01\x11\0")),
    "png of 9400 x 9400": png_bomb,
    "png of 4 gigapixels": lambda: png((65_535, 65_535), 8, 2, b""),
    "png too wide": lambda: png_bomb((16_385, 1)),
    "animated png of 9400 x 9400": animated_png_bomb,
    "animated gif of 9400 x 9400": lambda: gif((9400, 9400), (9400, 9400)),
    "gif whose frame is larger than its screen": lambda: gif(
        (8, 8), (13_000, 13_000), b"!\xf9\x04\x09\0\0\0\0"
    ),
    "gif of 4 gigapixels": lambda: gif((8, 8), (65_535, 65_535)),
    "animated webp of 12000 x 12000": animated_webp_bomb,
    "webp of 268 megapixels": lambda: b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f\xfe\xff\xff\x0f" + bytes(5),
    "jpeg of 40 megapixels": lambda: saved(Image.new("L", (8000, 5000), 90), "JPEG", quality=20),
    "heif of 400 megapixels": lambda: heif_with_extent((20_000, 20_000)),
    "heif of oversized tiles": lambda: heif_with_extent((5000, 6000), tile_size=64),
    "jpeg cut": lambda: cut(jpeg()),
    "jpeg cut in its header": lambda: jpeg()[:100],
    "jpeg of three bytes": lambda: b"\xff\xd8\xff",
    "progressive jpeg cut": lambda: cut(jpeg(progressive=True), 0.9),
    "png cut": lambda: cut(saved(Image.effect_noise((80, 80), 60), "PNG")),
    "gif cut": lambda: cut(saved(Image.effect_noise((80, 80), 60), "GIF")),
    "gif without a picture": lambda: gif((8, 8), (8, 8))[:13] + b";",
    "webp cut": lambda: cut(saved(quadrants(), "WEBP", lossless=True)),
    "heif cut": lambda: cut(heif()),
    "png of three bytes": lambda: b"\x89PNG\r\n\x1a\n\0\0\0",
    "png of no width": lambda: png((0, 10), 8, 2, b""),
    "png whose header fails its checksum": lambda: saved(quadrants(), "PNG").replace(
        b"IHDR\0", b"IHDR\x01", 1
    ),
    "png of noise": lambda: re.sub(rb"(?s)IDAT.{9}", b"IDAT" + b"\xff" * 9, saved(quadrants(), "PNG")),
    "png of a million chunks": lambda: png_with(png_chunk(b"teSt", b"") * 1_000_000),
    "jpeg of a million comments": lambda: jpeg_with(jpeg_segment(0xFE, b"") * 1_000_000),
    "jpeg of a million exif segments": lambda: jpeg_with(jpeg_segment(0xE1, b"Exif\0\0x") * 1_000_000),
    "gif of a million comment blocks": lambda: gif((8, 8), (8, 8), b"!\xfe" + b"\x01x" * 1_000_000 + b"\0"),
    "jpeg of 300 scans": jpeg_of_many_scans,
    "webp of noise": lambda: b"RIFF\x20\0\0\0WEBPVP8 \x14\0\0\0" + bytes(range(20)),
    "heif of noise": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(range(200)),
}

REASONS: dict[str, str] = {
    **dict.fromkeys(BROKEN, "corrupt"),
    **{name: "too_many_pixels" for name in BROKEN if "9400" in name or "pixels" in name or "12000" in name},
    **{name: "truncated" for name in BROKEN if " cut" in name},
    **dict.fromkeys(
        ["text", "svg", "html", "pdf", "zip", "bmp", "tiff", "avif", "lossless jpeg"], "not_an_image"
    ),
    "empty": "empty",
    "17 MB": "too_large",
    "jpeg of two frames": "not_an_image",
    "png too wide": "too_many_pixels",
    "gif whose frame is larger than its screen": "too_many_pixels",
    "gif without a picture": "truncated",
}


# --- what must be captioned

_TURNS = [Image.Transpose(turn) for turn in (0, 3, 1, 5, 2, 6, 4)]  # of EXIF orientations 2 to 8, undone


def turned(orientation: int, file_format: str = "JPEG", **options: Any) -> bytes:
    """The quadrants as a camera stores them that is not held upright; EXIF `orientation`, 1 to 8, tells."""
    image = quadrants() if orientation == 1 else quadrants().transpose(_TURNS[orientation - 2])
    return saved(image, file_format, exif=exif(orientation), quality=95, **options)


def index_of_pictures(second_at: int) -> bytes:
    """The MPF segment of a phone's JPEG (CIPA DC-007); it lists a second picture `second_at` bytes later."""
    entries = struct.pack("<IIIHHIIIHH", 0x030000, 5000, 0, 0, 0, 0, 3000, second_at, 0, 0)
    directory = struct.pack("<H", 3) + struct.pack("<HHI4s", 0xB000, 7, 4, b"0100")
    directory += struct.pack("<HHII", 0xB001, 4, 1, 2) + struct.pack("<HHII", 0xB002, 7, len(entries), 50)
    return jpeg_segment(0xE2, b"MPF\0II*\0\x08\0\0\0" + directory + bytes(4) + entries)


def jpeg_with_gain_map() -> bytes:
    """As phones write "Ultra HDR": an index, XMP that names the gain map, and the map, here cut short."""
    xmp = jpeg_segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>')
    return jpeg_with(xmp, index_of_pictures(2000), after=cut(jpeg()))


def jpeg_with_metadata() -> bytes:
    """Everything that could tell who took the photo and where."""
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><creator>Ada Secret</creator></x:xmpmeta>"
    return jpeg(exif=exif(1, gps=True), comment=b"Ada Secret", xmp=xmp, icc_profile=icc_profile())


def png_of_16_bits(alpha: bool = False) -> bytes:
    image = quadrants().convert("RGBA" if alpha else "RGB")
    row_bytes = image.width * len(image.mode)
    pixels = image.tobytes()
    rows = [pixels[at : at + row_bytes] for at in range(0, len(pixels), row_bytes)]
    wide = [b"\0" + bytes(byte for value in row for byte in (value, 128)) for row in rows]
    return png(image.size, 16, 6 if alpha else 2, b"".join(wide))


def grey_png_of_16_bits() -> bytes:
    return saved(quadrants().convert("L").convert("I;16").point(lambda value: value * 256), "PNG")


def palette_png(**options: Any) -> bytes:
    """Four colours and a transparent hole in the middle."""
    image = quadrants()
    image.paste("black", (50, 30, 70, 50))
    image = image.quantize(8)
    hole = image.getpixel((60, 40))
    return saved(image, "PNG", transparency=hole, **options)


def exif_bomb() -> bytes:
    """65,535 tags that all point to the same megabyte: 64 GB for those who read them all."""
    tag = struct.pack("<HIII", 7, 2**20, 8, 0)[:10]
    entries = b"".join(struct.pack("<H", number) + tag for number in range(0xFFFF))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 0xFFFF) + entries + bytes(2**20)


def png_of_a_text_bomb() -> bytes:
    """64 kB that unfold to 250 MB: one emoji makes Python store a megabyte of letters in four."""
    text = zlib.compress("\N{GRINNING FACE}".encode() + b"a" * 1_000_000, 9)
    return png_with(*(png_chunk(b"iTXt", b"%d\0\x01\0\0\0" % number + text) for number in range(63)))


ODD: dict[str, Builder] = {
    "mpo": lambda: saved(quadrants(), "MPO", save_all=True, append_images=later_frames(), quality=95),
    "jpeg whose second picture is missing": lambda: jpeg_with(index_of_pictures(1_000_000)),
    "jpeg whose second picture is broken": lambda: jpeg_with(index_of_pictures(1500), after=b"\xff\xd8oops"),
    "jpeg whose index of pictures is broken": lambda: jpeg_with(jpeg_segment(0xE2, b"MPF\0II*\0\x08")),
    "jpeg with a gain map": jpeg_with_gain_map,
    "jpeg with a film behind it": lambda: jpeg_with(after=b"\0\0\0\x18ftypmp42" + b"\xff\xda\x00\x08" * 500),
    "jpeg that is a zip as well": lambda: jpeg_with(
        after=b"PK\x03\x04" + bytes(60) + b"PK\x05\x06" + bytes(18)
    ),
    "jpeg with metadata": jpeg_with_metadata,
    "jpeg with broken exif": lambda: jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\xffoops"),
    "jpeg with a broken profile": lambda: jpeg(icc_profile=b"This is no profile at all." * 10),
    "jpeg with a stalling profile": lambda: jpeg(icc_profile=stalling_profile()),
    "jpeg turned right": lambda: turned(6),
    "jpeg upside down": lambda: turned(3),
    "png turned left": lambda: turned(8, "PNG"),
    "webp turned right": lambda: turned(6, "WEBP"),
    "progressive jpeg": lambda: jpeg(progressive=True),
    "jpeg with full colour resolution": lambda: jpeg(subsampling="4:4:4"),
    "grey jpeg": lambda: saved(quadrants().convert("L"), "JPEG"),
    "cmyk jpeg": lambda: saved(quadrants().convert("CMYK"), "JPEG", quality=95),
    "very wide jpeg": lambda: saved(quadrants((16_384, 40)), "JPEG"),
    "png of 16 bits": png_of_16_bits,
    "png of 16 bits with alpha": lambda: png_of_16_bits(alpha=True),
    "grey png of 16 bits": grey_png_of_16_bits,
    "palette png with transparency": palette_png,
    "palette png with degrees of transparency": lambda: saved(
        quadrants().convert("RGBA").quantize(16), "PNG", transparency=bytes([255] * 15 + [7])
    ),
    "grey png with alpha": lambda: saved(quadrants().convert("LA"), "PNG"),
    "png with a key colour": lambda: saved(quadrants(), "PNG", transparency=(1, 2, 3)),
    "png with a broken profile": lambda: png_with(png_chunk(b"iCCP", b"no null, no method")),
    "png with a profile bomb": lambda: png_with(png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(10**7)))),
    "png with an exif bomb": lambda: png_with(png_chunk(b"eXIf", exif_bomb())),
    "png of a text bomb": png_of_a_text_bomb,
    "animated png": lambda: saved(quadrants(), "PNG", save_all=True, append_images=later_frames()),
    "animated gif": lambda: saved(
        quadrants().quantize(8), "GIF", save_all=True, append_images=later_frames()
    ),
    "animated gif of 200 frames": lambda: saved(
        quadrants().quantize(8), "GIF", save_all=True, append_images=later_frames() * 100
    ),
    "gif with a comment": lambda: saved(quadrants().quantize(8), "GIF", comment=b"Ada Secret" * 400),
    "webp": lambda: saved(quadrants(), "WEBP", quality=95),
    "webp with alpha": lambda: saved(quadrants().convert("RGBA"), "WEBP", lossless=True),
    "animated webp": lambda: saved(
        quadrants(), "WEBP", save_all=True, append_images=later_frames(), quality=95
    ),
    "heic": heif,
    "heic of tiles": lambda: heif(tile_size=64),
    "heic turned right": lambda: saved(
        quadrants((192, 256)).transpose(_TURNS[4]), "HEIF", exif=exif(6), quality=90
    ),
}
GREY = {name for name in ODD if "grey" in name}


# --- as large as a photo may be

LARGEST = (6000, 5500)


def _large_palette() -> Image.Image:
    return quadrants().quantize(8).resize(LARGEST)


LARGE: dict[str, Builder] = {
    "jpeg": lambda: saved(quadrants(LARGEST), "JPEG"),
    "progressive cmyk jpeg": lambda: saved(Image.new("CMYK", LARGEST), "JPEG", progressive=True),
    "png with alpha": lambda: saved(Image.new("RGBA", LARGEST), "PNG", compress_level=1),
    "palette png": lambda: saved(_large_palette(), "PNG", transparency=bytes(range(8)), compress_level=1),
    "grey png of 16 bits": lambda: saved(Image.new("I;16", LARGEST, 40_000), "PNG", compress_level=1),
    "gif": lambda: saved(_large_palette(), "GIF", transparency=1),
    "webp": lambda: saved(Image.new("RGBA", LARGEST, "teal"), "WEBP", lossless=True, method=0, quality=0),
    "heic": lambda: saved(quadrants((4032, 3024)), "HEIF", enc_params={"preset": "ultrafast"}),
}
