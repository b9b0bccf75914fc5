from __future__ import annotations

import random

import numpy as np
import pytest

from training.judging import association
from training.judging.association import MIN_ROWS, association_test

KINDS = (
    "a red rose in a garden",
    "a grey kitchen with a table",
    "an old church with a tower",
    "a dog on a beach",
)
PHOTOS = 120


def features(kinds: list[int], noise: float = 0.5) -> np.ndarray:
    """(photos, 2 patches, 8): photos of a kind lie close to each other."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(len(KINDS), 8))
    return np.stack([centres[kind] + noise * generator.normal(size=(2, 8)) for kind in kinds]).astype(
        np.float32
    )


@pytest.fixture
def kinds() -> list[int]:
    return [random.Random(n).randrange(len(KINDS)) for n in range(PHOTOS)]


def rows_of(kinds: list[int]) -> list[tuple[int, str]]:
    return [(photo, KINDS[kind]) for photo, kind in enumerate(kinds)]


def test_captions_of_their_own_photos_are_alike_where_photos_are(kinds: list[int]) -> None:
    found = association_test(features(kinds), rows_of(kinds))
    assert found.p == 1 / 10_000  # none of 9,999 deals
    assert found.alike > 2 * found.dealt
    assert found.rows == PHOTOS


def test_captions_dealt_to_other_photos_are_not(kinds: list[int]) -> None:
    for seed in range(20):
        captions = [KINDS[kind] for kind in kinds]
        random.Random(seed).shuffle(captions)
        assert association_test(features(kinds), list(enumerate(captions))).p > 0.001


def test_chance_is_what_it_says(kinds: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association, "PERMUTATIONS", 199)
    found = []
    for seed in range(200):
        captions = [KINDS[kind] for kind in kinds]
        random.Random(seed).shuffle(captions)
        found.append(association_test(features(kinds), list(enumerate(captions)), seed=seed).p)
    # 60 of 200 expected, with a standard deviation of 6.5.
    assert 40 <= sum(p <= 0.3 for p in found) <= 80


def test_the_same_caption_everywhere_belongs_nowhere(kinds: list[int]) -> None:
    assert association_test(features(kinds), [(photo, "nice") for photo in range(PHOTOS)]).p == 1.0


def test_few_rows_tell_nothing(kinds: list[int]) -> None:
    rows = rows_of(kinds)
    assert association_test(features(kinds), rows[: MIN_ROWS - 1]) is None
    assert association_test(features(kinds), rows[:MIN_ROWS]).p < 0.001


def test_of_very_many_rows_some_are_drawn(kinds: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association, "MAX_ROWS", 50)
    assert association_test(features(kinds), rows_of(kinds)).rows == 50
