"""Labelled photos get captions, too: what people wrote about other photos that show such a thing.

Few of the captioned photos show a giraffe or a bathroom. Labels say which others do, and captions without photos say
how people speak of them; whatever else such a caption mentions is noise that differs from one to the next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from training.data.caption_text import caption_normalise
from training.data.pixels import Pixels, sheets_load

FEWEST_CAPTIONS = 20
MOST_WORDS_BEFORE = 3  # later in a caption a thing is rarely what the photo is about

# Words as captions have them (a pattern), and the labels of photos that show the thing.
CONCEPTS: Mapping[str, tuple[str, ...]] = {
    "airplanes?|planes?|jet": ("airplane", "airport"),
    "apples?": ("Granny Smith apple", "Golden Delicious apple", "Red Delicious apple", "Royal Gala apple"),
    "backpack": ("backpack",),
    "bananas?": ("banana",),
    "basketball": ("basketball",),
    "bath ?tub|tub": ("bathtub",),
    "bathroom": ("bathroom",),
    "beach|ocean": ("seashore",),
    "bears?": ("brown bear",),
    "bedroom": ("bedroom",),
    "bikini": ("bikini",),
    "birds?": ("goose", "albatross", "black stork", "pigeon", "ibis"),
    "boats?": ("gondola", "lifeboat", "ferry", "ketch", "schooner"),
    "bottles?": ("beer bottle", "pop bottle", "water jug"),
    "bridge": ("suspension bridge", "steel arch bridge", "viaduct"),
    "bus": ("school bus", "trolleybus"),
    "candles?": ("candle",),
    "cars?": ("sports car", "convertible", "beach wagon", "limousine", "car"),
    "carrots?": ("carrots",),
    "cats?|kitten": ("tabby", "Egyptian cat", "Persian cat", "cat"),
    "cell ?phone": ("cellphone", "iPod"),
    "chairs?": ("rocking chair", "windsor chair", "chair"),
    "church|tower": ("church", "minaret", "water tower"),
    "cliff|mountains?": ("cliff", "alp"),
    "coffee": ("espresso",),
    "cows?": ("ox", "bison"),
    "desk": ("desk",),
    "desert|sand": ("desert",),
    "dogs?|puppy": ("Labrador retriever", "golden retriever", "German shepherd", "Chihuahua", "dog"),
    "elephants?": ("African elephant", "elephant"),
    "fence": ("picket fence",),
    "flowers?": ("tulip", "dandelion", "rose", "sunflower", "daisy"),
    "football": ("football field",),
    "fountain": ("fountain",),
    "giraffes?": ("giraffe",),
    "guitar": ("electric guitar", "guitar"),
    "horses?": ("horse",),
    "house": ("house", "front of a house"),
    "ice cream": ("ice cream",),
    "keyboard": ("computer keyboard",),
    "kitchen": ("kitchen",),
    "lake|river": ("lakeside", "dam"),
    "lamp": ("lampshade", "lamp"),
    "laptops?": ("laptop",),
    "motor(?:cycle|bike)s?": ("motorbike",),
    "oranges": ("orange",),
    "parking meter": ("parking meter",),
    "pizza": ("pizza",),
    "plate": ("plate", "meat loaf", "mashed potato", "guacamole"),
    "refrigerator|fridge": ("refrigerator",),
    "remote": ("remote control",),
    "scissors": ("scissors",),
    "sheep": ("bighorn",),
    "sky|clouds?": ("sky",),
    "soccer": ("soccer ball",),
    "stop sign": ("stop sign",),
    "sunglasses": ("sunglasses",),
    "tables?": ("dining table",),
    "teddy bears?": ("teddy",),
    "trains?": ("bullet train", "freight car"),
    "trees?|forest": ("bamboo forest", "joshua tree"),
    "trucks?": ("garbage truck", "moving van"),
    "umbrellas?": ("umbrella",),
    "uniforms?": ("military uniform",),
    "vegetables?": ("cauliflower", "zucchini", "cabbage", "cucumber", "Green Bell Pepper", "asparagus"),
    "volleyball": ("volleyball",),
}


@dataclass(frozen=True)
class Concept:
    """Where photos that show it lie, as (pixels, index), and what people wrote about such things."""

    photos: Sequence[tuple[Pixels, int]]
    captions: list[str]

    def draw(self) -> tuple[Pixels, int]:
        """One of the photos, by torch's generator."""
        return self.photos[int(torch.randint(len(self.photos), ()))]


def concepts_load(data: Path, cache: Path, size: int, captions: Iterable[str]) -> list[Concept]:
    """Concepts of which there are photos in the labelled sets, and captions in `captions` and text without photos.

    `captions` are normalised; the labelled photos are read at `size` pixels, as for pretraining.
    """
    spoken = [
        *captions,
        *(
            caption_normalise(caption)
            for path in sorted((data / "text").glob("*.jsonl"))
            for line in path.read_text(encoding="utf-8").splitlines()
            for caption in json.loads(line)["captions"]
        ),
    ]
    photos = _labelled(data, cache, size)
    found = []
    for words, labels in CONCEPTS.items():
        shown = [place for label in labels for place in photos.get(label, [])]
        is_about = re.compile(rf"(?:\S+ ){{0,{MOST_WORDS_BEFORE}}}(?:{words})\b").match
        about = [caption for caption in spoken if is_about(caption)]
        if shown and len(about) >= FEWEST_CAPTIONS:
            found.append(Concept(shown, about))
    return found


def _labelled(data: Path, cache: Path, size: int) -> dict[str, list[tuple[Pixels, int]]]:
    """Training photos by label; of Tiny-ImageNet's synonyms the first."""
    classes = json.loads((data / "tiny_imagenet/classes.json").read_text())
    tiny, numbers = sheets_load(data, cache, "tiny-train", size)
    others, names = sheets_load(data, cache, "labelled", size)
    photos: dict[str, list[tuple[Pixels, int]]] = {}
    for pixels, labels in (
        (tiny, [classes[number].split(",")[0] for number in numbers]),
        (others, [name.split("/", 1)[1] for name in names]),
    ):
        for index, label in enumerate(labels):
            photos.setdefault(label, []).append((pixels, index))
    return photos
