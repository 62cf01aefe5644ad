"""Gap closed on the way of trainings: curves from rows, what a target costs, and their sheet."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lo_theory.diffusion.statistics import Estimate, Sums
from lo_theory.lab.config import resolve
from lo_theory.lab.frame import Record, from_rows
from lo_theory.lab.learning import cost_of, learning_curves, training_sheet
from lo_theory.lab.rows import Row
from tests.lab.tiny import tiny


def row(kind: str, metric: str, sums: Sums, **keys: Any) -> Row:
    return Row("unit", metric, sums, {"kind": kind, "row": 0, "N": 6, "P": 18, **keys})


def evaluated(floor: float, **excess: Sums) -> Any:
    """Rows of one training for each name, evaluated after steps 1 and 2 with equal results."""
    lines = [row("problem", "floor", Sums.single(floor)), row("problem", "marginals_only", Sums.single(0.6))]
    for learner, sums in excess.items():
        for step in (2, 1):
            place = {"learner": learner, "step": step, "flops": 10.0 * step, "clock": "processor_seconds"}
            lines += [row("held_out", "excess", sums, **place)]
            lines += [row("held_out", "processor_seconds", Sums.single(0.5 * step), **place)]
            lines += [row("held_out", "training_seconds", Sums.single(7.0), **place)]
    return from_rows(lines)


def test_the_cost_of_a_target_lies_between_evaluations() -> None:
    curve = [
        Record({"flops": 100.0 * i, "seconds": float(i)}, {"gap": (Estimate(gap, math.nan, math.nan), {})})
        for i, gap in enumerate((-0.1, 0.3, 0.2), start=1)
    ]
    assert cost_of(curve, 0.1, "flops") == pytest.approx(150)
    assert cost_of(curve, 0.3, "seconds") == pytest.approx(2)
    assert math.isnan(cost_of(curve, 0.4, "flops"))
    assert cost_of(curve, -0.2, "flops") <= 100


def test_every_training_has_a_curve_by_step_from_nothing() -> None:
    frame = evaluated(0.1, first=Sums.of([0.2, 0.3]), second=Sums.of([0.1, 0.1]))
    first, second = learning_curves(frame)
    assert [(point.flops, point.seconds) for point in first] == [(10.0, 0.5), (20.0, 1.0)]
    assert [curve[0].value("gap") for curve in (first, second)] == pytest.approx([0.5, 0.8])
    (sheet,) = training_sheet(frame, resolve(tiny())).values()
    drawn = sheet.draw()
    for axes, costs in zip(drawn.axes, ([0, 10, 20], [0, 0.5, 1]), strict=True):
        shown = [container.lines[0] for container in axes.containers]
        assert [list(line.get_xdata()) for line in shown] == [costs] * 2
        assert [list(line.get_ydata()) for line in shown] == [[0, *[pytest.approx(gap)] * 2] for gap in (0.5, 0.8)]
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["(6, 18) first", "(6, 18) second"]


def test_without_evaluations_or_without_a_gap_there_is_none_to_show() -> None:
    assert training_sheet(evaluated(0.1), resolve(tiny())) == {}
    ((point, _),) = learning_curves(evaluated(0.6 - 1e-12, only=Sums.of([0.1, 0.2])))
    assert all(math.isnan(number) for number in point.estimate("gap"))
