"""What a run learned from and what the gate measured, in the form that pages and terminals show."""

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
        "{} to learn from, and {}, by {}",
        {"train_corrections": "correction", "train_ratings": "rating", "authors": "author"},
    ),
    ("{} of {} that never train", {"holdout_corrections": "correction", "holdout_photos": "photo"}),
    ("{} replayed", {"replayed_photos": "photo"}),
    ("kept of what was learned: {}, the rest is the base's", {"kept_quarters": "quarter"}),
    ("{} left out: the steps of one run visit no more", {"left_out_step_budget": "correction"}),
    ("{} cut to the length that is learned", {"corrections_cut": "correction"}),
    ("{} left out: said before", {"left_out_duplicate": "row"}),
    ("{} left out by the limit per photo", {"left_out_photo_cap": "row"}),
    ("{} left out by the limit per author", {"left_out_author_cap": "row"}),
    ("{} left out: a copy of the photo judges", {"left_out_held_out_copy": "row"}),
    ("{} left out: the photo cannot be read", {"left_out_photo_unreadable": "row"}),
)
_SETS = {
    "holdout": "held-out feedback photos",
    "anchor": "anchor photos",
    "original": "original test photos",
}


def counts_told(counts: Mapping[str, int]) -> list[str]:
    """Returns what a run learned from, in a few words each; what there is none of is not mentioned."""
    told = []
    for text, nouns in _COUNTS:
        if any(counts.get(name) for name in nouns):
            numbers = [(counts.get(name, 0), noun) for name, noun in nouns.items()]
            told.append(
                text.format(*(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in numbers))
            )
    return told


def figures_table(report: Mapping[str, Any]) -> list[list[str]]:
    """Returns rows of text, the first one the head: set, version, then one figure per column; none without figures."""
    figures = report.get("figures", {})
    rows = [
        [_SETS.get(name, name), role, *(f"{row[key]:.1f}" for key in _NAMES)]
        for name, versions in figures.items()
        for role, row in sorted(
            versions.items(), key=lambda item: ("base", "champion", "candidate").index(item[0])
        )
        if row
    ]
    return [["Photos", "Version", *_NAMES.values()], *rows] if rows else []
