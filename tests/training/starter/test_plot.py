from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from training.starter.fit import curves_plot


def curve_write(stage: Path, lines: list[dict[str, float]]) -> None:
    stage.mkdir()
    (stage / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_stage_gets_a_picture_of_its_loss_and_one_of_its_validation(tmp_path: Path) -> None:
    stage = tmp_path / "caption"
    losses = [
        {"step": step, "of": 40, "lr": 0.1, "loss": 5 - step / 10, "steps_per_s": 2.0} for step in (10, 20)
    ]
    curve_write(stage, [*losses, {"step": 20, "of": 40, "lr": 0.1, "cider_d": 12.0, "bleu_4": 3.0}])
    assert [path.name for path in curves_plot(stage)] == ["loss.svg", "validation.svg"]
    loss, validation = ((stage / name).read_text() for name in ("loss.svg", "validation.svg"))
    assert "Loss of caption" in "".join(ElementTree.fromstring(loss).itertext())  # noqa: S314  our own
    assert "cider_d" in validation
    assert "bleu_4" in validation
    assert "steps_per_s" not in loss + validation


def test_a_stage_without_validation_gets_no_picture_of_it(tmp_path: Path) -> None:
    curve_write(tmp_path / "run", [{"step": 1, "of": 2, "lr": 0.1, "loss": 1.0, "steps_per_s": 1.0}])
    assert [path.name for path in curves_plot(tmp_path / "run")] == ["loss.svg"]


def test_steps_done_again_after_a_resume_are_drawn_once(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": loss} for step, loss in ((10, 9.0), (20, 8.0), (10, 3.0), (20, 2.0))]
    curve_write(tmp_path / "run", lines)
    curves_plot(tmp_path / "run")
    drawn = (tmp_path / "run/loss.svg").read_text()
    assert drawn.count("<circle") == 2
    assert ">3</text>" in drawn  # the highest loss that counts is the top of the axis
