"""What encoders see of photos is kept, so that it is computed once, and bounded."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.features import Features, FeatureStore, stores_trim


def encode(images: Sequence[Image.Image]) -> Features:
    return np.stack([np.full((2, 3), image.width + 0.1, np.float32) for image in images])


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path / "encoder/photos")
    store.put(((f"{n:02}", Image.new("RGB", (n + 1, 1))) for n in range(20)), encode)
    return store


def test_what_was_seen_is_read_as_it_was_but_for_half_precision(store: FeatureStore) -> None:
    names = [f"{n:02}" for n in (3, 0, 19)]
    kept = store.get(names)
    assert kept[[0, 1, 2]].shape == (3, 2, 3)
    assert kept[[0, 1, 2]].dtype == np.float32
    assert kept[0] == pytest.approx(4.1, rel=1e-3)
    assert kept[1:].of([1])[0] == pytest.approx(20.1, rel=1e-3)
    assert [float(row[0, 0]) for row in kept] == [float(kept[n][0, 0]) for n in range(3)]
    [file] = {path.stat().st_size for path in store.folder.glob("*/*.npy")}
    assert file == 128 + 2 * 3 * 2, "a header, and two bytes a number"


def test_only_what_is_new_is_missing_in_the_order_asked_for(store: FeatureStore) -> None:
    assert store.missing(["zz", "03", "aa"]) == ["zz", "aa"]
    store.remove(["03", "never"])
    assert store.missing(["03"]) == ["03"]


def test_what_was_used_longest_ago_goes_first_and_what_is_in_use_stays(store: FeatureStore) -> None:
    size = next(store.folder.glob("*/*.npy")).stat().st_size
    for age, name in enumerate(f"{n:02}" for n in range(20)):
        os.utime(store.path(name), (1000 - age, 1000 - age))
    began = time.time() - 1
    store.get(["19"])
    assert stores_trim(store.folder.parent, 5 * size, used_before=began) == 15
    assert store.names() == {"00", "01", "02", "03", "19"}
    assert stores_trim(store.folder.parent, 0, used_before=began) == 4
    assert store.names() == {"19"}
