"""What changed between two captions, word by word."""

import difflib
from collections.abc import Iterator

from captioner.captions.text import caption_tokens


def word_diff(old: str, new: str) -> Iterator[tuple[str, str]]:
    """Runs of words with what happened to them: ("same" | "removed" | "added", words), in reading order.

    A word that differs only in case counts as the same and is shown as in `new`. Of scripts without blanks each
    character counts as a word.
    """
    before, after = caption_tokens(old), caption_tokens(new)
    folded = ([word.strip().casefold() for word in before], [word.strip().casefold() for word in after])
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, *folded, autojunk=False).get_opcodes():
        if tag == "equal":
            yield "same", "".join(after[j1:j2]).strip()
            continue
        if i1 < i2:
            yield "removed", "".join(before[i1:i2]).strip()
        if j1 < j2:
            yield "added", "".join(after[j1:j2]).strip()
