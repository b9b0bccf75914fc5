import math

import pytest
from transformers import PreTrainedTokenizerBase

from captioner.inference.predictor import Predictor
from captioner.inference.words import merge_tokens

TEXTS = [
    "a small brown dog runs across the green field",
    "dogs, balls and cars",
    "two  people   walking",
    "a café, naïve 🐕 dog",
]


@pytest.fixture(params=["vit_gpt2", "blip"])
def tokenizer(request: pytest.FixtureRequest, predictors: dict[str, Predictor]) -> PreTrainedTokenizerBase:
    """A byte-level and a WordPiece tokenizer."""
    return predictors[request.param]._parts.tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_words_joined_are_the_decoded_text(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    words = merge_tokens(tokenizer, ids, [-0.1] * len(ids))
    assert [word.text for word in words] == tokenizer.decode(ids, skip_special_tokens=True).split()


@pytest.mark.parametrize("text", TEXTS)
def test_every_token_counts_in_exactly_one_word(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = [
        token for token in tokenizer(text, add_special_tokens=False)["input_ids"] if decoded(tokenizer, token)
    ]
    # Distinct powers of two: a sum tells which tokens are in it.
    log_probabilities = [-(2.0**-index) for index in range(len(ids))]
    words = merge_tokens(tokenizer, ids, log_probabilities)
    total = math.fsum(math.log(word.probability) for word in words)
    assert total == pytest.approx(math.fsum(log_probabilities), abs=1e-9)


def decoded(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return tokenizer.decode([token], skip_special_tokens=True).strip()


def test_a_words_probability_is_the_product_of_its_tokens(predictors: dict[str, Predictor]) -> None:
    tokenizer = predictors["blip"]._parts.tokenizer
    ids = tokenizer.convert_tokens_to_ids(["a", "dog", "##s", "runs", "[SEP]"])
    words = merge_tokens(tokenizer, ids, [math.log(p) for p in (0.9, 0.8, 0.5, 0.7, 0.1)])
    assert [(word.text, round(word.probability, 6)) for word in words] == [
        ("a", 0.9),
        ("dogs", 0.4),
        ("runs", 0.7),
    ]


def test_a_punctuation_mark_counts_in_the_word_it_is_attached_to(predictors: dict[str, Predictor]) -> None:
    tokenizer = predictors["vit_gpt2"]._parts.tokenizer
    ids = tokenizer(" ball,")["input_ids"]
    [word] = merge_tokens(tokenizer, ids, [-0.5] * len(ids))
    assert word.text == "ball,"
    assert word.probability == pytest.approx(math.exp(-0.5 * len(ids)))


def test_nothing_has_no_words(tokenizer: PreTrainedTokenizerBase) -> None:
    assert merge_tokens(tokenizer, [], []) == ()
    assert merge_tokens(tokenizer, tokenizer.all_special_ids[:1], [-1.0]) == ()


def test_probabilities_stay_in_range_when_they_underflow(predictors: dict[str, Predictor]) -> None:
    tokenizer = predictors["blip"]._parts.tokenizer
    ids = tokenizer.convert_tokens_to_ids(["dog", "runs"])
    impossible, certain = merge_tokens(tokenizer, ids, [-1e6, 1e-7])
    assert 0 < impossible.probability < certain.probability == 1
