from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from training.starter.fit import UPDATE_RMS, Muon, groups_split, matrices_of, orthogonalise


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    near = orthogonalise(matrix)
    turned = left.T @ near @ right.T
    assert turned.diagonal().min() > 0.6
    assert turned.diagonal().max() < 1.3
    assert (turned - turned.diagonal().diag()).abs().max() < 1e-2


def test_filters_take_steps_of_one_size_whatever_the_gradients() -> None:
    torch.manual_seed(0)
    small, large = (nn.Parameter(torch.zeros(8, 4, 3, 3)) for _ in range(2))
    small.grad = torch.randn(8, 4, 3, 3) * 1e-6
    large.grad = torch.randn(8, 4, 3, 3) * 1e6
    with ThreadPoolExecutor(2) as pool:
        Muon([{"params": [small, large]}], 0.01, pool).step()
    for parameter in (small, large):
        assert float(parameter.detach().square().mean().sqrt()) == pytest.approx(0.01 * UPDATE_RMS, rel=0.3)
        assert (parameter * parameter.grad).sum() < 0


def test_weights_decay_apart_from_the_gradient() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.zeros(2, 2)
    with ThreadPoolExecutor(1) as pool:
        Muon([{"params": [parameter], "weight_decay": 0.5}], 0.1, pool).step()
    assert torch.allclose(parameter, torch.full((2, 2), 0.95))


def test_it_takes_the_matrices_of_hidden_layers_and_leaves_embeddings_outputs_and_gains() -> None:
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, add_cross_attention=True)
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    chosen = {names[id(parameter)].removeprefix("transformer.h.0.") for parameter in matrices_of(model)}
    assert chosen == {
        f"{layer}.weight"
        for layer in (
            "attn.c_attn",
            "attn.c_proj",
            "crossattention.c_attn",
            "crossattention.q_attn",
            "crossattention.c_proj",
            "mlp.c_fc",
            "mlp.c_proj",
        )
    }


def test_groups_keep_their_settings_and_lose_no_parameter() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    groups = [
        {"params": [model[0].weight], "lr": 0.1, "weight_decay": 0.5},
        {"params": [model[0].bias, *model[1].parameters()], "lr": 0.2, "weight_decay": 0.0},
    ]
    matrices, others = groups_split(groups, matrices_of(model))
    assert [(group["lr"], group["params"][0] is model[0].weight) for group in matrices] == [(0.1, True)]
    assert [(group["lr"], len(group["params"])) for group in others] == [(0.2, 3)]
