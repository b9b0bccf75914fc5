from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.starter.fit import Dropout, Shards, dropout_insert


def total(view: nn.Module, inputs: Tensor) -> Tensor:
    return view(inputs).sum()


def test_a_share_is_zeroed_and_the_mean_is_kept() -> None:
    dropout, inputs = Dropout(0.25).train(), torch.ones(10_000)
    torch.manual_seed(0)
    outputs = dropout(inputs)
    assert (outputs == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    assert outputs.mean() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(dropout.eval()(inputs), inputs)


def test_threads_draw_different_masks_and_repeat_them() -> None:
    model, inputs = nn.Sequential(nn.Linear(1, 1, bias=False), Dropout(0.5)), torch.ones(64, 1)
    model[0].weight.data.fill_(1.0)
    shards = Shards(model, 2)

    def masks(seed: int, first: int) -> tuple[Tensor, Tensor]:
        """What the views draw after a step, whichever of them is first."""
        torch.manual_seed(seed)
        shards.backward((inputs,), total)
        drawn = {index: shards.views[index](inputs) for index in (first, 1 - first)}
        return drawn[0], drawn[1]

    one, other = masks(seed=0, first=0)
    again, other_again = masks(seed=0, first=1)
    assert torch.equal(one, again)
    assert torch.equal(other, other_again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, masks(seed=1, first=0)[0])


def test_attention_alone_keeps_the_dropout_of_torch(captioner: Any) -> None:
    dropout_insert(captioner, 0.1)
    left = {
        name.rpartition(".")[2]
        for name, module in captioner.named_modules()
        if isinstance(module, nn.Dropout)
    }
    assert left == {"attn_dropout"}
    block = captioner.decoder.transformer.h[0]
    for module in (block.attn.resid_dropout, block.crossattention.resid_dropout, block.mlp.dropout):
        assert isinstance(module, Dropout)
