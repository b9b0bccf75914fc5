"""The curve of a descent: a line of JSON for what was seen after a step, in the order of the steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from models_registry.files import file_write_atomically

CURVE = "curve.jsonl"
POINTS = 200

Figures = dict[str, float]


def curve_append(folder: Path, step: int, figures: Mapping[str, float]) -> None:
    """Add what was seen after `step`, floats in five digits."""
    rounded = {
        name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in figures.items()
    }
    with (folder / CURVE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **rounded}) + "\n")


def curve_read(folder: Path) -> list[Figures]:
    """All lines of the curve in `folder`, none without one; a last one that is half written is left out."""
    path = folder / CURVE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def curve_cut(folder: Path, step: int) -> None:
    """Drop what was seen after `step`; it is about to be done again."""
    kept = [json.dumps(line) + "\n" for line in curve_read(folder) if line["step"] <= step]
    with file_write_atomically(folder / CURVE) as draft:
        draft.write_text("".join(kept), encoding="utf-8")


def curve_thin(curve: Sequence[Figures], most: int = POINTS) -> list[Figures]:
    """At most `most` lines: means of equal stretches, each at its last step."""
    size = -(-len(curve) // most) or 1
    stretches = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [
        {
            name: round(fmean(line[name] for line in stretch if name in line), 4)
            for name in dict.fromkeys(name for line in stretch for name in line)
        }
        | {"step": stretch[-1]["step"]}
        for stretch in stretches
    ]
