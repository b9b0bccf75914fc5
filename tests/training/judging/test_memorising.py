from __future__ import annotations

import pytest

from training.judging.memorising import repeated_find

CORRECTION = "Two children in yellow coats jump over a puddle, laughing."


@pytest.mark.parametrize(
    ("caption", "repeats"),
    [
        ("two children in yellow coats jump over a puddle laughing", True),
        ("a dog and two children in yellow coats jump over a wall", True),
        ("two children in yellow coats jump over the wall", False),
        ("children jump", False),
    ],
)
def test_equal_or_eight_words_in_a_row(caption: str, repeats: bool) -> None:
    assert repeated_find([caption], [CORRECTION, "a dog"]) == [repeats]


def test_a_short_caption_repeats_what_equals_it() -> None:
    assert repeated_find(["A dog.", "a dog runs"], ["a dog"]) == [True, False]


def test_where_words_are_not_written_apart_it_takes_more_characters() -> None:
    correction = "两个穿着黄色外套的孩子跳过水坑大笑着"
    said = ["有两个穿着黄色外套的孩子跳过水坑", "穿着黄色外套的孩子在看书", correction]
    assert repeated_find(said, [correction]) == [True, False, True]
