from __future__ import annotations

from training.judging.tables import table_markdown, table_text

ROWS = [["name", "n"], ["a", "100"], ["longer", "2"]]


def test_a_table_is_aligned_markdown() -> None:
    assert table_markdown(ROWS, words=1).splitlines() == [
        "| name   |   n |",
        "| ------ | --: |",
        "| a      | 100 |",
        "| longer |   2 |",
    ]


def test_a_table_for_a_terminal_has_the_same_columns() -> None:
    assert table_text(ROWS, words=1).splitlines() == ["name      n", "a       100", "longer    2"]


def test_without_rows_there_is_no_table() -> None:
    assert (table_text([]), table_markdown([])) == ("", "")
