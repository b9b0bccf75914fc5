"""New domains: photos that the base knows nothing to say about, and what simulated people say of them. No Django."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.benchmarks.experiments.drawn import draw_thing
from tests.benchmarks.experiments.people import CATALOGUE, DRAWN, Look, Words, describe, look_at
from training.data.pixels import sheets_load

SETS = ("houses", "flower_photos", "sun_scenes", "imagenette")
TILE = 96  # pixels


@dataclass(frozen=True)
class DomainPhoto:
    """An RGB photo, what is on it, and the words there are for that."""

    image: Image.Image
    kind: str
    look: Look
    words: Mapping[str, Words]

    def said_by(self, person: int, generator: random.Random) -> str:
        """What one of the people says of it; see `people.describe`."""
        return describe(self.kind, self.look, self.words, person, generator)


def catalogue_photos(data: Path, cache: Path, count: int) -> list[DomainPhoto]:
    """Up to `count` small photos of 26 kinds out of the labelled sets below `data`, in a random but fixed order."""
    pixels, flat = sheets_load(data, cache, "labelled", TILE)
    chosen = [index for index, label in enumerate(flat) if label.split("/")[0] in SETS]
    chosen = random.Random(0).sample(chosen, min(count, len(chosen)))
    images = [Image.fromarray(np.array(pixels[index])) for index in chosen]
    kinds = [flat[index].split("/", 1)[1].lower() for index in chosen]
    return [
        DomainPhoto(image, kind, look_at(image), CATALOGUE) for image, kind in zip(images, kinds, strict=True)
    ]


def drawn_photos(count: int, seed: int = 0) -> list[DomainPhoto]:
    """`count` drawn pictures of six kinds of things, no two alike."""
    generator, kinds = random.Random(seed), list(DRAWN)
    photos = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        image = draw_thing(kind, generator)
        photos.append(DomainPhoto(image, kind, look_at(image), DRAWN))
    return photos
