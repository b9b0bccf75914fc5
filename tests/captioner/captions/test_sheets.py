import csv
import io

import pytest

from captioner.captions.sheets import BOM, cell_disarm, csv_lines


@pytest.mark.parametrize(
    "formula",
    [
        '=HYPERLINK("http://localhost","x").jpg',
        "+1 cafe.jpg",
        "-2+3",
        "@SUM(A1)",
        " =1+1",
        "\t=1+1",
        "\r=1+1",
        "\u00a0=1",
        "\uff1d1+1",
    ],
)
def test_what_a_spreadsheet_would_compute_becomes_text(formula: str) -> None:
    assert cell_disarm(formula) == f"'{formula}"


@pytest.mark.parametrize("cell", ["a dog = a cat", "", None, -1.5, 3, "'=1", "well - no", "1+1"])
def test_other_cells_stay_as_they_are(cell: object) -> None:
    assert cell_disarm(cell) == cell


def test_rows_come_back_as_they_were_written() -> None:
    rows = [{"name": 'a "b", c', "caption": "two\nlines"}, {"name": "=1", "confidence": -0.5}]
    text = "".join(csv_lines(["name", "caption", "confidence"], rows))
    assert [*csv.reader(io.StringIO(text, newline=""))] == [
        ["name", "caption", "confidence"],
        ['a "b", c', "two\nlines", ""],
        ["'=1", "", "-0.5"],
    ]


def test_no_rows_are_a_header_without_a_mark_unless_asked_for() -> None:
    assert "".join(csv_lines(["name"], [])) == "name\r\n"
    assert BOM.encode() == b"\xef\xbb\xbf"
