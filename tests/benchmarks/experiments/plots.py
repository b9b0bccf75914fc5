"""The plot of an experiment: rows of figures, as `runs` yields them, to an SVG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.judging.charts import Points, line_chart

Row = Mapping[str, Any]
_UNIT = "gain, CIDEr-D"


def plot(name: str, rows: Sequence[Row]) -> str:
    """An SVG that stands on its own, on white; empty for an experiment whose figures are no curve."""
    drawn = _PLOTS[name](rows) if name in _PLOTS and rows else ""
    white = '<rect width="100%" height="100%" fill="#fff"/>'
    return drawn.replace('class="chart"', 'color="#222"').replace("<title>", f"{white}<title>", 1)


def _by_corrections(rows: Sequence[Row]) -> str:
    """A line per seed for the domain, and one for the original photos."""
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for photos in ("domain", "original") if row["case"] == "as written" else ():
            series[f"{photos}, seed {row['seed']}"].append((row["corrections"], row[photos]["mean"]))
    ordered: dict[str, Points] = {name: sorted(series[name]) for name in sorted(series)}
    return line_chart(ordered, title="E1: gain over corrections", x_label="corrections", y_label=_UNIT)


_PLOTS: Mapping[str, Callable[[Sequence[Row]], str]] = {
    "e1": _by_corrections,
}
