from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from training.starter.config import DecoderConfig, EncoderConfig
from training.starter.network import captioner_build, encoder_build, resnet_build, tokenizer_train

ENCODER = EncoderConfig(hidden_sizes=(8, 8, 16), depths=(1, 1, 1), layers=1, heads=2)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return tokenizer_train(["a red circle", "a blue square"] * 3, 300, 16)


@pytest.fixture
def captioner(tokenizer: PreTrainedTokenizerBase) -> Any:
    """An untrained captioner of 64 pixels a side: four by four positions of 16 pixels."""
    encoder = encoder_build(resnet_build(ENCODER), ENCODER, 64)
    return captioner_build(encoder, DecoderConfig(16, 1, 2), tokenizer)
