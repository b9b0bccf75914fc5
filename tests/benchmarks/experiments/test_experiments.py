"""The experiments, small. No figure is asserted."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.experiments import __main__ as command
from tests.benchmarks.experiments import bench, runs
from tests.captioner.inference.checkpoints import save_vit_gpt2
from tests.training.starter.drawn import captioned_files, sheet_draw, tar_write
from training.learning.config import LearnConfig

KINDS = ("flower_photos/daisy", "houses/kitchen", "imagenette/church", "sun_scenes/desert")


def data_write(data: Path) -> Path:
    tar_write(data / "flickr8k/train.tar", captioned_files("train", 6))
    tar_write(data / "flickr8k/val.tar", captioned_files("val", 4))
    tar_write(data / "labelled/sheets.tar", {"sheet-0000.png": sheet_draw(96, list(range(40)))})
    (data / "labelled/labels.json").write_text(json.dumps({"sheet-0000": list(KINDS) * 10}))
    return data


def test_corrections_are_learned_scored_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bench, runs):
        monkeypatch.setattr(module, "HOLDOUT_PHOTOS", 8)
    monkeypatch.setattr(runs, "SIZES", (4, 8))
    monkeypatch.setattr(runs, "CONFIG", LearnConfig(threads=1, batch=2, min_steps=4, max_steps=4))
    base, results = tmp_path / "tiny", tmp_path / "results"
    save_vit_gpt2(base, max_new_tokens=6)
    data = data_write(tmp_path / "data")
    command.main(["e1", "--data", str(data), "--folder", str(results), "--base", str(base), "--seeds", "1"])
    rows = [json.loads(line) for line in (results / "e1.jsonl").read_text().splitlines()]
    assert [row["corrections"] for row in rows] == [4, 8]
    assert all({"domain", "original", "verdict"} <= row.keys() for row in rows)
    assert (results / "e1.svg").read_text().startswith("<svg")
