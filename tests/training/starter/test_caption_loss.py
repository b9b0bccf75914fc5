from __future__ import annotations

import pytest
import torch

from training.starter.config import DecoderConfig, EncoderConfig
from training.starter.network import (
    IGNORED,
    caption_loss,
    captioner_build,
    encoder_build,
    resnet_build,
    tokenizer_train,
)


@torch.no_grad()
def test_the_loss_of_one_caption_each_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    tokenizer = tokenizer_train(["a red square", "a blue circle"], vocabulary=300, max_length=48)
    encoder = EncoderConfig(hidden_sizes=(8, 8, 8, 16), depths=(1, 1, 1, 1), heads=2)
    decoder = DecoderConfig(width=8, layers=1, heads=2)
    model = captioner_build(encoder_build(resnet_build(encoder), encoder, 32), decoder, tokenizer).eval()
    images = torch.randn(2, 3, 32, 32)
    first, second = tokenizer(["a red square", "a blue circle"]).input_ids
    longest = max(len(first), len(second))
    rows = [ids + [IGNORED] * (longest - len(ids)) for ids in (first, second)]
    labels = torch.tensor(rows)
    theirs = float(model(pixel_values=images, labels=labels).loss)
    assert float(caption_loss(model, images, labels.unsqueeze(1), 0.0)) == pytest.approx(theirs, rel=1e-5)
    # Two captions of one photo weigh as much as two photos.
    both = labels.unsqueeze(0)
    repeated = images[:1].expand(2, -1, -1, -1)
    theirs = float(model(pixel_values=repeated, labels=labels).loss)
    assert float(caption_loss(model, images[:1], both, 0.0)) == pytest.approx(theirs, rel=1e-5)


def test_text_comes_back_from_the_tokenizer_as_it_was() -> None:
    tokenizer = tokenizer_train(["a dog's ball, on the left", "two cats"], vocabulary=400, max_length=48)
    for text in ("a dog's ball, on the left", "caf\u00e9 \u2603 2.5 m", "two cats"):
        ids = tokenizer(text).input_ids
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.decode(tokenizer("Two CATS").input_ids, skip_special_tokens=True) == "two cats"
