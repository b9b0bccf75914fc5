"""Captions in one form, whatever was typed or pasted."""

import pytest

from captioner.captions.text import text_clean


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Cafe\u0301 in  Zu\u0308rich\n", "Caf\u00e9 in Z\u00fcrich"),
        ("a\x00dog\x07 runs\x1b[31m", "adog runs[31m"),
        ("a \u202egod\u202c and \u2066cat\u2069", "a god and cat"),
        ("\u200b\u200d\u2060", ""),
        ("\u200e \ufeff\u00ad", ""),
        ("\u0301", ""),
        ("\ud800 a half", "a half"),
        ("👩\u200d🚀 क\u200dष", "👩\u200d🚀 क\u200dष"),
        ("一只狗", "一只狗"),
    ],
)
def test_text_is_kept_in_one_form(written: str, kept: str) -> None:
    assert text_clean(written) == kept
