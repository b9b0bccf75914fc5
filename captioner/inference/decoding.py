"""Pixels -> token sequences with log-probabilities, by the lean loops or by `generate()`."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captioner.inference.gpt2 import Gpt2Decoder
from captioner.inference.types import MAX_NEW_TOKENS, DecodingParameters


@dataclass(frozen=True, slots=True)
class Sequence:
    """What the model emitted for one caption, up to and including its end-of-caption token."""

    token_ids: list[int]
    log_probabilities: list[float]


class Decoder:
    """Decodes batches of pixels as the checkpoint's generation settings ask.

    Beam width, number of captions and length come from the request; everything else (n-gram blocking,
    penalties, special tokens) from the checkpoint's generation_config.json.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._has_encoder = model.config.model_type == "vision-encoder-decoder"
        self._lean = Gpt2Decoder(model) if Gpt2Decoder.supports(model) else None
        # BLIP's text decoder has generation settings of its own, and ends captions with [SEP].
        self._generator = getattr(model, "text_decoder", model)
        self._generator.generation_config = model.generation_config
        text_config = model.config.get_text_config(decoder=True)
        end = model.generation_config.eos_token_id if self._generator is model else text_config.sep_token_id
        self._end_ids = frozenset([end] if isinstance(end, int) else end or ())
        self.max_new_tokens: int = getattr(text_config, "max_position_embeddings", MAX_NEW_TOKENS + 1) - 1

    @torch.inference_mode()
    def __call__(self, pixels: Tensor, parameters: DecodingParameters) -> list[list[Sequence]]:
        """Pixels of shape (batch, 3, height, width) -> for each photo `num_beams` sequences, best first."""
        pixels = pixels.to(self._model.dtype)
        length = min(parameters.max_new_tokens, self.max_new_tokens)
        if self._lean is not None:
            return self._search(self._lean, pixels, parameters.num_beams, length)
        return self._cut(*self._generate(pixels, parameters.num_beams, length), parameters.num_beams)

    def _search(
        self, lean: Gpt2Decoder, pixels: Tensor, num_beams: int, max_new_tokens: int
    ) -> list[list[Sequence]]:
        states = self._project(self._encode(pixels))
        if num_beams == 1:
            return self._cut(*lean.greedy(states, max_new_tokens), num_beams)
        return [
            [Sequence(list(each.token_ids), list(each.log_probabilities)) for each in hypotheses]
            for hypotheses in lean.beams(states, num_beams, max_new_tokens)
        ]

    def _cut(self, token_ids: Tensor, log_probabilities: Tensor, num_beams: int) -> list[list[Sequence]]:
        """Rows of shape (batch * num_beams, emitted tokens) -> the sequences of each photo, without padding."""
        rows = zip(token_ids.tolist(), log_probabilities.tolist(), strict=True)
        sequences = [self._cut_at_end(*row) for row in rows]
        return [sequences[start : start + num_beams] for start in range(0, len(sequences), num_beams)]

    def _generate(self, pixels: Tensor, num_beams: int, max_new_tokens: int) -> tuple[Tensor, Tensor]:
        output = self._model.generate(
            **self._inputs(pixels),
            do_sample=False,
            num_beams=num_beams,
            num_return_sequences=num_beams,
            max_new_tokens=max_new_tokens,
            return_dict_in_generate=True,
            output_logits=True,
        )
        log_probabilities = self._generator.compute_transition_scores(
            output.sequences, output.logits, output.get("beam_indices"), normalize_logits=True
        )
        return output.sequences[:, -log_probabilities.shape[1] :], log_probabilities

    def _inputs(self, pixels: Tensor) -> dict[str, Any]:
        if not self._has_encoder:
            return {"pixel_values": pixels}
        from transformers.modeling_outputs import BaseModelOutput

        # Encoded here because generate() asks an encoder's output for attentions, and FocalNet's has none.
        return {"encoder_outputs": BaseModelOutput(last_hidden_state=self._encode(pixels))}

    def _encode(self, pixels: Tensor) -> Tensor:
        states: Tensor = self._model.encoder(pixel_values=pixels).last_hidden_state
        return states

    def _project(self, states: Tensor) -> Tensor:
        projection = getattr(self._model, "enc_to_dec_proj", None)
        return states if projection is None else projection(states)

    def _cut_at_end(self, token_ids: list[int], log_probabilities: list[float]) -> Sequence:
        ends = (index for index, token in enumerate(token_ids, start=1) if token in self._end_ids)
        length = next(ends, len(token_ids))
        return Sequence(token_ids[:length], log_probabilities[:length])
