"""Captions of a whole set of photos, and what they score against people's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from training.data.datasets import Pixels
from training.judging.gate import distinct_share
from training.judging.scores import CiderD, Scores, caption_words, captions_score
from training.starter.augment import pixels_normalise
from training.starter.loop import half_where_fast

CONSTANTS_TRIED = 100
CONSTANTS_JUDGED_ON = 400


@dataclass(frozen=True)
class Decoding:
    """Arguments of `generate()` that are chosen on validation photos and shipped as the defaults."""

    num_beams: int = 1
    no_repeat_ngram_size: int = 3
    length_penalty: float = 1.0
    max_new_tokens: int = 24

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `generate()`; the length penalty means nothing to greedy decoding."""
        arguments = asdict(self)
        if self.num_beams == 1:
            del arguments["length_penalty"]
        return arguments


@torch.inference_mode()
def encode(model: Any, pixels: Pixels, batch: int = 50) -> Tensor:
    """Encoder states (photos, tokens, width) of uint8 photos already at the model's size."""
    states = []
    for start in range(0, len(pixels), batch):
        images = pixels_normalise(torch.from_numpy(pixels[start : start + batch].copy()))
        with half_where_fast():
            states.append(model.encoder(pixel_values=images).last_hidden_state.float())
    return torch.cat(states)


@torch.inference_mode()
def generate(
    model: Any, tokenizer: PreTrainedTokenizerBase, states: Tensor, decoding: Decoding, batch: int = 100
) -> list[str]:
    """One caption per row of encoder states, in order."""
    captions: list[str] = []
    for part in torch.split(states, batch):
        tokens = model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=part), use_cache=True, **decoding.arguments()
        )
        captions += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return captions


def captions_distinct(captions: Sequence[str]) -> float:
    """Share of captions that differ from all others before them, in percent."""
    return 100.0 * distinct_share(captions)


def captions_repeating(captions: Sequence[str], n: int = 3) -> float:
    """Share of captions in which some n words in a row occur twice, in percent."""
    return 100.0 * sum(_repeats(caption_words(caption), n) for caption in captions) / len(captions)


def _repeats(words: Sequence[str], n: int) -> bool:
    grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return any(count > 1 for count in grams.values())


def constant_caption(references: Sequence[Sequence[str]]) -> str:
    """The one caption that fits the given (training) photos best by CIDEr-D, out of the commonest references.

    A baseline that never looks: a captioner that does not beat it has learned nothing from photos.
    """
    common = Counter(caption for group in references for caption in group).most_common(CONSTANTS_TRIED)
    judges = CiderD(
        [[caption_words(caption) for caption in group] for group in references[:CONSTANTS_JUDGED_ON]]
    )
    count = min(len(references), CONSTANTS_JUDGED_ON)
    return max(
        (caption for caption, _ in common), key=lambda c: sum(judges.scores([caption_words(c)] * count))
    )


def report(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """The figures of one row of an evaluation table, in percent."""
    scores: Scores = captions_score(captions, references)
    return {
        "cider_d": scores.cider_d,
        "bleu_1": scores.bleu[0],
        "bleu_4": scores.bleu[3],
        "rouge_l": scores.rouge_l,
        "distinct": captions_distinct(captions),
        "repeating": captions_repeating(captions),
    }
