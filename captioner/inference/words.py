"""Sub-word tokens -> the words a person reads: how probable each was, and where in the photo it looked."""

import math
import re
import sys
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from captioner.inference.types import Gaze, Word

# Not what steers a terminal or turns a line around, which a model may say as well: PostgreSQL keeps no NUL.
_WORD = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]+")


def merge_tokens(tokenizer: Any, token_ids: list[int], log_probabilities: list[float]) -> tuple[Word, ...]:
    """The words of the decoded tokens, without special tokens; joined by spaces they are the caption.

    Works for any tokenizer: which characters a token adds is read off the decoded prefixes.
    """
    special_ids = frozenset(tokenizer.all_special_ids)
    pairs = zip(token_ids, log_probabilities, strict=True)
    shown = [
        (token_id, log_probability) for token_id, log_probability in pairs if token_id not in special_ids
    ]
    if not shown:
        return ()
    ids = [token_id for token_id, _ in shown]
    prefixes = tokenizer.batch_decode([ids[:length] for length in range(1, len(ids) + 1)])
    ends = [len(prefix) for prefix in prefixes]
    spans = list(zip([0, *ends[:-1]], ends, (log_probability for _, log_probability in shown), strict=True))
    words = []
    for word in _WORD.finditer(prefixes[-1]):
        # A token that completes a character begun by the one before adds no length; it belongs to that character.
        within = (
            log_probability
            for start, end, log_probability in spans
            if min(start, end - 1) < word.end() and end > word.start()
        )
        probability = math.exp(min(math.fsum(within), 0.0))
        words.append(Word(unicodedata.normalize("NFC", word.group()), max(probability, sys.float_info.min)))
    return tuple(words)


@torch.inference_mode()
def gaze(model: Any, tokenizer: Any, pixels: Tensor, caption: str) -> tuple[Gaze, ...]:
    """Standardised pixels (3, height, width) and a caption of theirs -> where each of its words looked.

    Means over layers, heads and the tokens of a word; what an encoder says of the photo as a whole is left out. The
    model is a `VisionEncoderDecoderModel` with a GPT-2 decoder, whose encoder gives one such state and then those of
    a square map; raises `ValueError` for another.
    """
    states = model.encoder(pixel_values=pixels[None].to(model.dtype)).last_hidden_state
    side = math.isqrt(states.shape[1] - 1)
    if side * side != states.shape[1] - 1 or not hasattr(model.decoder, "transformer"):
        raise ValueError("Only captioners with a GPT-2 decoder over a square map tell where they look.")
    if getattr(model, "enc_to_dec_proj", None) is not None:
        states = model.enc_to_dec_proj(states)
    ids = tokenizer(caption, add_special_tokens=False).input_ids
    maps = _attention(model, states, [model.generation_config.decoder_start_token_id, *ids][: len(ids)])
    maps = maps[:, 1:] / maps[:, 1:].sum(1, keepdim=True)
    prefixes = tokenizer.batch_decode([ids[:length] for length in range(len(ids) + 1)])
    ends = [len(prefix) for prefix in prefixes]
    found = []
    for word in _WORD.finditer(prefixes[-1]):
        within = [
            number
            for number, (start, end) in enumerate(pairwise(ends))
            if start < word.end() and max(end, start + 1) > word.start()
        ]
        places = maps[within].mean(0).view(side, side)
        found.append(Gaze(unicodedata.normalize("NFC", word.group()), tuple(map(tuple, places.tolist()))))
    return tuple(found)


def _attention(model: Any, states: Tensor, inputs: Sequence[int]) -> Tensor:
    """Cross-attention (tokens, places), mean over layers and heads, as each token after `inputs` is chosen."""
    blocks, heads = model.decoder.transformer.h, model.decoder.config.n_head
    queries: list[Tensor] = []
    hooks = [
        block.crossattention.q_attn.register_forward_hook(lambda *call: queries.append(call[-1]))
        for block in blocks
    ]
    try:
        model.decoder(input_ids=torch.tensor([inputs]), encoder_hidden_states=states, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    found = torch.zeros(len(inputs), states.shape[1])
    for block, query in zip(blocks, queries, strict=True):
        keys = block.crossattention.c_attn(states).chunk(2, -1)[0]
        query, keys = (each[0].view(len(each[0]), heads, -1).transpose(0, 1) for each in (query, keys))
        scores = query @ keys.transpose(1, 2) / math.sqrt(query.shape[-1])
        found += scores.float().softmax(-1).mean(0) / len(blocks)
    return found
