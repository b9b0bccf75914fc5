"""The photos a run holds on to: bundled, openly licensed, with captions by people, and never trained on by any version.

One half is replayed, so that a candidate stays near its base on what has nothing to do with the feedback; the other
half judges whether it did. `manage.py anchor_build` makes the set again from the photo sets it was taken from.
"""

from __future__ import annotations

import io
import json
import random
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from PIL import Image

from captioner.intake.hashes import difference_hash
from models_registry.files import file_write_atomically
from training.data.photo_sets import TRAIN, PhotoSet, ReferencePhoto, photo_set_open, photos_read
from training.exceptions import DatasetError

FOLDER = Path(__file__).with_name("anchor")
PHOTOS = "photos.tar"
CREDITS = "CREDITS.md"
MOST_PHOTOS = 400
MOST_BYTES = 5_000_000

_FREE = ("CC BY / BY-SA / CC0 stated", "public domain / US government stated")
_STATED = re.compile(r"CC[ -]?BY\b|\bAttribution \d|\bCC0\b|public domain", re.I)
# Works of the United States' government are in the public domain; what else a set calls so is not taken at its word.
_GOVERNMENT = re.compile(
    r"\bNASA\b|\bNOAA\b|\bUSDA\b|\bUSGS\b|\bFEMA\b|\bCDC\b|\bNIAID\b|White House|Library of Congress"
    r"|\bU\.?S\.? (?:Department|Army|Navy|Air Force|Marine|Coast Guard|Fish|Geological|Forest|Food|Customs|National)"
    r"|National (?:Archives|Park Service|Guard|Institutes? of|Cancer Institute|Science Foundation|Library of Medicine)"
)
_OTHERWISE = re.compile(
    r"share|\bSA\b|\bNC\b|\bND\b|non-?commercial|no-?deriv|\bCC \d|permission|pexels|unsplash|getty|\bESA\b|©"
    r"|copyright|courtesy",
    re.I,
)
_NAMED = re.compile(r"[A-Z][\w.]* [A-Z]")  # captions that name somebody or some place
_LIKE_BITS = 10  # of 64


def anchor_sets() -> tuple[PhotoSet, PhotoSet]:
    """Returns the half that is replayed and the half that judges. Raises `DatasetError` where there is none."""
    path = FOLDER / PHOTOS
    if not path.is_file():
        raise DatasetError(f"{path} is missing: without photos to hold on to nothing is learned.")
    whole = photo_set_open(path, MOST_PHOTOS)

    def half(first: int) -> PhotoSet:
        return replace(
            whole, captions=whole.captions[first::2], read=lambda: islice(whole.read(), first, None, 2)
        )

    return half(0), half(1)


def anchor_write(data: Path, folder: Path = FOLDER) -> int:
    """Choose the set from `openstax/` and `coco/` below `data`; returns how many photos it holds.

    Taken are validation and test rows whose own credit states CC BY, CC0 or the public domain, and nothing that
    restricts it. Photos are re-encoded. Raises `DatasetError` where the set would be larger than it may be.
    """
    chosen: list[tuple[ReferencePhoto, str]] = []
    hashes: list[int] = []
    for photo, credit in _free_photos(data):
        with Image.open(io.BytesIO(photo.data)) as opened:
            looks = int(difference_hash(opened.convert("RGB")), 16)
        if all((looks ^ other).bit_count() > _LIKE_BITS for other in hashes):
            hashes.append(looks)
            chosen.append((photo, credit))
    random.Random(0).shuffle(chosen)  # noqa: S311  both halves of all kinds
    chosen = chosen[:MOST_PHOTOS]
    lines = [
        "# Credits of the anchor photos",
        "",
        "Each photo was scaled down and re-encoded; captions are those of its source, of textbooks the first sentence.",
        "Captions of COCO: COCO Consortium, CC BY 4.0. Captions of OpenStax: OpenStax, Rice University, CC BY 4.0,",
        "free at https://openstax.org.",
        "",
    ]
    with file_write_atomically(folder / PHOTOS) as draft, tarfile.open(draft, "w") as tar:
        for number, (photo, credit) in enumerate(chosen):
            name, image = f"{number:03}", io.BytesIO()
            with Image.open(io.BytesIO(photo.data)) as opened:
                opened.convert("RGB").save(image, "WEBP", quality=80, method=6)
            _member_add(tar, f"{name}.webp", image.getvalue())
            _member_add(tar, f"{name}.json", json.dumps({"captions": photo.captions}).encode())
            lines.append(f"- `{name}` {credit}")
    (folder / CREDITS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / PHOTOS).chmod(0o644)
    if (size := (folder / PHOTOS).stat().st_size) > MOST_BYTES:
        raise DatasetError(f"{size} bytes are more than the anchor set may have.")
    return len(chosen)


def _free_photos(data: Path) -> Iterator[tuple[ReferencePhoto, str]]:
    """Yields photos that anybody may pass on, each with its credit."""
    for photo in photos_read(data / "openstax/photos.tar"):
        row = photo.record
        text = row["figure_caption"]
        start = re.search(r"\(credits?\b", text, re.I)
        credit = text[start.start() :] if start else ""
        stated = _STATED.search(credit) or _GOVERNMENT.search(credit)
        if (
            row["split"] != TRAIN
            and row["photo_rights"] in _FREE
            and not row["has_name"]
            and not row["sensitive"]
            and stated
            and not _OTHERWISE.search(credit)
            and not _NAMED.search(photo.captions[0])
        ):
            yield photo, f"OpenStax, {row['source']}. {' '.join(credit.split())}"
    for photo in photos_read(data / "coco/photos-000.tar"):
        row = photo.record
        if row["split"] != TRAIN and row["license"] in (
            "Attribution License",
            "No known copyright restrictions",
        ):
            number, licence = int(Path(photo.key).name), row["license_url"].replace("\\", "")
            yield (
                photo,
                f"COCO 2017, http://cocodataset.org/#explore?id={number}. {row['license']}, {licence}",
            )


def _member_add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
