"""Curves as SVG: for the admin's pages, the starter's stages and the experiments. No script, no library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 240  # pixels at natural size; the picture scales with its place
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 130, 28, 30
_RULES = 5
_MOST_DOTS = 12  # a line of more points is drawn without them
# Distinguishable in both themes and to most colour-blind eyes (Okabe and Ito, 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888")
Points = Sequence[tuple[float, float]]


def line_chart(series: Mapping[str, Points], *, title: str, x_label: str = "", y_label: str = "") -> str:
    """Returns an SVG of one line per series over common axes; an empty string where there is nothing to draw."""
    drawn = {name: points for name, points in series.items() if points}
    values = [point for points in drawn.values() for point in points]
    if not values:
        return ""
    x_low, x_high = _range([x for x, _ in values])
    y_low, y_high = _range([0.0, *(y for _, y in values)])
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def across(x: float) -> float:
        return round(_LEFT + (x - x_low) / (x_high - x_low) * (right - _LEFT), 1)

    def down(y: float) -> float:
        return round(bottom - (y - y_low) / (y_high - y_low) * (bottom - _TOP), 1)

    parts = []
    for value in (y_low + (y_high - y_low) * step / (_RULES - 1) for step in range(_RULES)):
        height = down(value)
        parts += [
            f'<line x1="{_LEFT}" x2="{right}" y1="{height}" y2="{height}" stroke="currentColor" opacity="0.2"/>',
            f'<text x="{_LEFT - 6}" y="{height + 4}" text-anchor="end">{value:.3g}</text>',
        ]
    ticks = {across(x_low): f"{x_low:.5g}", (_LEFT + right) / 2: x_label, across(x_high): f"{x_high:.5g}"}
    for place, text in ticks.items():
        parts.append(f'<text x="{place}" y="{HEIGHT - 12}" text-anchor="middle">{escape(text)}</text>')
    parts.append(f'<text x="4" y="12">{escape(y_label)}</text>')
    for number, (name, points) in enumerate(drawn.items()):
        colour, row = _COLOURS[number % len(_COLOURS)], _TOP + 8 + 18 * number
        places = [(across(x), down(y)) for x, y in points]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        if len(places) <= _MOST_DOTS:
            parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]
        parts += [
            f'<rect x="{right + 14}" y="{row - 8}" width="10" height="10" fill="{colour}"/>',
            f'<text x="{right + 30}" y="{row + 1}">{escape(name)}</text>',
        ]
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="currentColor"><title>{escape(title)}</title>'
        f"{''.join(parts)}</svg>"
    )


def interval_chart(
    intervals: Mapping[str, tuple[float, float, float]], *, title: str, y_label: str = ""
) -> str:
    """Returns an SVG with a dot (the mean) and a bar (lower to upper bound) over each name, and a line at zero.

    `intervals` is name -> (mean, lower, upper). An empty string where there is nothing to draw.
    """
    if not intervals:
        return ""
    low, high = _range([0.0, *(bound for _, *bounds in intervals.values() for bound in bounds)])
    right, bottom = WIDTH - 16, HEIGHT - _BOTTOM

    def down(y: float) -> float:
        return round(bottom - (y - low) / (high - low) * (bottom - _TOP), 1)

    parts = [f'<text x="4" y="12">{escape(y_label)}</text>']
    for value in dict.fromkeys((low, 0.0, high)):
        parts += [
            f'<line x1="{_LEFT}" x2="{right}" y1="{down(value)}" y2="{down(value)}" stroke="currentColor" '
            f'opacity="{0.2 if value else 0.6}"/>',
            f'<text x="{_LEFT - 6}" y="{down(value) + 4}" text-anchor="end">{f"{value:+.3g}" if value else 0}</text>',
        ]
    step = (right - _LEFT) / len(intervals)
    for place, (name, (mean, lower, upper)) in enumerate(intervals.items()):
        x = round(_LEFT + step * (place + 0.5), 1)
        parts += [
            f'<line x1="{x}" x2="{x}" y1="{down(lower)}" y2="{down(upper)}" stroke="{_COLOURS[0]}" stroke-width="3"/>',
            f'<circle cx="{x}" cy="{down(mean)}" r="6" fill="{_COLOURS[0]}"/>',
            f'<text x="{x}" y="{HEIGHT - 10}" text-anchor="middle">{escape(name)}</text>',
        ]
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="14" fill="currentColor"><title>{escape(title)}</title>'
        f"{''.join(parts)}</svg>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1.0)
