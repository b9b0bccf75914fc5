"""The gate's report in a form that pages and terminals show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "cider_d": "CIDEr-D",
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "distinct": "distinct %",
    "function_word_endings": "cut short %",
    "length": "words",
}
_COUNTS: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "{} and {} by {} to learn from",
        {"train_corrections": "correction", "train_ratings": "rating", "authors": "author"},
    ),
    ("{} of {} that never train", {"holdout_corrections": "correction", "holdout_photos": "photo"}),
    ("{} replayed", {"replayed_photos": "photo"}),
    ("{} cut to the length that is learned", {"corrections_cut": "correction"}),
    ("{} left out: said before", {"left_out_duplicate": "row"}),
    ("{} left out by the limit per photo", {"left_out_photo_cap": "row"}),
    ("{} left out by the limit per author", {"left_out_author_cap": "row"}),
    ("{} left out: the photo cannot be read", {"left_out_photo_unreadable": "row"}),
)
_SETS = {"holdout": "held-out feedback photos", "original": "original test photos"}


def counts_told(counts: Mapping[str, int]) -> list[str]:
    """What a run learned from, in a few words each; what there is none of is not mentioned."""
    return [
        text.format(*(_number(counts.get(name, 0), noun) for name, noun in nouns.items()))
        for text, nouns in _COUNTS
        if any(counts.get(name) for name in nouns)
    ]


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def figures_table(report: Mapping[str, Any]) -> list[list[str]]:
    """Rows of text, the first one the head: set, version, then one figure per column; empty without figures."""
    figures = report.get("figures", {})
    rows = [
        [_SETS.get(name, name), role, *(f"{row[key]:.1f}" for key in _NAMES)]
        for name, versions in figures.items()
        for role, row in sorted(versions.items(), reverse=True, key=lambda item: item[0] == "champion")
        if row
    ]
    return [["Photos", "Version", *_NAMES.values()], *rows] if rows else []


def text_table(rows: list[list[str]]) -> str:
    """Columns aligned for a terminal, the first two to the left and figures to the right."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown_table(rows: list[list[str]]) -> str:
    """The same rows in Markdown."""
    if not rows:
        return ""
    head, *body = rows
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
