"""Greedy decoding with a GPT-2 decoder, without the per-token overhead of `generate()`.

At one photo per batch most of `generate()` is not arithmetic but bookkeeping: module calls, masks, cache
objects. Here a step is the bare operations of transformers' `GPT2LMHeadModel` with cross-attention, on
preallocated caches. The tokens are those of `generate(do_sample=False)`; tests compare the two.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

# The generation settings this loop follows, and those without effect on greedy decoding of a given length.
_FOLLOWED = {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "no_repeat_ngram_size"}
_WITHOUT_EFFECT = {
    *{"num_beams", "num_return_sequences", "early_stopping", "length_penalty"},
    *{"do_sample", "temperature", "top_k", "top_p", "max_length", "max_new_tokens"},
    *{"use_cache", "output_attentions", "output_hidden_states", "transformers_version", "_from_model_config"},
}


class Gpt2GreedyDecoder:
    """Greedy captions from the encoder states of a `VisionEncoderDecoderModel` whose decoder is GPT-2."""

    def __init__(self, model: Any) -> None:
        from transformers import NoRepeatNGramLogitsProcessor

        generation = model.generation_config
        self._transformer = model.decoder.transformer
        self._head = model.decoder.lm_head.weight
        self._heads = model.decoder.config.n_head
        self._fused_gelu = model.decoder.config.activation_function == "gelu_new"
        self._start_id = generation.decoder_start_token_id
        self._eos_ids = torch.tensor(generation.eos_token_id).reshape(1, -1)
        self._pad_id = generation.pad_token_id
        ngram_size = generation.no_repeat_ngram_size
        self._no_repeat = NoRepeatNGramLogitsProcessor(ngram_size) if ngram_size else None

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether the model is a plain GPT-2 captioner that asks for no generation setting unknown here."""
        from transformers import GPT2LMHeadModel, VisionEncoderDecoderModel

        if not isinstance(model, VisionEncoderDecoderModel) or not isinstance(model.decoder, GPT2LMHeadModel):
            return False
        config = model.decoder.config
        settings = set(model.generation_config.to_diff_dict())
        return (
            bool(config.scale_attn_weights)
            and not config.scale_attn_by_inverse_layer_idx
            and not config.reorder_and_upcast_attn
            and {"decoder_start_token_id", "eos_token_id", "pad_token_id"} <= settings
            and settings <= _FOLLOWED | _WITHOUT_EFFECT
        )

    def __call__(self, encoder_states: Tensor, max_new_tokens: int) -> tuple[Tensor, Tensor]:
        """States of shape (batch, patches, decoder width) -> token ids and their natural log-probabilities.

        Both have shape (batch, emitted tokens); after its end-of-caption token a row holds padding.
        """
        batch = encoder_states.shape[0]
        ids = torch.full((batch, max_new_tokens + 1), self._pad_id)
        ids[:, 0] = self._start_id
        log_probabilities = torch.zeros(batch, max_new_tokens)
        finished = torch.zeros(batch, dtype=torch.bool)
        caches = self._new_caches(encoder_states, max_new_tokens)
        position = 0
        while position < max_new_tokens and not finished.all():
            logits = self._step(ids[:, position], position, caches).float()
            scores = logits if self._no_repeat is None else self._no_repeat(ids[:, : position + 1], logits)
            tokens = scores.argmax(-1, keepdim=True)
            chosen = logits.gather(1, tokens) - logits.logsumexp(-1, keepdim=True)
            log_probabilities[:, position] = chosen[:, 0]
            position += 1
            ids[:, position] = tokens[:, 0].masked_fill(finished, self._pad_id)
            finished |= (tokens == self._eos_ids).any(1)
        return ids[:, 1 : position + 1], log_probabilities[:, :position]

    def _new_caches(self, encoder_states: Tensor, length: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Per layer: keys and values of the photo, then room for those of `length` tokens.

        Each of shape (batch, heads, length, width of a head).
        """
        batch, patches, width = encoder_states.shape
        shape = (batch, patches, 2, self._heads, width // self._heads)
        room = (2, batch, self._heads, length, width // self._heads)
        caches = []
        for block in self._transformer.h:
            projected = block.crossattention.c_attn(encoder_states).view(shape)
            keys, values = projected.permute(2, 0, 3, 1, 4).contiguous()
            caches.append((keys, values, *encoder_states.new_empty(room).unbind()))
        return caches

    def _step(
        self, tokens: Tensor, position: int, caches: list[tuple[Tensor, Tensor, Tensor, Tensor]]
    ) -> Tensor:
        """One token per photo (batch,) at `position` -> logits of the next, (batch, vocabulary)."""
        transformer = self._transformer
        hidden = transformer.wte.weight[tokens] + transformer.wpe.weight[position]
        batch, width = hidden.shape
        for block, (photo_keys, photo_values, keys, values) in zip(transformer.h, caches, strict=True):
            projected = _project(block.attn.c_attn, _normalise(block.ln_1, hidden))
            query, key, value = projected.view(batch, 3, self._heads, -1).unbind(1)
            keys[:, :, position] = key
            values[:, :, position] = value
            past = slice(position + 1)
            attended = F.scaled_dot_product_attention(query[:, :, None], keys[:, :, past], values[:, :, past])
            hidden = hidden + _project(block.attn.c_proj, attended.reshape(batch, width))

            cross = block.crossattention
            query = _project(cross.q_attn, _normalise(block.ln_cross_attn, hidden))
            query = query.view(batch, self._heads, 1, -1)
            attended = F.scaled_dot_product_attention(query, photo_keys, photo_values)
            hidden = hidden + _project(cross.c_proj, attended.reshape(batch, width))

            inner = _project(block.mlp.c_fc, _normalise(block.ln_2, hidden))
            inner = F.gelu(inner, approximate="tanh") if self._fused_gelu else block.mlp.act(inner)
            hidden = hidden + _project(block.mlp.c_proj, inner)
        return F.linear(_normalise(transformer.ln_f, hidden), self._head)


def _project(layer: Any, inputs: Tensor) -> Tensor:
    """GPT-2's `Conv1D`: a linear layer with its weight stored as (inputs, outputs)."""
    return torch.addmm(layer.bias, inputs, layer.weight)


def _normalise(layer: Any, inputs: Tensor) -> Tensor:
    return F.layer_norm(inputs, layer.normalized_shape, layer.weight, layer.bias, layer.eps)
