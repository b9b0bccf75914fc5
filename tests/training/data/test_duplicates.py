from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from tests.photos import scene_image
from tests.training.starter.drawn import encoded, tar_write
from training.data.duplicates import duplicates_cache, near_duplicates
from training.data.photo_sets import ReferencePhoto

CAPTIONS = ("a tram stops at the corner", "two people leave a yellow tram")


def photo(key: str, image: Image.Image, *captions: str) -> ReferencePhoto:
    return ReferencePhoto(key, encoded(image), captions, {})


def found(train: ReferencePhoto, held_out: ReferencePhoto) -> list[tuple[str, str]]:
    sets = {"old": {"train": [train]}, "new": {"val": [held_out]}}
    return [(duplicate.train, duplicate.held_out) for duplicate in near_duplicates(sets)]


@pytest.mark.parametrize(
    "copy",
    [lambda image: image.resize((50, 40)), ImageOps.mirror, lambda image: image.convert("L").convert("RGB")],
    ids=["scaled", "mirrored", "grey"],
)
def test_a_copy_is_found_whatever_is_said_of_it(copy) -> None:
    pair = found(
        photo("a", scene_image(1), "a dog"), photo("b", copy(scene_image(1)), "some blocks of colour")
    )
    assert pair == [("old/a", "new/b")]


def test_another_photo_is_none_even_with_a_caption_in_common() -> None:
    first = photo("a", scene_image(1), *CAPTIONS, "a street")
    assert found(first, photo("b", scene_image(2), CAPTIONS[0], "one", "two")) == []


def test_a_photo_with_the_same_captions_is_one_in_any_cut() -> None:
    assert found(photo("a", scene_image(1), *CAPTIONS), photo("b", scene_image(2), *CAPTIONS))


def test_a_photo_that_was_cut_anew_is_one_only_if_the_words_agree_too() -> None:
    cut = scene_image(1).crop((8, 4, 90, 70))
    said = photo("b", cut, "a yellow tram stops at the corner")
    unlike = photo("b", cut, "three sheep on a hill")
    assert found(photo("a", scene_image(1), CAPTIONS[0]), said)
    assert not found(photo("a", scene_image(1), CAPTIONS[0]), unlike)


def test_training_photos_may_repeat_each_other() -> None:
    same = [photo("a", scene_image(1), "a tram"), photo("b", scene_image(1), "a tram")]
    assert near_duplicates({"set": {"train": same, "val": [photo("c", scene_image(2), "a dog")]}}) == []


def test_sets_are_searched_once_and_the_finding_is_kept(tmp_path: Path) -> None:
    rows = {"a": ("train", 1), "b": ("train", 2), "c": ("test", 1)}
    files: dict[str, bytes] = {}
    for key, (split, number) in rows.items():
        files[f"{key}.png"] = encoded(scene_image(number))
        files[f"{key}.json"] = json.dumps({"captions": [f"caption {key}"], "split": split}).encode()
    tar_write(tmp_path / "data/blocks/photos.tar", files)
    cache = tmp_path / "cache/near-duplicates.json"
    assert duplicates_cache(tmp_path / "data", cache) == {"blocks/a"}
    (tmp_path / "data/blocks/photos.tar").unlink()
    assert duplicates_cache(tmp_path / "data", cache) == {"blocks/a"}
    [kept] = json.loads(cache.read_text())
    assert (kept["held_out"], kept["bits"]) == ("blocks/c", 0)
