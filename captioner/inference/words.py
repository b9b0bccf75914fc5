"""Sub-word tokens -> the words a person reads, each with its probability."""

import math
import re
import sys
from typing import Any

from captioner.inference.types import Word


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
    for word in re.finditer(r"\S+", prefixes[-1]):
        # A token that completes a character begun by the one before adds no length; it belongs to that character.
        within = (
            log_probability
            for start, end, log_probability in spans
            if min(start, end - 1) < word.end() and end > word.start()
        )
        probability = math.exp(min(math.fsum(within), 0.0))
        words.append(Word(word.group(), max(probability, sys.float_info.min)))
    return tuple(words)
