"""Readers of the photo sets as they lie on disk, and the decoded caches that training reads from.

A photo set is a tar of `<key>.<image>` + `<key>.json` pairs; a sheet set is a tar of 10x10 contact sheets
(row-major) and a `labels.json` from sheet name to one label per tile. Decoded pixels go to uint8 `.npy` files
under the run folder, written once and memory-mapped afterwards.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.exceptions import DatasetError

Pixels = NDArray[np.uint8]
SHEET_SIDE = 10
LABELLED = {
    "tiny-train": ("tiny_imagenet", "train.tar"),
    "tiny-val": ("tiny_imagenet", "val.tar"),
    "labelled": ("labelled", "sheets.tar"),
}
_SPACE_BEFORE_MARK = re.compile(r"\s+([,;:.!?%)\]]|'(?:s|re|ve|ll|d|m|t)\b|n't\b)")
_FRAME = re.compile(
    r"^(?:this|the|an?) (?:[\w-]+ ){0,2}(?:photo|photograph|image|picture) (?:shows|is of|of|depicts) "
)
_SHOWN = re.compile(r",? (?:is|are) (?:being )?shown(?: here)?$")
_SIDES = re.compile(r"\b(left|right)\b")
_SWAPPED = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Photo:
    """One photo of a set: its encoded bytes, its reference captions and the rest of its json record."""

    key: str
    data: bytes
    captions: tuple[str, ...]
    record: dict[str, Any]


def caption_normalise(text: str) -> str:
    """Lower-case, single-spaced caption without a final full stop: "A dog 's ball ." -> "a dog's ball"."""
    text = " ".join(text.lower().replace("`", "'").replace("\u2019", "'").split())
    text = re.sub(r'\s*"\s*|\s+-+\s+', " ", text)
    text = _SPACE_BEFORE_MARK.sub(r"\1", text)
    return " ".join(text.split()).rstrip(" .,;:!").strip()


def caption_plain(text: str) -> str:
    """A normalised caption without its frame: "this photo shows a dog" and "a dog is shown here" -> "a dog"."""
    return _SHOWN.sub("", _FRAME.sub("", text)) or text


def caption_mirror(text: str) -> str:
    """The caption of the mirrored photo: "left" and "right" change places."""
    return _SIDES.sub(lambda match: _SWAPPED[match.group()], text)


def photos_read(path: Path) -> Iterator[Photo]:
    """Yield the photos of a tar in its own order; raises DatasetError for a photo without its json."""
    for key, parts in _tar_groups(path):
        image = next((data for suffix, data in parts.items() if suffix != ".json"), None)
        if image is None or ".json" not in parts:
            raise DatasetError(f"{path}: '{key}' needs an image and a .json, found {sorted(parts)}.")
        record = json.loads(parts[".json"])
        yield Photo(key, image, tuple(record.pop("captions")), record)


def _tar_groups(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    groups: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, suffix = str(Path(member.name).with_suffix("")), Path(member.name).suffix
            source = tar.extractfile(member)
            if source is not None:
                groups.setdefault(key, {})[suffix] = source.read()
    yield from groups.items()


def image_square(data: bytes, size: int) -> Pixels:
    """Decode and squash to (size, size, 3) uint8 RGB, as the image processor does when serving."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def pixels_cache(path: Path, photos: list[Photo], size: int) -> Pixels:
    """Memory-map `path` as (photos, size, size, 3) uint8, decoding the photos into it if it is missing."""
    if not path.exists():
        with _NewArray(path, (len(photos), size, size, 3)) as array:
            for index, photo in enumerate(photos):
                array[index] = image_square(photo.data, size)
    return _mapped(path, len(photos))


def sheets_cache(
    path: Path, sheets: Path, labels: dict[str, list[Any]], size: int
) -> tuple[Pixels, list[Any]]:
    """Cut the contact sheets of a tar into (tiles, size, size, 3) uint8 at `path`; also returns the labels.

    Tiles lie in the order of the sorted sheet names; `labels` may name sheets of other splits, which are
    ignored.
    """
    with tarfile.open(sheets) as tar:
        members = {Path(name).stem: name for name in sorted(tar.getnames())}
        if missing := sorted(set(members) - set(labels)):
            raise DatasetError(f"{sheets}: no labels for sheet '{missing[0]}'.")
        flat = [label for sheet in members for label in labels[sheet]]
        if not path.exists():
            with _NewArray(path, (len(flat), size, size, 3)) as array:
                start = 0
                for sheet, name in members.items():
                    count = len(labels[sheet])
                    array[start : start + count] = _sheet_tiles(tar, name, size)[:count]
                    start += count
    return _mapped(path, len(flat)), flat


def sheets_load(data: Path, cache: Path, name: str, size: int) -> tuple[Pixels, list[Any]]:
    """The photos of a labelled set, one of `LABELLED`, at `size` pixels, and the label of each as its files have it."""
    folder, tar = LABELLED[name]
    labels = json.loads((data / folder / "labels.json").read_text())
    return sheets_cache(cache / f"{name}-{size}.npy", data / folder / tar, labels, size)


def _sheet_tiles(tar: tarfile.TarFile, name: str, size: int) -> Pixels:
    source = tar.extractfile(name)
    if source is None:
        raise DatasetError(f"'{name}' is not a file of its tar.")
    side = SHEET_SIDE * size
    tiles = image_square(source.read(), side).reshape(SHEET_SIDE, size, SHEET_SIDE, size, 3)
    return np.ascontiguousarray(tiles.swapaxes(1, 2)).reshape(-1, size, size, 3)


def _mapped(path: Path, count: int) -> Pixels:
    array: Pixels = np.load(path, mmap_mode="r")
    if len(array) != count:
        raise DatasetError(
            f"{path} holds {len(array)} photos, the set has {count}: delete the file to rebuild it."
        )
    return array


class _NewArray:
    """A `.npy` file that appears under its name only when it was filled without an error."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.partial, self.shape = path, path.with_suffix(".partial"), shape

    def __enter__(self) -> Pixels:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        array: Pixels = np.lib.format.open_memmap(self.partial, "w+", np.uint8, self.shape)
        return array

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.partial.replace(self.path)
        else:
            self.partial.unlink()
