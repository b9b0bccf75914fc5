"""`manage.py evaluate` on drawn photos, with a tiny random checkpoint of every class that the engine serves."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from django.core.management import CommandError, call_command

from captioner.inference.calibration import Calibration
from captioner.inference.predictor import Predictor
from tests.captioner.inference.checkpoints import SAVERS
from tests.photos import scene_image
from tests.training.starter.drawn import captioned_files, encoded, shape_draw, tar_write
from training.data.photo_sets import photo_sets_read
from training.exceptions import DatasetError
from training.judging.quality import report as tables
from training.judging.quality.contact_sheet import sections
from training.judging.quality.evaluation import Evaluation, decodings, evaluate


def five_captions(split: str, count: int) -> dict[str, bytes]:
    """Photos of two to three subjects with five captions each; no photo of one split is in the other."""
    files = {}
    for index in range(count):
        colour = ("red", "green", "blue")[index % 3]
        image = scene_image((split, index))
        captions = [
            f"{number} {colour} things of {split} {index}" for number in ("one", "two", "a", "some", "all")
        ]
        files[f"{split}{index}.png"] = encoded(image)
        files[f"{split}{index}.json"] = json.dumps({"captions": captions, "split": split}).encode()
    return files


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    tar_write(data / "five/train.tar", five_captions("train", 6))
    tar_write(data / "five/val.tar", five_captions("val", 4))
    tar_write(data / "two/photos.tar", captioned_files("test", 4))
    tar_write(data / "sheets/sheets.tar", {"sheet-0.png": encoded(shape_draw(20, "red", "circle"))})
    return data


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    SAVERS["vit_gpt2"](folder)
    Calibration(1.0, 0.0, "drawn").write(folder)
    return folder


@pytest.fixture(scope="module")
def evaluation(data: Path, checkpoint: Path) -> Evaluation:
    return evaluate(checkpoint, photo_sets_read([data]))


def test_every_split_but_train_gets_a_table_with_baselines_and_people(evaluation: Evaluation) -> None:
    assert [(report.name, report.split) for report in evaluation.reports] == [
        ("five", "val"),
        ("two", "test"),
    ]
    five, two = evaluation.reports
    ways = [row.way for row in five.rows]
    assert ways[:2] == ["constant caption", "nearest neighbour"]
    assert ways[-1] == "people"
    assert (five.rows[0].references, five.rows[-1].references) == (5, 4)
    assert "people" not in [row.way for row in two.rows], "its photos have two captions"
    for row in five.rows:
        assert set(tables.COLUMNS) <= set(row.figures)


def test_baselines_know_training_captions_only(evaluation: Evaluation) -> None:
    for report in evaluation.reports:
        assert "of train" in report.constant
        assert all("of train" in each.neighbour for each in report.photos)


def test_captions_are_those_that_would_be_served(
    evaluation: Evaluation, checkpoint: Path, data: Path
) -> None:
    served = Predictor.load(checkpoint, model_version="x", num_threads=1)
    parameters = list(decodings(served.default_parameters).values())[-1]
    [report, _] = evaluation.reports
    for each, image in zip(report.photos, _images(report.photos), strict=True):
        [[best, *_]] = served.predict(served.preprocess(image)[None], parameters)
        assert each.candidates[0].caption == best.caption


def _images(photos):
    import io

    from PIL import Image

    return [Image.open(io.BytesIO(each.photo.data)).convert("RGB") for each in photos]


def test_the_confidence_is_held_against_acceptance(evaluation: Evaluation) -> None:
    for report in evaluation.reports:
        assert sum(each.count for each in report.reliability) == len(report.photos)


@pytest.mark.parametrize("family", sorted(set(SAVERS) - {"vit_gpt2"}))
def test_every_class_that_is_served_can_be_judged(family: str, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    SAVERS[family](tmp_path / "weights")
    found = evaluate(tmp_path / "weights", photo_sets_read([data / "five"]), limit=2)
    [report] = found.reports
    assert len(report.photos) == 2
    assert report.reliability == [], "it was never calibrated"


def test_training_photos_that_repeat_a_photo_to_be_judged_on_are_no_neighbours(
    data: Path, checkpoint: Path
) -> None:
    sets = photo_sets_read([data / "five"])
    [val, *_] = sets["five"]["val"]
    sets["five"]["train"].append(replace(val, key="copy", captions=("the answer of train",)))
    found = evaluate(checkpoint, sets)
    assert (found.left_out, found.train_photos) == (1, 6)
    assert all(each.neighbour != "the answer of train" for each in found.reports[0].photos)


def test_without_photos_to_judge_on_or_to_learn_from_it_says_so(data: Path, checkpoint: Path) -> None:
    sets = photo_sets_read([data / "five"])
    with pytest.raises(DatasetError, match="nothing to judge on"):
        evaluate(checkpoint, {"five": {"train": sets["five"]["train"]}})
    with pytest.raises(DatasetError, match="No photo is of the split train"):
        evaluate(checkpoint, {"five": {"val": sets["five"]["val"]}})


def test_the_sheet_shows_the_same_photos_again_and_none_of_a_test_split(evaluation: Evaluation) -> None:
    once, again = (sections(evaluation, photos=3) for _ in range(2))
    assert once == again
    assert [section.title for section in once] == ["five val"]
    assert [entry.number for entry in once[0].entries] == [1, 2, 3]
    others = {
        tuple(entry.references[0] for entry in sections(evaluation, 2, seed)[0].entries) for seed in range(9)
    }
    assert len(others) > 1, "the seed chooses"


def test_the_command_writes_report_figures_and_one_page_and_prints_the_tables(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command(
        "evaluate", str(checkpoint), "--data", str(data), "--folder", str(tmp_path / "out"), "--photos", "3"
    )
    shown, progress = capsys.readouterr()
    assert "five val, 3 photos" in shown
    assert "nearest neighbour" in shown
    assert "five val" in progress
    report = " ".join((tmp_path / "out/evaluation.md").read_text().split())
    assert "| constant caption | 5 |" in report
    figures = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert [(each["set"], len(each["photos"])) for each in figures["sets"]] == [("five", 3), ("two", 3)]
    page = (tmp_path / "out/contact_sheet.html").read_text()
    assert page.count('<li class="sheet-card">') == 3
    assert page.count("data:image/jpeg;base64,") == 3
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page), "it is one file"


@pytest.mark.django_db
def test_weights_and_data_that_are_not_there_are_named(data: Path, tmp_path: Path) -> None:
    out = ("--folder", str(tmp_path / "out"))
    with pytest.raises(CommandError, match="nobody is no folder, and no version"):
        call_command("evaluate", "nobody", "--data", str(data), *out)
    with pytest.raises(CommandError, match="holds no captioned photos"):
        call_command("evaluate", "--data", str(tmp_path), *out)
    with pytest.raises(CommandError, match="at least 1"):
        call_command("evaluate", "--data", str(data), "--photos", "0", *out)
