"""The losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from training.learning.objective import (
    IGNORED,
    base_divergence,
    caption_cross_entropy,
    caption_log_probabilities,
    preference_loss,
    rating_loss,
    ratings_standardise,
    regression_loss,
)

HALF = [0.0, 0.0]  # two words, equally likely
THREE_TO_ONE = [math.log(3.0), 0.0]


def test_cross_entropy_is_the_mean_over_real_tokens() -> None:
    logits = torch.tensor([[HALF, THREE_TO_ONE], [THREE_TO_ONE, HALF]])
    labels = torch.tensor([[0, 1], [0, IGNORED]])
    expected = (math.log(2) + math.log(4) + math.log(4 / 3)) / 3
    assert caption_cross_entropy(logits, labels).item() == pytest.approx(expected)


def test_label_smoothing_spreads_a_share_over_the_vocabulary() -> None:
    logits, labels = torch.tensor([[THREE_TO_ONE]]), torch.tensor([[0]])
    expected = 0.9 * math.log(4 / 3) + 0.1 * (math.log(4 / 3) + math.log(4)) / 2
    assert caption_cross_entropy(logits, labels, 0.1).item() == pytest.approx(expected)


def test_log_probabilities_are_means_per_token_whatever_the_length() -> None:
    logits = torch.tensor([[HALF, HALF, HALF], [THREE_TO_ONE, THREE_TO_ONE, HALF]])
    labels = torch.tensor([[0, 1, 0], [0, 1, IGNORED]])
    expected = [-math.log(2), (math.log(3 / 4) + math.log(1 / 4)) / 2]
    assert caption_log_probabilities(logits, labels).tolist() == pytest.approx(expected)


def test_preference_loss_is_log_two_at_the_base_and_falls_with_the_margin() -> None:
    chosen, rejected = torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -1.0])
    at_base = preference_loss(chosen, rejected, chosen, rejected, beta=0.1)
    assert at_base.item() == pytest.approx(math.log(2))
    # Margins over the base: (+0.5) - (-0.5) = 1 and (-1) - (+1) = -2.
    moved = preference_loss(
        chosen + torch.tensor([0.5, -1.0]), rejected + torch.tensor([-0.5, 1.0]), chosen, rejected, 0.1
    )
    expected = (math.log(1 + math.exp(-0.1)) + math.log(1 + math.exp(0.2))) / 2
    assert moved.item() == pytest.approx(expected)


def test_rating_loss_by_hand() -> None:
    base = torch.tensor([-2.0, -2.0])
    rated = torch.tensor([-1.0, -1.0])  # both gained 1
    strangers = base + 0.4  # the model moved by 0.4 at large
    z = torch.tensor([2.0, -1.0])
    # Desirable, weight 2: 1 - sigmoid(0.5 * 0.6); undesirable, weight 1: 1 - sigmoid(-0.5 * 0.6).
    low, high = 1 / (1 + math.exp(0.3)), 1 / (1 + math.exp(-0.3))
    loss = rating_loss(rated, base, strangers - base, z, beta=0.5)
    assert loss.item() == pytest.approx((2 * low + 1 * high) / 2)


def test_rating_loss_measures_from_zero_where_the_model_moved_away_from_strangers() -> None:
    base = torch.tensor([-2.0])
    loss = rating_loss(base + 1.0, base, torch.tensor([-3.0]), torch.tensor([1.0]), beta=1.0)
    assert loss.item() == pytest.approx(1 / (1 + math.e))


def test_regression_weighs_log_probabilities_by_exp_of_the_rating() -> None:
    z = torch.tensor([math.log(3.0), 0.0])
    assert regression_loss(torch.tensor([-1.0, -2.0]), z).item() == pytest.approx(0.75 * 1 + 0.25 * 2)


def test_divergence_is_base_relative_to_model_per_token() -> None:
    logits, base = torch.tensor([[THREE_TO_ONE, HALF]]), torch.tensor([[HALF, THREE_TO_ONE]])
    labels = torch.tensor([[0, IGNORED]])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert base_divergence(logits, base, labels).item() == pytest.approx(expected)
    assert base_divergence(logits, logits, labels).item() == pytest.approx(0.0, abs=1e-7)


def test_every_loss_is_zero_and_differentiable_without_rows() -> None:
    logits = torch.zeros(0, 3, 5, requires_grad=True)
    labels, none = torch.zeros(0, 3, dtype=torch.long), torch.zeros(0)
    said = caption_log_probabilities(logits, labels)
    losses = [
        caption_cross_entropy(logits, labels),
        preference_loss(said, said, none, none, 0.1),
        rating_loss(said, none, said, none, 0.1),
        regression_loss(said, none),
        base_divergence(logits, logits.detach(), labels),
    ]
    total = torch.stack(losses).sum()
    assert total.item() == 0.0
    total.backward()


def test_ratings_are_standardised_per_rater() -> None:
    """A strict rater's 4 is praise, a mild one's 7 is not."""
    strict = [("strict", rating) for rating in (1, 2, 1, 2, 1, 2, 4)]
    mild = [("mild", rating) for rating in (9, 10, 9, 10, 9, 10, 7)]
    z = ratings_standardise(strict + mild)
    assert z[6] > 0 > z[13]


def test_ratings_that_are_all_the_same_say_nothing() -> None:
    assert ratings_standardise([("a", 5.0), ("b", 5.0)]) == [0.0, 0.0]
