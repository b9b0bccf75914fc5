"""How a caption goes on after words that are given: as `generate()` does from the same tokens, in every family."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from captioner.inference.decoding import Decoder
from captioner.inference.drawings import drawn_images
from captioner.inference.loading import load_model
from captioner.inference.predictor import Predictor
from captioner.inference.types import DecodingParameters, NextWords
from tests.captioner.inference.checkpoints import SAVERS
from tests.captioner.inference.test_decoding import GPT2_FAMILIES, decoder

ASKED = NextWords(4, 4, 10)
GIVEN = [9, 17, 30]


def continued(model: Any, pixels: torch.Tensor, tokens: list[int], count: int) -> list[int]:
    """What the plain model makes of a photo (3, height, width) after these tokens of a caption."""
    text, inputs = model.config.get_text_config(decoder=True), {"pixel_values": pixels[None].to(model.dtype)}
    if model.config.model_type == "git":
        start = {"input_ids": torch.tensor([[text.bos_token_id, *tokens]])}
    elif model.config.model_type == "blip":
        start = {"input_ids": torch.tensor([[text.bos_token_id, *tokens, text.sep_token_id]])}
    else:
        first = model.generation_config.decoder_start_token_id
        states = model.encoder(pixel_values=inputs["pixel_values"]).last_hidden_state
        inputs = {
            "encoder_outputs": BaseModelOutput(last_hidden_state=states)
        }  # FocalNet's has no attentions
        start = {"decoder_input_ids": torch.tensor([[first, *tokens]])}
    found = model.generate(**inputs, **start, do_sample=False, num_beams=1, max_new_tokens=count)
    return found[0, 1:].tolist()  # without the start token


@pytest.mark.parametrize("given", [[], GIVEN], ids=["at the start", "later"])
@pytest.mark.parametrize("family", SAVERS)
def test_it_is_what_generate_gives_after_the_same_tokens(
    family: str, given: list[int], checkpoints: dict[str, Path]
) -> None:
    parts = load_model(checkpoints[family])
    pixels = Predictor(parts, family).preprocess(drawn_images(1)[0])
    [sequences] = Decoder(parts.model)(pixels[None], ASKED, given)
    plain = load_model(checkpoints[family]).model
    assert continued(plain, pixels, given, 1)[len(given)] == sequences[0].token_ids[len(given)]
    forks = [sequence.token_ids[len(given)] for sequence in sequences]
    assert len(set(forks)) == 4
    chances = [sequence.log_probabilities[len(given)] for sequence in sequences]
    assert chances == sorted(chances, reverse=True)
    for sequence, fork in zip(sequences, forks, strict=True):
        expected = continued(plain, pixels, [*given, fork], 9)
        assert sequence.token_ids == expected[: len(sequence.token_ids)]
        assert sequence.log_probabilities[: len(given)] == [0.0] * len(given)


@pytest.mark.parametrize("family", GPT2_FAMILIES)
@pytest.mark.parametrize("no_repeat_ngram_size", [None, 1, 2])
def test_the_lean_loop_goes_on_as_generate_does(
    family: str, no_repeat_ngram_size: int | None, checkpoints: dict[str, Path], photos: torch.Tensor
) -> None:
    settings = {"no_repeat_ngram_size": no_repeat_ngram_size}
    lean = decoder(checkpoints[family], **settings)(photos[:2], ASKED, GIVEN)
    reference = decoder(checkpoints[family], lean=False, **settings)(photos[:2], ASKED, GIVEN)
    for ours, theirs in zip(lean, reference, strict=True):
        assert [each.token_ids for each in ours] == [each.token_ids for each in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)


@pytest.mark.parametrize("place", [0, 1, 7])
def test_what_the_model_said_by_itself_is_how_it_goes_on(
    place: int, checkpoints: dict[str, Path], photos: torch.Tensor
) -> None:
    subject = decoder(checkpoints["vit_gpt2"])
    [[greedy]] = subject(photos[:1], DecodingParameters(max_new_tokens=10))
    [[first, *_]] = subject(photos[:1], NextWords(3, 3, 10 - place), greedy.token_ids[:place])
    assert first.token_ids == greedy.token_ids
    assert first.log_probabilities[place:] == pytest.approx(greedy.log_probabilities[place:], abs=1e-4)


@pytest.mark.parametrize("lean", [True, False])
def test_given_words_that_fill_all_positions_leave_room_for_one_token(
    lean: bool, checkpoints: dict[str, Path], photos: torch.Tensor
) -> None:
    subject = decoder(checkpoints["vit_gpt2"], lean=lean)
    [sequences] = subject(photos[:1], ASKED, [5] * 200)
    assert {len(sequence.token_ids) for sequence in sequences} == {subject.max_new_tokens}


def test_captions_begin_with_the_words_that_were_given(predictors: dict[str, Predictor]) -> None:
    predictor = predictors["vit_gpt2"]
    pixels = predictor.preprocess(drawn_images(1)[0])[None]
    asked = NextWords(4, 4, 6, "a small brown")
    [seen] = predictor.look(pixels, asked)
    assert predictor.predict(pixels, asked) == [seen.beams]
    for candidate in seen.beams:
        assert candidate.caption.startswith("a small brown")
        assert [word.probability for word in candidate.words[:2]] == [1.0, 1.0]
        assert candidate.words[-1].probability < 1.0
    assert len({candidate.caption for candidate in seen.beams}) == len(seen.beams) > 1
    assert asked != DecodingParameters(4, 4, 6)
