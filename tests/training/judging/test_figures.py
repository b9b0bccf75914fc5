from __future__ import annotations

import pytest

from training.judging.figures import caption_figures, distinct_share, function_word_endings, repeating_share


def test_function_words_and_repetition_are_counted() -> None:
    assert function_word_endings(["a dog on the", "a dog", "", "A man with a."]) == 0.75
    assert distinct_share(["a", "a", "b", "c"]) == 0.75


def test_distinct_counts_different_captions() -> None:
    assert distinct_share(["a dog", "a cat", "a dog", "a dog"]) == 0.5


def test_repeating_counts_captions_that_say_three_words_twice() -> None:
    captions = [
        "a man in a red shirt and a red shirt",
        "a man and a man in a red shirt and a red shirt",
        "a dog",
    ]
    assert repeating_share(captions) == pytest.approx(2 / 3)
    assert repeating_share(["a dog and a dog"]) == 0.0


def test_figures_are_in_percent() -> None:
    figures = caption_figures(
        ["a brown dog runs fast", "two cats sleep here"], [["a brown dog runs fast"], ["two cats sleep here"]]
    )
    assert figures["bleu_4"] == pytest.approx(100.0)
    assert figures["cider_d"] == pytest.approx(1000.0)
    assert (figures["distinct"], figures["repeating"]) == (100.0, 0.0)
    assert caption_figures([], []) == {}
