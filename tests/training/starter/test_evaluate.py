from __future__ import annotations

import pytest

from training.starter.evaluate import (
    Decoding,
    captions_distinct,
    captions_repeating,
    constant_caption,
    report,
)


def test_distinct_counts_different_captions() -> None:
    assert captions_distinct(["a dog", "a cat", "a dog", "a dog"]) == 50.0


def test_repeating_counts_captions_that_say_three_words_twice() -> None:
    captions = [
        "a man in a red shirt and a red shirt",
        "a man and a man in a red shirt and a red shirt",
        "a dog",
    ]
    assert captions_repeating(captions) == pytest.approx(200 / 3)
    assert captions_repeating(["a dog and a dog"]) == 0.0


def test_the_constant_caption_is_the_common_one_that_fits_most_photos() -> None:
    dogs = [["a dog runs", f"a {colour} dog"] for colour in ("brown", "black", "white")]
    references = [*dogs, ["a cat sleeps"], ["two boys swim"]]
    assert constant_caption(references) == "a dog runs"


def test_greedy_decoding_has_no_length_penalty() -> None:
    assert "length_penalty" not in Decoding(num_beams=1).arguments()
    assert Decoding(num_beams=3, length_penalty=0.7).arguments()["length_penalty"] == 0.7


def test_a_report_is_in_percent() -> None:
    figures = report(
        ["a brown dog runs fast", "two cats sleep here"], [["a brown dog runs fast"], ["two cats sleep here"]]
    )
    assert figures["bleu_4"] == pytest.approx(100.0)
    assert figures["cider_d"] == pytest.approx(1000.0)
    assert (figures["distinct"], figures["repeating"]) == (100.0, 0.0)
