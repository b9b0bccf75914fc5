"""Curves and bars as SVG: for the admin's pages and for the experiments' plots. No script, no library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 240  # pixels at natural size; the picture scales with its place
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 130, 28, 30
# Distinguishable in both themes and to most colour-blind eyes (Okabe and Ito, 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888")
Points = Sequence[tuple[float, float]]


def line_chart(series: Mapping[str, Points], *, title: str, x_label: str = "", y_label: str = "") -> str:
    """An SVG of one line per series over common axes; an empty string where there is nothing to draw."""
    drawn = {name: points for name, points in series.items() if points}
    values = [point for points in drawn.values() for point in points]
    if not values:
        return ""
    x_low, x_high = _range([x for x, _ in values])
    y_low, y_high = _range([0.0, *(y for _, y in values)])

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)
        return round(across, 1), round(_bottom_of(y, y_low, y_high), 1)

    parts = [_axis(place, y_low, y_high, x_low, x_high, x_label, y_label)]
    for number, (name, points) in enumerate(drawn.items()):
        colour = _colour(number)
        path = " ".join("{},{}".format(*place(x, y)) for x, y in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        if len(points) <= 12:
            dots = (
                '<circle cx="{}" cy="{}" r="3" fill="{}"/>'.format(*place(x, y), colour) for x, y in points
            )
            parts += dots
        parts.append(_legend(number, name))
    return _picture(title, parts)


def bar_chart(groups: Mapping[str, Mapping[str, float]], *, title: str, y_label: str = "") -> str:
    """An SVG of a group of bars per key of `groups`, one bar per series in it; empty where there is nothing to draw."""
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    values = [value for bars in groups.values() for value in bars.values()]
    if not values:
        return ""
    low, high = _range([0.0, *values])
    each = (WIDTH - _LEFT - _RIGHT) / len(groups)
    wide = 0.7 * each / len(names)

    def place(x: float, y: float) -> tuple[float, float]:
        return round(_LEFT + x, 1), round(_bottom_of(y, low, high), 1)

    parts = [_rules(low, high)]
    for number, (group, bars) in enumerate(groups.items()):
        for series, name in enumerate(names):
            x, top = place((number + 0.15) * each + series * wide, max(0.0, bars.get(name, 0.0)))
            _, bottom = place(0, min(0.0, bars.get(name, 0.0)))
            parts.append(
                f'<rect x="{x}" y="{top}" width="{wide:.1f}" height="{bottom - top:.1f}" fill="{_colour(series)}"/>'
            )
        across = _LEFT + (number + 0.5) * each
        parts.append(f'<text x="{across:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(group)}</text>')
    parts += [_legend(series, name) for series, name in enumerate(names)]
    parts.append(f'<text x="4" y="12">{escape(y_label)}</text>')
    return _picture(title, parts)


def _axis(
    place: Callable[[float, float], tuple[float, float]],
    y_low: float,
    y_high: float,
    x_low: float,
    x_high: float,
    x_label: str,
    y_label: str,
) -> str:
    parts = [_rules(y_low, y_high)]
    for value in (x_low, x_high):
        across, _ = place(value, y_low)
        parts.append(f'<text x="{across}" y="{HEIGHT - 12}" text-anchor="middle">{value:.5g}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text x="4" y="12">{escape(y_label)}</text>')
    return "".join(parts)


def _rules(low: float, high: float) -> str:
    """Five horizontal lines and what they stand for."""
    parts = []
    for step in range(5):
        value = low + (high - low) * step / 4
        down = round(_bottom_of(value, low, high), 1)
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{down}" y2="{down}" stroke="currentColor" opacity="0.2"/>'
            f'<text x="{_LEFT - 6}" y="{down + 4}" text-anchor="end">{value:.3g}</text>'
        )
    return "".join(parts)


def _bottom_of(value: float, low: float, high: float) -> float:
    return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)


def _legend(number: int, name: str) -> str:
    row, left = _TOP + 8 + 18 * number, WIDTH - _RIGHT
    return (
        f'<rect x="{left + 14}" y="{row - 8}" width="10" height="10" fill="{_colour(number)}"/>'
        f'<text x="{left + 30}" y="{row + 1}">{escape(name)}</text>'
    )


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _picture(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="currentColor"><title>{escape(title)}</title>'
        + "".join(parts)
        + "</svg>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1.0)
