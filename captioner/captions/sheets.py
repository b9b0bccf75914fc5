"""CSV as spreadsheets read it: the one writer of CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

# Says UTF-8 to Excel, which takes a file without it for the code page of its Windows; others read it as a letter.
BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
# What a formula begins with in Excel, LibreOffice or Google Sheets, full width included (OWASP, "CSV Injection").
_FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r", "\n", *"\uff1d\uff0b\uff0d\uff20")


def cell_disarm(value: object) -> object:
    """A text that would be a formula becomes one that begins with an apostrophe; numbers stay as they are.

    Blanks before the mark do not count: some spreadsheets trim them.
    """
    if isinstance(value, str) and (
        value.startswith(_FORMULA_MARKS) or value.strip().startswith(_FORMULA_MARKS)
    ):
        return f"'{value}"
    return value


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """The header and then each row, quoted as in RFC 4180, formulas disarmed. For Excel, send `BOM` first.

    Columns that a row lacks are empty.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns)
    writer.writeheader()
    for row in rows:
        writer.writerow({column: cell_disarm(row.get(column)) for column in columns})
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()
