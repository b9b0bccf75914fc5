from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from captioner.inference import predictor as predictor_module
from captioner.inference import probe
from captioner.inference.predictor import Precision, Predictor
from captioner.inference.probe import PrecisionReport, compare_precisions, drawn_images
from captioner.inference.types import Candidate

IMAGES = [torch.full((3, 1, 1), float(number)) for number in range(20)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless a fake captioner moves it."""
    now = [0.0]
    monkeypatch.setattr(probe.time, "perf_counter", lambda: now[0])
    return now


def captioner(clock: list[float], seconds: float, reworded: int = 0) -> Callable[[torch.Tensor], Candidate]:
    def caption(pixels: torch.Tensor) -> Candidate:
        clock[0] += seconds
        number = int(pixels.max())
        return Candidate(f"photo {number}" + " reworded" * (number < reworded), (), -1.0, (-1.0,))

    return caption


def test_bf16_is_chosen_where_it_is_fast_and_faithful(clock: list[float]) -> None:
    report = compare_precisions(captioner(clock, 0.2), captioner(clock, 0.1, reworded=1), IMAGES)
    assert report.chosen == "bf16"
    assert report.speedup == pytest.approx(2.0)
    assert report.identical_share == pytest.approx(0.95)
    assert report.reason == "bf16 runs at 2.00x the speed and keeps 95% of captions."


def test_fp32_stays_where_bf16_rewords_too_much(clock: list[float]) -> None:
    report = compare_precisions(captioner(clock, 0.2), captioner(clock, 0.1, reworded=2), IMAGES)
    assert (report.chosen, report.identical_share) == ("fp32", pytest.approx(0.9))
    assert "keeps 90% of captions; 95% are needed" in report.reason


def test_fp32_stays_where_bf16_is_hardly_faster(clock: list[float]) -> None:
    report = compare_precisions(captioner(clock, 0.114), captioner(clock, 0.1), IMAGES)
    assert (report.chosen, report.identical_share) == ("fp32", None)
    assert report.reason == "bf16 runs at 1.14x the speed; 1.15x is needed."


def test_one_slow_moment_does_not_decide(clock: list[float]) -> None:
    usual, hiccups = captioner(clock, 0.1), iter([0.0, 9.0, 0.0, 0.0, 0.0, 0.0])

    def interrupted(pixels: torch.Tensor) -> Candidate:
        clock[0] += next(hiccups, 0.0)
        return usual(pixels)

    assert compare_precisions(interrupted, captioner(clock, 0.1), IMAGES).speedup == pytest.approx(1.0)


def test_drawings_are_the_same_every_time_and_differ_from_each_other() -> None:
    drawings = [image.tobytes() for image in drawn_images()]
    assert drawings == [image.tobytes() for image in drawn_images()]
    assert len(set(drawings)) == len(drawings) == probe.NUM_IMAGES


@pytest.mark.parametrize(
    ("precision", "dtype", "reason"),
    [
        ("fp32", torch.float32, "Configured."),
        ("bf16", torch.bfloat16, "Configured."),
        ("auto", torch.float32, "This CPU has no bf16 instructions."),
    ],
)
def test_a_configured_precision_is_not_measured(
    precision: Precision,
    dtype: torch.dtype,
    reason: str,
    checkpoints: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predictor_module, "bf16_is_supported", lambda: False)
    monkeypatch.setattr(predictor_module, "compare_precisions", None)
    loaded = load(checkpoints["focalnet_gpt2"], precision)
    assert loaded._parts.model.dtype == dtype
    assert (loaded.precision.reason, loaded.precision.speedup) == (reason, None)


@pytest.mark.parametrize(("chosen", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_verdict_is_followed_and_shown(
    chosen: str, dtype: torch.dtype, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = PrecisionReport(chosen, "Measured.", 1.5, 1.0)
    monkeypatch.setattr(predictor_module, "bf16_is_supported", lambda: True)
    monkeypatch.setattr(predictor_module, "compare_precisions", lambda *_: verdict)
    loaded = load(checkpoints["vit_gpt2"], "auto")
    assert loaded._parts.model.dtype == dtype
    assert loaded.precision == verdict


@pytest.mark.parametrize("family", ["blip", "git", "vit_gpt2", "focalnet_gpt2"])
def test_every_family_captions_in_bf16(family: str, checkpoints: dict[str, Path]) -> None:
    loaded = load(checkpoints[family], "bf16")
    best = loaded._best(loaded.preprocess(drawn_images(1)[0]))
    assert all(0 < word.probability <= 1 for word in best.words)


def load(folder: Path, precision: Precision) -> Predictor:
    return Predictor.load(folder, model_version="", precision=precision, num_threads=1)


@pytest.mark.parametrize(
    ("capabilities", "supported", "fast"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, True, True),
        ({"avx512_bf16": True, "amx_bf16": False}, True, False),
        ({"avx2": True}, False, False),
    ],
)
def test_bf16_is_fast_with_matrix_units_alone(
    capabilities: dict[str, bool], supported: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert (probe.bf16_is_supported(), probe.bf16_is_fast()) == (supported, fast)
