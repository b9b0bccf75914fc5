import pytest

from captioner.review.word_diff import word_diff


@pytest.mark.parametrize(
    ("old", "new", "runs"),
    [
        ("a dog", "a dog", [("same", "a dog")]),
        ("a dog runs", "a cat runs", [("same", "a"), ("removed", "dog"), ("added", "cat"), ("same", "runs")]),
        ("a dog", "a big dog", [("same", "a"), ("added", "big"), ("same", "dog")]),
        ("a big dog", "a dog", [("same", "a"), ("removed", "big"), ("same", "dog")]),
        ("a Dog", "A dog", [("same", "A dog")]),
        ("", "a dog", [("added", "a dog")]),
        ("", "", []),
    ],
)
def test_word_diff_tells_what_happened_to_each_word(old: str, new: str, runs: list[tuple[str, str]]) -> None:
    assert list(word_diff(old, new)) == runs


def test_scripts_without_blanks_are_compared_by_character() -> None:
    runs = list(word_diff("一只狗在草地上奔跑", "一只狗在草地上跑"))
    assert runs == [("same", "一只狗在草地上"), ("removed", "奔"), ("same", "跑")]
