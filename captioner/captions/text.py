"""Words of captions, in any script, and whether two captions say the same. Neither Django nor torch."""

from __future__ import annotations

import re
import unicodedata

import regex

Words = tuple[str, ...]

# Scripts that write no space between words, by Unicode: ideographs, kana, and those whose lines only a dictionary can
# break (Thai, Lao, Khmer, Burmese). \X is a letter with all the marks that belong to it.
_UNSPACED = regex.compile(r"(?=[\p{Ideographic}\p{Hiragana}\p{Katakana}\p{Line_Break=Complex_Context}])\X")
_TOKEN = regex.compile(rf"{_UNSPACED.pattern}|(?:(?!{_UNSPACED.pattern})\S)+")
# With `regex`, as \w of `re` leaves out the vowel signs of, say, Hindi, and so cuts its words to pieces.
_WORD = regex.compile(
    r"n't\b|'(?:s|re|ve|ll|d|m)\b|[\w$%&#@*+=/]+(?:[-.,/'](?!t\b|s\b|re\b|ve\b|ll\b|d\b|m\b)\w+)*"
)
_CONTRACTION = re.compile(r"(\w)(n't)\b")

# Words that name nothing one can see. A caption that ends on one was cut short, or games the metric.
FUNCTION_WORDS = frozenset(
    """
    a an the and or but nor of in on at by for to from with without into onto over under near next behind beside between
    through across along around above below is are was were be been being has have had that which who whose while as
    his her its their this these those some no two very
    """.split()  # noqa: SIM905  a list of them takes sixty lines
)


# What shows nothing and changes what is around it: control characters, halves of characters, and marks that turn the
# direction of all that follows. Joiners stay: emoji, Persian and Hindi are written with them.
_UNSEEN = regex.compile(r"[\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069\ufeff]")
_SEEN = regex.compile(r"[\p{L}\p{N}\p{P}\p{S}]")


def text_clean(text: str) -> str:
    """Returns what somebody wrote as it is kept: in Unicode's NFC, single blanks, no control characters.

    Empty where there is nothing to see.
    """
    text = " ".join(_UNSEEN.sub("", " ".join(unicodedata.normalize("NFC", text).split())).split())
    return text if _SEEN.search(text) else ""


def caption_words(caption: str) -> Words:
    """Lower-cased words, no punctuation, contractions apart: "A dog's ball." -> ("a", "dog", "'s", "ball").

    Where words are not written apart, each character is one, as CIDEr and BLEU are computed for Chinese. English
    follows the Penn Treebank conventions that the COCO evaluation's Java tokenizer applies, for everyday
    captions. (Brackets are left out; the Java tools count them as words, "-lrb-".)
    """
    text = unicodedata.normalize("NFC", caption).lower().replace("\u2019", "'").replace("--", " ")
    apart = _UNSPACED.sub(r" \g<0> ", text)
    return tuple(_WORD.findall(_CONTRACTION.sub(r"\1 \2", apart)))


def has_words(text: str, wanted: str) -> bool:
    """Whether each word of `wanted` is a word of `text`, in any order, letter case and Unicode form.

    Of scripts without spaces between words, whether the characters follow each other in `text`.
    """
    words = caption_words(wanted)
    if is_unspaced(words):
        return caption_key(wanted) in caption_key(text)
    return bool(words) and {*words} <= {*caption_words(text)}


def caption_tokens(caption: str) -> list[str]:
    """What is between blanks, and each character that is written without them; with the blank before it."""
    tokens = list(_TOKEN.finditer(caption))
    return [
        (" " if caption[match.start() - 1 : match.start()].isspace() else "") + match[0] for match in tokens
    ]


def is_unspaced(words: Words) -> bool:
    """Whether most of these words are characters of a script that does not write words apart."""
    return 2 * sum(_UNSPACED.match(word) is not None for word in words) > len(words)


def caption_key(caption: str) -> str:
    """Returns a caption without case, punctuation and spaces: captions of one key say the same, word for word."""
    text = unicodedata.normalize("NFKC", caption).casefold()
    return "".join(char for char in text if unicodedata.category(char)[0] in "LMNS")


def captions_disagree(first: str, second: str) -> bool:
    """Whether two captions have no word in common that names something; words of one stem count as the same.

    Of captions that different people wrote of a COCO photo one pair in ten has none, of captions of different photos
    nine in ten.
    """
    return _named(first).isdisjoint(_named(second))


def _named(caption: str) -> set[str]:
    """The first five letters of each word without a plural's s: in English most of what changes comes later."""
    return {word.rstrip("s")[:5] for word in caption_words(caption) if word not in FUNCTION_WORDS}
