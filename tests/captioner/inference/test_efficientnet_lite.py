from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    VisionEncoderDecoderModel,
)

from captioner.inference.decoding import Decoder
from captioner.inference.efficientnet_lite import Convolution, EfficientNetLiteConfig, EfficientNetLiteModel
from captioner.inference.gpt2 import Gpt2Decoder
from captioner.inference.types import DecodingParameters

TINY: dict[str, Any] = {
    "image_size": 64,
    "stem": 8,
    "widths": [8, 8, 8, 8, 8, 16, 16],
    "depths": [1, 2, 1, 1, 1, 1, 1],
    "head": 24,
    "hidden_size": 16,
    "num_attention_heads": 2,
}


@pytest.fixture
def encoder() -> EfficientNetLiteModel:
    torch.manual_seed(0)
    return EfficientNetLiteModel(EfficientNetLiteConfig(**TINY, initializer_range=0.2)).eval()


@pytest.fixture
def captioner(encoder: EfficientNetLiteModel) -> Any:
    decoder = GPT2Config(
        vocab_size=30,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.4,
        add_cross_attention=True,
        is_decoder=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = VisionEncoderDecoderModel(encoder=encoder, decoder=GPT2LMHeadModel(decoder))
    model.generation_config = GenerationConfig(
        decoder_start_token_id=1, bos_token_id=1, eos_token_id=2, pad_token_id=0, no_repeat_ngram_size=3
    )
    return model.eval()


@pytest.mark.parametrize("side", [64, 96, 128])
def test_every_place_of_a_photo_comes_out_after_the_photo_as_a_whole(
    encoder: EfficientNetLiteModel, side: int
) -> None:
    with torch.no_grad():
        states = encoder(torch.randn(2, 3, side, side)).last_hidden_state
    assert states.shape == (2, 1 + (side // 32) ** 2, 16)
    assert states.isfinite().all()


def test_what_the_maps_hold_is_all_the_layers_see(encoder: EfficientNetLiteModel) -> None:
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = encoder.backbone(pixels)
        assert maps.shape == (2, 16 + 4 * 8, 2, 2)
        assert torch.equal(encoder.places(maps), encoder(pixels).last_hidden_state)


def test_the_layers_tell_places_apart(encoder: EfficientNetLiteModel) -> None:
    grey = torch.zeros(1, 48, 2, 2)
    with torch.no_grad():
        first, second = encoder.places(grey)[0, 1:3]
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [(64, 3, 2, (0, 1)), (65, 3, 2, (1, 1)), (64, 5, 2, (1, 2)), (65, 5, 2, (2, 2)), (9, 3, 1, (1, 1))],
)
def test_convolutions_are_padded_as_tensorflow_does(
    side: int, kernel: int, stride: int, padding: tuple[int, int]
) -> None:
    convolution = Convolution(1, 1, kernel, stride)
    assert convolution._padding(side) == padding
    with torch.no_grad():
        assert convolution(torch.randn(1, 1, side, side)).shape[2] == -(-side // stride)


def test_the_auto_classes_know_the_encoder(encoder: EfficientNetLiteModel) -> None:
    config = AutoConfig.for_model("efficientnet_lite", **TINY)
    assert isinstance(AutoModel.from_config(config), EfficientNetLiteModel)


def test_saved_weights_come_back(captioner: Any, tmp_path: Any) -> None:
    captioner.save_pretrained(tmp_path)
    loaded, report = VisionEncoderDecoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, value in captioner.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize("beams", [1, 3])
def test_the_lean_loops_say_what_generate_says(captioner: Any, beams: int) -> None:
    assert Gpt2Decoder.supports(captioner)
    pixels, parameters = torch.randn(3, 3, 64, 64), DecodingParameters(num_beams=beams, max_new_tokens=8)
    lean, slow = Decoder(captioner), Decoder(copy.deepcopy(captioner))
    slow._lean = None
    assert [[each.token_ids for each in photo] for photo in lean(pixels, parameters)] == [
        [each.token_ids for each in photo] for photo in slow(pixels, parameters)
    ]
