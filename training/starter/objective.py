"""Losses of the captioner, for several captions of each photo at once."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from training.objective import IGNORED


def states_project(model: Any, states: Tensor) -> Tensor:
    """Encoder states (B, patches, width) at the decoder's own width; the same where the two do not differ."""
    projected: Tensor = model.enc_to_dec_proj(states) if hasattr(model, "enc_to_dec_proj") else states
    return projected


def caption_loss(model: Any, images: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross-entropy per token of a VisionEncoderDecoderModel with a GPT-2 decoder.

    `images` (B, 3, H, W); `labels` (B, K, T) token ids of K captions each, IGNORED after their end. The photo
    is encoded once for its K captions, and only real tokens reach the vocabulary projection.
    """
    tokens = states_project(model, model.encoder(pixel_values=images).last_hidden_state)
    tokens = tokens.repeat_interleave(labels.shape[1], dim=0)
    labels = labels.flatten(0, 1)
    hidden = model.decoder.transformer(
        input_ids=model.prepare_decoder_input_ids_from_labels(labels),
        encoder_hidden_states=tokens,
        use_cache=False,
    ).last_hidden_state
    real = labels != IGNORED
    return functional.cross_entropy(
        model.decoder.lm_head(hidden[real]), labels[real], label_smoothing=label_smoothing
    )


def reinforce_loss(decoder: Any, states: Tensor, tokens: Tensor, advantages: Tensor) -> Tensor:
    """Policy gradient (Williams 1992) per token: -advantage * log p(token), averaged over the tokens drawn.

    `states` (B, patches, width) is what the decoder attends to, `tokens` (B, K, 1 + T) the drawn captions from the
    start token on, padded after their end, `advantages` (B, K) how much better each was than expected.
    """
    rows = tokens.flatten(0, 1)
    hidden = decoder.transformer(
        input_ids=rows[:, :-1],
        encoder_hidden_states=states.repeat_interleave(tokens.shape[1], dim=0),
        use_cache=False,
    ).last_hidden_state
    drawn = rows[:, 1:]
    real = drawn != decoder.config.pad_token_id
    surprise = functional.cross_entropy(decoder.lm_head(hidden[real]), drawn[real], reduction="none")
    weights = advantages.flatten()[:, None].expand_as(drawn)[real]
    return (weights * surprise).mean()
