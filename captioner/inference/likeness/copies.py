"""Which of many photos show the same one, all pairs compared: 100,000 photos in about a minute. Numpy alone.

For the trainer, which may use all cores; who answers requests asks the index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captioner.inference.likeness.index import SKETCH_WIDTH, principal_axes
from captioner.inference.likeness.ranking import COPY_BITS, are_copies, are_flat

NEAR_BITS = 4  # of difference hashes, where nothing else is known: a photo re-encoded or slightly scaled
ONES, OTHERS = 512, 2048  # that are compared at a time: what fits into a core's cache is ten times as fast
SAMPLED = 20_000  # vectors that say which axes matter
CENTRED_FROM = 200  # vectors, whose mean is taken away from each
ROUNDING = 0.005  # of unit vectors in float16, and of their sketches

Vector = NDArray[np.floating[Any]]
Numbers = NDArray[np.intp]


class PhotoLooks:
    """Difference hashes of photos (16 hex digits), oldest photo first, and what one encoder saw of some of them.

    Two photos show the same where `is_copy` of their vectors and hashes says so, as for the memory; where one has no
    vector, their hashes must be within `NEAR_BITS`, and that of a plain ground says nothing. Many vectors are compared
    as they differ from their mean.
    """

    def __init__(self, hashes: Mapping[str, str], vectors: Mapping[str, Vector]) -> None:
        self.names = list(hashes)
        self._hashes = np.array([int(digits, 16) for digits in hashes.values()], np.uint64)
        self._flat = are_flat(self._hashes)
        self._known = np.array([name in vectors for name in self.names], bool)
        count, width = len(self.names), max((len(vector) for vector in vectors.values()), default=1)
        self._vectors = np.zeros((count, width), np.float16)
        for number in np.flatnonzero(self._known).tolist():
            self._vectors[number] = vectors[self.names[number]]
        if self._known.sum() >= CENTRED_FROM:
            # An encoder that came without a centre (one of ours: of its vectors one pair in a hundred would be
            # copies) sees much the same in all photos.
            mean = self._vectors[self._known].mean(0, dtype=np.float32)
            for numbers in np.array_split(np.flatnonzero(self._known), 1 + count // SAMPLED):
                part = self._vectors[numbers].astype(np.float32) - mean
                self._vectors[numbers] = part / np.maximum(1e-6, np.linalg.norm(part, axis=1, keepdims=True))
        # Few axes, and the length of what they leave out: the product of two such sketches is never below the cosine.
        sample = self._vectors[self._known][:SAMPLED].astype(np.float32)
        axes = principal_axes(sample, SKETCH_WIDTH)
        self._sketches = np.zeros((count, axes.shape[1] + 1), np.float32)
        for start in range(0, count, SAMPLED):
            part = self._vectors[start : start + SAMPLED].astype(np.float32)
            sketch = part @ axes
            left_out = np.maximum(0, (part**2).sum(1) - (sketch**2).sum(1)) ** 0.5
            self._sketches[start : start + SAMPLED] = np.column_stack([sketch, left_out])

    def pairs(self, ones: Numbers, others: Numbers) -> tuple[Numbers, Numbers]:
        """The numbers of all photos of `ones` and of `others` that show the same, in the order of `ones`."""
        parts = [self._pairs(ones, others[start : start + OTHERS]) for start in range(0, len(others), OTHERS)]
        one, other = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        order = np.argsort(one, kind="stable")
        return one[order], other[order]

    def _pairs(self, ones: Numbers, others: Numbers) -> tuple[Numbers, Numbers]:
        bits = np.bitwise_count(self._hashes[ones, None] ^ self._hashes[others])
        maybe = bits <= COPY_BITS
        maybe[self._flat[ones]] = True
        maybe[:, self._flat[others]] = True
        places = np.flatnonzero(maybe)
        likeness = (self._sketches[ones] @ self._sketches[others].T).ravel()[places] + ROUNDING
        bits = bits.ravel()[places]
        row, column = np.divmod(places, len(others))
        one, other = ones[row], others[column]
        flat, known = self._flat[one] | self._flat[other], self._known[one] & self._known[other]
        kept = np.where(known, are_copies(likeness, bits, flat), (bits <= NEAR_BITS) & ~flat)
        one, other, bits, flat, known = one[kept], other[kept], bits[kept], flat[kept], known[kept]
        likeness = np.ones(len(one), np.float32)
        for start in range(0, len(one), SAMPLED):
            pair = (self._vectors[each[start : start + SAMPLED]].astype(np.float32) for each in (one, other))
            likeness[start : start + SAMPLED] = np.einsum("ij,ij->i", *pair)
        kept = ~known | are_copies(likeness, bits, flat)
        return one[kept], other[kept]

    def groups(self, tick: Callable[[int, int], None] = lambda _done, _total: None) -> dict[str, str]:
        """Photo -> name of its group: photos that show the same, each of them the same as every other one.

        A photo joins the oldest group with all photos of which it agrees, so that no chain of small changes joins what
        is different, and later photos change no earlier group, which is named after its first photo.
        """
        count = len(self.names)
        group, sizes = np.arange(count), np.ones(count, np.intp)
        for start in range(0, count, ONES):
            stop = min(start + ONES, count)
            one, other = self.pairs(np.arange(start, stop), np.arange(stop))
            one, other = one[other < one], other[other < one]
            numbers, starts = np.unique(one, return_index=True)
            for number, alike in zip(numbers.tolist(), np.split(other, starts[1:]), strict=False):
                agreeing, photos = np.unique(group[alike], return_counts=True)
                whole = agreeing[photos == sizes[agreeing]]
                if len(whole):
                    group[number] = whole[0]
                    sizes[whole[0]] += 1
            tick(stop, count)
        return {name: self.names[first] for name, first in zip(self.names, group.tolist(), strict=True)}

    def copies(self, names: set[str], of: set[str]) -> set[str]:
        """Those of `names` that show the same as a photo of `of`."""
        ones, others = (
            np.array([number for number, name in enumerate(self.names) if name in some], np.intp)
            for some in (names, of)
        )
        found: set[int] = set()
        for start in range(0, len(ones) if len(others) else 0, ONES):
            found.update(self.pairs(ones[start : start + ONES], others)[0].tolist())
        return {self.names[number] for number in found}
