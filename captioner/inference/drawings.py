"""Drawn photos: what a model is tried with where no real photo is at hand."""

import random

from PIL import Image, ImageDraw


def drawn_images(count: int) -> list[Image.Image]:
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
