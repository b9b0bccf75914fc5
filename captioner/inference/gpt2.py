"""Greedy and beam decoding with a GPT-2 decoder, without the per-token overhead of `generate()`.

At one photo per batch most of `generate()` is not arithmetic but bookkeeping: module calls, masks, cache
objects. Here a step is the bare operations of transformers' `GPT2LMHeadModel` with cross-attention, on
preallocated caches. The tokens are those of `generate(do_sample=False)`; tests compare the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from captioner.inference.beams import Beams, Continuation, Hypothesis

# The generation settings these loops follow, and those without effect on a search of given width and length.
_FOLLOWED = {
    *{"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"},
    *{"no_repeat_ngram_size", "length_penalty", "early_stopping"},
}
_WITHOUT_EFFECT = {
    *{"num_beams", "num_return_sequences"},
    *{"do_sample", "temperature", "top_k", "top_p", "max_length", "max_new_tokens"},
    *{"use_cache", "output_attentions", "output_hidden_states", "transformers_version", "_from_model_config"},
}
_NOT_RUNNING = -1e9  # a score below every caption's


@dataclass(frozen=True, slots=True)
class _Cache:
    """Keys and values of what a token may attend to.

    `photo`: (layers, 2, photos, heads, patches, width of a head). `text`: (layers, 2, rows, heads, length, width
    of a head), with one row per caption being written; the captions of a photo lie next to each other.
    """

    photo: Tensor
    text: Tensor

    def reorder(self, rows: Tensor, length: int) -> None:
        """Let row i go on from what was row `rows[i]`, `length` tokens long."""
        past = self.text[..., :length, :]
        past.copy_(past.index_select(2, rows))


class Gpt2Decoder:
    """Captions from the encoder states of a `VisionEncoderDecoderModel` whose decoder is GPT-2."""

    def __init__(self, model: Any) -> None:
        from transformers import NoRepeatNGramLogitsProcessor

        generation = model.generation_config
        self._transformer = model.decoder.transformer
        self._head = model.decoder.lm_head.weight
        self._heads = model.decoder.config.n_head
        self._fused_gelu = model.decoder.config.activation_function == "gelu_new"
        self._start_id = generation.decoder_start_token_id
        self._eos_ids = torch.tensor(generation.eos_token_id).reshape(1, -1)
        self._length_penalty = 1.0 if generation.length_penalty is None else generation.length_penalty
        self._early_stopping = bool(generation.early_stopping)
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
            and model.generation_config.early_stopping != "never"
        )

    def greedy(
        self, encoder_states: Tensor, max_new_tokens: int, given: Sequence[int] = (), width: int = 1
    ) -> tuple[Tensor, Tensor]:
        """States of shape (batch, patches, decoder width) -> token ids and their natural log-probabilities.

        Both have shape (batch * width, emitted tokens), the rows of a photo next to each other; after its
        end-of-caption token a row holds padding. All begin with the tokens that are `given`, whose logarithm is 0;
        the next is the best in the first row of a photo, in the second the second best, and so on.
        """
        batch = encoder_states.shape[0] * width
        ids = self._new_ids(batch, max_new_tokens)
        log_probabilities = torch.zeros(batch, max_new_tokens)
        finished = torch.zeros(batch, dtype=torch.bool)
        cache = self._new_cache(encoder_states, batch, max_new_tokens)
        position = 0
        while position < max_new_tokens and not finished.all():
            logits = self._step(ids[:, position], position, cache).float()
            if position < len(given):
                tokens = torch.full((batch, 1), given[position])
            else:
                scores = self._constrained(ids[:, : position + 1], logits)
                if position == len(given):
                    tokens = scores[::width].topk(width).indices.view(-1, 1)
                else:
                    tokens = scores.argmax(-1, keepdim=True)
                chosen = logits.gather(1, tokens) - logits.logsumexp(-1, keepdim=True)
                log_probabilities[:, position] = chosen[:, 0]
            position += 1
            ids[:, position] = tokens[:, 0].masked_fill(finished, self._pad_id)
            finished |= (tokens == self._eos_ids).any(1)
        return ids[:, 1 : position + 1], log_probabilities[:, :position]

    def beams(self, encoder_states: Tensor, width: int, max_new_tokens: int) -> list[list[Hypothesis]]:
        """States of shape (batch, patches, decoder width) -> the `width` best captions of each photo, best first."""
        photos = [
            Beams(
                width,
                end_ids=frozenset(self._eos_ids[0].tolist()),
                max_length=max_new_tokens,
                length_penalty=self._length_penalty,
                early_stopping=self._early_stopping,
            )
            for _ in encoder_states
        ]
        rows = len(photos) * width
        ids = self._new_ids(rows, max_new_tokens)
        cache = self._new_cache(encoder_states, rows, max_new_tokens)
        for position in range(max_new_tokens):
            log_probabilities = self._step(ids[:, position], position, cache).float().log_softmax(-1)
            scores = self._constrained(ids[:, : position + 1], log_probabilities)
            vocabulary = scores.shape[1]
            so_far = torch.full((len(photos), width), _NOT_RUNNING)
            for photo, beams in enumerate(photos):
                so_far[photo, : len(beams.running)] = torch.tensor([each.score for each in beams.running])
            totals = (scores + so_far.view(-1, 1)).view(len(photos), -1)
            best, indexes = totals.topk(width * (1 + self._eos_ids.numel()))
            chosen = log_probabilities.view(len(photos), -1).gather(1, indexes)
            for beams, *columns in zip(photos, indexes.tolist(), best.tolist(), chosen.tolist(), strict=True):
                beams.advance(
                    Continuation(index // vocabulary, index % vocabulary, score, log_probability)
                    for index, score, log_probability in zip(*columns, strict=True)
                )
            if all(beams.is_done for beams in photos):
                break
            running = [(first, each) for first, beams in enumerate(photos) for each in beams.running]
            origins = torch.tensor([first * width + each.origin for first, each in running])
            ids[:, : position + 1] = ids[origins, : position + 1]
            ids[:, position + 1] = torch.tensor([each.token_ids[-1] for _, each in running])
            cache.reorder(origins, position + 1)
        return [beams.finished for beams in photos]

    def _new_ids(self, rows: int, length: int) -> Tensor:
        ids = torch.full((rows, length + 1), self._pad_id)
        ids[:, 0] = self._start_id
        return ids

    def _constrained(self, ids: Tensor, scores: Tensor) -> Tensor:
        return scores if self._no_repeat is None else self._no_repeat(ids, scores)

    def _new_cache(self, encoder_states: Tensor, rows: int, length: int) -> _Cache:
        batch, patches, width = encoder_states.shape
        shape = (batch, patches, 2, self._heads, width // self._heads)
        projected = [block.crossattention.c_attn(encoder_states).view(shape) for block in self._transformer.h]
        photo = torch.stack(projected).permute(0, 3, 1, 4, 2, 5).contiguous()
        room = (len(projected), 2, rows, self._heads, length, width // self._heads)
        return _Cache(photo, encoder_states.new_empty(room))

    def _step(self, tokens: Tensor, position: int, cache: _Cache) -> Tensor:
        """One token per row (rows,) at `position` -> logits of the next, (rows, vocabulary)."""
        transformer = self._transformer
        hidden = transformer.wte.weight[tokens] + transformer.wpe.weight[position]
        rows, width = hidden.shape
        photos = cache.photo.shape[2]
        past = slice(position + 1)
        for block, (photo_keys, photo_values), (keys, values) in zip(
            transformer.h, cache.photo, cache.text, strict=True
        ):
            projected = _project(block.attn.c_attn, _normalise(block.ln_1, hidden))
            query, key, value = projected.view(rows, 3, self._heads, -1).unbind(1)
            keys[:, :, position] = key
            values[:, :, position] = value
            attended = F.scaled_dot_product_attention(query[:, :, None], keys[:, :, past], values[:, :, past])
            hidden = hidden + _project(block.attn.c_proj, attended.reshape(rows, width))

            cross = block.crossattention
            query = _project(cross.q_attn, _normalise(block.ln_cross_attn, hidden))
            # The captions of one photo ask it together, so that its keys and values need no copies.
            query = query.view(photos, -1, self._heads, width // self._heads).transpose(1, 2)
            attended = F.scaled_dot_product_attention(query, photo_keys, photo_values)
            hidden = hidden + _project(cross.c_proj, attended.transpose(1, 2).reshape(rows, width))

            inner = _project(block.mlp.c_fc, _normalise(block.ln_2, hidden))
            inner = F.gelu(inner, approximate="tanh") if self._fused_gelu else block.mlp.act(inner)
            hidden = hidden + _project(block.mlp.c_proj, inner)
        return F.linear(_normalise(transformer.ln_f, hidden), self._head)


def _project(layer: Any, inputs: Tensor) -> Tensor:
    """GPT-2's `Conv1D`: a linear layer with its weight stored as (inputs, outputs)."""
    return torch.addmm(layer.bias, inputs, layer.weight)


def _normalise(layer: Any, inputs: Tensor) -> Tensor:
    return F.layer_norm(inputs, layer.normalized_shape, layer.weight, layer.bias, layer.eps)
