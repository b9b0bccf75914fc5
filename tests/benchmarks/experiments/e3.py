"""E3: what the memory of corrections does by itself, on real photographs with real sentences. No Django.

The domain is photos at the water, which the experimental base never saw; a correction is one of a photo's five
captions. What is asked here is what the service asks: the same index, the same rule for copies, the same order of
beams. With `--base` a version that learned, the same shows memory and weights together.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from PIL import Image

from captioner.inference.likeness import ranking
from captioner.inference.likeness.index import LikenessIndex, Remembered
from captioner.inference.predictor import Predictor
from captioner.inference.types import Candidate, DecodingParameters
from captioner.intake.hashes import difference_hash
from training.data.caption_text import WATER, captions_mention
from training.data.photo_sets import ReferencePhoto, photos_read
from training.judging.gate import paired_bootstrap
from training.judging.scores import captions_score

SIZES = (100, 400, 800)
HELD_OUT, UNRELATED, COPIED = 300, 1000, 100  # photos
BEAMS = 5
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
ANYBODY = (1, 0, 0)


@dataclass(frozen=True)
class Look:
    """A photo as the base saw it: its vector (float16 bytes in hex), its hash and its beams; what people said of it."""

    vector: str
    digits: str
    beams: list[tuple[str, list[float]]]
    said: list[str]

    @property
    def bytes(self) -> bytes:
        return bytes.fromhex(self.vector)

    @property
    def candidates(self) -> list[Candidate]:
        return [Candidate(text, (), sum(each), tuple(each)) for text, each in self.beams]


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The same photo again in six forms, photos like it, and photos that have nothing to do with them."""
    data, base, folder, sizes = options.data, options.base, options.folder, options.sizes or SIZES
    predictor = Predictor.load(base, model_version=base.name)
    water, others = [], []
    for split in ("train", "val"):
        for photo in photos_read(data / f"flickr8k/{split}.tar"):
            if captions_mention(photo.captions, WATER):
                water.append(photo)
            elif split == "val":
                others.append(photo)
    random.Random(0).shuffle(water)
    held_out = looks(predictor, water[:HELD_OUT], folder / "held-out.json")
    pool = looks(predictor, water[HELD_OUT:][: max(sizes)], folder / "pool.json")
    unrelated = looks(predictor, others[:UNRELATED], folder / "unrelated.json")
    sources = water[HELD_OUT:][: min(COPIED, len(pool))]
    for name, change in COPIES.items():
        copies = looks(predictor, sources, folder / f"copies-{name}.json", change)
        yield {"asked": "the same photo", "copy": name, **_copies_found(pool, copies)}
    for seed in range(options.seeds):
        for count in sizes:
            drawn = random.Random(seed)
            taught = drawn.sample(pool, min(count, len(pool)))
            said = [drawn.choice(look.said) for look in taught]
            memory = Memory(taught, said)
            weight = _weight_choose(memory)
            row = {"corrections": len(taught), "seed": seed, "inner_weight": weight}
            for asked, photos in (("photos like it", held_out), ("unrelated photos", unrelated)):
                for chosen in sorted({weight, ranking.WEIGHT}):
                    yield {"asked": asked, **row, "weight": chosen, **_compared(memory, photos, chosen)}


class Memory:
    """What was remembered, as a process of the service lists it."""

    def __init__(self, photos: Sequence[Look], said: Sequence[str]) -> None:
        self.photos, self.said = photos, said
        self._index = LikenessIndex()
        self._index.add([Remembered(n, look.bytes, look.digits, ANYBODY) for n, look in enumerate(photos)])

    def recall(self, look: Look, weight: float, but: int | None = None) -> tuple[str, bool]:
        """The caption of a photo, and whether it is a remembered one; the photo of number `but` is not heard."""
        found = [n for n in self._index.search(look.bytes, look.digits, None) if n != but]
        alike = ranking.likenesses(look.bytes, [self.photos[number].bytes for number in found])
        for likeness, number in sorted(zip(alike, found, strict=True), reverse=True):
            if ranking.is_copy(likeness, (look.digits, self.photos[number].digits)):
                return self.said[number], True
        neighbours = [
            ranking.Neighbour(self.said[number], likeness)
            for likeness, number in zip(alike, found, strict=True)
        ]
        best, *_ = ranking.beams_rank(look.candidates, neighbours, weight)
        return look.beams[best][0], False


def looks(
    predictor: Predictor,
    photos: Sequence[ReferencePhoto],
    path: Path,
    change: Callable[[Image.Image], Image.Image] = lambda image: image,
) -> list[Look]:
    """What `predictor` makes of photos, each of them changed; made once and kept at `path`."""
    if not path.exists():
        parameters = DecodingParameters(
            num_beams=BEAMS, max_new_tokens=predictor.default_parameters.max_new_tokens
        )
        made = []
        for photo in photos:
            image = change(Image.open(io.BytesIO(photo.data)).convert("RGB"))
            [seen] = predictor.look(predictor.preprocess(image)[None], parameters)
            beams = [(beam.caption, list(beam.token_log_probabilities)) for beam in seen.beams]
            made.append(Look(seen.vector.hex(), difference_hash(image), beams, list(photo.captions)))
        path.write_text(json.dumps([asdict(look) for look in made]))
    return [Look(**look) for look in json.loads(path.read_text())]


def encoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(factor * image.width), round(factor * image.height)))


def cut(image: Image.Image, share: float) -> Image.Image:
    width, height = share * image.width, share * image.height
    return image.crop((round(width), round(height), round(image.width - width), round(image.height - height)))


COPIES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "as it was": lambda image: image,
    "encoded again": lambda image: encoded(image, 60),
    "scaled": lambda image: encoded(scaled(image, 0.8), 70),
    "cut by 3 percent": lambda image: cut(image, 0.03),
    "cut by 5 percent": lambda image: cut(image, 0.05),
    "ruined": lambda image: encoded(scaled(image, 0.5), 30),
}


# --- Helpers ---


def _copies_found(pool: Sequence[Look], copies: Sequence[Look]) -> dict[str, Any]:
    """Photo n of the pool comes again as copy n: how many are answered with what was said of photo n."""
    memory = Memory(pool, [str(number) for number in range(len(pool))])
    answers, seconds = [], []
    for copy in copies:
        started = time.perf_counter()
        answers.append(memory.recall(copy, ranking.WEIGHT))
        seconds.append(time.perf_counter() - started)
    right = sum(is_memory and said == str(number) for number, (said, is_memory) in enumerate(answers))
    wrong = sum(is_memory for _, is_memory in answers) - right
    return {
        "photos": len(copies),
        "right": right,
        "of_another_photo": wrong,
        "likeness": round(
            median(
                ranking.likenesses(copy.bytes, [own.bytes])[0]
                for copy, own in zip(copies, pool, strict=False)
            ),
            3,
        ),
        "milliseconds": round(1000 * median(seconds), 2),
    }


def _weight_choose(memory: Memory) -> float:
    """The weight with which each remembered photo gets the best caption from all others: the inner split."""
    references = [[said] for said in memory.said]

    def score(weight: float) -> float:
        captions = [memory.recall(look, weight, but=n)[0] for n, look in enumerate(memory.photos)]
        return fmean(captions_score(captions, references).cider_d_each)

    return max(WEIGHTS, key=score)


def _compared(memory: Memory, photos: Sequence[Look], weight: float) -> dict[str, Any]:
    """CIDEr-D of the model's captions and of what comes out with the memory, against people's."""
    references = [look.said for look in photos]
    before = [look.beams[0][0] for look in photos]
    recalled = [memory.recall(look, weight) for look in photos]
    after = [said for said, _ in recalled]
    own, new = (captions_score(captions, references).cider_d_each for captions in (before, after))
    gain = paired_bootstrap(new, own)
    return {
        "photos": len(photos),
        "before": round(fmean(own), 2),
        "after": round(fmean(new), 2),
        **{name: round(value, 2) for name, value in asdict(gain).items()},
        "changed": sum(one != other for one, other in zip(before, after, strict=True)),
        "taken_for_the_same": sum(is_memory for _, is_memory in recalled),
    }
