"""Tables for terminals and in Markdown, of rows of text; the first row is the head."""

from __future__ import annotations

from collections.abc import Sequence


def table_text(rows: Sequence[Sequence[str]], words: int = 2) -> str:
    """Returns columns aligned for a terminal, the first `words` to the left and figures to the right."""
    return "\n".join("  ".join(line).rstrip() for line in _aligned(rows, words))


def table_markdown(rows: Sequence[Sequence[str]], words: int = 2) -> str:
    """Returns the same table in Markdown."""
    lines = _aligned(rows, words)
    if lines:
        rule = [
            "-" * len(cell) if column < words else "-" * (len(cell) - 1) + ":"
            for column, cell in enumerate(lines[0])
        ]
        lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _aligned(rows: Sequence[Sequence[str]], words: int) -> list[list[str]]:
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
