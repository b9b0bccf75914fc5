"""Which of many remembered photos look like one, in milliseconds. Numpy, and no texts: these stay in the database.

What is found here is a short list; whoever asks compares the vectors themselves, which this does not keep. torch is
left out on purpose: every thread that computes with it gets a team of OpenMP's workers, which makes captions slower.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from captioner.inference.likeness.ranking import COPY_BITS

NEIGHBOURS = 16  # that are listed as alike
COPIES = 16  # that are listed for their hash
PLAIN_ROWS = 2048  # up to so many, vectors are compared as they are
SKETCH_WIDTH = 64  # numbers that are kept of each vector beyond: 100,000 of them are compared in 3 ms

# An owner as numbers that are compared: a user, an API key, a visitor; 0 where there is none.
OwnerNumbers = tuple[int, int, int]


@dataclass(frozen=True)
class Remembered:
    """One remembered correction: its number, the photo's vector (float16 bytes) and difference hash, and its owner."""

    number: int
    vector: bytes
    difference_hash: str
    owner: OwnerNumbers


@dataclass(frozen=True)
class _Rows:
    """What is compared; replaced as a whole, so that a search sees one state."""

    numbers: NDArray[np.int64]
    sketches: NDArray[np.float32]  # (rows, width)
    hashes: NDArray[np.uint64]
    owners: NDArray[np.int64]  # (rows, 3)
    basis: NDArray[np.float32] | None = None  # (channels, SKETCH_WIDTH)


class LikenessIndex:
    """Remembered photos of one encoder. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._rows: _Rows | None = None
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return 0 if self._rows is None else len(self._rows.numbers)

    @property
    def numbers(self) -> frozenset[int]:
        return frozenset() if self._rows is None else frozenset(self._rows.numbers.tolist())

    def add(self, remembered: Sequence[Remembered]) -> None:
        """Take more; their vectors are as wide as those before."""
        if not remembered:
            return
        vectors = np.stack([np.frombuffer(each.vector, "<f2") for each in remembered]).astype(np.float32)
        with self._changing:
            before = self._rows
            new = _Rows(
                np.array([each.number for each in remembered], np.int64),
                vectors if before is None or before.basis is None else vectors @ before.basis,
                np.array([int(each.difference_hash or "0", 16) for each in remembered], np.uint64),
                np.array([each.owner for each in remembered], np.int64),
            )
            if before is not None:
                new = _Rows(
                    np.concatenate([before.numbers, new.numbers]),
                    np.concatenate([before.sketches, new.sketches]),
                    np.concatenate([before.hashes, new.hashes]),
                    np.concatenate([before.owners, new.owners]),
                    before.basis,
                )
            if new.basis is None and len(new.numbers) > PLAIN_ROWS and vectors.shape[1] > SKETCH_WIDTH:
                basis = principal_axes(new.sketches, SKETCH_WIDTH)
                new = replace(new, sketches=new.sketches @ basis, basis=basis)
            self._rows = new

    def remove(self, numbers: frozenset[int]) -> None:
        with self._changing:
            if self._rows is not None and numbers:
                kept = ~np.isin(self._rows.numbers, list(numbers))
                rows = self._rows
                self._rows = _Rows(
                    rows.numbers[kept], rows.sketches[kept], rows.hashes[kept], rows.owners[kept], rows.basis
                )

    def search(self, vector: bytes, difference_hash: str, owner: OwnerNumbers | None) -> list[int]:
        """Numbers of what may show this photo again, or look like it; of everybody's where `owner` is None.

        Of an owner only the part that is not 0 is compared.
        """
        rows = self._rows
        if rows is None:
            return []
        wanted = np.frombuffer(vector, "<f2").astype(np.float32)
        if rows.basis is not None:
            wanted = wanted @ rows.basis
        if len(wanted) != rows.sketches.shape[1]:
            return []
        # Not BLAS: its threads go on spinning for a while after each product, beside those that caption.
        likeness = np.einsum("ij,j->i", rows.sketches, wanted)
        distances = np.bitwise_count(rows.hashes ^ np.uint64(int(difference_hash, 16)))
        if owner is not None:
            column = next(number for number, part in enumerate(owner) if part)
            foreign = rows.owners[:, column] != owner[column]
            likeness[foreign], distances[foreign] = -np.inf, 255
        copies = np.flatnonzero(distances <= COPY_BITS)
        # Of those whose hash agrees the ones that look most alike: there may be many more.
        found = {*copies[_largest(likeness[copies], COPIES)], *_largest(likeness, NEIGHBOURS)}
        return [int(rows.numbers[row]) for row in found if likeness[row] > 0]


def principal_axes(vectors: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Vectors (rows, channels) -> the axes (channels, width) that keep most of their products (not centred again)."""
    _, axes = np.linalg.eigh(vectors.T @ vectors)
    return np.ascontiguousarray(axes[:, -width:])


def _largest(values: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Places of the `count` largest values, in no order."""
    if len(values) <= count:
        return np.arange(len(values))
    return np.argpartition(values, -count)[-count:]
