"""Every family the engine serves learns, is saved as a checkpoint the engine loads, and resumes to the same weights."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.exceptions import IncompatibleModel
from captioner.inference.predictor import Predictor
from tests.captioner.inference.checkpoints import SAVERS, SENTENCES
from training.descent.checkpoint import CHECKPOINT, CheckpointMismatch
from training.descent.curve import curve_read
from training.judging.captioning import features_caption
from training.judging.golden import golden_check
from training.learning.config import LearnConfig
from training.learning.finetune import Correction, Finetuning, Replay, TrainingSet
from training.learning.model import FeatureCaptioner, labels_pad
from training.learning.objective import IGNORED, caption_cross_entropy

CONFIG = LearnConfig(batch=2, passes=8, warmup=2, save_every=3, eval_every=4, threads=1, lr=3e-3)
STARTER = Path(__file__).parents[3] / "models_registry/starter"
COLOURS = ("red", "green", "blue", "white")


@pytest.fixture(scope="module", params=sorted(SAVERS))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)  # what a saver does not set itself
    folder = tmp_path_factory.mktemp(request.param)
    SAVERS[request.param](folder)
    return folder


@pytest.fixture(scope="module")
def vit_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    SAVERS["vit_gpt2"](folder)
    return folder


def training_set(captioner: FeatureCaptioner, folder: Path) -> TrainingSet:
    images = [Image.new("RGB", (40, 32), colour) for colour in COLOURS]
    features = captioner.encode_images(images)
    corrections = [Correction(n, SENTENCES[n]) for n in range(2)]
    return TrainingSet(features, corrections, [Replay(3, SENTENCES[3])], [Correction(2, SENTENCES[2])])


def learn(
    base: Path, folder: Path, config: LearnConfig = CONFIG, until: int | None = None, to_the_end: bool = False
) -> FeatureCaptioner:
    """Learn, `to_the_end` without an inner split that would say which step was best."""
    captioner = FeatureCaptioner.load(base)
    data = training_set(captioner, folder)
    data = replace(data, inner=()) if to_the_end else data
    Finetuning(captioner, data, config, folder / "run", "test").run(until=until)
    return captioner


def weights(captioner: FeatureCaptioner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in captioner.parts.model.state_dict().items()}


def test_captions_from_cached_features_are_those_from_pixels(checkpoint: Path, tmp_path: Path) -> None:
    captioner = FeatureCaptioner.load(checkpoint)
    data = training_set(captioner, tmp_path)
    served = Predictor.load(checkpoint, model_version="x", num_threads=1)
    pixels = torch.stack([served.preprocess(Image.new("RGB", (40, 32), colour)) for colour in COLOURS])
    expected = [best.caption for best, *_ in served.predict(pixels, served.default_parameters)]
    assert features_caption(captioner.predictor(), data.features) == expected


def test_log_probabilities_are_those_the_engine_logs(checkpoint: Path, tmp_path: Path) -> None:
    """Teacher forcing here and decoding there must agree, or the losses compare with something never served."""
    captioner = FeatureCaptioner.load(checkpoint)
    features = torch.from_numpy(training_set(captioner, tmp_path).features)
    predictor = captioner.predictor()
    parameters = replace(predictor.default_parameters, num_beams=1, max_new_tokens=6)
    [[best, *_]] = predictor.predict(features[:1, None], parameters)
    ids = predictor._decode(features[:1, None], parameters)[0][0].token_ids
    labels = labels_pad([ids])
    with torch.no_grad():
        ours = caption_cross_entropy(captioner.logits(features[:1], labels), labels).item()
    assert -ours == pytest.approx(float(np.mean(best.token_log_probabilities)), abs=1e-4)


def test_padding_changes_no_log_probability(checkpoint: Path, tmp_path: Path) -> None:
    captioner = FeatureCaptioner.load(checkpoint)
    features = torch.from_numpy(training_set(captioner, tmp_path).features)
    short = captioner.tokenise("a dog", 20)
    alone, padded = labels_pad([short]), labels_pad([short, captioner.tokenise(SENTENCES[0], 20)])
    assert (padded[0] == IGNORED).any()
    with torch.no_grad():
        one = caption_cross_entropy(captioner.logits(features[:1], alone), alone)
        two = caption_cross_entropy(captioner.logits(features[:2], padded)[:1], padded[:1])
    assert two.item() == pytest.approx(one.item(), abs=1e-4)


def test_it_learns_what_people_wrote_and_the_engine_loads_it(checkpoint: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, passes=40)
    captioner = FeatureCaptioner.load(checkpoint)
    data = replace(training_set(captioner, tmp_path), inner=())
    learning = Finetuning(captioner, data, config, tmp_path / "run", "test")
    learning.run()
    seen = curve_read(tmp_path / "run")
    assert seen[-1]["ideal"] < 0.8 * seen[0]["ideal"]
    captioner.save(tmp_path / "candidate")
    again = FeatureCaptioner.load(tmp_path / "candidate")
    said, expected = (features_caption(each.predictor(), data.features) for each in (again, captioner))
    assert said == expected
    base = FeatureCaptioner.load(checkpoint)
    for name, value in base.encoder.state_dict().items():
        assert torch.equal(value, again.encoder.state_dict()[name]), "the encoder stays what it was"
    for other in checkpoint.glob("*.json"):
        assert (tmp_path / "candidate" / other.name).read_bytes() == other.read_bytes()


def test_what_was_learned_from_the_starter_can_be_loaded_elsewhere_as_it_can(tmp_path: Path) -> None:
    FeatureCaptioner.load(STARTER).save(tmp_path / "candidate")
    own = {"README.md", "calibration.json"}  # which each version has of its own
    kept = {path.name for path in (tmp_path / "candidate").iterdir()}
    assert {path.name for path in STARTER.iterdir()} - kept <= own
    elsewhere = (
        "import sys; from transformers import AutoModelForImageTextToText as Auto\n"
        "print(type(Auto.from_pretrained(sys.argv[1], trust_remote_code=True)).__module__)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", elsewhere, str(tmp_path / "candidate")],
        cwd=tmp_path,
        env={"HF_HOME": str(tmp_path / "hub"), "PATH": ""},
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.startswith("transformers_modules."), "its own code, not ours"


def test_adapters_learn_and_are_merged_into_plain_weights(checkpoint: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, lora_above=0, lora_rank=2, lora_lr=1e-2)
    captioner = learn(checkpoint, tmp_path, config, to_the_end=True)
    base = FeatureCaptioner.load(checkpoint)
    captioner.save(tmp_path / "candidate")
    again = FeatureCaptioner.load(tmp_path / "candidate")
    changed = [
        n
        for n, v in base.parts.model.state_dict().items()
        if not torch.equal(v, again.parts.model.state_dict()[n])
    ]
    assert changed
    assert not [name for name in changed if "embed" in name or "wte" in name], "attention alone was adapted"
    assert base.parts.model.state_dict().keys() == again.parts.model.state_dict().keys()


def test_two_runs_are_the_same_to_the_bit(vit_gpt2: Path, tmp_path: Path) -> None:
    one, two = (weights(learn(vit_gpt2, tmp_path / name)) for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("stop", [3, 4, 5])
def test_a_run_that_was_stopped_ends_with_the_same_weights(vit_gpt2: Path, tmp_path: Path, stop: int) -> None:
    whole = weights(learn(vit_gpt2, tmp_path / "whole"))
    learn(vit_gpt2, tmp_path / "cut", until=stop)
    resumed = weights(learn(vit_gpt2, tmp_path / "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    curves = [(tmp_path / name / "run/curve.jsonl").read_text() for name in ("whole", "cut")]
    assert curves[0] == curves[1]


def test_adapters_resume_to_the_same_weights(vit_gpt2: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, lora_above=0, lora_rank=2)
    whole = weights(learn(vit_gpt2, tmp_path / "whole", config))
    learn(vit_gpt2, tmp_path / "cut", config, until=4)
    resumed = weights(learn(vit_gpt2, tmp_path / "cut", config))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


_LEARNER = """
import sys, time
from pathlib import Path
from tests.training.learning.test_learning import CONFIG, learn
base, folder = Path(sys.argv[1]), Path(sys.argv[2])
from training.learning.finetune import Finetuning
gradients = Finetuning.gradients
def slow(self, step):
    time.sleep(0.1)
    return gradients(self, step)
Finetuning.gradients = slow
learn(base, folder).save(folder / "candidate")
"""


def test_killed_again_and_again_it_ends_with_the_same_weights(vit_gpt2: Path, tmp_path: Path) -> None:
    learn(vit_gpt2, tmp_path / "whole").save(tmp_path / "whole/candidate")
    command = [sys.executable, "-c", _LEARNER, str(vit_gpt2), str(tmp_path / "killed")]
    checkpoint = tmp_path / "killed/run" / CHECKPOINT
    for _ in range(2):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        child = subprocess.Popen(command)
        while (
            child.poll() is None and (checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0) == before
        ):
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert subprocess.run(command, check=False).returncode == 0
    hashes = {
        hashlib.sha256((tmp_path / name / "candidate/model.safetensors").read_bytes()).hexdigest()
        for name in ("whole", "killed")
    }
    assert len(hashes) == 1


def test_a_checkpoint_of_other_data_or_settings_is_refused(vit_gpt2: Path, tmp_path: Path) -> None:
    learn(vit_gpt2, tmp_path, until=3)
    with pytest.raises(CheckpointMismatch, match="other data or settings"):
        learn(vit_gpt2, tmp_path, replace(CONFIG, lr=1e-5))


@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (26, 32), (320, 400), (100_000, 1500)])
def test_corrections_are_gone_over_ten_times_at_most(rows: int, steps: int) -> None:
    data = TrainingSet(np.zeros((1, 1, 1), np.float32), [Correction(0, "x")] * rows)
    assert data.steps(LearnConfig()) == steps


def test_who_is_taught_long_captions_is_not_cut_short(vit_gpt2: Path, tmp_path: Path) -> None:
    captioner = FeatureCaptioner.load(vit_gpt2)
    before = captioner.predictor().default_parameters.max_new_tokens
    captioner.length_allow(before)
    assert captioner.longest is None
    captioner.length_allow(before + 3)
    assert captioner.predictor().default_parameters.max_new_tokens == before + 3
    captioner.save(tmp_path / "candidate")
    served = Predictor.load(tmp_path / "candidate", model_version="x", num_threads=1)
    assert served.default_parameters.max_new_tokens == before + 3
    captioner.length_allow(10_000)
    assert captioner.longest == min(captioner.positions, 64), (
        "no more than the decoder can say, nor the service"
    )
    assert len(captioner.tokenise("a dog " * 200, 10_000)) == captioner.positions


def test_an_encoder_is_known_by_what_it_computes(vit_gpt2: Path, tmp_path: Path) -> None:
    one, same = FeatureCaptioner.load(vit_gpt2), FeatureCaptioner.load(vit_gpt2)
    assert one.encoder_digest() == same.encoder_digest()
    with torch.no_grad():
        next(same.encoder.parameters()).add_(1e-3)
    assert one.encoder_digest() != same.encoder_digest()


def test_a_caption_that_is_cut_has_no_end(vit_gpt2: Path) -> None:
    captioner = FeatureCaptioner.load(vit_gpt2)
    whole = captioner.tokenise(SENTENCES[0], 50)
    assert captioner.tokenise(SENTENCES[0], 3) == whole[:3]
    assert captioner.is_cut(SENTENCES[0], len(whole) - 1)
    assert not captioner.is_cut(SENTENCES[0], len(whole))
    assert whole[-1] not in whole[:3]


def test_a_class_that_training_does_not_know_is_refused_with_a_reason(vit_gpt2: Path, monkeypatch) -> None:
    monkeypatch.setattr("training.learning.model._ENCODERS", {"git": "git.image_encoder"})
    with pytest.raises(IncompatibleModel, match="can be served but not trained"):
        FeatureCaptioner.load(vit_gpt2)


def test_golden_photos_are_captioned_in_a_clean_process_or_the_reason_is_told(
    vit_gpt2: Path, tmp_path: Path
) -> None:
    assert golden_check(vit_gpt2) == (True, "12 of 12 captioned")
    passed, note = golden_check(tmp_path)
    assert not passed
    assert "IncompatibleModel" in note
