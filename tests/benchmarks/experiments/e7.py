"""E7: how much of what teams wrote is kept, and how much one flooding cookie gets; which photos are taken for one."""

from __future__ import annotations

import hashlib
import io
import random
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from captioner.inference.likeness.copies import PhotoLooks
from captioner.inference.predictor import Predictor
from captioner.inference.types import DecodingParameters
from captioner.intake.hashes import difference_hash
from tests.benchmarks.experiments.sentences import Described, photos_described
from training.data.photo_sets import photo_sets_read
from training.data.pixels import sheets_load
from training.learning.curation import FeedbackRow, rows_curate

Row = dict[str, Any]
TEAMS = ((1, 200), (2, 100), (5, 40), (10, 100), (12, 67), (100, 10), (4, 300), (1, 1000))
FLOOD = 1000
PLAIN = 1150
COPIED = 400
ONE_WORD = DecodingParameters(num_captions=1, num_beams=1, max_new_tokens=1)


def run(options: Namespace) -> Iterator[Row]:
    """Yields rows of figures, several of each team, one per seed."""
    photos = photos_described(options.data)
    for seed in range(options.seeds):
        for people, each in TEAMS:
            for anonymous in (False, True):
                yield team(photos, people, each, anonymous, 0, seed)
        for anonymous in (False, True):
            yield team(photos, 100, 10, anonymous, FLOOD, seed)
    yield plain_ground(options)
    yield copied(options)


def team(photos: Sequence[Described], people: int, each: int, anonymous: bool, flood: int, seed: int) -> Row:
    """People with `each` corrections, who meet each other's photos now and then; and a cookie that floods."""
    generator = random.Random(seed)
    rows = []
    for number in range(people * each):
        author = number % people
        photo = generator.choice(photos)
        ideal = photo.captions[author % 5]  # what one of five people wrote of it
        rows.append(_row(number, f"person {author}", photo, ideal, anonymous))
    for number in range(flood):
        photo = generator.choice(photos)
        rows.append(_row(people * each + number, "flood", photo, generator.choice(photo.captions), True))
    hashes = {row.photo: hashlib.sha256(row.photo.encode()).hexdigest()[:16] for row in rows}
    snapshot = rows_curate(rows, hashes, salt=str(seed))
    by_author = Counter(row.author for row in snapshot.rows)
    flooded = by_author.pop("flood", 0)
    return {
        "case": "team" if not flood else "one cookie floods",
        "people": people,
        "each": each,
        "anonymous": anonymous,
        "seed": seed,
        "kept": round(by_author.total() / (people * each), 3),
        "authors": len(by_author),
        "left_out": Counter(snapshot.left_out.values()),
        **({"flooder": round(flooded / len(snapshot.rows), 4)} if flood else {}),
    }


def _row(number: int, author: str, photo: Described, ideal: str, anonymous: bool) -> FeedbackRow:
    row = FeedbackRow(number, photo.name, author, "a photo", "v1", ideal)
    return replace(row, anonymous=anonymous)


def plain_ground(options: Namespace) -> Row:
    """Different things on a white ground: how many groups?"""
    pixels, labels = sheets_load(options.data, options.folder, "labelled", 96)
    chosen = random.Random(0).sample(range(len(labels)), min(PLAIN, len(labels)))
    hashes = {}
    for index in chosen:
        ground = Image.new("RGB", (288, 288), (244, 244, 240))
        ground.paste(Image.fromarray(pixels[index]).resize((72, 72)), (108, 108))
        hashes[str(index)] = difference_hash(ground)
    groups = Counter(PhotoLooks(hashes, {}).groups().values())
    return {
        "case": "plain ground",
        "photos": len(hashes),
        "groups": len(groups),
        "largest": max(groups.values()),
    }


def copied(options: Namespace) -> Row:
    """Real photos, and a smaller copy of each in a worse JPEG: how many are found, how many others taken for one?

    By hashes alone, as without a memory, and by what the base saw as well. Wanted: all copies, and no others.
    """
    photos = photo_sets_read([options.data / "flickr8k"])["flickr8k"]["val"][:COPIED]
    predictor = Predictor.load(options.base, model_version="base")
    hashes, vectors = {}, {}
    for photo in photos:
        with Image.open(io.BytesIO(photo.data)) as opened:
            image = opened.convert("RGB")
        worse = io.BytesIO()
        image.resize((image.width * 4 // 5, image.height * 4 // 5)).save(worse, "JPEG", quality=70)
        for name, view in ((photo.key, image), (f"{photo.key} copy", Image.open(worse).convert("RGB"))):
            hashes[name] = difference_hash(view)
            [seen] = predictor.look(predictor.preprocess(view)[None], ONE_WORD)
            if seen.vector:
                vectors[name] = np.frombuffer(seen.vector, "<f2")
    row: Row = {"case": "copies", "photos": len(photos)}
    for known, looks in (("hash", PhotoLooks(hashes, {})), ("hash_and_vector", PhotoLooks(hashes, vectors))):
        groups = looks.groups()
        own = {photo.key for photo in photos}
        row[known] = {
            "in_the_same_group": sum(groups[key] == groups[f"{key} copy"] for key in own),
            "kept_from_teaching": len(looks.copies({f"{key} copy" for key in own}, of=own)),
            "others_joined": len(own) - len({groups[key] for key in own}),
        }
    return row
