from __future__ import annotations

import math

import pytest

from training.data.caption_text import caption_words
from training.judging.scores import CiderD, bleu, captions_score, rouge_l


def words(*captions: str) -> list[tuple[str, ...]]:
    return [caption_words(caption) for caption in captions]


def test_bleu_clips_repeated_words_to_the_reference() -> None:
    # Papineni et al. 2002, example 2: seven times "the" against two in the reference.
    candidate = words("the the the the the the the")
    references = [words("the cat is on the mat", "there is a cat on the mat")]
    assert bleu(candidate, references)[0] == pytest.approx(100 * 2 / 7)


def test_bleu_multiplies_precisions_over_the_whole_set_and_punishes_brevity() -> None:
    candidates = words("a dog runs fast", "two cats")
    references = [words("a dog runs home"), words("two cats sleep here")]
    brevity = math.exp(1 - 8 / 6)
    one, two, three, four = bleu(candidates, references)
    assert one == pytest.approx(100 * brevity * 5 / 6)
    assert two == pytest.approx(100 * brevity * math.sqrt(5 / 6 * 3 / 4))
    assert three == pytest.approx(100 * brevity * (5 / 6 * 3 / 4 * 1 / 2) ** (1 / 3))
    assert four == 0.0


def test_bleu_takes_the_closest_reference_length_and_the_shorter_of_two() -> None:
    candidates = words("a dog runs fast")
    assert bleu(candidates, [words("a dog", "a dog runs fast in the snow", "a dog runs")])[0] == 100.0
    longer = bleu(candidates, [words("a dog runs fast now", "zebras")])[0]
    assert longer == pytest.approx(100 * math.exp(1 - 5 / 4))


def test_rouge_l_combines_best_precision_and_best_recall() -> None:
    # Longest common subsequence "a dog runs" of 4 and 5 words: P = 3/4, R = 3/5, beta = 1.2.
    expected = 100 * (1 + 1.44) * 0.75 * 0.6 / (0.6 + 1.44 * 0.75)
    assert rouge_l(words("a dog runs fast"), [words("a brown dog runs away")]) == pytest.approx(expected)


def test_rouge_l_is_zero_without_a_common_word() -> None:
    assert rouge_l(words("a dog"), [words("two cats")]) == 0.0


def test_cider_d_of_the_reference_itself_is_ten_times_one() -> None:
    references = [words("a brown dog runs fast"), words("two cats sleep on sofas")]
    assert CiderD(references).scores(words("a brown dog runs fast", "zebra")) == pytest.approx([1000.0, 0.0])


def test_cider_d_by_hand() -> None:
    # Two photos, so an n-gram of one photo weighs log 2 and one of both weighs 0 ("a").
    references = [words("a dog runs"), words("a cat")]
    # Unigrams {dog, sits} against {dog, runs}: 1 / (sqrt 2 * sqrt 2); bigrams {a dog, dog sits} against
    # {a dog, dog runs}: the same; trigrams have nothing in common; equal lengths, so no penalty.
    assert CiderD(references).score(0, caption_words("a dog sits")) == pytest.approx(1000 * (0.5 + 0.5) / 4)


def test_cider_d_clips_repetition_and_punishes_other_lengths() -> None:
    references = [words("dog"), words("cat")]
    # Unigram vectors 3 log 2 and log 2 clipped: 1 / 3; two words too long: exp(-4 / 72).
    assert CiderD(references).score(0, caption_words("dog dog dog")) == pytest.approx(
        1000 / 4 * math.exp(-4 / 72) / 3
    )


def test_captions_score_averages_over_photos() -> None:
    references = [["A brown dog runs fast ."], ["Two cats sleep on sofas ."]]
    scores = captions_score(["a brown dog runs fast", "a zebra"], references)
    assert scores.cider_d_each == pytest.approx((1000.0, 0.0))
    assert scores.cider_d == pytest.approx(500.0)
    assert scores.rouge_l == pytest.approx(50.0)


def test_captions_score_refuses_sets_of_different_sizes() -> None:
    with pytest.raises(ValueError, match="2 candidates for 1 photos"):
        captions_score(["a", "b"], [["a"]])


# The example of the clipscore repository (github.com/jmhessel/clipscore, MIT), scored there by the Java tools.
EXAMPLE_REFERENCES = [
    [
        "two cats are sleeping next to each other.",
        "a grey cat is cuddling with an orange cat on a blanket.",
        "the orange cat is happy that the black cat is close to it.",
    ],
    [
        "a dog is wearing ear muffs as it lies on a carpet.",
        "a black dog and an orange cat are looking at the photographer.",
        "headphones are placed on a dogs ears.",
    ],
]
GOOD = [
    "an orange cat and a grey cat are lying together.",
    "a black dog wearing headphones looks at the camera as an orange cat walks in the background.",
]
BAD = [
    "a calico cat and a white cat are lying together.",
    "a black dog wearing a hat looks at the camera as a tabby walks in the background.",
]


@pytest.mark.parametrize(
    ("captions", "bleu_1_to_4", "rouge", "cider"),
    [
        (GOOD, (0.6667, 0.4899, 0.3469, 0.0), 0.4280, 0.5637),
        (BAD, (0.4815, 0.2404, 0.1359, 0.0), 0.3121, 0.2790),
    ],
)
def test_scores_are_those_of_the_java_tools(
    captions: list[str], bleu_1_to_4: tuple[float, ...], rouge: float, cider: float
) -> None:
    scores = captions_score(captions, EXAMPLE_REFERENCES)
    assert [score / 100 for score in scores.bleu] == pytest.approx(bleu_1_to_4, abs=1e-3)
    assert scores.rouge_l / 100 == pytest.approx(rouge, abs=1e-3)
    assert scores.cider_d / 100 == pytest.approx(cider, abs=1e-3)


# Captions of our own, scored by pycocoevalcap 1.2 and its Java tokenizer.
OWN_REFERENCES = [
    [
        "A tram stops at the corner; two people get off.",
        "Two passengers leave a yellow tram.",
        "A yellow tram at a street corner",
        "People step off the tram at a crossing.",
    ],
    [
        "The baker's hands are white with flour.",
        "A baker kneads dough on a wooden table .",
        "Someone's kneading bread dough, slowly.",
        "Hands in dough -- flour everywhere!",
    ],
    [
        "A child doesn't want to leave the swing.",
        "A little girl in a T-shirt sits on a swing",
        "The girl isn't swinging; she's looking at us.",
        "A girl on a swing in the park.",
    ],
    [
        "Three sail-boats lie in the harbour.",
        "Boats at anchor in a small harbour, early in the morning.",
        "Three boats with white sails",
        "A quiet harbour with three boats, and a gull.",
    ],
    [
        "A tower of 2.5 m made of old tires.",
        "Someone has piled up tires.",
        "A pile of tires behind a fence",
        "Old tires are piled up behind the fence.",
    ],
]
OWN_CANDIDATES = [
    "a yellow tram stops at a street corner",
    "a baker kneads bread dough on a table",
    "a little girl doesn't sit on a swing",
    "three boats lie in the harbour in the morning",
    "a pile of old cars behind a house",
]


def test_scores_of_everyday_captions_are_those_of_the_reference_implementation() -> None:
    scores = captions_score(OWN_CANDIDATES, OWN_REFERENCES)
    assert [score / 100 for score in scores.bleu] == pytest.approx((0.9048, 0.7974, 0.6201, 0.3645), abs=1e-3)
    assert scores.rouge_l / 100 == pytest.approx(0.7784, abs=1e-3)
    assert scores.cider_d / 100 == pytest.approx(1.9548, abs=1e-3)


def test_near_perfect_chinese_scores_high_and_another_photo_s_caption_low() -> None:
    references = [["一只棕色的狗在草地上奔跑。"], ["两个孩子在海边玩球。"], ["桌上放着一杯咖啡。"]]
    near = ["一只棕色的狗在草地上跑", "两个孩子在海边玩", "桌子上放着一杯咖啡"]
    scores = captions_score(near, references)
    assert scores.cider_d > 300
    assert scores.bleu[3] > 50
    assert captions_score([*near[1:], near[0]], references).cider_d < 50
