from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, VisionEncoderDecoderModel

from captioner.inference.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel
from captioner.inference.words import _attention, gaze
from training.starter.network import tokenizer_train

CAPTION = "a red circle on the left"


@pytest.fixture
def tokenizer() -> Any:
    return tokenizer_train(["a red circle", "a blue square"] * 3, 300, 32)


@pytest.fixture
def captioner(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    encoder = EfficientNetLiteModel(
        EfficientNetLiteConfig(
            image_size=96,
            stem=8,
            widths=[8] * 7,
            depths=[1] * 7,
            head=16,
            hidden_size=16,
            num_attention_heads=2,
            initializer_range=0.3,
        )
    )
    decoder = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.4,
        add_cross_attention=True,
        is_decoder=True,
    )
    model = VisionEncoderDecoderModel(encoder=encoder, decoder=GPT2LMHeadModel(decoder)).eval()
    model.generation_config = GenerationConfig(decoder_start_token_id=tokenizer.bos_token_id)
    return model


def test_every_word_looked_somewhere_in_the_photo(captioner: Any, tokenizer: Any) -> None:
    found = gaze(captioner, tokenizer, torch.randn(3, 96, 96), CAPTION)
    assert " ".join(each.text for each in found) == CAPTION
    for each in found:
        shares = torch.tensor(each.places)
        assert shares.shape == (3, 3)
        assert shares.sum() == pytest.approx(1.0, abs=1e-5)
    assert found[0].places != found[1].places


def test_it_is_the_attention_that_transformers_computes(captioner: Any, tokenizer: Any) -> None:
    inputs = [tokenizer.bos_token_id, *tokenizer("a red", add_special_tokens=False).input_ids]
    with torch.no_grad():
        states = captioner.encoder(torch.randn(1, 3, 96, 96)).last_hidden_state
        ours = _attention(captioner, states, inputs)
        captioner.decoder.set_attn_implementation("eager")
        theirs = captioner.decoder(
            input_ids=torch.tensor([inputs]), encoder_hidden_states=states, output_attentions=True
        ).cross_attentions
    assert ours.std() > 1e-3
    assert torch.allclose(ours, torch.stack(theirs).mean((0, 2))[0], atol=1e-5)


def test_other_captioners_are_told_apart(captioner: Any, tokenizer: Any) -> None:
    class Odd:
        def __init__(self, encoder: Any) -> None:
            self.encoder = encoder

        def __call__(self, **inputs: Any) -> Any:
            output = self.encoder(**inputs)
            output.last_hidden_state = output.last_hidden_state[:, :-1]
            return output

    del captioner._modules["encoder"]
    captioner.encoder = Odd(EfficientNetLiteModel(EfficientNetLiteConfig(image_size=64)))
    with pytest.raises(ValueError, match="over a square map"):
        gaze(captioner, tokenizer, torch.randn(3, 64, 64), CAPTION)
