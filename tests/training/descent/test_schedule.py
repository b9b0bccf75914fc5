from __future__ import annotations

import pytest
import torch
from torch import nn

from training.descent.sampler import batch_indexes
from training.descent.schedule import parameter_groups, schedule


def test_the_learning_rate_warms_up_stays_and_decays_to_zero() -> None:
    shares = [schedule(step, 100, warmup=10, decay=0.2) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:81] == [1.0] * 72
    assert shares[90] == pytest.approx(0.5)
    assert shares[99] == pytest.approx(0.05)


def test_every_pass_visits_every_item_once_in_its_own_order() -> None:
    # Ten items in batches of four: the third batch spans two passes.
    drawn = torch.cat([batch_indexes(10, 4, seed=0, step=step) for step in range(5)]).tolist()
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


def test_matrices_decay_and_biases_do_not() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    decaying, others = parameter_groups(module, 0.1, 0.5)
    assert decaying == {"params": [module[0].weight], "lr": 0.1, "weight_decay": 0.5}
    assert others["weight_decay"] == 0.0
    assert [parameter.shape for parameter in others["params"]] == [(3,)] * 3
