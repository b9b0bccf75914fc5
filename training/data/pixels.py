"""Decoded photos that training reads from: uint8 `.npy` files, written once and memory-mapped afterwards.

They come from photo sets, or from labelled sheets: a tar of 10x10 contact sheets (row-major), with a `labels.json` from
sheet name to one label per tile.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models_registry.files import file_write_atomically
from training.data.photo_sets import ReferencePhoto
from training.exceptions import DatasetError

Pixels = NDArray[np.uint8]
SHEET_SIDE = 10
LABELLED = {
    "tiny-train": ("tiny_imagenet", "train.tar"),
    "tiny-val": ("tiny_imagenet", "val.tar"),
    "labelled": ("labelled", "sheets.tar"),
}


def image_square(data: bytes, size: int) -> Pixels:
    """Returns the photo squashed to (size, size, 3) uint8 RGB, as the image processor does when serving."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def pixels_cache(path: Path, photos: list[ReferencePhoto], size: int) -> Pixels:
    """Returns `path` memory-mapped as (photos, size, size, 3) uint8, the photos decoded into it if it is missing."""
    if not path.exists():
        with _array_new(path, (len(photos), size, size, 3)) as append:
            for photo in photos:
                append(image_square(photo.data, size))
    return _mapped(path, len(photos))


def sheets_cache(
    path: Path, sheets: Path, labels: dict[str, list[Any]], size: int
) -> tuple[Pixels, list[Any]]:
    """Returns the tiles of a tar of sheets, (tiles, size, size, 3) uint8 memory-mapped at `path`, and their labels.

    Tiles lie in the order of the sorted sheet names; `labels` may name sheets of other splits, which are
    ignored.
    """
    with tarfile.open(sheets) as tar:
        members = {Path(name).stem: name for name in sorted(tar.getnames())}
        if missing := sorted(set(members) - set(labels)):
            raise DatasetError(f"{sheets}: no labels for sheet '{missing[0]}'.")
        flat = [label for sheet in members for label in labels[sheet]]
        if not path.exists():
            with _array_new(path, (len(flat), size, size, 3)) as append:
                for sheet, name in members.items():
                    source, count = tar.extractfile(name), len(labels[sheet])
                    if source is None:
                        raise DatasetError(f"'{name}' is not a file of its tar.")
                    tiles = image_square(source.read(), SHEET_SIDE * size)
                    tiles = tiles.reshape(SHEET_SIDE, size, SHEET_SIDE, size, 3).swapaxes(1, 2)
                    append(tiles.reshape(-1, size, size, 3)[:count])
    return _mapped(path, len(flat)), flat


def sheets_load(data: Path, cache: Path, name: str, size: int) -> tuple[Pixels, list[Any]]:
    """Returns the photos of a labelled set, one of `LABELLED`, at `size` pixels, and the label of each."""
    folder, tar = LABELLED[name]
    labels = json.loads((data / folder / "labels.json").read_text())
    return sheets_cache(cache / f"{name}-{size}.npy", data / folder / tar, labels, size)


def _mapped(path: Path, count: int) -> Pixels:
    array: Pixels = np.load(path, mmap_mode="r")
    if len(array) != count:
        raise DatasetError(
            f"{path} holds {len(array)} photos, the set has {count}: delete the file to rebuild it."
        )
    return array


@contextmanager
def _array_new(path: Path, shape: tuple[int, ...]) -> Iterator[Callable[[Pixels], object]]:
    """A function that appends to a `.npy` file, which appears under its name only when nothing raised an error.

    Mapped into memory it would be filled more easily, and a full disk would kill the process (SIGBUS).
    """
    with file_write_atomically(path) as draft, draft.open("wb") as file:
        head = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, head)
        yield lambda pixels: file.write(np.ascontiguousarray(pixels).data)
