"""What is sent: the photos of a folder, or drawn ones that cost as much to decode as real ones."""

import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.benchmarks.speed.errors import BenchmarkError
from tests.photos import detailed_image

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
    photos = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in _JPEG_SUFFIXES):
        try:
            with Image.open(path, formats=["JPEG"]) as image:
                photos.append(Photo(path, path.read_bytes(), image.width * image.height / 1e6))
        except OSError as error:
            raise BenchmarkError(f"{path} is no JPEG file that can be read: {error}") from error
    if not photos:
        raise BenchmarkError(f"{folder} holds no photos; *.jpg and *.jpeg files are looked for.")
    return photos


def photos_draw(folder: Path) -> None:
    """Draw the photos of `DRAWN_SIZES` into `folder`, the same ones each time, small and large ones mixed."""
    sizes = [size for size, count in DRAWN_SIZES for _ in range(count)]
    random.Random(0).shuffle(sizes)
    for number, size in enumerate(sizes):
        detailed_image(number, size).save(folder / f"{number:02}-{size[0]}x{size[1]}.jpg", quality=88)
