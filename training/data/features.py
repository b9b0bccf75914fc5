"""What a frozen encoder sees of photos, computed once and kept in files: float32 (photos, patches, width)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models_registry.files import file_write_atomically
from training.progress import Tick, untold

Features = NDArray[np.float32]
BATCH = 16


class FeatureFiles:
    """Features (photos, patches, width) in several files of `features_write`, indexed as if they were one array."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self._parts = [np.load(path, mmap_mode="r") for path in paths]
        self._starts = list(accumulate(map(len, self._parts), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, indexes: Sequence[int]) -> Features:
        owners = [bisect_right(self._starts, index) - 1 for index in indexes]
        pairs = zip(owners, indexes, strict=True)
        return np.stack([self._parts[owner][index - self._starts[owner]] for owner, index in pairs])


def features_write(
    path: Path,
    images: Iterable[Image.Image],
    count: int,
    encode: Callable[[Sequence[Image.Image]], Features],
    tick: Tick = untold,
    stage: str = "Looking at photos",
) -> Features:
    """`encode` `count` RGB images, a few at a time, into a memory-mapped array (count, patches, width) at `path`.

    The file of an earlier, finished call is taken as it is. Raises `ValueError` where other than `count` images come.
    """
    if not path.exists():
        with file_write_atomically(path) as draft:
            array, done, left = None, 0, iter(images)
            while part := list(islice(left, BATCH)):
                features = encode(part)
                if array is None:
                    array = np.lib.format.open_memmap(draft, "w+", np.float32, (count, *features.shape[1:]))
                array[done : done + len(part)] = features
                done += len(part)
                tick(stage, done, count)
            if array is None or done != count:
                raise ValueError(f"{count} images were announced for {path.name}, {done} came.")
            array.flush()
    return cast(Features, np.load(path, mmap_mode="r"))
