"""The lean loop against `generate()`, and log-probabilities against the model's own, computed in one pass."""

from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.inference.decoding import Decoder
from captioner.inference.drawings import drawn_images
from captioner.inference.gpt2 import Gpt2Decoder
from captioner.inference.loading import load_model
from captioner.inference.predictor import Predictor
from captioner.inference.types import DecodingParameters
from tests.captioner.inference.checkpoints import SAVERS

GPT2_FAMILIES = ("vit_gpt2", "focalnet_gpt2")
GREEDY = DecodingParameters(max_new_tokens=16)


def decoder(folder: Path, *, lean: bool = True, **generation: Any) -> Decoder:
    model = load_model(folder).model
    model.generation_config.update(**generation)
    decoder = Decoder(model)
    assert decoder._lean is not None
    if not lean:
        decoder._lean = None
    return decoder


def ends_seen(folder: Path, photos: torch.Tensor) -> list[int]:
    """Tokens that captions contain early: as end-of-caption tokens they end rows at different steps."""
    rows = [sequences[0].token_ids for sequences in decoder(folder)(photos, GREEDY)]
    return [rows[0][3], rows[1][6]]


@pytest.mark.parametrize("family", GPT2_FAMILIES)
@pytest.mark.parametrize("no_repeat_ngram_size", [None, 1, 2, 3])
@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("with_end", [False, True])
def test_the_lean_loop_emits_what_generate_emits(
    family: str,
    no_repeat_ngram_size: int | None,
    batch: int,
    with_end: bool,
    checkpoints: dict[str, Path],
    photos: torch.Tensor,
) -> None:
    folder = checkpoints[family]
    settings: dict[str, Any] = {"no_repeat_ngram_size": no_repeat_ngram_size}
    if with_end:
        settings["eos_token_id"] = ends_seen(folder, photos)
    lean = decoder(folder, **settings)(photos[:batch], GREEDY)
    reference = decoder(folder, lean=False, **settings)(photos[:batch], GREEDY)
    for [ours], [theirs] in zip(lean, reference, strict=True):
        assert ours.token_ids == theirs.token_ids
        assert ours.log_probabilities == pytest.approx(theirs.log_probabilities, abs=1e-4)


@pytest.mark.parametrize("family", GPT2_FAMILIES)
@pytest.mark.parametrize(("batch", "beams"), [(1, 2), (6, 3), (2, 5)])
@pytest.mark.parametrize("with_end", [False, True])
@pytest.mark.parametrize(
    "generation",
    [
        {},
        {"no_repeat_ngram_size": 2},
        {"length_penalty": 0.0},
        {"length_penalty": 2.0, "no_repeat_ngram_size": 3},
        {"length_penalty": -1.0},
        {"early_stopping": True},
    ],
    ids=str,
)
def test_the_lean_beams_find_what_generate_finds(
    family: str,
    batch: int,
    beams: int,
    with_end: bool,
    generation: dict[str, Any],
    checkpoints: dict[str, Path],
    photos: torch.Tensor,
) -> None:
    folder = checkpoints[family]
    if with_end:
        generation = generation | {"eos_token_id": ends_seen(folder, photos)}
    parameters = DecodingParameters(beams, beams, 16)
    lean = decoder(folder, **generation)(photos[:batch], parameters)
    reference = decoder(folder, lean=False, **generation)(photos[:batch], parameters)
    for ours, theirs in zip(lean, reference, strict=True):
        assert [each.token_ids for each in ours] == [each.token_ids for each in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_sequences_are_those_of_the_plain_model(
    beams: int, checkpoints: dict[str, Path], photos: torch.Tensor
) -> None:
    subject = decoder(checkpoints["vit_gpt2"])
    plain = load_model(checkpoints["vit_gpt2"]).model
    ids = plain.generate(
        photos, num_beams=beams, num_return_sequences=beams, max_new_tokens=16, do_sample=False
    )
    ours = subject(photos, DecodingParameters(beams, beams, 16))
    assert [sequence.token_ids for row in ours for sequence in row] == ids[:, 1:].tolist()


@pytest.mark.parametrize("lean", [True, False])
def test_a_row_ends_at_its_own_end_token(
    lean: bool, checkpoints: dict[str, Path], photos: torch.Tensor
) -> None:
    ends = ends_seen(checkpoints["vit_gpt2"], photos)
    rows = decoder(checkpoints["vit_gpt2"], lean=lean, eos_token_id=ends)(photos, GREEDY)
    lengths = [len(sequence.token_ids) for [sequence] in rows]
    assert lengths[0] <= 4
    assert len(set(lengths)) > 1
    for [sequence] in rows:
        assert not set(sequence.token_ids[:-1]) & set(ends)


def test_the_loop_stops_when_every_row_has_ended(checkpoints: dict[str, Path], photos: torch.Tensor) -> None:
    folder = checkpoints["vit_gpt2"]
    lean = decoder(folder, eos_token_id=ends_seen(folder, photos))
    steps: list[int] = []
    step = lean._lean._step
    lean._lean._step = lambda tokens, position, caches: (
        steps.append(position) or step(tokens, position, caches)
    )
    [[sequence]] = lean(photos[:1], DecodingParameters(max_new_tokens=60))
    assert len(steps) == len(sequence.token_ids) < 60


@pytest.mark.parametrize("family", GPT2_FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
def test_log_probabilities_are_the_models_own(
    family: str, beams: int, checkpoints: dict[str, Path], photos: torch.Tensor
) -> None:
    subject = decoder(checkpoints[family], no_repeat_ngram_size=2)
    model = subject._model
    for row, sequences in enumerate(subject(photos[:3], DecodingParameters(beams, beams, 12))):
        for sequence in sequences:
            start = model.generation_config.decoder_start_token_id
            inputs = torch.tensor([[start, *sequence.token_ids[:-1]]])
            with torch.inference_mode():
                states = subject._project(subject._encode(photos[row : row + 1]))
                logits = model.decoder(input_ids=inputs, encoder_hidden_states=states).logits
            expected = logits[0].log_softmax(-1).gather(1, torch.tensor(sequence.token_ids)[:, None])[:, 0]
            assert sequence.log_probabilities == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ngram_blocking_of_the_checkpoint_is_followed(
    size: int, checkpoints: dict[str, Path], photos: torch.Tensor
) -> None:
    for parameters in (GREEDY, DecodingParameters(2, 2, 16)):
        subject = decoder(checkpoints["focalnet_gpt2"], no_repeat_ngram_size=size)
        for sequence in (sequence for sequences in subject(photos, parameters) for sequence in sequences):
            ngrams = [
                tuple(sequence.token_ids[i : i + size]) for i in range(len(sequence.token_ids) - size + 1)
            ]
            assert len(set(ngrams)) == len(ngrams)


@pytest.mark.parametrize(
    "generation",
    [
        {"repetition_penalty": 1.3},
        {"min_length": 5},
        {"suppress_tokens": [7]},
        {"forced_eos_token_id": 1},
        {"early_stopping": "never"},
    ],
)
def test_settings_unknown_to_the_lean_loop_are_left_to_generate(
    generation: dict[str, Any], checkpoints: dict[str, Path]
) -> None:
    model = load_model(checkpoints["vit_gpt2"]).model
    assert Gpt2Decoder.supports(model)
    model.generation_config.update(**generation)
    assert not Gpt2Decoder.supports(model)
    assert Decoder(model)._lean is None


@pytest.mark.parametrize(
    "config",
    [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
    ],
)
def test_unusual_attention_is_left_to_generate(config: dict[str, bool], checkpoints: dict[str, Path]) -> None:
    model = load_model(checkpoints["vit_gpt2"]).model
    model.decoder.config.update(config)
    assert not Gpt2Decoder.supports(model)


@pytest.mark.parametrize("family", ["blip", "git"])
def test_settings_of_the_checkpoint_reach_every_family(family: str, checkpoints: dict[str, Path]) -> None:
    parts = load_model(checkpoints[family])
    pixels = Predictor(parts, family).preprocess(drawn_images(1)[0])[None]
    parts.model.generation_config.update(no_repeat_ngram_size=1)
    [[sequence]] = Decoder(parts.model)(pixels, DecodingParameters(max_new_tokens=12))
    assert len(set(sequence.token_ids)) == len(sequence.token_ids)


@pytest.mark.parametrize("family", SAVERS)
def test_captions_never_outgrow_the_models_positions(family: str, checkpoints: dict[str, Path]) -> None:
    parts = load_model(checkpoints[family])
    subject = Decoder(parts.model)
    subject.max_new_tokens = 5
    pixels = Predictor(parts, family).preprocess(drawn_images(1)[0])[None]
    for parameters in (DecodingParameters(max_new_tokens=64), DecodingParameters(2, 2, 64)):
        [sequences] = subject(pixels, parameters)
        assert all(len(sequence.token_ids) <= 5 for sequence in sequences)
