"""Captioned photos an operator has: the test photos of the base, photos it was trained on, or to be judged by.

A set is a tar of `<key>.<image>` and `<key>.json` pairs, or a folder of photos with a `captions.jsonl` of
{"file": "name.jpg", "captions": ["...", ...]} lines. Where rows name their `split`, a folder may hold several sets.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from training.data.caption_text import caption_normalise
from training.exceptions import DatasetError

CAPTIONS_FILE = "captions.jsonl"
TRAIN = "train"
UNNAMED_SPLIT = "all"
# A tar of pairs shows a .json among its first members; sheets of labelled photos have none.
_MEMBERS_PEEKED = 8


@dataclass(frozen=True)
class ReferencePhoto:
    """A photo of a set with its reference captions: its encoded bytes, and the rest of its json record."""

    key: str
    data: bytes
    captions: tuple[str, ...]
    record: dict[str, Any]


Splits = dict[str, list[ReferencePhoto]]


@dataclass(frozen=True)
class PhotoSet:
    """The photos of a set in a fixed order. `digest` names their contents; `read` gives their encoded bytes."""

    path: Path
    captions: list[list[str]]
    digest: str
    read: Callable[[], Iterator[bytes]]

    def __len__(self) -> int:
        return len(self.captions)

    def names(self) -> list[str]:
        """The SHA-256 of each photo's bytes."""
        return [hashlib.sha256(data).hexdigest() for data in self.read()]

    def images(self, wanted: Collection[str]) -> Iterator[tuple[str, Image.Image]]:
        """Yields name and RGB image of the photos named, once each. Raises `DatasetError` for a broken one."""
        left = set(wanted)
        for number, data in enumerate(self.read(), start=1):
            if (name := hashlib.sha256(data).hexdigest()) not in left:
                continue
            left.discard(name)
            try:
                image = Image.open(io.BytesIO(data)).convert("RGB")
            except Exception as error:  # what decoders raise is undocumented
                raise DatasetError(f"{self.path}: photo {number} cannot be read: {error}.") from error
            yield name, image


def photos_read(path: Path) -> Iterator[ReferencePhoto]:
    """Yields the photos of a tar in its own order. Raises `DatasetError` for a photo without its json."""
    groups: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, suffix = str(Path(member.name).with_suffix("")), Path(member.name).suffix
            source = tar.extractfile(member)
            if source is not None:
                groups.setdefault(key, {})[suffix] = source.read()
    for key, parts in groups.items():
        image = next((data for suffix, data in parts.items() if suffix != ".json"), None)
        if image is None or ".json" not in parts:
            raise DatasetError(f"{path}: '{key}' needs an image and a .json, found {sorted(parts)}.")
        record = json.loads(parts[".json"])
        yield ReferencePhoto(key, image, tuple(record.pop("captions")), record)


def photo_set_open(path: Path, limit: int) -> PhotoSet:
    """Returns the first `limit` photos of the set at `path`, captions normalised.

    Raises `DatasetError`, saying what a set looks like.
    """
    if not path.is_file() and not (path / CAPTIONS_FILE).is_file():
        raise DatasetError(
            f"{path} is no photo set: give a tar of image and .json pairs, or a folder with {CAPTIONS_FILE}."
        )
    try:
        if path.is_file():
            chosen = [photo for photo, _ in zip(photos_read(path), range(limit), strict=False)]
            captions = [[caption_normalise(caption) for caption in photo.captions] for photo in chosen]
            names = "".join(photo.key for photo in chosen) + str(path.stat().st_size)
            photos = PhotoSet(path, captions, _digest(names), lambda: (photo.data for photo in chosen))
        else:
            photos = _folder_open(path, limit)
    except (tarfile.TarError, FileNotFoundError, EOFError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} is damaged: {error}.") from error
    if not len(photos):
        raise DatasetError(f"{path} holds no photos.")
    return photos


def _folder_open(path: Path, limit: int) -> PhotoSet:
    text = (path / CAPTIONS_FILE).read_text(encoding="utf-8")
    try:
        lines = [json.loads(line) for line in text.splitlines()[:limit]]
        captions = [[caption_normalise(caption) for caption in line["captions"]] for line in lines]
        files = [path / line["file"] for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f'{path / CAPTIONS_FILE}: every line is {{"file": ..., "captions": [...]}}; {error!r}.'
        ) from error
    names = "".join(f"{file.name} {file.stat().st_size}\n" for file in files)
    return PhotoSet(path, captions, _digest(names), lambda: (file.read_bytes() for file in files))


def _digest(names: str) -> str:
    return hashlib.sha256(names.encode()).hexdigest()[:12]


def photo_sets_read(paths: Sequence[Path]) -> dict[str, Splits]:
    """Returns every captioned photo under `paths` by set and split, captions normalised.

    A path is one set as `photo_set_open` takes it, a folder of tars, or a folder of such folders. A set is called
    as its folder or file is; its photos are of the split that their rows name, else of "all". Raises `DatasetError`
    where there is none.
    """
    sets: dict[str, Splits] = {}
    for path in paths:
        found = _sets_find(path)
        if not found:
            raise DatasetError(f"{path} holds no captioned photos: no tar of pairs, no {CAPTIONS_FILE}.")
        for name, source in found:
            if source.is_file():
                photos = photos_read(source)
            else:
                listed = photo_set_open(source, limit=sys.maxsize)
                photos = (
                    ReferencePhoto(str(number), data, tuple(captions), {})
                    for number, (captions, data) in enumerate(
                        zip(listed.captions, listed.read(), strict=True)
                    )
                )
            splits = sets.setdefault(name, {})
            for photo in photos:
                captions = tuple(caption_normalise(caption) for caption in photo.captions)
                split = str(photo.record.get("split", UNNAMED_SPLIT))
                splits.setdefault(split, []).append(replace(photo, captions=captions))
    return sets


def _sets_find(path: Path) -> list[tuple[str, Path]]:
    """Returns the tars and folders of photos at `path` or below it, each with the name of its set."""
    if path.is_file():
        return [(path.stem, path)]
    if (path / CAPTIONS_FILE).is_file():
        return [(path.name, path)]
    captioned = []
    for tar in sorted(path.glob("*.tar")):
        with tarfile.open(tar) as opened:
            first = [member.name for member, _ in zip(opened, range(_MEMBERS_PEEKED), strict=False)]
        if any(name.endswith(".json") for name in first):
            captioned.append((path.resolve().name, tar))
    if captioned:
        return captioned
    folders = sorted(folder for folder in path.glob("*/") if folder.is_dir())
    leaves = [f for f in folders if not any(f.glob("*/")) or (f / CAPTIONS_FILE).is_file()]
    return [found for folder in leaves for found in _sets_find(folder)]
