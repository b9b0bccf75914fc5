from __future__ import annotations

import pytest

from training.data.caption_text import caption_mirror, caption_normalise, caption_plain, caption_words


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog runs.", ("a", "dog", "runs")),
        ("The dog's ball , and a T-shirt !", ("the", "dog", "'s", "ball", "and", "a", "t-shirt")),
        ("It doesn't matter", ("it", "does", "n't", "matter")),
        ("They\u2019re 2.5 m away--really?", ("they", "'re", "2.5", "m", "away", "really")),
        ("", ()),
        ("一只狗在草地上。", ("一", "只", "狗", "在", "草", "地", "上")),
        ("หมาวิ่ง", ("ห", "ม", "า", "วิ่", "ง")),
        ("घास पर कुत्ता", ("घास", "पर", "कुत्ता")),
        ("cafe\u0301 au lait", ("caf\u00e9", "au", "lait")),
    ],
)
def test_words_follow_the_treebank_conventions_without_punctuation(
    caption: str, expected: tuple[str, ...]
) -> None:
    assert caption_words(caption) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("A dog runs on the beach .", "a dog runs on the beach"),
        ("Two boys , one with a ball , play .", "two boys, one with a ball, play"),
        ("The dog 's  ball", "the dog's ball"),
        ("He does n't look", "he doesn't look"),
        ('A sign says " Stop "', "a sign says stop"),
        ("A black-and-white dog - running", "a black-and-white dog running"),
    ],
)
def test_captions_read_naturally_after_normalisation(raw: str, expected: str) -> None:
    assert caption_normalise(raw) == expected


@pytest.mark.parametrize(
    ("framed", "plain"),
    [
        ("this photo shows a dog in a yard", "a dog in a yard"),
        ("a black and white photograph of two men", "a black and white photograph of two men"),
        ("an aerial photograph of a town", "a town"),
        ("an owl on a branch is shown", "an owl on a branch"),
        ("two men are shown here", "two men"),
        ("a photo is shown", "a photo"),
        ("a man who is shown a map", "a man who is shown a map"),
    ],
)
def test_a_caption_loses_its_frame(framed: str, plain: str) -> None:
    assert caption_plain(framed) == plain


def test_mirroring_a_photo_swaps_left_and_right_in_its_caption() -> None:
    assert caption_mirror("a man left of a right-hand door") == "a man right of a left-hand door"
    assert caption_mirror("a bright leftover") == "a bright leftover"
