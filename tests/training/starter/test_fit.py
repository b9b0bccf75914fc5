from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.descent.checkpoint import CheckpointMismatch
from training.descent.curve import CURVE
from training.descent.schedule import parameter_groups
from training.starter.config import FitConfig
from training.starter.fit import Fit, Shards

CONFIG = FitConfig(steps=12, lr=0.01, warmup=2, ema_decay=0.9, save_every=5, log_every=4, threads=2)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def batch_at(step: int) -> tuple[Tensor, Tensor]:
    images = torch.randn(8, 1, 8, 8)
    return images, (images.mean((1, 2, 3)) > 0).long()


def loss_of(view: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(view(images), targets)


def fit(folder: Path, until: int | None = None, config: FitConfig = CONFIG) -> dict[str, Tensor]:
    model = network()
    run = Fit(model, parameter_groups(model, config.lr, 0.1), config, folder, {"data": "drawn"})
    run.run(batch_at, loss_of, until=until)
    return {**model.state_dict(), **{f"average.{name}": value for name, value in run.descent.average.items()}}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_repeats_itself_to_the_last_bit(tmp_path: Path) -> None:
    assert same(fit(tmp_path / "one"), fit(tmp_path / "two"))


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    # Stopped at step 7, two steps after its last checkpoint.
    fit(tmp_path / "killed", until=7)
    assert same(fit(tmp_path / "killed"), fit(tmp_path / "whole"))


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    other = FitConfig(**{**vars(CONFIG), "seed": 1})
    assert not same(fit(tmp_path / "one"), fit(tmp_path / "two", config=other))


def test_without_muon_everything_learns_with_adamw(tmp_path: Path) -> None:
    config = replace(CONFIG, muon=False)
    model, before = network(), network().state_dict()
    run = Fit(model, parameter_groups(model, config.lr, 0.1), config, tmp_path)
    run.run(batch_at, loss_of)
    assert [type(optimizer) for optimizer in run.descent.optimizers] == [torch.optim.AdamW]
    assert not any(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, until=5)
    model = network()
    with pytest.raises(CheckpointMismatch, match="other data or settings: choose another folder"):
        Fit(model, parameter_groups(model, 0.01, 0.1), CONFIG, tmp_path, {"data": "other"})


def test_the_curve_has_a_line_for_every_logged_step(tmp_path: Path) -> None:
    fit(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / CURVE).read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert all(line["of"] == 12 and line["loss"] > 0 for line in lines)


def test_evaluation_sees_the_averaged_weights_and_training_goes_on_with_its_own(tmp_path: Path) -> None:
    model = network()
    run = Fit(model, parameter_groups(model, 0.01, 0.1), CONFIG, tmp_path)
    seen: list[bool] = []

    def evaluate(evaluated: nn.Module) -> dict[str, float]:
        seen.append(same(dict(evaluated.state_dict()), run.descent.average) and not evaluated.training)
        return {"score": 1.0}

    run.run(batch_at, loss_of, evaluate)
    assert seen == [True]
    assert not same(dict(model.state_dict()), run.descent.average)


def test_shards_give_the_gradient_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    inputs = torch.randn(9, 4).bfloat16().float()  # one shard is larger

    def squares(view: nn.Module, part: Tensor) -> Tensor:
        return view(part).float().square().mean()

    loss, gradients = Shards(model, 2).backward((inputs,), squares)
    whole_loss, whole_gradients = Shards(model, 1).backward((inputs,), squares)
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    torch.testing.assert_close(gradients, whole_gradients, rtol=2e-2, atol=1e-2)
