import math
from pathlib import Path

import pytest
import torch

from captioner.inference.drawings import drawn_images
from captioner.inference.predictor import Predictor
from captioner.inference.types import MAX_NEW_TOKENS, MAX_NUM_BEAMS, Candidate, DecodingParameters
from tests.captioner.inference.checkpoints import save_focalnet_gpt2
from tests.captioner.inference.conftest import load

PARAMETERS = [
    DecodingParameters(max_new_tokens=12),
    DecodingParameters(num_beams=3, max_new_tokens=12),
    DecodingParameters(num_captions=3, num_beams=4, max_new_tokens=12),
]


def pixels_of(predictor: Predictor, count: int = 4) -> torch.Tensor:
    return torch.stack([predictor.preprocess(image) for image in drawn_images(count)])


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_a_batch_gives_the_captions_of_its_photos_alone(
    predictor: Predictor, parameters: DecodingParameters
) -> None:
    pixels = pixels_of(predictor)
    together = predictor.predict(pixels, parameters)
    alone = [predictor.predict(photo[None], parameters)[0] for photo in pixels]
    assert [captions(candidates) for candidates in together] == [captions(candidates) for candidates in alone]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours[0].log_probability == pytest.approx(theirs[0].log_probability, abs=1e-3)


def captions(candidates: tuple[Candidate, ...]) -> list[str]:
    return [candidate.caption for candidate in candidates]


def test_different_photos_get_different_captions(predictor: Predictor) -> None:
    answers = predictor.predict(pixels_of(predictor), PARAMETERS[0])
    assert len({candidates[0].caption for candidates in answers}) > 1


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_probabilities_are_probabilities(predictor: Predictor, parameters: DecodingParameters) -> None:
    for candidates in predictor.predict(pixels_of(predictor), parameters):
        for candidate in candidates:
            assert all(0 < word.probability <= 1 for word in candidate.words)
            assert all(value <= 0 for value in candidate.token_log_probabilities)
            assert 1 <= len(candidate.token_log_probabilities) <= 12
            assert candidate.log_probability == pytest.approx(math.fsum(candidate.token_log_probabilities))
            assert candidate.caption == " ".join(word.text for word in candidate.words)


def test_alternatives_are_distinct_and_at_most_as_many_as_asked_for(predictor: Predictor) -> None:
    for candidates in predictor.predict(pixels_of(predictor), DecodingParameters(3, 5, 12)):
        assert len(set(captions(candidates))) == len(candidates) == 3


def test_equal_captions_are_given_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = pixels_of(predictor, 1)
    [[greedy]] = predictor._decode(pixels, PARAMETERS[0])
    monkeypatch.setattr(predictor, "_decode", lambda *_: [[greedy] * 3])
    [candidates] = predictor.predict(pixels, DecodingParameters(3, 3))
    assert len(candidates) == 1


def test_the_best_of_several_is_the_best_of_one(predictor: Predictor) -> None:
    pixels = pixels_of(predictor)
    one = predictor.predict(pixels, DecodingParameters(1, 4, 12))
    several = predictor.predict(pixels, DecodingParameters(3, 4, 12))
    assert [candidates[0].caption for candidates in one] == [candidates[0].caption for candidates in several]


def test_without_settings_the_default_is_greedy(predictor: Predictor) -> None:
    assert predictor.default_parameters == DecodingParameters(num_captions=1, num_beams=1, max_new_tokens=30)


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({"num_beams": 4, "max_length": 17}, DecodingParameters(1, 4, 16)),
        ({"max_new_tokens": 20, "max_length": 17}, DecodingParameters(1, 1, 20)),
        ({"num_beams": 100, "max_new_tokens": 1000}, DecodingParameters(1, MAX_NUM_BEAMS, MAX_NEW_TOKENS)),
    ],
)
def test_the_checkpoint_sets_the_default(
    generation: dict[str, int], expected: DecodingParameters, tmp_path: Path
) -> None:
    save_focalnet_gpt2(tmp_path, **generation)
    assert load(tmp_path).default_parameters == expected


def test_the_version_is_kept(predictors: dict[str, Predictor]) -> None:
    assert predictors["blip"].model_version == "blip"
