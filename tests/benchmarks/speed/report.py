"""Passes over the photos -> the table and the ratios that are printed."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from training.judging.tables import table_markdown

BARE = "bare `generate()` loop"
ENGINE = "Captioner's engine in a loop"
SERVICE = "Captioner over HTTP"


@dataclass(frozen=True, slots=True)
class Row:
    """One contender in one setting: a loop has a batch size and a number of threads, a server has clients."""

    contender: str
    batch: int | None = None
    threads: int | None = None
    clients: int | None = None

    def __str__(self) -> str:
        if self.clients:
            return f"{self.contender}, {_count(self.clients, 'client')}"
        return f"{self.contender}, batch {self.batch}, {_count(self.threads, 'thread')}"


@dataclass(frozen=True, slots=True)
class Pass:
    """What came of captioning all photos. `latencies`: seconds per photo; empty where they shared batches."""

    photos_per_second: float
    latencies: tuple[float, ...]
    captions: tuple[tuple[str, str], ...]  # (photo, caption)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of one row over the same of another, round by round, and what it should be."""

    label: str
    ratios: Sequence[float]
    goal: str


Passes = Mapping[Row, Sequence[Pass]]
Measure = Callable[[Pass], float]


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of all `values` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Iterable[float], scale: float = 1, digits: int = 1) -> str:
    """Median, lowest and highest of one value per round, such as `12.3 (11.9-12.8)`."""
    scaled = [value * scale for value in values]
    median, low, high = (
        f"{figure:.{digits}f}" for figure in (statistics.median(scaled), min(scaled), max(scaled))
    )
    return median if len(scaled) == 1 else f"{median} ({low}-{high})"


def identical_share(passes: Iterable[Pass], reference: Mapping[str, str]) -> float:
    """Share of captions that equal, white space apart, the photo's caption in `reference`."""
    pairs = [pair for each in passes for pair in each.captions]
    return statistics.fmean(caption.split() == reference[photo].split() for photo, caption in pairs)


def comparisons(passes: Passes) -> list[Comparison]:
    """The service against the fastest setting of each loop, and against each other server.

    Ratios are taken within a round, where the contenders ran shortly after each other.
    """
    single, several = (row for row in passes if row.contender == SERVICE)
    compared = []
    for loop in (BARE, ENGINE):
        rows = [row for row in passes if row.contender == loop]
        fastest = min((row for row in rows if row.batch == 1), key=lambda row: _median(passes[row], _p50))
        compared.append(_compare(passes, single, fastest, "p50", _p50, "<= 1.15"))
        fastest = max(rows, key=lambda row: _median(passes[row], _throughput))
        compared.append(_compare(passes, several, fastest, "photos/s", _throughput, ">= 0.90"))
    for row in passes:
        if row.clients == single.clients and row.contender != SERVICE:
            compared.append(_compare(passes, single, row, "p50", _p50, "< 1"))
        if row.clients == several.clients and row.contender != SERVICE:
            compared.append(_compare(passes, several, row, "photos/s", _throughput, "> 1"))
    return compared


def _compare(passes: Passes, row: Row, other: Row, figure: str, measure: Measure, goal: str) -> Comparison:
    ratios = [measure(one) / measure(two) for one, two in zip(passes[row], passes[other], strict=True)]
    return Comparison(f"{figure}: {row} / {other}", ratios, goal)


def _count(number: int | None, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _median(passes: Sequence[Pass], measure: Measure) -> float:
    return statistics.median(map(measure, passes))


def _p50(each: Pass) -> float:
    return quantile(each.latencies, 0.5)


def _throughput(each: Pass) -> float:
    return each.photos_per_second


def report_text(notes: Iterable[str], passes: Passes) -> str:
    """Notes, results and comparisons in Markdown; captions are compared with those of the first pass."""
    reference = dict(next(iter(passes.values()))[0].captions)
    listed = "\n".join(f"- {note}" for note in notes)
    return f"{listed}\n\n{results_table(passes, reference)}\n\n{comparisons_table(passes)}"


def results_table(passes: Passes, reference: Mapping[str, str]) -> str:
    """All rows; medians over the rounds with the lowest and the highest, tail latencies over all requests."""
    figures = ["photos/s", "p50", "p90", "p99", "identical"]
    header = ["contender", "batch", "threads", "clients", *figures]
    rows = [_cells(row, each, reference) for row, each in passes.items()]
    return table_markdown([header, *rows], words=1)


def comparisons_table(passes: Passes) -> str:
    rows = [[each.label, spread(each.ratios, digits=2), each.goal] for each in comparisons(passes)]
    return table_markdown([["ratio", "measured", "goal"], *rows], words=1)


def _cells(row: Row, passes: Sequence[Pass], reference: Mapping[str, str]) -> list[str]:
    latencies = [seconds for each in passes for seconds in each.latencies]
    times = ["-"] * 3
    if latencies:
        tail = [f"{quantile(latencies, share) * 1000:.1f}" for share in (0.9, 0.99)]
        times = [spread(map(_p50, passes), scale=1000), *tail]
    return [
        row.contender,
        *(str(count or "-") for count in (row.batch, row.threads, row.clients)),
        spread(map(_throughput, passes)),
        *times,
        f"{identical_share(passes, reference):.0%}",
    ]
