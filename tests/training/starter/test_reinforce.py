from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from training.starter.objective import reinforce_loss
from training.starter.reinforce import Judge, advantages

CAPTIONS = [["a dog runs left", "a brown dog runs"], ["two cats sleep", "cats on a bed"], ["a red car"] * 2]


def test_each_draw_is_compared_with_the_others_of_its_photo() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]])
    assert advantages(rewards).tolist() == [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]


def test_the_reference_itself_is_rewarded_most() -> None:
    judge = Judge(CAPTIONS)
    assert judge.reward(2, False, "a red car", True) == pytest.approx(10.0)
    assert judge.reward(2, False, "two cats sleep", True) < 0.01 < judge.reward(1, False, "cats sleep", True)


def test_a_caption_that_breaks_off_is_rewarded_less() -> None:
    judge = Judge(CAPTIONS)
    assert judge.reward(2, False, "a red car", False) < judge.reward(2, False, "a red car", True)


def test_mirrored_photos_are_judged_by_mirrored_captions() -> None:
    judge = Judge(CAPTIONS)
    right, wrong = (judge.reward(0, True, f"a dog runs {side}", True) for side in ("right", "left"))
    assert wrong < right == pytest.approx(judge.reward(0, False, "a dog runs left", True))


class Parrot(nn.Module):
    """A decoder of three words (0 pads, 1 starts) whose next word depends on no word and no photo."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.config = SimpleNamespace(pad_token_id=0)

    def transformer(
        self, input_ids: Tensor, encoder_hidden_states: Tensor, use_cache: bool
    ) -> SimpleNamespace:
        assert len(input_ids) == len(encoder_hidden_states)
        return SimpleNamespace(last_hidden_state=torch.zeros(*input_ids.shape, 1))

    def lm_head(self, hidden: Tensor) -> Tensor:
        return hidden + self.bias


def test_words_of_better_captions_become_likelier_and_padding_counts_for_nothing() -> None:
    parrot = Parrot()
    tokens = torch.tensor([[[1, 2, 2], [1, 1, 0]]])
    loss = reinforce_loss(parrot, torch.zeros(1, 4, 8), tokens, torch.tensor([[3.0, -1.5]]))
    # Three real tokens of probability 1/3 each: log 3 * (3 + 3 - 1.5) / 3.
    assert float(loss.detach()) == pytest.approx(1.5 * torch.log(torch.tensor(3.0)).item())
    loss.backward()
    # Mean over the tokens of advantage * (p - [is the token]).
    assert parrot.bias.grad is not None
    assert parrot.bias.grad.tolist() == pytest.approx([0.5, 1.0, -1.5])
