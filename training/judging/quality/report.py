"""An evaluation as Markdown for people, as text for a terminal and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from training.judging.calibration import ACCEPTED, Bin, calibration_error
from training.judging.quality.baselines import NEIGHBOURS, PEOPLE
from training.judging.quality.evaluation import Evaluation, SplitReport
from training.judging.tables import table_markdown, table_text

COLUMNS = {
    "cider_d": "CIDEr-D",
    **{f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)},
    "rouge_l": "ROUGE-L",
    "distinct": "distinct %",
    "function_word_endings": "cut short %",
    "repeating": "repeating %",
    "length": "words",
}


def notes(evaluation: Evaluation) -> list[str]:
    """Returns how to read the tables, one sentence or two a line."""
    return [
        "Figures are percentages of the usual unit. Document frequencies are those of each table's references, so "
        "figures compare within a table and not between tables.",
        f"Baselines know {evaluation.train_photos} training photos; {evaluation.left_out} that repeat a photo of "
        "another split were left out. Constant caption: the one that fits the set's training photos best. Nearest "
        f"neighbour: of the captions of the {NEIGHBOURS} training photos that look most alike to the same encoder "
        "(cosine of mean features), the one that agrees best with the others.",
        f"People: one against the {PEOPLE - 1} others, averaged over who is the one; judged on {PEOPLE - 1} "
        f"references where the other rows are judged on {PEOPLE}, which makes it look a little worse than it is.",
        "Distinct: captions that none before them equals. Cut short: the last word is a function word. "
        "Repeating: some three words in a row occur twice.",
    ]


def report_rows(report: SplitReport) -> list[list[str]]:
    """Returns the table of one split, the head first: way, references judged on, one figure per column."""
    head = ["Captions", "references", *COLUMNS.values()]
    return [head] + [
        [row.way, f"{row.references:.3g}", *(f"{row.figures[name]:.1f}" for name in COLUMNS)]
        for row in report.rows
    ]


def reliability_rows(bins: Sequence[Bin]) -> list[list[str]]:
    """Returns confidence against acceptance, the head first; `bins` are tenths, see `calibration.reliability`."""
    rows = [["Confidence", "captions", "mean confidence", "accepted"]]
    for each in bins:
        tenth = min(int(each.confidence * 10), 9)
        shown = f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}"
        rows.append([shown, str(each.count), f"{each.confidence:.0%}", f"{each.accepted:.0%}"])
    return rows


def text(evaluation: Evaluation) -> str:
    """Returns all tables for a terminal."""
    parts = []
    for report in evaluation.reports:
        parts += [_title(report), table_text(report_rows(report)), ""]
        if report.reliability:
            parts += [_reliability_title(report), table_text(reliability_rows(report.reliability)), ""]
    return "\n".join(parts)


def markdown(evaluation: Evaluation, model: str) -> str:
    """Returns the whole report in Markdown."""
    parts = [f"# How good are the captions of {model}?", "", *_notes_list(evaluation)]
    for report in evaluation.reports:
        parts += _figures(report, "##")
        if report.reliability:
            parts += [
                _reliability_title(report),
                "",
                table_markdown(reliability_rows(report.reliability)),
                "",
            ]
    return "\n".join(parts)


def figures(evaluation: Evaluation) -> str:
    """Returns the tables of all sets, for a section of a model card."""
    parts = [line for report in evaluation.reports for line in _figures(report, "###")]
    return "\n".join([*_notes_list(evaluation), *parts])


def _notes_list(evaluation: Evaluation) -> list[str]:
    return [*(f"- {note}" for note in notes(evaluation)), ""]


def _figures(report: SplitReport, heading: str) -> list[str]:
    table = table_markdown(report_rows(report))
    return [f"{heading} {_title(report)}", "", table, "", f"Constant caption: *{report.constant}*", ""]


def to_dict(evaluation: Evaluation, model: str) -> dict[str, Any]:
    """Returns what the report says and every caption it is about, without the photos."""
    return {
        "model": model,
        "train_photos": evaluation.train_photos,
        "left_out": evaluation.left_out,
        "sets": [
            {
                "set": report.name,
                "split": report.split,
                "constant": report.constant,
                "rows": [asdict(row) for row in report.rows],
                "reliability": [asdict(each) for each in report.reliability],
                "photos": [
                    {
                        "key": each.photo.key,
                        "caption": each.candidates[0].caption,
                        "confidence": each.candidates[0].confidence,
                        "alternatives": [candidate.caption for candidate in each.candidates[1:]],
                        "neighbour": each.neighbour,
                        "cider_d": round(each.cider_d, 2),
                    }
                    for each in report.photos
                ],
            }
            for report in evaluation.reports
        ],
    }


def _title(report: SplitReport) -> str:
    return f"{report.name} {report.split}, {len(report.photos)} photos"


def _reliability_title(report: SplitReport) -> str:
    gap = 100 * calibration_error(report.reliability)
    return (
        f"Is the confidence true on {report.name} {report.split}? Accepted means {ACCEPTED}; mean gap {gap:.1f} "
        "points. (Weights look better than they are on the photos that their confidence was fitted on.)"
    )
