"""Several learning processes do what one does, and end together: real ones, on the CPU, over gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.captioner.inference.checkpoints import SAVERS, SENTENCES
from training.data.features import FeatureStore
from training.descent.checkpoint import CheckpointMismatch, checkpoint_step
from training.descent.curve import curve_read
from training.learning import finetune, processes
from training.learning.config import LearnConfig
from training.learning.finetune import Correction, Finetuning, Replay, TrainingSet, identity_of
from training.learning.model import FeatureCaptioner
from training.learning.processes import LearningProcessDied, learn_in_processes, process_count
from training.progress import untold

LEARNER = "tests.training.learning.learning_process"
# Five rows between three processes: shares of unequal size.
CONFIG = LearnConfig(
    batch=5, passes=14, max_steps=8, warmup=2, save_every=3, eval_every=4, threads=1, lr=3e-3
)
ADAPTERS = replace(CONFIG, lora_above=0, lora_rank=2, lora_lr=1e-2)
COLOURS = ("red", "green", "blue", "white")


@pytest.fixture(scope="module", autouse=True)
def _exact() -> Iterator[None]:
    """On the CPU in fp32, here and in `learning_process`, whatever this machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(finetune, "bf16_is_fast", lambda: False)
        patch.setattr(processes, "MODULE", LEARNER)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint without dropout, whose masks are drawn per process."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    SAVERS["vit_gpt2"](folder)
    config = json.loads((folder / "config.json").read_text())
    config["decoder"] |= {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def data(base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    store = FeatureStore(tmp_path_factory.mktemp("features"))
    images = [(colour, Image.new("RGB", (40, 32), colour)) for colour in COLOURS]
    store.put(images, FeatureCaptioner.load(base).encode_images)
    corrections = [Correction(n, SENTENCES[n]) for n in range(3)]
    replay = [Replay(3, sentence) for sentence in SENTENCES[2:]]
    return TrainingSet(store.get(COLOURS), corrections, replay, [Correction(3, SENTENCES[0])] * 2)


def learn_alone(base: Path, data: TrainingSet, config: LearnConfig, folder: Path) -> dict[str, torch.Tensor]:
    captioner = FeatureCaptioner.load(base)
    Finetuning(captioner, data, config, folder, "test").run()
    return captioner.parts.model.state_dict()


@pytest.fixture(scope="module")
def alone(base: Path, data: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return learn_alone(base, data, CONFIG, tmp_path_factory.mktemp("alone"))


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Equal but for rounding, a thousandth of how far these weights move: single ones may differ more, by Adam."""
    assert found.keys() == expected.keys()
    apart = [without_key_biases(name, found[name] - value).flatten() for name, value in expected.items()]
    assert torch.cat(apart).square().mean().sqrt() < 1e-5


def without_key_biases(name: str, weights: torch.Tensor) -> torch.Tensor:
    """Attention is the same whatever is added to all keys: their gradient is rounding alone, which Adam scales up."""
    if not name.endswith("c_attn.bias"):
        return weights
    if "crossattention" in name:
        return weights.chunk(2)[1]
    query, _, values = weights.chunk(3)
    return torch.cat([query, values])


def learners() -> list[psutil.Process]:
    """Learning processes below this one, which may have others: servers that a whole run of the tests keeps."""
    below = psutil.Process().children(recursive=True)
    return [
        child
        for child in below
        if LEARNER in _command(child) and "torch.distributed.run" not in _command(child)
    ]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it ended just now
        return []


@pytest.mark.parametrize(("config", "count"), [(CONFIG, 3), (ADAPTERS, 2)], ids=["whole", "adapters"])
def test_together_they_take_the_steps_that_one_alone_takes(
    base: Path, data: TrainingSet, tmp_path: Path, config: LearnConfig, count: int
) -> None:
    told: list[tuple[str, int, int]] = []
    folder = tmp_path / "together"
    learn_in_processes(base, data, config, folder, "test", count, lambda *news: told.append(news))
    assert not learners()
    # From here on it is the parent's: nothing is left to do but to load the weights.
    assert_near(learn_alone(base, data, config, folder), learn_alone(base, data, config, tmp_path / "alone"))
    curves = [curve_read(tmp_path / name) for name in ("together", "alone")]
    assert len(curves[0]) == 8
    for together, alone in zip(*curves, strict=True):
        assert together == pytest.approx(alone, rel=1e-3, abs=1e-5)
    assert {(stage, steps) for stage, _, steps in told} == {("Learning", 8)}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert sorted(path.name for path in folder.glob("saved-by-*")) == ["saved-by-0"]
    first, *others = (load_file(folder / f"weights-{rank}.safetensors") for rank in range(count))
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


def test_one_that_is_killed_ends_the_others_and_any_number_goes_on(
    base: Path, data: TrainingSet, alone: dict[str, torch.Tensor], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("STEP_SECONDS", "0.3")

    killed: list[psutil.Process] = []

    def kill(_: str, step: int, __: int) -> None:
        if step >= 4 and not killed:  # the checkpoint of step 3 is there; steps are told a few at a time
            killed.extend(child for child in learners() if child.environ().get("RANK") == "1")
            killed[0].kill()

    with pytest.raises(LearningProcessDied, match=r"rank +: 1 .*SIGKILL"):
        learn_in_processes(base, data, CONFIG, tmp_path, "test", 2, kill)
    assert not learners()
    monkeypatch.delenv("STEP_SECONDS")
    assert 0 < checkpoint_step(tmp_path, identity_of(CONFIG, "test")) < 8
    learn_in_processes(base, data, CONFIG, tmp_path, "test", 3, untold)
    assert_near(learn_alone(base, data, CONFIG, tmp_path), alone)
    assert [line["step"] for line in curve_read(tmp_path)] == list(range(1, 9))


def test_what_tick_raises_ends_them_and_one_alone_goes_on(
    base: Path, data: TrainingSet, alone: dict[str, torch.Tensor], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("STEP_SECONDS", "0.3")

    def cancel(_: str, step: int, __: int) -> None:
        if step >= 4:  # the checkpoint of step 3 is there: its line in the curve comes before it
            raise InterruptedError("cancelled")

    with pytest.raises(InterruptedError, match="cancelled"):
        learn_in_processes(base, data, CONFIG, tmp_path, "test", 2, cancel)
    assert not learners()
    assert 0 < checkpoint_step(tmp_path, identity_of(CONFIG, "test")) < 8
    with pytest.raises(CheckpointMismatch):
        learn_in_processes(base, data, replace(CONFIG, lr=1e-5), tmp_path, "test", 2, cancel)
    assert_near(learn_alone(base, data, CONFIG, tmp_path), alone)


# As Celery runs a task: in a forked daemonic process that ignores SIGINT.
_CELERY_LIKE = """
import signal, sys
from pathlib import Path
import billiard

def work():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from training.learning import processes
    from training.data.features import PhotoFeatures
    from training.learning.finetune import Correction, TrainingSet
    from tests.training.learning.test_processes import CONFIG
    processes.MODULE = "tests.training.learning.learning_process"
    base, features, folder = map(Path, sys.argv[1:])
    data = TrainingSet(PhotoFeatures([features]), [Correction(0, "a dog")])
    said = lambda _, step, __: (folder / "steps").write_text(str(step))
    processes.learn_in_processes(base, data, CONFIG, folder, "test", 2, said)

task = billiard.Process(target=work)
task.daemon = True
task.start()
task.join()
"""


def test_in_a_celery_worker_they_start_and_end_with_it_when_it_is_killed(
    base: Path, data: TrainingSet, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _CELERY_LIKE, str(base), str(data.features.paths[0]), str(tmp_path)]
    worker = subprocess.Popen(command, env={**os.environ, "STEP_SECONDS": "1"})
    try:
        wait_until(lambda: (tmp_path / "steps").exists() and int((tmp_path / "steps").read_text() or 0) >= 1)
        [task] = psutil.Process(worker.pid).children()
        children = task.children(recursive=True)
        assert len(children) == 3, "torchrun and two learners"
        task.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
    finally:
        worker.kill()
        worker.wait()


def wait_until(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_that_fails_says_why(base: Path, data: TrainingSet, tmp_path: Path) -> None:
    with pytest.raises(LearningProcessDied, match=r"rank +: 0 .*IncompatibleModel"):
        learn_in_processes(tmp_path / "nothing", data, CONFIG, tmp_path, "test", 1, untold)


def test_there_is_one_process_per_gpu_and_each_has_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus, expected in ((0, 1), (1, 1), (4, 4), (64, 5)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert process_count(CONFIG) == expected


def test_features_that_are_in_no_file_are_refused(base: Path, data: TrainingSet, tmp_path: Path) -> None:
    here = TrainingSet(data.features[[0, 1, 2, 3]], data.corrections)
    with pytest.raises(TypeError, match="PhotoFeatures"):
        learn_in_processes(base, here, CONFIG, tmp_path, "test", 2, untold)
    assert not learners()
