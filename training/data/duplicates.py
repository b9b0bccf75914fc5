"""Photos of the training split that show what a validation or test photo shows are left out of training.

Evidence is looks and words together: difference hashes along and across, of the photo and of its mirror image, and
how far the captions agree. Copies that were re-encoded are found by their looks alone, copies that were cut anew by
both, and a book's photo that comes twice in any cut by its caption. A scene that was photographed twice is none.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captioner.intake.hashes import difference_hash
from training.data.datasets import Photo
from training.data.photo_sets import TRAIN, Splits, photo_sets_read
from training.judging.gate import FUNCTION_WORDS
from training.judging.scores import caption_words
from training.progress import Tick, untold

# Of 128 bits; photos that have nothing to do with each other differ in half of them, very plain ones in fewer.
COPY_BITS = 12
LIKE_BITS = 28
# Of 0..1: with looks that are alike, and whatever the photos look like.
LIKE_WORDS = 0.5
SAME_CAPTIONS = 0.5

Hashes = NDArray[np.uint64]
Content = list[frozenset[str]]


@dataclass(frozen=True)
class Duplicate:
    """A training photo and the held-out photo that it repeats. `bits` of 128 differ; `words` agree, 0..1."""

    train: str
    held_out: str
    bits: int
    words: float


def near_duplicates(sets: Mapping[str, Splits], tick: Tick = untold) -> list[Duplicate]:
    """Every pair of a training photo and a photo of another split, over all sets; photos are named "set/key"."""
    train, held_out = _split(sets, {TRAIN}), _split(sets, _splits(sets) - {TRAIN})
    hashes = _hashes([photo for _, photo in train], tick)
    sayings = _captions_index([photo for _, photo in train])
    words = [_content(photo) for _, photo in train]
    found = []
    for name, photo in held_out:
        if not train:
            break
        own = _content(photo)
        bits = np.minimum(*(_distance(hashes, view) for view in _views(photo)))
        told = _same_captions(photo, sayings)
        for index in sorted({*np.flatnonzero(bits <= LIKE_BITS).tolist(), *told}):
            alike = _words_alike(own, words[index])
            if (
                bits[index] <= COPY_BITS
                or index in told
                or (bits[index] <= LIKE_BITS and alike >= LIKE_WORDS)
            ):
                found.append(Duplicate(train[index][0], name, int(bits[index]), round(alike, 2)))
    return found


def duplicates_cache(data: Path, path: Path) -> frozenset[str]:
    """Names ("set/key") of the photos under `data` that must not be trained on; looked for once, kept at `path`."""
    if not path.exists():
        found = near_duplicates(photo_sets_read([data]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([vars(duplicate) for duplicate in found], indent=1) + "\n")
    return frozenset(duplicate["train"] for duplicate in json.loads(path.read_text()))


def _splits(sets: Mapping[str, Splits]) -> set[str]:
    return {split for splits in sets.values() for split in splits}


def _split(sets: Mapping[str, Splits], wanted: Collection[str]) -> list[tuple[str, Photo]]:
    return [
        (f"{name}/{photo.key}", photo)
        for name, splits in sets.items()
        for split, photos in splits.items()
        if split in wanted
        for photo in photos
    ]


# --- Looks ---


def _views(photo: Photo) -> Iterator[Hashes]:
    """Two hashes (2,) of the photo, and those of its mirror image."""
    with Image.open(io.BytesIO(photo.data)) as opened:
        image = opened.convert("RGB")
    for view in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
        sides = (view, view.transpose(Image.Transpose.ROTATE_90))
        yield np.array([int(difference_hash(side), 16) for side in sides], np.uint64)


def _hashes(photos: Sequence[Photo], tick: Tick) -> Hashes:
    hashes = np.zeros((len(photos), 2), np.uint64)
    for number, photo in enumerate(photos):
        hashes[number] = next(_views(photo))
        tick("looking for near-duplicates", number + 1, len(photos))
    return hashes


def _distance(hashes: Hashes, one: Hashes) -> NDArray[np.int64]:
    bits: NDArray[np.int64] = np.bitwise_count(hashes ^ one).sum(1, dtype=np.int64)
    return bits


# --- Words ---


def _content(photo: Photo) -> Content:
    return [frozenset(caption_words(caption)) - FUNCTION_WORDS for caption in photo.captions]


def _words_alike(captions: Content, others: Content) -> float:
    """Share of words in common with the other photo's best caption (Jaccard), averaged over the captions: 0..1."""
    best = [max((len(a & b) / max(1, len(a | b)) for b in others), default=0.0) for a in captions]
    return sum(best) / len(best) if best else 0.0


def _captions_index(photos: Sequence[Photo]) -> dict[str, set[int]]:
    index: dict[str, set[int]] = defaultdict(set)
    for number, photo in enumerate(photos):
        for caption in photo.captions:
            index[caption].add(number)
    return index


def _same_captions(photo: Photo, index: dict[str, set[int]]) -> set[int]:
    """Photos of which at least half of this photo's captions are captions too, word for word."""
    own = set(photo.captions)
    shared: dict[int, int] = defaultdict(int)
    for caption in own:
        for number in index.get(caption, ()):
            shared[number] += 1
    return {number for number, count in shared.items() if count >= SAME_CAPTIONS * len(own)}
