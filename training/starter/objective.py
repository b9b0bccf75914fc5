"""Losses of the captioner, computed once per photo for several captions of it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from training.learning.objective import IGNORED


def photos_encode(model: Any, images: Tensor) -> Tensor:
    """What the decoder of a VisionEncoderDecoderModel sees of images (B, 3, H, W): (B, places, width)."""
    tokens: Tensor = model.encoder(pixel_values=images).last_hidden_state
    if hasattr(model, "enc_to_dec_proj"):  # exists where encoder and decoder differ in width
        tokens = model.enc_to_dec_proj(tokens)
    return tokens


def words_predict(model: Any, tokens: Tensor, labels: Tensor) -> Tensor:
    """Logits (real tokens, vocabulary) of the captions `labels` (N, T), row by row, each told the tokens before.

    `tokens` (N, places, width) of `photos_encode`, one row per caption.
    """
    hidden = model.decoder.transformer(
        input_ids=model.prepare_decoder_input_ids_from_labels(labels),
        encoder_hidden_states=tokens,
        use_cache=False,
    ).last_hidden_state
    logits: Tensor = model.decoder.lm_head(hidden[labels != IGNORED])
    return logits


def caption_loss(model: Any, images: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross-entropy per token of a VisionEncoderDecoderModel with a GPT-2 decoder.

    `images` (B, 3, H, W); `labels` (B, K, T) token ids of up to K captions each, IGNORED after their end. The photo
    is encoded once for its captions, and only real tokens reach the vocabulary projection.
    """
    tokens = photos_encode(model, images)
    photos, captions = (labels != IGNORED).any(2).nonzero(as_tuple=True)
    tokens, labels = tokens.index_select(0, photos), labels[photos, captions]
    logits = words_predict(model, tokens, labels)
    return functional.cross_entropy(logits, labels[labels != IGNORED], label_smoothing=label_smoothing)
