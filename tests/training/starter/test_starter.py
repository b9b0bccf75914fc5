from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import VisionEncoderDecoderModel

from captioner.inference.loading import load_model
from tests.training.starter.drawn import captioned_files, sets_write, tar_write
from training.descent.checkpoint import CheckpointMismatch, checkpoint_read
from training.descent.curve import curve_read
from training.exceptions import DatasetError
from training.starter import __main__ as starter
from training.starter.caption import caption, photos_of
from training.starter.card import calibrate, figures_write
from training.starter.config import CaptionConfig, DecoderConfig, EncoderConfig, PretrainConfig, RewardConfig
from training.starter.export import export
from training.starter.network import Decoding
from training.starter.pretrain import pretrain
from training.starter.reward import reward

ENCODER = EncoderConfig(hidden_sizes=(8, 8, 8, 16), depths=(1, 1, 1, 1), heads=2)
DECODER = DecoderConfig(width=16, layers=1, heads=2, vocabulary=300)
PRETRAIN = PretrainConfig(passes=1.0, batch=20, size=32, first_passes=0.5, warmup=2, save_every=2)
CAPTION = CaptionConfig(passes=1.0, batch=4, captions_each=2, size=32, warmup=2, save_every=1, eval_every=2)
REWARD = RewardConfig(
    passes=1.0, batch=6, draws=2, max_tokens=4, size=64, warmup=1, save_every=1, eval_every=2
)

CAPTIONS_WITH_TRANSFORMERS_ALONE = """
import sys
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
folder = sys.argv[1]
model = AutoModelForImageTextToText.from_pretrained(folder)
pixels = AutoImageProcessor.from_pretrained(folder)(Image.new("RGB", (50, 40), "red"), return_tensors="pt")
tokens = model.generate(**pixels)
text = AutoTokenizer.from_pretrained(folder).batch_decode(tokens, skip_special_tokens=True)[0]
print(type(model).__name__, model.dtype, model.generation_config.num_beams, repr(text))
assert not any(name.split(".")[0] in ("training", "captioner") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sets_write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with all training stages done."""
    run = tmp_path_factory.mktemp("run")
    pretrain(data, run, PRETRAIN, ENCODER)
    caption(data, run, CAPTION, ENCODER, DECODER)
    reward(data, run, REWARD)
    return run


@pytest.fixture(scope="module")
def output(data: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("output")
    export(data, run, output, (Decoding(num_beams=2, max_new_tokens=6),), scales=(1.5,))
    return output


def test_pretraining_logs_its_accuracy_and_leaves_an_encoder(run: Path) -> None:
    last = json.loads((run / "pretrain/curve.jsonl").read_text().splitlines()[-1])
    assert 0.0 <= last["tiny_val_top1"] <= 1.0
    assert (run / "encoder/model.safetensors").exists()


def test_the_best_captioner_by_validation_score_is_kept(run: Path) -> None:
    curve = [json.loads(line) for line in (run / "caption/curve.jsonl").read_text().splitlines()]
    scores = [line["cider_d"] for line in curve if "cider_d" in line]
    assert len(scores) == 3
    assert json.loads((run / "captioner/val.json").read_text())["cider_d"] == pytest.approx(
        max(scores), rel=1e-3
    )


def test_captioning_killed_and_continued_ends_with_the_same_weights(
    data: Path, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "encoder").symlink_to(run / "encoder")
    (tmp_path / "cache").symlink_to(run / "cache")
    caption(data, tmp_path, CAPTION, ENCODER, DECODER, until=2)
    caption(data, tmp_path, CAPTION, ENCODER, DECODER)
    ours, theirs = (checkpoint_read(r / "caption") for r in (tmp_path, run))
    assert curve_read(tmp_path / "caption")[-1]["step"] == (8 + CAPTION.coco_visits * 4 + 4) // CAPTION.batch
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_learning_from_rewards_killed_and_continued_ends_with_the_same_weights(
    data: Path, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "captioner").symlink_to(run / "captioner")
    (tmp_path / "cache").symlink_to(run / "cache")
    reward(data, tmp_path, REWARD, until=2)
    reward(data, tmp_path, REWARD)
    ours, theirs = (checkpoint_read(r / "reward") for r in (tmp_path, run))
    assert curve_read(tmp_path / "reward")[-1]["step"] == (12 + REWARD.coco_visits * 4) // REWARD.batch
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_rewards_that_only_harm_leave_the_captioner_as_it_was(
    data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "captioner").symlink_to(run / "captioner")
    (tmp_path / "cache").symlink_to(run / "cache")
    scores = iter((10.0, 9.0, 8.0))
    monkeypatch.setattr("training.starter.caption.caption_figures", lambda *_: {"cider_d": next(scores)})
    reward(data, tmp_path, REWARD)
    assert json.loads((tmp_path / "rewarded/val.json").read_text()) == {"cider_d": 10.0}
    before, after = (
        VisionEncoderDecoderModel.from_pretrained(tmp_path / name).decoder.state_dict()
        for name in ("captioner", "rewarded")
    )
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_rewards_of_another_captioner_are_not_continued(data: Path, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "captioner", tmp_path / "captioner")
    (tmp_path / "cache").symlink_to(run / "cache")
    reward(data, tmp_path, REWARD, until=1)
    model = VisionEncoderDecoderModel.from_pretrained(tmp_path / "captioner")
    with torch.no_grad():
        model.decoder.transformer.ln_f.weight.add_(1.0)
    model.save_pretrained(tmp_path / "captioner")
    with pytest.raises(CheckpointMismatch, match="other data or settings"):
        reward(data, tmp_path, REWARD)


def test_what_an_older_run_left_is_not_the_best_of_a_new_one(data: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "captioner").symlink_to(run / "captioner")
    (tmp_path / "cache").symlink_to(run / "cache")
    (tmp_path / "rewarded").mkdir()
    (tmp_path / "rewarded/val.json").write_text('{"cider_d": 1000.0}')
    reward(data, tmp_path, REWARD, until=1)
    assert json.loads((tmp_path / "rewarded/val.json").read_text())["cider_d"] < 1000.0
    assert (tmp_path / "rewarded/model.safetensors").exists()


def test_a_set_without_photos_is_told(data: Path, tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    with pytest.raises(DatasetError, match="coco has no train photos"):
        photos_of(tmp_path, "coco", "train")


@pytest.mark.parametrize(
    "record",
    [{"has_name": True}, {"sensitive": True}, {"photo_rights": "NC/ND/all-rights wording"}],
    ids=lambda record: next(iter(record)),
)
def test_photos_that_are_not_fit_to_teach_are_left_out(tmp_path: Path, record: dict[str, object]) -> None:
    files = captioned_files("train", 3) | {
        f"left out {name}": data for name, data in captioned_files("train", 2, **record).items()
    }
    tar_write(tmp_path / "books/photos.tar", files)
    assert len(photos_of(tmp_path, "books", "train")) == 3
    assert len(photos_of(tmp_path, "books", "train", without={"books/train1"})) == 2


def test_copies_of_validation_photos_are_not_trained_on(run: Path, tmp_path: Path) -> None:
    data = sets_write(tmp_path / "data")
    files, held_out = captioned_files("train", 12), captioned_files("val", 8)
    files["copy.png"] = held_out["val3.png"]
    files["copy.json"] = files["train0.json"]
    tar_write(data / "flickr8k/train.tar", files)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/encoder").symlink_to(run / "encoder")
    caption(data, tmp_path / "run", CAPTION, ENCODER, DECODER, until=1)
    [pixels] = (tmp_path / "run/cache").glob("flickr8k-train-*.npy")
    assert len(np.load(pixels)) == 12


def test_the_exported_folder_captions_with_transformers_alone(output: Path) -> None:
    command = [sys.executable, "-c", CAPTIONS_WITH_TRANSFORMERS_ALONE, str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("VisionEncoderDecoderModel torch.float32 2 '")


def test_exported_weights_are_half_precision_and_complete(output: Path) -> None:
    with safe_open(output / "model.safetensors", "pt") as weights:
        kinds = {weights.get_tensor(name).dtype for name in weights.keys()}  # noqa: SIM118
    assert kinds <= {torch.float16, torch.int64}
    _, report = VisionEncoderDecoderModel.from_pretrained(output, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_photos_are_enlarged_as_the_export_says(run: Path, output: Path) -> None:
    trained, shipped = (
        VisionEncoderDecoderModel.from_pretrained(folder).config.encoder.image_size
        for folder in (run / "rewarded", output)
    )
    assert (trained, shipped) == (64, 96)
    assert json.loads((output / "preprocessor_config.json").read_text())["size"] == {
        "height": 96,
        "width": 96,
    }
    assert "squashed to 96x96 pixels" in (output / "README.md").read_text()


def test_what_scores_best_is_exported(
    data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Captions of a few steps' training all score 0: the scores are given, all else is real.
    # The best mean of both sets, and the best on neither alone.
    scores = iter((10.0, 10.0, 99.0, 20.0, 70.0, 60.0, 20.0, 99.0))
    monkeypatch.setattr("training.starter.export.caption_figures", lambda *_: {"cider_d": next(scores)})
    decodings = (Decoding(num_beams=2, max_new_tokens=6), Decoding(max_new_tokens=6))
    export(data, run, tmp_path, decodings, scales=(1.0, 1.5))
    shipped = VisionEncoderDecoderModel.from_pretrained(tmp_path)
    assert shipped.config.encoder.image_size == 96
    assert shipped.generation_config.num_beams == 2


def test_the_model_card_names_sets_and_terms(output: Path) -> None:
    card = (output / "README.md").read_text()
    assert "Decoding by default: `num_beams=2`" in card
    assert "non-commercial research and education" in card
    assert "import_model" in card
    attribution = (output / "ATTRIBUTION.md").read_text()
    assert "Hodosh" in attribution
    assert attribution.count("- book/1.jpg: (credit: A. Uthor)") == 2


def test_the_model_card_is_told_how_good_the_weights_are(data: Path, output: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(output, tmp_path / "starter"))
    for _ in range(2):  # a second judgement takes the place of the first
        figures_write(data, folder)
    card = (folder / "README.md").read_text()
    assert card.count("## Figures\n") == 1
    assert "### flickr8k val, 8 photos" in card
    assert "| 2 beams, as shipped |" in " ".join(card.split())
    assert card.index("### coco val") < card.index("## Known weaknesses")


def test_the_weights_are_calibrated_and_their_card_says_how_well(
    data: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(output, tmp_path / "starter"))
    # Captions of a few steps' training are never accepted: the scores are given, all else is real.
    scores = SimpleNamespace(cider_d_each=(0.0, 0.0, 100.0, 100.0) * 2)
    monkeypatch.setattr("training.starter.card.captions_score", lambda *_: scores)
    for _ in range(2):  # a second fit takes the place of the first
        calibration = calibrate(data, folder)
    assert load_model(folder).calibration == calibration
    card = (folder / "README.md").read_text()
    assert card.count("## Confidence") == 1
    assert card.index("## Confidence") < card.index("## Known weaknesses")
    assert "Fitted on one half of the 8 flickr8k val photos, it says this of the other half" in card
    assert "Hodosh" in card


def test_unknown_stages_are_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        starter.main(["dream", "--data", "x", "--run", "y"])
    assert (
        "choose from eye, words, base, pretrain, caption, reward, export, calibrate"
        in capsys.readouterr().err.replace("'", "")
    )
