"""Pixels -> token sequences with log-probabilities, by the lean loops or by `generate()`."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captioner.inference.gpt2 import Gpt2Decoder
from captioner.inference.types import MAX_NEW_TOKENS, DecodingParameters

# What makes another search of greedy decoding and beams, or needs what no checkpoint brings. It is left out.
_OTHER_SEARCHES = (
    *(
        "num_beam_groups",
        "diversity_penalty",
        "constraints",
        "force_words_ids",
        "penalty_alpha",
        "dola_layers",
    ),
    *("prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp", "watermarking_config"),
)


@dataclass(frozen=True, slots=True)
class Sequence:
    """What the model emitted for one caption, up to and including its end-of-caption token."""

    token_ids: list[int]
    log_probabilities: list[float]


class Decoder:
    """Decodes batches of pixels as the checkpoint's generation settings ask.

    Beam width, number of captions and length come from the request; everything else (n-gram blocking,
    penalties, special tokens) from the checkpoint's generation_config.json. Groups of beams become plain beams.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        for name in _OTHER_SEARCHES:
            if getattr(model.generation_config, name, None):
                setattr(model.generation_config, name, None)
        self._has_encoder = model.config.model_type == "vision-encoder-decoder"
        self._project = getattr(model, "enc_to_dec_proj", None) or torch.nn.Identity()
        self._lean = Gpt2Decoder(model) if Gpt2Decoder.supports(model) else None
        # BLIP's text decoder has generation settings of its own, and ends captions with [SEP].
        self._generator = getattr(model, "text_decoder", model)
        self._generator.generation_config = model.generation_config
        text_config = model.config.get_text_config(decoder=True)
        end = model.generation_config.eos_token_id if self._generator is model else text_config.sep_token_id
        self._end_ids = frozenset([end] if isinstance(end, int) else end or ())
        start = model.generation_config.decoder_start_token_id if self._has_encoder else None
        self._start_id: int = text_config.bos_token_id if start is None else start
        self.max_new_tokens: int = getattr(text_config, "max_position_embeddings", MAX_NEW_TOKENS + 1) - 1

    @torch.inference_mode()
    def __call__(
        self, pixels: Tensor, parameters: DecodingParameters, given: list[int] | None = None
    ) -> list[list[Sequence]]:
        """Pixels of shape (batch, 3, height, width) -> for each photo `num_beams` sequences, best first.

        After tokens that are `given`, if only none, sequences differ in the next one, best first, and go on greedily;
        what was given has the logarithm 0.
        """
        pixels = pixels.to(self._model.dtype)
        # What fills all positions leaves none for another word.
        begin = (given or [])[: self.max_new_tokens - 1]
        beams = parameters.num_beams
        length = min(len(begin) + parameters.max_new_tokens, self.max_new_tokens)
        if self._lean is not None:
            states = self._project(self._encode(pixels))
            if beams == 1 or given is not None:
                return self._cut(*self._lean.greedy(states, length, begin, beams), beams)
            return [
                [Sequence(list(each.token_ids), list(each.log_probabilities)) for each in hypotheses]
                for hypotheses in self._lean.beams(states, beams, length)
            ]
        if given is not None:
            return self._cut(*self._forked(pixels, begin, beams, length), beams)
        output = self._generate(pixels, num_beams=beams, num_return_sequences=beams, max_new_tokens=length)
        return self._cut(*self._chosen(output), beams)

    def _forked(self, pixels: Tensor, given: list[int], width: int, length: int) -> tuple[Tensor, Tensor]:
        """By `generate()` what `Gpt2Decoder.greedy` does: token ids and logarithms, (batch * width, tokens)."""
        begin = torch.tensor([given], dtype=torch.long).expand(len(pixels), -1)
        output = self._generate(pixels, begin, max_new_tokens=1, output_scores=True)
        forks = output.scores[0].topk(width).indices
        logarithms = output.logits[0].float().log_softmax(-1).gather(1, forks).view(-1, 1)
        ids = torch.cat([begin.repeat_interleave(width, 0), forks.view(-1, 1)], 1)
        known = torch.cat([torch.zeros(len(ids), len(given)), logarithms], 1)
        if ids.shape[1] == length:
            return ids, known
        rest = self._generate(pixels.repeat_interleave(width, 0), ids, max_new_tokens=length - ids.shape[1])
        more_ids, more = self._chosen(rest)
        return torch.cat([ids, more_ids], 1), torch.cat([known, more], 1)

    def _generate(self, pixels: Tensor, begin: Tensor | None = None, **settings: Any) -> Any:
        """`generate()` on pixels, perhaps after the tokens of `begin` (batch, tokens), which follow the start token."""
        from transformers.modeling_outputs import BaseModelOutput

        inputs: dict[str, Any] = {"pixel_values": pixels}
        if self._has_encoder:
            # Encoded here because generate() asks an encoder's output for attentions, and FocalNet's has none.
            inputs = {"encoder_outputs": BaseModelOutput(last_hidden_state=self._encode(pixels))}
        if begin is not None:
            inputs |= self._beginning(begin)
        return self._model.generate(
            **inputs, do_sample=False, return_dict_in_generate=True, output_logits=True, **settings
        )

    def _beginning(self, tokens: Tensor) -> dict[str, Tensor]:
        """How this family is told what its caption begins with."""
        start, end = self._start_id, tokens.new_empty(len(tokens), 0)
        if self._generator is not self._model:  # BLIP takes a whole text and drops its end
            end = tokens.new_full((len(tokens), 1), self._model.config.text_config.sep_token_id)
        ids = torch.cat([tokens.new_full((len(tokens), 1), start), tokens, end], 1)
        return {"decoder_input_ids" if self._has_encoder else "input_ids": ids}

    def _chosen(self, output: Any) -> tuple[Tensor, Tensor]:
        """The tokens that `generate()` added, and their natural logarithms."""
        log_probabilities = self._generator.compute_transition_scores(
            output.sequences, output.logits, output.get("beam_indices"), normalize_logits=True
        )
        return output.sequences[:, -log_probabilities.shape[1] :], log_probabilities

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
