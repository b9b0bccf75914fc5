"""What is sent: the photos of a folder, or drawn ones that cost as much to decode as real ones."""

import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from tests.benchmarks.speed.errors import BenchmarkError

# Web pictures mostly, and the 3 and 12 megapixels of cameras and phones: (size in pixels, how many).
DRAWN_SIZES = (((640, 480), 12), ((1280, 960), 6), ((2048, 1536), 4), ((4000, 3000), 2))
_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
_COMMENT = b"\xff\xfe\x00\x0a"  # a JPEG comment segment of 8 bytes; the length counts its own two bytes


@dataclass(frozen=True, slots=True)
class Photo:
    """A JPEG file, ready to be sent again and again as a file that was never seen before."""

    path: Path
    data: bytes
    megapixels: float

    def variant(self, number: int) -> bytes:
        """The same picture as another file: a comment holding `number` follows the start-of-image marker."""
        return b"".join((self.data[:2], _COMMENT, number.to_bytes(8, "big"), self.data[2:]))


def photos_read(folder: Path) -> list[Photo]:
    """The JPEG files in `folder`, by name. Raises `BenchmarkError` when there are none or one is broken."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _JPEG_SUFFIXES)
    if not paths:
        raise BenchmarkError(f"{folder} holds no photos; *.jpg and *.jpeg files are looked for.")
    return [_photo_read(path) for path in paths]


def photos_draw(folder: Path) -> None:
    """Draw the photos of `DRAWN_SIZES` into `folder`, the same ones each time, small and large ones mixed."""
    sizes = [size for size, count in DRAWN_SIZES for _ in range(count)]
    random.Random(0).shuffle(sizes)
    for number, size in enumerate(sizes):
        _photo_draw(number, size).save(folder / f"{number:02}-{size[0]}x{size[1]}.jpg", quality=88)


def _photo_read(path: Path) -> Photo:
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            return Photo(path, path.read_bytes(), image.width * image.height / 1e6)
    except OSError as error:
        raise BenchmarkError(f"{path} is no JPEG file that can be read: {error}") from error


def _photo_draw(seed: int, size: tuple[int, int]) -> Image.Image:
    """Clouds of colour at several scales, hard edges and sensor noise: to a JPEG coder much like a photo."""
    draw = random.Random(seed)
    image = Image.new("RGB", size)
    for cells, weight in ((3, 1.0), (12, 0.4), (48, 0.25)):
        clouds = Image.frombytes("RGB", (cells, cells), draw.randbytes(3 * cells * cells))
        image = Image.blend(image, clouds.resize(size, Image.Resampling.BICUBIC), weight)
    pen = ImageDraw.Draw(image)
    for _ in range(8):
        left, top = draw.randrange(size[0]), draw.randrange(size[1])
        box = (left, top, left + draw.randrange(size[0] // 4), top + draw.randrange(size[1] // 4))
        draw.choice((pen.ellipse, pen.rectangle))(box, fill=tuple(draw.randbytes(3)))
    # 256x256 pixels of noise, tiled: fresh noise for 12 megapixels would take longer than the drawing.
    tile = Image.frombytes("L", (256, 256), draw.randbytes(256 * 256)).filter(ImageFilter.GaussianBlur(0.7))
    noise = Image.new("L", size)
    for left in range(0, size[0], 256):
        for top in range(0, size[1], 256):
            noise.paste(tile, (left, top))
    return Image.blend(image, noise.convert("RGB"), 0.12)
