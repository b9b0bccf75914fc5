"""A descent that is told by an evaluation when to stop ends with its best weights, wherever it was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from training.descent.config import DescentConfig
from training.descent.curve import Figures, curve_read
from training.descent.loop import Descent
from training.descent.schedule import parameter_groups

CONFIG = DescentConfig(
    40, 0.1, warmup=1, decay=0.0, save_every=3, log_every=1, eval_every=2, patience=3, watched="apart"
)


def descent(folder: Path, target: float = 1.0) -> tuple[nn.Linear, Descent]:
    torch.manual_seed(0)
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model, Descent(model, parameter_groups(model, 0.1, 0.0), CONFIG, folder, target)


def run(folder: Path, best: float, until: int | None = None) -> tuple[nn.Linear, Descent]:
    """It moves away from 0 towards 10; what is watched says that `best` is the place to be."""
    model, descending = descent(folder)

    def gradients(_: int) -> Figures:
        loss = (model.weight - 10).square().sum()
        loss.backward()
        return {"loss": float(loss.detach())}

    descending.run(gradients, lambda m: {"apart": float((m.weight - best).abs().detach())}, until=until)
    return model, descending


def test_it_stops_and_goes_back_to_where_it_was_best(tmp_path: Path) -> None:
    model, descending = run(tmp_path, best=0.8)
    assert descending.step < 40
    assert float(model.weight.detach()) == pytest.approx(0.8, abs=0.15)
    assert descending.best_seen.tolist()[1] == descending.step - 6, (
        "three evaluations, two steps apart, were waited for"
    )
    seen = curve_read(tmp_path)
    assert [line["step"] for line in seen] == list(range(1, descending.step + 1))
    assert [line["step"] for line in seen if "apart" in line] == list(range(2, descending.step + 1, 2))


def test_where_nothing_gets_better_it_ends_with_the_weights_it_began_with(tmp_path: Path) -> None:
    model, descending = run(tmp_path, best=-1.0)
    assert (float(model.weight.detach()), descending.step) == (0.0, 6)


@pytest.mark.parametrize("killed", [1, 3, 7, 10, 13])
def test_killed_anywhere_it_ends_with_the_same_weights(tmp_path: Path, killed: int) -> None:
    whole, _ = run(tmp_path / "whole", best=0.8)
    run(tmp_path / "cut", best=0.8, until=killed)
    again, _ = run(tmp_path / "cut", best=0.8)
    assert torch.equal(whole.weight, again.weight)
    once_more, done = run(tmp_path / "cut", best=0.8)
    assert torch.equal(whole.weight, once_more.weight), "one that has ended ends at once"
    assert done.step == descent(tmp_path / "cut")[1].step
