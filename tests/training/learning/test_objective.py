"""The losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from training.learning.objective import IGNORED, base_divergence, caption_cross_entropy

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


def test_divergence_is_base_relative_to_model_per_token() -> None:
    logits, base = torch.tensor([[THREE_TO_ONE, HALF]]), torch.tensor([[HALF, THREE_TO_ONE]])
    labels = torch.tensor([[0, IGNORED]])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert base_divergence(logits, base, labels).item() == pytest.approx(expected)
    assert base_divergence(logits, logits, labels).item() == pytest.approx(0.0, abs=1e-7)


def test_every_loss_is_zero_and_differentiable_without_rows() -> None:
    logits = torch.zeros(0, 3, 5, requires_grad=True)
    labels = torch.zeros(0, 3, dtype=torch.long)
    losses = [caption_cross_entropy(logits, labels), base_divergence(logits, logits.detach(), labels)]
    total = torch.stack(losses).sum()
    assert total.item() == 0.0
    total.backward()
