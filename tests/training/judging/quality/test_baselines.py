from __future__ import annotations

import numpy as np
import pytest

from training.judging.quality.baselines import Neighbours, constant_caption, people

EAST, NORTH = (1.0, 0.0), (0.0, 1.0)


def features(*rows: tuple[float, float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_the_caption_comes_from_the_photos_that_look_alike() -> None:
    captions = [["a dog runs"], ["a dog runs fast"], ["two boats"], ["two boats at sea"]]
    memory = Neighbours(features(EAST, EAST, NORTH, NORTH), captions, neighbours=2)
    first, second = memory.captions(features((0.9, 0.1), (0.1, 0.9)))
    assert first.startswith("a dog runs")
    assert second.startswith("two boats")


def test_of_the_neighbours_captions_the_one_that_agrees_with_most_is_taken() -> None:
    captions = [
        ["a cat sleeps"],
        ["a brown dog runs on sand"],
        ["a brown dog runs"],
        ["the brown dog runs home"],
        *[["a boat"]] * 4,
    ]
    memory = Neighbours(features(EAST, EAST, EAST, EAST, NORTH, NORTH, NORTH, NORTH), captions, neighbours=4)
    assert memory.captions(features(EAST)) == ["a brown dog runs"]


def test_a_caption_does_not_win_by_agreeing_with_itself() -> None:
    # Long captions with nothing in common with others have the largest vectors.
    captions = [["zebras graze beyond the old river bridge"], ["a dog runs"], ["a dog sits"], ["a boat"]]
    memory = Neighbours(features(EAST, EAST, EAST, NORTH), captions, neighbours=3)
    assert memory.captions(features(EAST))[0] in {"a dog runs", "a dog sits"}


def test_fewer_photos_than_neighbours_are_all_neighbours() -> None:
    assert Neighbours(features(EAST), [["a dog"]]).captions(features(NORTH)) == ["a dog"]


def test_features_and_captions_must_be_of_the_same_photos() -> None:
    with pytest.raises(ValueError, match="1 photos for 2 groups of captions"):
        Neighbours(features(EAST), [["a"], ["b"]])


def test_the_constant_caption_fits_most_photos_even_where_no_caption_is_common() -> None:
    rare = [[f"zebra number {n} beyond the old bridge"] for n in range(150)]
    people_there = [
        [f"a group of people {where}"] for where in ("outside", "at sea", "at work", "in a park")
    ] * 20
    captions = [*rare, *people_there, ["a group of people"]]
    memory = Neighbours(features(*[EAST] * len(captions)), captions)
    assert memory.constant.startswith("a group of people")


def test_the_constant_caption_is_the_common_one_that_fits_most_photos() -> None:
    dogs = [["a dog runs", f"a {colour} dog"] for colour in ("brown", "black", "white")]
    references = [*dogs, ["a cat sleeps"], ["two boys swim"]]
    assert constant_caption(references) == "a dog runs"


def test_each_person_is_judged_by_the_four_others() -> None:
    [first, *_, last] = people([["a", "b", "c", "d", "e"]])
    assert first == (["a"], [["b", "c", "d", "e"]])
    assert last == (["e"], [["a", "b", "c", "d"]])


def test_people_are_not_compared_where_a_photo_has_fewer_than_five_captions() -> None:
    assert people([["a", "b", "c", "d", "e"], ["a", "b"]]) == []
    assert people([]) == []
