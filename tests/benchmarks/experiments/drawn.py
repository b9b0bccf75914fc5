"""Drawn photos for where there are no real ones: things of a new domain, and everyday scenes as the base knows them."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw, ImageFilter

SIDE = 160  # pixels
Colour = tuple[int, int, int]
_COLOURS: tuple[Colour, ...] = (
    (200, 40, 40), (230, 200, 60), (40, 150, 60), (50, 90, 200), (230, 130, 40), (140, 70, 170), (240, 240, 240),
    (40, 40, 40),
)  # fmt: skip
_GROUNDS: tuple[Colour, ...] = (
    (120, 180, 230), (90, 150, 80), (210, 190, 140), (150, 150, 150), (230, 230, 235), (60, 70, 110),
)  # fmt: skip


def draw_thing(kind: str, generator: random.Random) -> Image.Image:
    """An RGB picture of a flower, house, tree, boat, fish or balloon, each time of another size, place and colour."""
    image = _backdrop(generator.choice(_GROUNDS), generator)
    size = generator.randint(55, 80)
    x, y = (SIDE - size) // 2 + generator.randint(-18, 18), (SIDE - size) // 2 + generator.randint(-18, 18)
    _THINGS[kind](_Pen(image, x, y, size), generator.choice(_COLOURS))
    return _weathered(image, generator)


def draw_everyday(generator: random.Random) -> tuple[Image.Image, list[str]]:
    """A person outdoors, and what three people say of it, in the words of the captions that the starter learned."""
    place, ground, sky = generator.choice(_PLACES)
    who, (shirt, colour) = generator.choice(("man", "woman", "child")), generator.choice(_SHIRTS)
    image = _backdrop(sky, generator)
    pen = _Pen(image, generator.randint(30, 70), generator.randint(28, 44), 64 if who == "child" else 84)
    ImageDraw.Draw(image).rectangle((0, pen.y + pen.size * 0.8, SIDE, SIDE), fill=ground)
    _person(pen, colour)
    captions = [
        f"a {who} in a {shirt} shirt is standing {place}",
        f"a {who} wearing a {shirt} shirt stands {place}",
        f"a person is standing {place}",
    ]
    return _weathered(image, generator), captions


_PLACES: tuple[tuple[str, Colour, Colour], ...] = (
    ("in the snow", (240, 240, 245), (170, 200, 230)),
    ("on the beach", (220, 200, 150), (110, 170, 220)),
    ("in the grass", (80, 150, 70), (160, 200, 230)),
    ("on a street", (110, 110, 115), (180, 180, 185)),
)
_SHIRTS: tuple[tuple[str, Colour], ...] = (
    ("red", (200, 40, 40)),
    ("blue", (50, 90, 200)),
    ("white", (245, 245, 245)),
    ("black", (30, 30, 30)),
    ("green", (40, 140, 60)),
)


class _Pen:
    """Draws in shares of a square of `size` pixels whose upper left corner is at (x, y)."""

    def __init__(self, image: Image.Image, x: int, y: int, size: int) -> None:
        self._draw, self.x, self.y, self.size = ImageDraw.Draw(image), x, y, size

    def _place(self, points: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
        return [(self.x + across * self.size, self.y + down * self.size) for across, down in points]

    def oval(self, colour: Colour, *corners: tuple[float, float]) -> None:
        self._draw.ellipse(self._place(corners), fill=colour)

    def box(self, colour: Colour, *corners: tuple[float, float]) -> None:
        self._draw.rectangle(self._place(corners), fill=colour)

    def shape(self, colour: Colour, *corners: tuple[float, float]) -> None:
        self._draw.polygon(self._place(corners), fill=colour)


def _flower(pen: _Pen, colour: Colour) -> None:
    pen.box((50, 120, 50), (0.47, 0.5), (0.53, 1.2))
    for x, y in ((0.5, 0.2), (0.78, 0.4), (0.68, 0.72), (0.32, 0.72), (0.22, 0.4)):
        pen.oval(colour, (x - 0.22, y - 0.22), (x + 0.22, y + 0.22))
    pen.oval((240, 200, 60), (0.36, 0.34), (0.64, 0.62))


def _house(pen: _Pen, colour: Colour) -> None:
    pen.box(colour, (0.05, 0.4), (0.95, 1.0))
    pen.shape((130, 60, 40), (-0.05, 0.42), (0.5, 0.0), (1.05, 0.42))
    pen.box((90, 60, 40), (0.42, 0.65), (0.6, 1.0))
    pen.box((200, 225, 245), (0.15, 0.55), (0.32, 0.72))


def _tree(pen: _Pen, colour: Colour) -> None:
    pen.box((110, 75, 45), (0.43, 0.5), (0.57, 1.2))
    pen.oval(colour, (0.05, -0.1), (0.95, 0.75))


def _boat(pen: _Pen, colour: Colour) -> None:
    pen.shape((100, 70, 50), (-0.1, 0.75), (1.1, 0.75), (0.85, 1.05), (0.15, 1.05))
    pen.box((80, 60, 50), (0.47, 0.0), (0.51, 0.75))
    pen.shape(colour, (0.53, 0.0), (1.05, 0.68), (0.53, 0.68))


def _fish(pen: _Pen, colour: Colour) -> None:
    pen.shape(colour, (0.75, 0.5), (1.15, 0.2), (1.15, 0.8))
    pen.oval(colour, (-0.1, 0.22), (0.9, 0.78))
    pen.oval((250, 250, 250), (0.08, 0.38), (0.2, 0.5))


def _balloon(pen: _Pen, colour: Colour) -> None:
    pen.box((90, 90, 90), (0.49, 0.7), (0.51, 1.4))
    pen.oval(colour, (0.1, -0.1), (0.9, 0.8))


_THINGS = {
    "flower": _flower,
    "house": _house,
    "tree": _tree,
    "boat": _boat,
    "fish": _fish,
    "balloon": _balloon,
}


def _person(pen: _Pen, colour: Colour) -> None:
    pen.oval((225, 180, 150), (0.38, 0.0), (0.62, 0.24))
    pen.box(colour, (0.3, 0.24), (0.7, 0.62))
    pen.box((60, 60, 90), (0.32, 0.62), (0.47, 1.1))
    pen.box((60, 60, 90), (0.53, 0.62), (0.68, 1.1))


def _backdrop(colour: Colour, generator: random.Random) -> Image.Image:
    """A surface of one hue with soft patches, no two alike: photos are grouped by what they look like from afar."""
    patches = Image.new("RGB", (8, 8))
    for x in range(8):
        for y in range(8):
            shade = generator.uniform(0.72, 1.15)
            patches.putpixel((x, y), tuple(min(255, round(part * shade)) for part in colour))
    return patches.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def _weathered(image: Image.Image, generator: random.Random) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(generator.uniform(0.3, 1.0)))
