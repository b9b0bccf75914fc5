import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.exceptions import IncompatibleModel
from captioner.inference.calibration import FILE_NAME, Calibration, calibration_read
from captioner.inference.types import DecodingParameters
from tests.captioner.inference.conftest import load
from tests.captioner.inference.test_predictor import pixels_of

SURE, UNSURE = (-0.1, -0.2, -0.3), (-1.0, -3.0)


def test_it_is_the_logistic_function_of_the_mean_log_probability() -> None:
    calibration = Calibration(slope=2.0, intercept=1.0, accepted="")
    assert calibration.confidence(SURE) == pytest.approx(1 / (1 + math.exp(-(2.0 * -0.2 + 1.0))))
    assert calibration.confidence(UNSURE) == pytest.approx(1 / (1 + math.exp(-(2.0 * -2.0 + 1.0))))


def test_it_does_not_fall_with_the_number_of_words() -> None:
    calibration = Calibration(2.0, 1.0, "")
    assert calibration.confidence(SURE * 5) == pytest.approx(calibration.confidence(SURE))


def test_a_next_to_impossible_caption_has_no_confidence_rather_than_an_error() -> None:
    assert Calibration(100.0, 0.0, "").confidence([-1e6]) == 0.0


def test_a_caption_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        Calibration(1.0, 0.0, "").confidence([])


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    calibration = Calibration(1.5, -0.25, "rated 7 or more")
    calibration.write(tmp_path)
    assert calibration_read(tmp_path) == calibration


def test_weights_without_a_calibration_have_none(tmp_path: Path) -> None:
    assert calibration_read(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "null", '{"slope": "x", "intercept": 1}', '{"slope": NaN, "intercept": 1}', "\ud800"],
)
def test_a_broken_calibration_makes_the_weights_incompatible(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(content, errors="surrogatepass")
    with pytest.raises(IncompatibleModel, match=FILE_NAME):
        calibration_read(tmp_path)


def test_captions_carry_the_confidence_of_their_weights(copied: Callable[[str], Path]) -> None:
    folder = copied("vit_gpt2")
    (folder / FILE_NAME).write_text(json.dumps({"slope": 0.5, "intercept": 0.0, "accepted": ""}))
    predictor = load(folder)
    for beams in (1, 3):
        for candidates in predictor.predict(pixels_of(predictor, 2), DecodingParameters(beams, beams, 8)):
            for candidate in candidates:
                expected = Calibration(0.5, 0.0, "").confidence(candidate.token_log_probabilities)
                assert candidate.confidence == expected
