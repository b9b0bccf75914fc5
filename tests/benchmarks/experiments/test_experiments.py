"""The experiments, small. No figure is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from captioner.inference.predictor import Predictor
from tests.benchmarks.experiments import __main__ as command
from tests.benchmarks.experiments import e1, e3
from tests.captioner.inference.checkpoints import save_vit_gpt2
from tests.photos import draw_scene
from tests.training.starter.drawn import tar_write
from training.learning.config import LearnConfig
from training.learning.model import FeatureCaptioner


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawings that five people describe, half of them at the water."""
    folder = tmp_path_factory.mktemp("data")
    for split, first, count in (("train", 0, 20), ("val", 20, 12)):
        files: dict[str, bytes] = {}
        for number in range(first, first + count):
            place = "in the water" if number % 2 else "on the grass"
            captions = [
                f"a dog of {who} number {number} is {place}" for who in ("Ada", "Bob", "Cem", "Dan", "Eva")
            ]
            files[f"{number}.jpg"] = draw_scene(number)
            files[f"{number}.json"] = json.dumps({"captions": captions, "split": split}).encode()
        tar_write(folder / f"flickr8k/{split}.tar", files)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_vit_gpt2(folder, max_new_tokens=6)
    return folder


def test_corrections_are_learned_averaged_and_scored(
    data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(e1, "CONFIG", LearnConfig(threads=1, batch=2, max_steps=2, eval_every=1))
    options = ["--data", str(data), "--base", str(base), "--folder", str(tmp_path), "--seeds", "1"]
    command.main(["e1", *options, "--sizes", "4", "8"])
    rows = [json.loads(line) for line in (tmp_path / "e1.jsonl").read_text().splitlines()]
    assert [(row["case"], row["corrections"]) for row in rows] == [
        ("as written", 4),
        ("shuffled", 4),
        ("as written", 8),
        ("shuffled", 8),
        ("all seeds", 4),
        ("all seeds", 8),
    ]
    assert all(row["domain"]["photos"] == 8 and row["original"]["photos"] == 6 for row in rows)
    assert all(0 <= row["share"] <= 1 for row in rows[:4])
    assert rows[-1]["domain"] == rows[2]["domain"], "of one seed"
    assert rows[-1]["met"].keys() == {"gain", "original", "repeated", "more_than_shuffled"}
    assert FeatureCaptioner.load(tmp_path / "candidates/8"), "which E3 takes for its base"
    command.main(["e1", *options, "--sizes", "4", "--minutes", "0.0001"])
    assert (tmp_path / "e1.jsonl").read_text() == "", "nothing is begun that would end later"
    assert (tmp_path / "e1.svg").read_text().startswith("<svg")


def test_two_nights_are_measured_up_to_the_first_step(data: Path, base: Path, tmp_path: Path) -> None:
    """In a process of its own, whose database is its own."""
    options = ["--data", str(data), "--base", str(base), "--folder", str(tmp_path), "--sizes", "40"]
    run = [sys.executable, "-m", "tests.benchmarks.experiments", "e9", *options]
    told = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    first, second = map(json.loads, told.splitlines())
    assert second["encoded"] <= 40 < first["encoded"], "the photos of the day alone"
    assert first["stages"][-1] == second["stages"][-1] == "Learning"


def test_memory_finds_copies_and_ranks_the_captions_of_photos_like_it(
    data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(e3, "COPIED", 3)
    options = ["--data", str(data), "--base", str(base), "--folder", str(tmp_path), "--seeds", "1"]
    command.main(["e3", *options, "--sizes", "4", "8", "--photos", "4"])
    rows = [json.loads(line) for line in (tmp_path / "e3.jsonl").read_text().splitlines()]
    same = {row["copy"]: row["right"] for row in rows if row["asked"] == "the same photo"}
    assert same.keys() == e3.COPIES.keys()
    assert same["as it was"] == 3
    assert {
        (row["asked"], row["corrections"], row["shuffled"]) for row in rows if row.get("case") == "all seeds"
    } == {
        (asked, count, shuffled)
        for asked in ("photos like it", "unrelated photos")
        for count in (4, 8)
        for shuffled in (False, True)
    }
    monkeypatch.setattr(Predictor, "look", None)  # what was seen of the photos is kept
    command.main(["e3", *options, "--sizes", "4", "8", "--photos", "4"])


def test_blind_votes_promote_by_how_many_prefer_the_candidate(tmp_path: Path) -> None:
    command.main(["e8", "--folder", str(tmp_path), "--sizes", "200"])
    rows = {row["prefer"]: row for row in map(json.loads, (tmp_path / "e8.jsonl").read_text().splitlines())}
    assert rows[0.5]["preferred"] < rows[0.6]["preferred"] < rows[0.7]["preferred"] <= rows[0.8]["preferred"]
