from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.starter.drawn import captioned_files, sheet_draw, tar_write
from training.data.photo_sets import photos_read
from training.data.pixels import pixels_cache, sheets_cache
from training.exceptions import DatasetError


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
