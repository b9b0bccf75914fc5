"""Photos drawn for tests and benchmarks. Those that are broken or odd on purpose are in `tests.corpus`."""

import io
import random
import zipfile
from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFilter


def jpeg_bytes(image: Image.Image, quality: int = 75) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def draw_jpeg(size: tuple[int, int] = (64, 48), colour: str = "teal") -> bytes:
    """A JPEG of one colour: the smallest that is a photo."""
    return jpeg_bytes(Image.new("RGB", size, colour))


def draw_photo(number: int) -> bytes:
    """A JPEG unlike those of other numbers."""
    image = Image.new("RGB", (320, 240), (number * 37 % 256, number * 91 % 256, 140))
    ImageDraw.Draw(image).ellipse((40, 30, 200 + number % 90, 180), fill=(250, number * 53 % 256, 60))
    return jpeg_bytes(image)


def draw_scene(number: int) -> bytes:
    """A JPEG whose difference hash is unlike those of other numbers."""
    return jpeg_bytes(scene_image(number), quality=92)


def scene_image(seed: object, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A mosaic of coloured tiles, whose difference hash is unlike that of other seeds."""
    tiles = Image.frombytes("RGB", (8, 8), random.Random(str(seed)).randbytes(8 * 8 * 3))
    return tiles.resize(size, Image.Resampling.NEAREST)


def draw_landscape(size: tuple[int, int] = (640, 480)) -> bytes:
    """A JPEG that looks somewhat like a photo to people: a sky, a sun, and hills."""
    width, height = size
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    image = Image.blend(image, Image.new("RGB", size, (90, 150, 230)), 0.7)
    draw = ImageDraw.Draw(image)
    draw.ellipse((0.7 * width, 0.1 * height, 0.8 * width, 0.1 * height + 0.1 * width), fill=(255, 240, 190))
    draw.ellipse((-0.3 * width, 0.6 * height, 0.7 * width, 1.6 * height), fill=(60, 110, 60))
    draw.ellipse((0.3 * width, 0.7 * height, 1.4 * width, 1.8 * height), fill=(40, 85, 50))
    return jpeg_bytes(image)


def detailed_image(seed: int, size: tuple[int, int]) -> Image.Image:
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


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """A ZIP of files by their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
