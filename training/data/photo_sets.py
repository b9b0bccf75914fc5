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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from training.data.datasets import Photo, caption_normalise, photos_read
from training.exceptions import DatasetError

CAPTIONS_FILE = "captions.jsonl"
TRAIN = "train"
UNNAMED_SPLIT = "all"
# A tar of pairs shows a .json among its first members; sheets of labelled photos have none.
_MEMBERS_PEEKED = 8

Splits = dict[str, list[Photo]]


@dataclass(frozen=True)
class PhotoSetFile:
    """The photos of a set in a fixed order. `digest` names their contents."""

    path: Path
    captions: list[list[str]]
    digest: str
    read: Callable[[], Iterator[bytes]]

    def __len__(self) -> int:
        return len(self.captions)

    def images(self) -> Iterator[Image.Image]:
        """Raises `DatasetError` for a photo that cannot be decoded."""
        for number, data in enumerate(self.read(), start=1):
            try:
                image = Image.open(io.BytesIO(data)).convert("RGB")
            except Exception as error:  # what decoders raise is undocumented
                raise DatasetError(f"{self.path}: photo {number} cannot be read: {error}.") from error
            yield image


def photo_set_open(path: Path, limit: int) -> PhotoSetFile:
    """The first `limit` photos of the set at `path`. Raises `DatasetError`, saying what a set looks like."""
    if not path.is_file() and not (path / CAPTIONS_FILE).is_file():
        raise DatasetError(
            f"{path} is no photo set: give a tar of image and .json pairs, or a folder with {CAPTIONS_FILE}."
        )
    try:
        photos = _tar_open(path, limit) if path.is_file() else _folder_open(path, limit)
    except DatasetError:
        raise
    except (tarfile.TarError, FileNotFoundError, EOFError, ValueError, LookupError, TypeError) as error:
        raise DatasetError(f"{path} is damaged: {error}.") from error
    if not len(photos):
        raise DatasetError(f"{path} holds no photos.")
    return photos


def _tar_open(path: Path, limit: int) -> PhotoSetFile:
    photos = [photo for photo, _ in zip(photos_read(path), range(limit), strict=False)]
    captions = [[caption_normalise(caption) for caption in photo.captions] for photo in photos]
    digest = hashlib.sha256("".join(photo.key for photo in photos).encode())
    digest.update(str(path.stat().st_size).encode())
    return PhotoSetFile(path, captions, digest.hexdigest()[:12], lambda: (photo.data for photo in photos))


def _folder_open(path: Path, limit: int) -> PhotoSetFile:
    text = (path / CAPTIONS_FILE).read_text(encoding="utf-8")
    try:
        lines = [json.loads(line) for line in text.splitlines()[:limit]]
        captions = [[caption_normalise(caption) for caption in line["captions"]] for line in lines]
        files = [path / line["file"] for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f'{path / CAPTIONS_FILE}: every line is {{"file": ..., "captions": [...]}}; {error!r}.'
        ) from error
    digest = hashlib.sha256("".join(f"{file.name} {file.stat().st_size}\n" for file in files).encode())
    return PhotoSetFile(
        path, captions, digest.hexdigest()[:12], lambda: (file.read_bytes() for file in files)
    )


def photo_sets_read(paths: Sequence[Path]) -> dict[str, Splits]:
    """Every captioned photo under `paths` by set and split; captions are normalised.

    A path is one set as `photo_set_open` takes it, a folder of tars, or a folder of such folders. A set is called
    as its folder or file is; its photos are of the split that their rows name, else of "all". Raises `DatasetError`
    where there is none.
    """
    sets: dict[str, Splits] = {}
    for path in paths:
        found = _sets_find(path)
        if not found:
            raise DatasetError(f"{path} holds no captioned photos: no tar of pairs, no {CAPTIONS_FILE}.")
        for name, sources in found.items():
            for source in sources:
                _photos_add(sets.setdefault(name, {}), source)
    return sets


def _sets_find(path: Path) -> dict[str, list[Path]]:
    if path.is_file():
        return {path.stem: [path]}
    if (path / CAPTIONS_FILE).is_file():
        return {path.name: [path]}
    if tars := [tar for tar in sorted(path.glob("*.tar")) if _is_captioned(tar)]:
        return {path.resolve().name: tars}
    folders = sorted(folder for folder in path.glob("*/") if folder.is_dir())
    return {
        name: sources
        for folder in folders
        if not any(folder.glob("*/")) or (folder / CAPTIONS_FILE).is_file()
        for name, sources in _sets_find(folder).items()
    }


def _is_captioned(tar: Path) -> bool:
    with tarfile.open(tar) as opened:
        return any(
            member.name.endswith(".json") for member, _ in zip(opened, range(_MEMBERS_PEEKED), strict=False)
        )


def _photos_add(splits: Splits, source: Path) -> None:
    if source.is_file():
        photos: Iterator[Photo] = photos_read(source)
    else:
        opened = photo_set_open(source, limit=sys.maxsize)
        photos = (
            Photo(str(number), data, tuple(captions), {})
            for number, (captions, data) in enumerate(zip(opened.captions, opened.read(), strict=True))
        )
    for photo in photos:
        captions = tuple(caption_normalise(caption) for caption in photo.captions)
        split = str(photo.record.get("split", UNNAMED_SPLIT))
        splits.setdefault(split, []).append(replace(photo, captions=captions))
