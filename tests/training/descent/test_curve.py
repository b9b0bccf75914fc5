from __future__ import annotations

from pathlib import Path

from training.descent.curve import CURVE, curve_append, curve_cut, curve_read, curve_thin


def test_what_comes_after_a_step_is_cut_and_a_half_written_line_never_counts(tmp_path: Path) -> None:
    for step in (1, 2, 2, 3):
        curve_append(tmp_path, step, {"loss": 1 / 3})
    with (tmp_path / CURVE).open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in curve_read(tmp_path)] == [1, 2, 2, 3]
    curve_cut(tmp_path, 2)
    assert curve_read(tmp_path) == [{"step": step, "loss": 0.33333} for step in (1, 2, 2)]


def test_there_is_no_curve_where_nothing_descended(tmp_path: Path) -> None:
    assert curve_read(tmp_path) == []


def test_long_curves_are_thinned_to_means_at_their_last_steps() -> None:
    curve = [{"step": step, "loss": float(step % 2)} for step in range(1000)]
    few = curve_thin(curve, 100)
    assert len(few) == 100
    assert few[0] == {"step": 9, "loss": 0.5}
    assert curve_thin(curve[:50], 100) == curve[:50]
