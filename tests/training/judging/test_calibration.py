from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.captioner.inference.checkpoints import save_vit_gpt2
from training.judging.calibration import (
    Bin,
    calibration_error,
    calibration_fit,
    calibration_measure,
    calibration_refit,
    reliability,
)
from training.judging.captioning import features_caption
from training.judging.measure import ReferenceSet
from training.learning.model import FeatureCaptioner


def drawn(count: int, slope: float, intercept: float, seed: int = 0) -> tuple[list[float], list[bool]]:
    """Captions that are accepted as often as the logistic function of their mean log-probability says."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(-3, 0, count)
    share = 1 / (1 + np.exp(-(slope * x + intercept)))
    return x.tolist(), (generator.random(count) < share).tolist()


def test_the_fit_finds_what_the_data_were_drawn_from() -> None:
    calibration = calibration_fit(*drawn(20_000, slope=2.0, intercept=1.5))
    assert calibration.slope == pytest.approx(2.0, abs=0.1)
    assert calibration.intercept == pytest.approx(1.5, abs=0.1)


def test_what_it_says_holds_for_captions_it_has_not_seen() -> None:
    calibration = calibration_fit(*drawn(5_000, 2.0, 1.5, seed=1))
    x, accepted = drawn(5_000, 2.0, 1.5, seed=2)
    bins = reliability([calibration.confidence([value]) for value in x], accepted)
    assert calibration_error(bins) < 0.03
    assert all(abs(each.confidence - each.accepted) < 0.1 for each in bins if each.count > 100)


def test_the_base_rate_is_kept_where_certainty_says_nothing() -> None:
    calibration = calibration_fit([-1.0, -2.0] * 100, [True, False, False, True] * 50)
    assert calibration.slope == pytest.approx(0.0, abs=1e-6)
    assert calibration.confidence([-1.5]) == pytest.approx(0.5)


def test_separable_data_have_a_finite_fit() -> None:
    calibration = calibration_fit([-3.0, -2.9, -0.2, -0.1], [False, False, True, True])
    assert np.isfinite([calibration.slope, calibration.intercept]).all()
    assert calibration.confidence([-3.0]) < 0.5 < calibration.confidence([-0.1])


@pytest.mark.parametrize("accepted", [[True, True], [False, False], []])
def test_one_kind_of_caption_is_not_enough(accepted: list[bool]) -> None:
    with pytest.raises(ValueError, match="both kinds"):
        calibration_fit([-1.0] * len(accepted), accepted)


def test_the_bins_by_hand() -> None:
    bins = reliability([0.05, 0.15, 0.19, 1.0], [False, True, False, True])
    assert bins == [Bin(1, 0.05, 0.0), Bin(2, pytest.approx(0.17), 0.5), Bin(1, 1.0, 1.0)]
    assert calibration_error(bins) == pytest.approx((0.05 + 2 * 0.33 + 0.0) / 4)


def test_the_reliability_is_that_of_captions_the_fit_has_not_seen() -> None:
    x, accepted = drawn(2_000, 2.0, 1.5)
    calibration, bins = calibration_measure(x, accepted)
    assert calibration == calibration_fit(x, accepted), "what ships is fitted on all"
    assert sum(each.count for each in bins) == 2_000, "each half by a fit on the other"
    assert calibration_error(bins) < 0.06


def test_captions_that_are_all_refused_say_nothing_of_how_sure_one_may_be(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_vit_gpt2(tmp_path, max_new_tokens=4)
    captioner = FeatureCaptioner.load(tmp_path)
    features = captioner.encode_images([Image.new("RGB", (40, 32), colour) for colour in ("red", "blue")] * 4)
    photos = ReferenceSet(features, [["nobody says this"]] * 8)
    assert calibration_refit(captioner.predictor(), [photos, photos]) is None
    own = features_caption(captioner.predictor(), features)
    mixed = ReferenceSet(features, [[caption if n % 4 < 2 else "else"] for n, caption in enumerate(own)])
    refitted = calibration_refit(captioner.predictor(), [mixed, photos])
    assert refitted is not None
    assert sum(each.count for each in refitted[1]) == 16
