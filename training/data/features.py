"""What a frozen encoder sees of photos, computed once and kept: a half-precision file (patches, width) for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models_registry.files import file_write_atomically
from training.data.photo_sets import PhotoSet
from training.progress import Tick, untold

Features = NDArray[np.float32]
Encode = Callable[[Sequence[Image.Image]], Features]
BATCH = 16


class PhotoFeatures(Sequence[Features]):
    """Features (photos, patches, width) in float32, each read from its file when it is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Features: ...
    @overload
    def __getitem__(self, index: slice) -> PhotoFeatures: ...
    @overload
    def __getitem__(self, index: list[int]) -> Features: ...

    def __getitem__(self, index: int | slice | list[int]) -> Features | PhotoFeatures:
        """Those of a photo (patches, width), of a stretch of photos, or those of a list of photos, stacked."""
        if isinstance(index, slice):
            return PhotoFeatures(self.paths[index])
        if isinstance(index, list):
            return np.stack([self[each] for each in index])
        half: NDArray[np.float16] = np.load(self.paths[index])
        return half.astype(np.float32)

    def of(self, indexes: Iterable[int]) -> PhotoFeatures:
        """Those of some of the photos, in the order given, to be read later."""
        return PhotoFeatures([self.paths[index] for index in indexes])


class FeatureStore:
    """Features of photos that are named by the SHA-256 of their bytes, in a folder for each encoder, named likewise.

    Photos that are seen again, the next night say, need not be encoded again. `trim` bounds what is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.npy"

    def get(self, names: Iterable[str]) -> PhotoFeatures:
        """The features of photos that were stored. They count as used now."""
        paths = [self.path(name) for name in names]
        for path in paths:
            os.utime(path)
        return PhotoFeatures(paths)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the photos that are still to be encoded, in their order."""
        stored = self.names()
        return [name for name in names if name not in stored]

    def names(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*/*.npy")}

    def put(
        self,
        photos: Iterable[tuple[str, Image.Image]],
        encode: Encode,
        tick: Tick = untold,
        stage: str = "Looking at photos",
        total: int = 0,
    ) -> None:
        """Encode photos, each given by its name and in RGB, a few at a time as they come, and store what is seen."""
        done, left = 0, iter(photos)
        while part := list(islice(left, BATCH)):
            for (name, _), features in zip(part, encode([image for _, image in part]), strict=True):
                with file_write_atomically(self.path(name)) as draft, draft.open("wb") as file:
                    np.save(file, features.astype(np.float16))
            done += len(part)
            tick(stage, done, max(total, done))

    def put_set(
        self, photos: PhotoSet, encode: Encode, tick: Tick = untold, stage: str = "Looking at photos"
    ) -> PhotoFeatures:
        """The features of a set's photos, in their order; what is missing is encoded. Raises `DatasetError`."""
        names = photos.names()
        missing = set(self.missing(names))
        self.put(photos.images(missing), encode, tick, stage, len(missing))
        return self.get(names)

    def remove(self, names: Collection[str]) -> None:
        for name in names:
            self.path(name).unlink(missing_ok=True)


def stores_trim(folder: Path, limit: int, *, used_before: float) -> int:
    """Remove what was used longest ago of all stores below `folder` until at most `limit` bytes are left.

    What was used since the time `used_before`, in seconds since 1970, is in use and stays. Returns how many photos'
    features were removed.
    """
    files = sorted(((path.stat(), path) for path in folder.rglob("*.npy")), key=lambda each: each[0].st_mtime)
    excess = sum(facts.st_size for facts, _ in files) - limit
    removed = 0
    for facts, path in files:
        if excess <= 0 or facts.st_mtime >= used_before:
            break
        path.unlink(missing_ok=True)
        excess -= facts.st_size
        removed += 1
    return removed
