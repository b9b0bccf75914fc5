"""Tables for terminals and for Markdown, of rows of text, the first of which is the head."""

from __future__ import annotations

from collections.abc import Sequence


def table_text(rows: Sequence[Sequence[str]], words: int = 2) -> str:
    """Returns columns aligned for a terminal, the first `words` to the left and figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def table_markdown(rows: Sequence[Sequence[str]], words: int = 2) -> str:
    """Returns the same rows in Markdown."""
    if not rows:
        return ""
    head, *body = rows
    lines = [head, ["---"] * words + ["---:"] * (len(head) - words), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
