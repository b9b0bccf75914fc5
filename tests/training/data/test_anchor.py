"""The bundled photos that runs hold on to: openly licensed, small, in two halves that share nothing."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.photos import draw_scene
from training.data import anchor
from training.data.anchor import CREDITS, FOLDER, MOST_BYTES, MOST_PHOTOS, PHOTOS, anchor_sets, anchor_write
from training.exceptions import DatasetError

FREE, PUBLIC = "CC BY / BY-SA / CC0 stated", "public domain / US government stated"


def test_the_bundled_set_is_what_it_says() -> None:
    replayed, judged = anchor_sets()
    names = [*replayed.names(), *judged.names()]
    assert 200 <= len(names) == len(set(names)) <= MOST_PHOTOS
    assert abs(len(replayed) - len(judged)) <= 1
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES
    assert all(captions and all(captions) for captions in [*replayed.captions, *judged.captions])
    assert len(dict(replayed.images(replayed.names()[:3]))) == 3
    listed = [line for line in (FOLDER / CREDITS).read_text().splitlines() if line.startswith("- `")]
    assert len(listed) == len(names)
    assert not [line for line in listed if "NC" in line.split() or "ShareAlike" in line]


def test_without_photos_to_hold_on_to_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchor, "FOLDER", tmp_path)
    with pytest.raises(DatasetError, match="nothing is learned"):
        anchor_sets()


def textbook(number: int, **facts: object) -> dict[str, object]:
    row = {
        "captions": [f"a drawn scene {number}"],
        "split": "val",
        "figure_caption": f"What it shows. (credit: “It” by Somebody/Flickr, CC BY 2.0), number {number}",
        "photo_rights": FREE,
        "has_name": False,
        "sensitive": False,
        "source": "a book",
    }
    return row | facts


def tar_of(path: Path, rows: list[dict[str, object]], first: int) -> None:
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for number, row in enumerate(rows, start=first):
            drawn = draw_scene(row.get("drawn", number))
            for suffix, content in ((".jpg", drawn), (".json", json.dumps(row).encode())):
                member = tarfile.TarInfo(f"{number}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def test_only_photos_that_anybody_may_pass_on_and_no_version_learned_from_are_taken(tmp_path: Path) -> None:
    credit = "figure_caption"
    books = [
        textbook(0),
        textbook(1, split="train"),
        textbook(2, has_name=True),
        textbook(3, sensitive=True),
        textbook(4, photo_rights="NC/ND/all-rights wording"),
        textbook(5, **{credit: "(credit: Somebody/Flickr, CC BY-SA 2.0)"}),
        textbook(6, **{credit: "(credit: Somebody/Pexels, public domain)"}),
        textbook(7, photo_rights=PUBLIC, **{credit: "(credit: Somebody/flickr)"}),
        textbook(8, photo_rights=PUBLIC, **{credit: "(credit: NASA)"}),
        textbook(9, **{credit: "No word of whose it is."}),
        textbook(10, captions=["Somebody Known gives a speech"]),
    ]
    licence = "http:\\/\\/creativecommons.org\\/licenses\\/by\\/2.0\\/"
    coco = [
        {"captions": ["a scene"], "split": "val", "license": kind, "license_url": licence}
        for kind in (
            "Attribution License",
            "Attribution-NonCommercial License",
            "Attribution-ShareAlike License",
        )
    ]
    tar_of(tmp_path / "openstax/photos.tar", [*books, textbook(11, drawn=0)], 0)
    tar_of(tmp_path / "coco/photos-000.tar", coco, 100)
    assert anchor_write(tmp_path, tmp_path / "made") == 3
    listed = (tmp_path / "made" / CREDITS).read_text()
    assert "NASA" in listed
    assert "id=100" in listed
    assert "http://creativecommons.org/licenses/by/2.0/" in listed
    before = (tmp_path / "made" / PHOTOS).read_bytes()
    anchor_write(tmp_path, tmp_path / "made")
    assert (tmp_path / "made" / PHOTOS).read_bytes() == before, "made again, it is the same"
