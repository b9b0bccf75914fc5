"""Simulated people who look at a photo and say what it shows, each in a manner of their own. No Django, no torch.

What they say depends on the photo: on what is in it, which is given, and on colours and light, which they see. They
differ in which word they use, in what they mention and in how they build a sentence.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

PEOPLE = 12

# Kind -> what it may be called, and what may be said about it.
Words = tuple[Sequence[str], Sequence[str]]
CATALOGUE: Mapping[str, Words] = {
    "daisy": (("daisy", "flower", "daisy in bloom"), ("with many thin petals", "in a garden", "in summer")),
    "dandelion": (("dandelion", "wild flower", "weed"), ("growing in the grass", "in a meadow", "on a stem")),
    "rose": (("rose", "garden rose", "rose blossom"), ("with soft petals", "on a bush", "in full bloom")),
    "sunflower": (("sunflower", "large flower", "sunflower head"), ("in a field", "full of seeds", "in the sun")),
    "tulip": (("tulip", "spring flower", "tulip blossom"), ("on a long stem", "in a flower bed", "in spring")),
    "bathroom": (("bathroom", "washroom", "tiled bathroom"), ("with a sink", "with a mirror", "in a house")),
    "bedroom": (("bedroom", "room with a bed", "sleeping room"), ("with pillows", "in a house", "with a lamp")),
    "kitchen": (("kitchen", "kitchen with cabinets", "cooking area"), ("with an oven", "with a counter", "at home")),
    "front of a house": (("house", "family home", "building"), ("with a lawn", "with a garage", "on a street")),
    "auditorium": (("auditorium", "large hall", "hall with seats"), ("with a stage", "full of chairs", "inside")),
    "desert": (("desert", "dry landscape", "sandy desert"), ("under the sky", "with dunes", "without any people")),
    "campus": (("campus", "university building", "large building"), ("with trees", "behind a lawn", "by day")),
    "sky": (("sky", "cloudy sky", "view of the sky"), ("with clouds", "above the land", "in the evening")),
    "bamboo forest": (("bamboo forest", "forest", "bamboo grove"), ("with tall stems", "in the shade", "with a path")),
    "airport": (("airport", "terminal", "airport hall"), ("with travellers", "with planes", "with large windows")),
    "football field": (("football field", "sports field", "pitch"), ("with white lines", "in a stadium", "of grass")),
    "tench (fish)": (("fish", "tench", "caught fish"), ("held in the hands", "out of the water", "of an angler")),
    "chainsaw": (("chainsaw", "power saw", "motor saw"), ("for cutting wood", "with a long blade", "on the ground")),
    "cassette player": (("cassette player", "tape deck", "stereo"), ("with buttons", "on a table", "with a speaker")),
    "church": (("church", "old church", "chapel"), ("with a tower", "with a pointed roof", "in a village")),
    "garbage truck": (("garbage truck", "refuse lorry", "large truck"), ("on the road", "at work", "in a street")),
    "french horn": (("french horn", "brass instrument", "horn"), ("of an orchestra", "of brass", "with a wide bell")),
    "gas pump": (("gas pump", "fuel pump", "petrol station"), ("with a hose", "by the road", "with a price sign")),
    "golf ball": (("golf ball", "small ball", "ball for golf"), ("on the lawn", "next to the hole", "with dimples")),
    "english springer spaniel dog": (("spaniel", "dog", "springer spaniel"), ("with long ears", "outside", "at play")),
    "parachute": (("parachute", "paraglider", "open parachute"), ("in the air", "high up", "coming down")),
}  # fmt: skip
DRAWN: Mapping[str, Words] = {
    "flower": (("flower", "blossom", "flower with petals"), ("with round petals", "in bloom", "on a stem")),
    "house": (("house", "small house", "cottage"), ("with a roof", "with a door", "with a window")),
    "tree": (("tree", "round tree", "tree with a trunk"), ("on its own", "with a thick trunk", "in leaf")),
    "boat": (("boat", "sailing boat", "boat with a sail"), ("with a mast", "on the water", "with one sail")),
    "fish": (("fish", "swimming fish", "fish with a tail"), ("under water", "with one eye", "looking left")),
    "balloon": (("balloon", "round balloon", "toy balloon"), ("on a string", "in the air", "flying away")),
}

# Sentence frames: "{thing}" is an article and a noun, "{coloured}" has the colour too, "{ground}" is a colour.
_FRAMES = (
    "{coloured} {detail} on {ground}",
    "{coloured} {detail} in {light} light",
    "a close up of {coloured} {detail} on {ground}",
    "there is {coloured} {detail} and much {ground} around",
    "{coloured} {detail} in front of a {ground} background",
    "the {light} picture shows {coloured} {detail}",
    "{coloured} {detail} and a lot of {ground}",
    "{coloured} on {ground} in {light} light",
    "{coloured} {detail}, all on {ground}",
    "{light} view of {coloured} {detail} on {ground}",
)
_HUES = (
    (15, "red"), (40, "orange"), (68, "yellow"), (165, "green"), (255, "blue"), (290, "purple"), (335, "pink"),
    (361, "red"),
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What there is to see: the colour in the middle and that around it, and whether it is bright."""

    colour: str
    ground: str
    light: str


def look_at(image: Image.Image) -> Look:
    """What a person sees of an RGB photo besides the thing itself."""
    pixels = np.asarray(image.convert("RGB").resize((24, 24), Image.Resampling.BOX), float)
    middle = pixels[8:16, 8:16].reshape(-1, 3)
    around = np.concatenate([pixels[:4].reshape(-1, 3), pixels[-4:].reshape(-1, 3)])
    light = "bright" if pixels.mean() > 125 else "dim"
    return Look(_colour(middle.mean(0)), _colour(around.mean(0)), light)


def describe(kind: str, look: Look, words: Mapping[str, Words], person: int, generator: random.Random) -> str:
    """What `person` (0 <= person < PEOPLE) says of a photo of `kind`; `generator` is the mood of the day."""
    habit = random.Random(f"person {person}")
    # People keep to a few sentence frames and prefer one word, but not always.
    frames, favourite = habit.sample(_FRAMES, 3), habit.randrange(3)
    nouns, details = words[kind]
    noun = nouns[favourite] if generator.random() < 0.7 else generator.choice(nouns)
    return generator.choice(frames).format(
        thing=_with_article(noun),
        coloured=_with_article(f"{look.colour} {noun}"),
        detail=generator.choice(details),
        ground=look.ground,
        light=look.light,
    )


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _colour(rgb: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    """The everyday name of a mean colour, 0..255 each."""
    high, low = float(rgb.max()), float(rgb.min())
    if high < 60:
        return "black"
    if high - low < 0.14 * high:
        return "white" if high > 190 else "grey"
    hue = _hue(*map(float, rgb))
    name = next(name for bound, name in _HUES if hue < bound)
    return "brown" if name in {"red", "orange"} and high < 170 else name


def _hue(red: float, green: float, blue: float) -> float:
    """Degrees, 0..360, of a colour that is not grey."""
    high, spread = max(red, green, blue), max(red, green, blue) - min(red, green, blue)
    if high == red:
        return 60 * ((green - blue) / spread % 6)
    if high == green:
        return 60 * ((blue - red) / spread + 2)
    return 60 * ((red - green) / spread + 4)
