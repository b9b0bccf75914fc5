from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.starter.drawn import captioned_files, encoded, shape_draw, sheet_draw, tar_write
from training.data.datasets import (
    caption_mirror,
    caption_normalise,
    caption_plain,
    photos_read,
    pixels_cache,
    sheets_cache,
)
from training.exceptions import DatasetError
from training.starter.caption import photos_of


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("A dog runs on the beach .", "a dog runs on the beach"),
        ("Two boys , one with a ball , play .", "two boys, one with a ball, play"),
        ("The dog 's  ball", "the dog's ball"),
        ("He does n't look", "he doesn't look"),
        ('A sign says " Stop "', "a sign says stop"),
        ("A black-and-white dog - running", "a black-and-white dog running"),
    ],
)
def test_captions_read_naturally_after_normalisation(raw: str, expected: str) -> None:
    assert caption_normalise(raw) == expected


@pytest.mark.parametrize(
    ("framed", "plain"),
    [
        ("this photo shows a dog in a yard", "a dog in a yard"),
        ("a black and white photograph of two men", "a black and white photograph of two men"),
        ("an aerial photograph of a town", "a town"),
        ("an owl on a branch is shown", "an owl on a branch"),
        ("two men are shown here", "two men"),
        ("a photo is shown", "a photo"),
        ("a man who is shown a map", "a man who is shown a map"),
    ],
)
def test_a_caption_loses_its_frame(framed: str, plain: str) -> None:
    assert caption_plain(framed) == plain


def test_mirroring_a_photo_swaps_left_and_right_in_its_caption() -> None:
    assert caption_mirror("a man left of a right-hand door") == "a man right of a left-hand door"
    assert caption_mirror("a bright leftover") == "a bright leftover"


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


def test_pixels_are_decoded_once(tmp_path: Path) -> None:
    tar_write(tmp_path / "set.tar", captioned_files("train", 3))
    photos = list(photos_read(tmp_path / "set.tar"))
    cache = tmp_path / "cache/pixels.npy"
    pixels = pixels_cache(cache, photos, 32)
    written = cache.stat().st_mtime_ns
    again = pixels_cache(cache, photos, 32)
    assert pixels.shape == (3, 32, 32, 3)
    assert cache.stat().st_mtime_ns == written
    assert np.array_equal(pixels, again)
    assert tuple(pixels[0, 16, 16]) == (255, 0, 0)


def test_a_cache_of_another_set_is_refused(tmp_path: Path) -> None:
    tar_write(tmp_path / "set.tar", captioned_files("train", 3))
    photos = list(photos_read(tmp_path / "set.tar"))
    pixels_cache(tmp_path / "pixels.npy", photos, 16)
    with pytest.raises(DatasetError, match="holds 3 photos, the set has 2: delete the file"):
        pixels_cache(tmp_path / "pixels.npy", photos[:2], 16)


def test_a_photo_that_cannot_be_decoded_leaves_no_cache_behind(tmp_path: Path) -> None:
    record = json.dumps({"captions": [], "split": "train"}).encode()
    tar_write(tmp_path / "set.tar", {"bad.png": b"not an image", "bad.json": record})
    with pytest.raises(OSError, match="cannot identify"):
        pixels_cache(tmp_path / "pixels.npy", list(photos_read(tmp_path / "set.tar")), 16)
    assert [path.name for path in tmp_path.iterdir()] == ["set.tar"]


def test_sheets_are_cut_row_by_row_and_stop_at_the_last_label(tmp_path: Path) -> None:
    labels = {"s-1": [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2], "s-0": [3], "other": [9]}
    tar_write(
        tmp_path / "sheets.tar", {f"{name}.png": sheet_draw(16, labels[name]) for name in ("s-1", "s-0")}
    )
    pixels, flat = sheets_cache(tmp_path / "tiles.npy", tmp_path / "sheets.tar", labels, 16)
    assert flat == [3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    assert pixels.shape == (12, 16, 16, 3)
    colours = {0: (255, 0, 0), 1: (0, 128, 0), 2: (0, 0, 255), 3: (255, 255, 0)}
    assert [tuple(tile[8, 8]) for tile in pixels] == [colours[label] for label in flat]


def test_a_sheet_without_labels_is_named(tmp_path: Path) -> None:
    tar_write(tmp_path / "sheets.tar", {"s-7.png": sheet_draw(16, [0])})
    with pytest.raises(DatasetError, match="no labels for sheet 's-7'"):
        sheets_cache(tmp_path / "tiles.npy", tmp_path / "sheets.tar", {}, 16)


@pytest.mark.parametrize(
    "record",
    [{"has_name": True}, {"sensitive": True}, {"photo_rights": "NC/ND/all-rights wording"}],
    ids=lambda record: next(iter(record)),
)
def test_photos_that_are_not_fit_to_teach_are_left_out(tmp_path: Path, record: dict[str, object]) -> None:
    files = captioned_files("train", 3) | {
        f"left out {name}": data for name, data in captioned_files("train", 2, **record).items()
    }
    tar_write(tmp_path / "books/photos.tar", files)
    assert len(photos_of(tmp_path, "books", "train")) == 3
    assert len(photos_of(tmp_path, "books", "train", without={"books/train1"})) == 2
