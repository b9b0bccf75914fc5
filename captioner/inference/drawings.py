"""Drawn photos: what a model is tried with where no real photo is at hand."""

import random

from PIL import Image, ImageDraw


def drawn_images(count: int) -> list[Image.Image]:
    """The same colourful RGB drawings of 320 x 240 pixels on every call."""
    images = []
    for seed in range(count):
        number = random.Random(seed).randrange  # noqa: S311
        image = Image.new("RGB", (320, 240), (number(256), number(256), number(256)))
        draw = ImageDraw.Draw(image)
        for _ in range(number(3, 12)):
            left, top = number(280), number(200)
            box = (left, top, left + number(20, 160), top + number(20, 120))
            shape = (draw.ellipse, draw.rectangle)[number(2)]
            shape(box, fill=(number(256), number(256), number(256)))
        images.append(image)
    return images
