"""Captioned photos an operator has: the test photos of the base, or photos it was trained on.

A set is a tar of `<key>.<image>` and `<key>.json` pairs, or a folder of photos with a `captions.jsonl` of
{"file": "name.jpg", "captions": ["...", ...]} lines.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.starter.dataset import DatasetError, caption_normalise, photos_read

CAPTIONS_FILE = "captions.jsonl"


@dataclass(frozen=True)
class PhotoSetFile:
    """The photos of a set in a fixed order. `digest` names their contents."""

    captions: list[list[str]]
    digest: str
    read: Callable[[], Iterator[bytes]]

    def __len__(self) -> int:
        return len(self.captions)

    def images(self) -> Iterator[Image.Image]:
        for data in self.read():
            yield Image.open(io.BytesIO(data)).convert("RGB")


def photo_set_open(path: Path, limit: int) -> PhotoSetFile:
    """The first `limit` photos of the set at `path`. Raises `DatasetError`, saying what a set looks like."""
    if path.is_file():
        return _tar_open(path, limit)
    if (path / CAPTIONS_FILE).is_file():
        return _folder_open(path, limit)
    raise DatasetError(
        f"{path} is no photo set: give a tar of image and .json pairs, or a folder with {CAPTIONS_FILE}."
    )


def _tar_open(path: Path, limit: int) -> PhotoSetFile:
    photos = [photo for photo, _ in zip(photos_read(path), range(limit), strict=False)]
    captions = [[caption_normalise(caption) for caption in photo.captions] for photo in photos]
    digest = hashlib.sha256("".join(photo.key for photo in photos).encode())
    digest.update(str(path.stat().st_size).encode())
    return PhotoSetFile(captions, digest.hexdigest()[:12], lambda: (photo.data for photo in photos))


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
    return PhotoSetFile(captions, digest.hexdigest()[:12], lambda: (file.read_bytes() for file in files))
