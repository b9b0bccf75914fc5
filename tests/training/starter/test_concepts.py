from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from tests.training.starter.drawn import sets_write
from training.learning.objective import IGNORED
from training.starter.caption import CaptionBatches, CaptionedPhotos
from training.starter.concepts import CONCEPTS, concepts_load
from training.starter.config import CaptionConfig
from training.starter.network import tokenizer_train

CONFIG = CaptionConfig(batch=2, labelled=3, labelled_size=8, captions_each=2, size=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sets_write(tmp_path_factory.mktemp("data"))


def tokenizer() -> PreTrainedTokenizerBase:
    return tokenizer_train(["a red circle", "a blue square", "a pizza for 1"] * 3, 300, 16)


def test_labelled_photos_get_captions_about_such_things(data: Path, tmp_path: Path) -> None:
    [pizza] = concepts_load(data, tmp_path, 8, ["a pizza", "a man who once in his life had a pizza", "a dog"])
    assert len(pizza.photos) == 2
    assert sorted(pizza.captions) == sorted(["a pizza", *(f"a pizza for {number}" for number in range(25))])
    pixels, index = pizza.draw()
    assert pixels[index].shape == (8, 8, 3)
    assert index in (0, 2)


def test_what_few_people_wrote_about_is_left_out(data: Path, tmp_path: Path) -> None:
    (data / "text/coco_captions.jsonl").rename(tmp_path / "away")
    try:
        assert concepts_load(data, tmp_path, 8, ["a pizza"] * 19) == []
    finally:
        (tmp_path / "away").rename(data / "text/coco_captions.jsonl")


def test_of_synonyms_the_first_is_the_label(data: Path, tmp_path: Path) -> None:
    (data / "tiny_imagenet/classes.json").write_text(
        json.dumps(["pizza, pizza pie", "teapot, pizza", *(f"class {i}" for i in range(6))])
    )
    [pizza] = concepts_load(data, tmp_path, 8, [])
    assert len(pizza.photos) == 2 + 13  # of a hundred photos with eight labels in turn


def test_no_label_shows_two_things() -> None:
    labels = [label for shown in CONCEPTS.values() for label in shown]
    assert len(labels) == len(set(labels))


def test_they_come_along_with_each_batch(data: Path, tmp_path: Path) -> None:
    photos = CaptionedPhotos(np.zeros((4, 20, 20, 3), np.uint8), [["a red circle"], ["a blue square"]] * 2)
    concepts = concepts_load(data, tmp_path, 8, [])
    words = tokenizer()
    images, labels = CaptionBatches([photos], concepts, words, CONFIG).at(0)
    assert images.shape == (5, 3, 16, 16)
    assert labels.shape[:2] == (5, 2)
    texts = [words.decode(row[row != IGNORED], skip_special_tokens=True) for row in labels.flatten(0, 1)]
    # A photo with fewer captions than are drawn counts once for each it has.
    assert [bool(text) for text in texts[:4]] == [True, False, True, False]
    assert all(text.startswith("a pizza for") for text in texts[4:])


def test_a_batch_repeats_itself_from_its_seed(data: Path, tmp_path: Path) -> None:
    photos = CaptionedPhotos(np.zeros((4, 20, 20, 3), np.uint8), [["a red circle"]] * 4)
    batches = CaptionBatches([photos], concepts_load(data, tmp_path, 8, []), tokenizer(), CONFIG)
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(batches.at(3))
    assert all(torch.equal(one, two) for one, two in zip(*drawn, strict=True))
