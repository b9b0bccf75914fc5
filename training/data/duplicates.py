"""Photos of the training split that show what a validation or test photo shows are left out of training.

Evidence is looks and words together: difference hashes along and across, of the photo and of its mirror image, and
how far the captions agree. Copies that were re-encoded are found by their looks alone, copies that were cut anew by
both, and a book's photo that comes twice in any cut by its caption. A scene that was photographed twice is none.
"""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captioner.intake.hashes import difference_hash
from training.data.caption_text import FUNCTION_WORDS, caption_words
from training.data.photo_sets import TRAIN, ReferencePhoto, Splits, photo_sets_read
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
    """Returns every pair of a training photo and a photo of another split, over all sets, photos named "set/key"."""
    photos = [
        (split, f"{name}/{photo.key}", photo)
        for name, splits in sets.items()
        for split, group in splits.items()
        for photo in group
    ]
    train = [(name, photo) for split, name, photo in photos if split == TRAIN]
    if not train:
        return []
    hashes = np.zeros((len(train), 2), np.uint64)
    captioned_with: dict[str, set[int]] = defaultdict(set)
    for number, (_, photo) in enumerate(train):
        hashes[number] = next(_views(photo))
        for caption in photo.captions:
            captioned_with[caption].add(number)
        tick("looking for near-duplicates", number + 1, len(train))
    words = [_content(photo) for _, photo in train]
    found = []
    for split, name, photo in photos:
        if split == TRAIN:
            continue
        bits = np.minimum(*(np.bitwise_count(hashes ^ view).sum(1, dtype=np.int64) for view in _views(photo)))
        # Where at least half of this photo's captions are captions too, word for word.
        captions, own = set(photo.captions), _content(photo)
        shared = Counter(number for caption in captions for number in captioned_with.get(caption, ()))
        same = {number for number, count in shared.items() if count >= SAME_CAPTIONS * len(captions)}
        for index in sorted({*np.flatnonzero(bits <= LIKE_BITS).tolist(), *same}):
            # Share of words in common with the other photo's best caption (Jaccard), averaged over this one's.
            best = [max((len(a & b) / max(1, len(a | b)) for b in words[index]), default=0.0) for a in own]
            alike = fmean(best) if best else 0.0
            if bits[index] <= COPY_BITS or index in same or alike >= LIKE_WORDS:
                found.append(Duplicate(train[index][0], name, int(bits[index]), round(alike, 2)))
    return found


def duplicates_cache(data: Path, path: Path) -> frozenset[str]:
    """Returns the names ("set/key") of photos under `data` that must not be trained on.

    They are looked for once and kept at `path`.
    """
    if not path.exists():
        found = near_duplicates(photo_sets_read([data]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([vars(duplicate) for duplicate in found], indent=1) + "\n")
    return frozenset(duplicate["train"] for duplicate in json.loads(path.read_text()))


def _views(photo: ReferencePhoto) -> Iterator[Hashes]:
    """Yields two hashes (2,) of the photo, and those of its mirror image."""
    with Image.open(io.BytesIO(photo.data)) as opened:
        image = opened.convert("RGB")
    for view in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
        sides = (view, view.transpose(Image.Transpose.ROTATE_90))
        yield np.array([int(difference_hash(side), 16) for side in sides], np.uint64)


def _content(photo: ReferencePhoto) -> Content:
    return [frozenset(caption_words(caption)) - FUNCTION_WORDS for caption in photo.captions]
