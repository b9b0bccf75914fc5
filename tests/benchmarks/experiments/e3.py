"""E3: what the memory of corrections does by itself, on real photographs with real sentences. No Django.

The domain is photos at the water, which the experimental base never saw; held-out photos and corrections are those of
E1. What is asked here is what the service asks: the same index, the same rule for copies, the same order of beams.
With `--base` a candidate that E1 left (`FOLDER/candidates/400`, of its seed 0: `--sizes 400 --seeds 1`) the same shows
memory and weights together. The control remembers the same sentences dealt to other photos, and must gain nothing.

Nearly all of the time goes into captions of photos, which are made once for each base and kept: 20 a minute on two busy
cores in the worst case. `--photos 150` takes 150 of each kind of photos for an evening; sizes and seeds cost little.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from PIL import Image

from captioner.inference.likeness import ranking
from captioner.inference.likeness.index import LikenessIndex, Remembered
from captioner.inference.predictor import Predictor
from captioner.inference.types import Candidate, DecodingParameters
from captioner.intake.hashes import difference_hash
from models_registry.files import file_sha256, file_write_atomically
from tests.benchmarks.experiments.bench import corrections_draw, domain_read
from training.data.photo_sets import ReferencePhoto
from training.judging.gate import paired_bootstrap
from training.judging.memorising import repeated_find
from training.judging.scores import captions_score
from training.progress import Progress, Tick, untold

SIZES = (100, 400, 800)
UNRELATED, COPIED = 1000, 100  # photos
BEAMS = 5
LOOKED_AT_ONCE = 8  # photos
MANY, CHANGE = 400, 0.3  # corrections; CIDEr-D points of unrelated photos, at most
TARGETS = {
    "the same photo": "100 % of the copies answered with what was said of their photo, none with another's",
    "photos like it": f"from {MANY} corrections on a lower bound of the gain above 0; shuffled: none",
    "unrelated photos": f"a change of at most {CHANGE:g}; {UNRELATED} photos were asked for",
}
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
    sizes, most = options.sizes or SIZES, options.photos or UNRELATED
    predictor = Predictor.load(options.base, model_version=options.base.name)
    # What another base saw is not taken for this one's.
    weights = next(iter(sorted(options.base.glob("*.safetensors"))))
    folder = options.folder / f"looks-{file_sha256(weights)[:12]}"
    folder.mkdir(exist_ok=True)
    water, held_out, dry = domain_read(options.data, options.base)
    drawn = {
        (seed, count): corrections_draw(water, held_out, count, seed)
        for seed in range(options.seeds)
        for count in sizes
    }
    taught = sorted({row.photo for rows in drawn.values() for row in rows})
    with Progress() as progress:
        known = dict(
            zip(
                taught,
                looks(predictor, [water[number] for number in taught], folder, tick=progress.tick),
                strict=True,
            )
        )
        asked = {
            "photos like it": looks(predictor, water[:held_out][:most], folder, tick=progress.tick),
            "unrelated photos": looks(predictor, dry[:most], folder, tick=progress.tick),
        }
        sources = [water[number] for number in taught[: min(COPIED, most)]]
        copies = {
            name: looks(predictor, sources, folder, name, change, progress.tick)
            for name, change in COPIES.items()
        }
    for name, seen in copies.items():
        yield {"asked": "the same photo", "copy": name, **_copies_found(list(known.values()), seen)}
    gained: dict[tuple[str, int, bool], list[list[float]]] = defaultdict(list)
    for (seed, count), rows in drawn.items():
        said = [row.ideal for row in rows]
        for shuffled in (False, True):
            if shuffled:
                random.Random(seed).shuffle(said)
            memory = Memory([known[row.photo] for row in rows], said)
            weight = _weight_choose(memory)
            for name, photos in asked.items():
                for chosen in sorted({weight, ranking.WEIGHT}):
                    figures, gains = _compared(memory, photos, chosen)
                    yield {
                        "asked": name,
                        "corrections": count,
                        "seed": seed,
                        "shuffled": shuffled,
                        "inner_weight": weight,
                        "weight": chosen,
                        **figures,
                    }
                    if chosen == ranking.WEIGHT:  # what serves
                        gained[name, count, shuffled].append(gains)
    for (name, count, shuffled), seeds in gained.items():
        gain = paired_bootstrap([fmean(each) for each in zip(*seeds, strict=True)], [0.0] * len(seeds[0]))
        met = (gain.lower > 0) if name == "photos like it" else abs(gain.mean) <= CHANGE
        yield {
            "asked": name,
            "case": "all seeds",
            "corrections": count,
            "shuffled": shuffled,
            "photos": gain.photos,
            **{figure: round(getattr(gain, figure), 2) for figure in ("mean", "lower", "upper")},
            "target": TARGETS[name],
            "met": met if not shuffled and (count >= MANY or name != "photos like it") else None,
        }


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
    folder: Path,
    name: str = "as it was",
    change: Callable[[Image.Image], Image.Image] = lambda image: image,
    tick: Tick = untold,
) -> list[Look]:
    """What `predictor` makes of photos, each of them changed; made once and kept in `folder`, which is of this base."""
    path = folder / f"{name}.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    missing = [photo for photo in photos if photo.key not in kept]
    parameters = DecodingParameters(
        num_beams=BEAMS, max_new_tokens=predictor.default_parameters.max_new_tokens
    )
    for start in range(0, len(missing), LOOKED_AT_ONCE):
        part = missing[start : start + LOOKED_AT_ONCE]
        images = [change(Image.open(io.BytesIO(photo.data)).convert("RGB")) for photo in part]
        pixels = torch.stack([predictor.preprocess(image) for image in images])
        for photo, image, seen in zip(part, images, predictor.look(pixels, parameters), strict=True):
            beams = [(beam.caption, list(beam.token_log_probabilities)) for beam in seen.beams]
            kept[photo.key] = asdict(
                Look(seen.vector.hex(), difference_hash(image), beams, list(photo.captions))
            )
        with file_write_atomically(path) as draft:  # who is stopped goes on from here
            draft.write_text(json.dumps(kept))
        tick(f"Captioning photos ({name})", start + len(part), len(missing))
    return [Look(**kept[photo.key]) for photo in photos]


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
        "target": TARGETS["the same photo"],
        "met": right == len(copies),
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


def _compared(memory: Memory, photos: Sequence[Look], weight: float) -> tuple[dict[str, Any], list[float]]:
    """CIDEr-D of the model's captions and of what comes out with the memory, against people's; and each one's gain."""
    references = [look.said for look in photos]
    before = [look.beams[0][0] for look in photos]
    recalled = [memory.recall(look, weight) for look in photos]
    after = [said for said, _ in recalled]
    own, new = (captions_score(captions, references).cider_d_each for captions in (before, after))
    gain = paired_bootstrap(new, own)
    repeats = {
        name: round(100 * fmean(repeated_find(captions, memory.said)), 2)
        for name, captions in (("repeated_percent", after), ("repeated_by_the_model_percent", before))
    }
    figures = {
        "photos": len(photos),
        "before": round(fmean(own), 2),
        "after": round(fmean(new), 2),
        **{name: round(value, 2) for name, value in asdict(gain).items()},
        "changed": sum(one != other for one, other in zip(before, after, strict=True)),
        "taken_for_the_same": sum(is_memory for _, is_memory in recalled),
        **repeats,
    }
    return figures, [ours - theirs for ours, theirs in zip(new, own, strict=True)]
