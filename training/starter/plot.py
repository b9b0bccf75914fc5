"""Draws the curves of a stage: one SVG of the loss and one of what was measured on validation photos."""

from __future__ import annotations

from pathlib import Path

from training.descent.curve import Figures, curve_read, curve_thin
from training.judging.charts import Points, line_chart

# What a line of the curve says of the step and not of the model.
_OF_THE_STEP = {"step", "of", "lr", "loss", "steps_per_s"}


def curves_plot(stage: Path) -> list[Path]:
    """Write `loss.svg` and `validation.svg` beside `curve.jsonl` in the folder `stage`; returns those written.

    A picture without a point is not written. Steps that a resumed run did again count once, as done last.
    """
    once: dict[tuple[float, bool], Figures] = {
        (line["step"], "loss" in line): line for line in curve_read(stage)
    }
    losses = curve_thin([line for line in once.values() if "loss" in line])
    shown: dict[str, list[tuple[float, float]]] = {}
    for line in once.values():
        for name in (name for name in line if name not in _OF_THE_STEP):
            shown.setdefault(name, []).append((line["step"], line[name]))
    drawn: dict[str, Points] = {"loss": [(line["step"], line["loss"]) for line in losses]}
    charts = {
        "loss.svg": line_chart(drawn, title=f"Loss of {stage.name}", x_label="step", y_label="loss"),
        "validation.svg": line_chart(shown, title=f"Validation of {stage.name}", x_label="step"),
    }
    written = []
    for name, chart in charts.items():
        if chart:
            (stage / name).write_text(chart + "\n", encoding="utf-8")
            written.append(stage / name)
    return written
