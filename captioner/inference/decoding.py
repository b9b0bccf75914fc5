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
        self._project = getattr(model, "enc_to_dec_proj", None) or torch.nn.Identity()
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
        beams, length = parameters.num_beams, min(parameters.max_new_tokens, self.max_new_tokens)
        if self._lean is not None:
            states = self._project(self._encode(pixels))
            if beams == 1:
                return self._cut(*self._lean.greedy(states, length), beams)
            return [
                [Sequence(list(each.token_ids), list(each.log_probabilities)) for each in hypotheses]
                for hypotheses in self._lean.beams(states, beams, length)
            ]
        from transformers.modeling_outputs import BaseModelOutput

        inputs: dict[str, Any] = {"pixel_values": pixels}
        if self._has_encoder:
            # Encoded here because generate() asks an encoder's output for attentions, and FocalNet's has none.
            inputs = {"encoder_outputs": BaseModelOutput(last_hidden_state=self._encode(pixels))}
        output = self._model.generate(
            **inputs,
            do_sample=False,
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=length,
            return_dict_in_generate=True,
            output_logits=True,
        )
        log_probabilities = self._generator.compute_transition_scores(
            output.sequences, output.logits, output.get("beam_indices"), normalize_logits=True
        )
        return self._cut(output.sequences[:, -log_probabilities.shape[1] :], log_probabilities, beams)

    def _encode(self, pixels: Tensor) -> Tensor:
        states: Tensor = self._model.encoder(pixel_values=pixels).last_hidden_state
        return states

    def _cut(self, token_ids: Tensor, log_probabilities: Tensor, num_beams: int) -> list[list[Sequence]]:
        """Rows of shape (batch * num_beams, emitted tokens) -> the sequences of each photo, without padding."""
        sequences = []
        for ids, each in zip(token_ids.tolist(), log_probabilities.tolist(), strict=True):
            ends = (index for index, token in enumerate(ids, start=1) if token in self._end_ids)
            length = next(ends, len(ids))
            sequences.append(Sequence(ids[:length], each[:length]))
        return [sequences[start : start + num_beams] for start in range(0, len(sequences), num_beams)]
