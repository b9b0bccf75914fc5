"""Draws the curves of a stage: one SVG of the loss and one of what was measured on validation photos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from training.judging.charts import Points, line_chart
from training.starter.loop import CURVE

POINTS = 200
# What a line of the curve says of the step and not of the model.
_OF_THE_STEP = {"step", "of", "lr", "loss", "steps_per_s"}


def curves_plot(stage: Path) -> list[Path]:
    """Write `loss.svg` and `validation.svg` beside `curve.jsonl` in the folder `stage`; returns those written.

    A picture without a point is not written. Steps that a resumed run did again count once, as done last.
    """
    points = _points((stage / CURVE).read_text(encoding="utf-8").splitlines())
    losses = {"loss": thinned(points.pop("loss", []))}
    shown = {name: series for name, series in points.items() if name not in _OF_THE_STEP}
    charts = {
        "loss.svg": line_chart(losses, title=f"Loss of {stage.name}", x_label="step", y_label="loss"),
        "validation.svg": line_chart(shown, title=f"Validation of {stage.name}", x_label="step"),
    }
    written = []
    for name, chart in charts.items():
        if chart:
            (stage / name).write_text(chart + "\n", encoding="utf-8")
            written.append(stage / name)
    return written


def _points(lines: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, dict[float, float]] = {}
    for line in lines:
        figures = json.loads(line)
        for name, value in figures.items():
            series.setdefault(name, {})[figures["step"]] = value
    return {name: sorted(values.items()) for name, values in series.items()}


def thinned(points: Points, most: int = POINTS) -> Points:
    """At most `most` points: the means of equal parts, in order."""
    size = -(-len(points) // most) or 1
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(fmean(x for x, _ in part), fmean(y for _, y in part)) for part in parts]
