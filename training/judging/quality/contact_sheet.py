"""Sixty photos with what was said about them, for people to look at: which photos, and what the page shows of each."""

from __future__ import annotations

import base64
import io
import random
from dataclasses import dataclass

from PIL import Image

from training.judging.quality.evaluation import Evaluation, JudgedPhoto

PHOTOS = 60
SIDE = 384  # pixels, the longer one at most
TEST = "test"


@dataclass(frozen=True)
class Entry:
    """One photo of the sheet; `source` is a data URI, `confidence` in percent or None."""

    number: int
    source: str
    width: int
    height: int
    caption: str
    confidence: int | None
    cider_d: int
    alternatives: list[str]
    references: list[str]
    neighbour: str


@dataclass(frozen=True)
class Section:
    """The photos of one split of one set."""

    title: str
    entries: list[Entry]


def sections(evaluation: Evaluation, photos: int = PHOTOS, seed: int = 0) -> list[Section]:
    """Returns the same photos for the same sets and seed, about as many of each set, numbered through.

    Test photos are not looked at, lest anything be chosen by them, unless there are no others.
    """
    reports = [report for report in evaluation.reports if report.split != TEST] or evaluation.reports
    # Equally many of each set, and what a small one lacks from the larger ones.
    sizes, counts = [len(report.photos) for report in reports], [0] * len(reports)
    while sum(counts) < min(photos, sum(sizes)):
        unfinished = [place for place, size in enumerate(sizes) if counts[place] < size]
        counts[min(unfinished, key=lambda place: counts[place])] += 1
    taken, number = [], 1
    for report, count in zip(reports, counts, strict=True):
        dice = random.Random(f"{seed} {report.name} {report.split}")  # noqa: S311  a choice that repeats itself
        chosen = sorted(dice.sample(report.photos, count), key=lambda each: each.photo.key)
        entries = [_entry(number + place, each) for place, each in enumerate(chosen)]
        number += len(entries)
        taken.append(Section(f"{report.name} {report.split}", entries))
    return taken


def _entry(number: int, each: JudgedPhoto) -> Entry:
    with Image.open(io.BytesIO(each.photo.data)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    best, *others = each.candidates
    return Entry(
        number,
        f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}",
        *image.size,
        best.caption,
        None if best.confidence is None else round(100 * best.confidence),
        round(each.cider_d),
        [candidate.caption for candidate in others],
        list(each.photo.captions),
        each.neighbour,
    )
