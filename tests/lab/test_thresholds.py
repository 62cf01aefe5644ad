"""The table of thresholds as an experiment: rows, resuming, tables, figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lo_theory.lab.config import resolve
from lo_theory.lab.experiments.thresholds import figures
from lo_theory.lab.frame import Record, from_rows, kind, pool, records
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.table import with_error

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def finished(tiny_runs: Callable[[str], FinishedRun]) -> FinishedRun:
    return tiny_runs("thresholds")


def found(run: FinishedRun, name: str) -> list[Record]:
    return records(pool(kind(from_rows(run.rows), name)))


def test_values_land_in_rows_with_their_errors(finished: FinishedRun) -> None:
    continuous, parity = found(finished, "threshold")
    assert continuous.value("continuous") == 1
    assert continuous.value("condensation_c") == pytest.approx(4.5)
    assert continuous.value("condensation_c_error") == 0
    assert "kesten_stigum_c" not in parity.metrics  # infinite
    assert parity.value("condensation_density") == pytest.approx(0.9179, abs=0.02)
    assert 0 < parity.value("condensation_c_error") < 0.2
    (fold,) = found(finished, "fold")
    assert fold.value("survives") == 0  # a tenth of the latents is far more than four colours bear
    assert len(found(finished, "curve")) > 20


def test_curves_are_drawn_in_units_of_condensation_and_names_stand_beside(finished: FinishedRun) -> None:
    """Two curves in units of condensation, one without in units of its least degree; all three rows have a place."""
    (sheet,) = figures(from_rows(finished.rows), resolve(finished.config)).values()
    points, phases = sheet.panels
    assert points is not None
    assert phases is not None
    parity = found(finished, "threshold")[1]
    unit, curve = parity.value("condensation_c"), found(finished, "curve")
    places = {(line.row, line.overlap): points.x(line) for line in points.lines if callable(points.x)}
    for row, scale in ((0, 4.5), (1, unit), (2, min(point.value("c") for point in curve if point.row == 2))):
        own = {(row, point.overlap): point.value("c") / scale for point in curve if point.row == row}
        assert {place: x for place, x in places.items() if place[0] == row} == pytest.approx(own)
    left, right = sheet.draw().axes
    assert len([line for line in left.get_lines() if str(line.get_gid()).startswith("row")]) == 3
    names = ["NAE q=2 k=3, satisfied", "XOR k=3, satisfied", "4-colouring, satisfied, 10 % revealed"]
    assert [label.get_text() for label in right.get_yticklabels()] == names
    crosses = [line.get_xdata()[0] for line in right.get_lines() if line.get_marker() == "x"]
    assert crosses == pytest.approx([2.45541 / unit, 2.75381 / unit], rel=1e-5)
    assert [line.get_xdata()[0] for line in right.get_lines() if line.get_marker() == ">"] == pytest.approx([1, 1.6])


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (8.46021, 0.00498, "8.4602 ±0.0050"),
        (51.5, 0.03, "51.500 ±0.030"),
        (206.1, 39.0, "206 ±39"),
        (4.5, 0.0, "4.5"),
        (16.333333333, 0.0, "16.3333"),
        (float("nan"), 1.0, "-"),
    ],
)
def test_as_many_digits_as_the_error_allows(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text
