from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.starter.drawn import captioned_files, encoded, shape_draw, tar_write
from training.data.photo_sets import photo_sets_read, photos_read
from training.exceptions import DatasetError


def test_photos_come_with_captions_and_the_rest_of_their_record(tmp_path: Path) -> None:
    tar_write(tmp_path / "set.tar", captioned_files("train", 2))
    first, second = photos_read(tmp_path / "set.tar")
    assert (first.key, second.key) == ("train0", "train1")
    assert first.captions == ("A red square .", "One square that is red , on the left .")
    assert first.record == {"split": "train"}


def test_a_photo_without_its_json_is_named(tmp_path: Path) -> None:
    tar_write(tmp_path / "set.tar", {"lonely.png": encoded(shape_draw(8, "red", "square"))})
    with pytest.raises(DatasetError, match=r"set\.tar: 'lonely' needs an image and a \.json"):
        list(photos_read(tmp_path / "set.tar"))


def test_sets_are_read_from_tars_folders_and_captions_files(tmp_path: Path) -> None:
    data = tmp_path / "data"
    tar_write(data / "two/train.tar", captioned_files("train", 6))
    tar_write(data / "two/val.tar", captioned_files("val", 4))
    tar_write(data / "one/photos.tar", captioned_files("test", 4))
    tar_write(data / "sheets/sheets.tar", {"sheet-0.png": encoded(shape_draw(20, "red", "circle"))})
    (tmp_path / "mine").mkdir()
    shape_draw(20, "red", "square").save(tmp_path / "mine/a.png")
    (tmp_path / "mine/captions.jsonl").write_text('{"file": "a.png", "captions": ["A red square ."]}\n')
    sets = photo_sets_read([data, tmp_path / "mine", data / "two/val.tar"])
    assert {
        name: {split: len(photos) for split, photos in splits.items()} for name, splits in sets.items()
    } == {
        "two": {"train": 6, "val": 4},
        "one": {"test": 4},
        "mine": {"all": 1},
        "val": {"val": 4},
    }
    assert sets["mine"]["all"][0].captions == ("a red square",)
    with pytest.raises(DatasetError, match="sheets holds no captioned photos"):
        photo_sets_read([data / "sheets"])
