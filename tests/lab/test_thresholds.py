"""The table of thresholds as an experiment: rows, resuming, tables, figure."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from lo_theory.lab.config import load, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.thresholds import figures
from lo_theory.lab.frame import Record, from_rows, kind, pool, records
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.table import with_error
from lo_theory.lab.task import tables
from lo_theory.thresholds import RowSpecification

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TINY: dict[str, Any] = {
    "experiment": "tinythresholds",
    "task": "thresholds",
    "budget": {"size": 600, "scan": 1e6, "dynamic": 1e6, "condensation": 1e6},
    "rows": [
        {"ensemble": {"family": "nae", "q": 2, "k": 3}},
        {"ensemble": {"family": "xor", "k": 3}},
        {"ensemble": {"family": "colouring", "q": 4, "k": 2}, "revealed": 0.1},
    ],
}
_BOTH = ("dynamic", "condensation")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return execute(resolve(copy.deepcopy(TINY)), Request(tmp_path_factory.mktemp("runs")), SilentProgress())


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


def test_tables_say_continuous_and_infinite_in_words(finished: FinishedRun) -> None:
    degrees, units, folds = tables(resolve(finished.config), finished.rows)
    ((nae, xor),) = degrees.sections
    decided = found(finished, "threshold")[0].value("resolution") <= 0.02
    assert nae[2] == ("continuous: = KS" if decided else "not decided")
    assert nae[3].startswith("no dip")
    assert xor[4] == "infinite"
    assert xor[5].startswith("2.45541 (")  # the closed equations beside ours
    ((nae, xor),) = units.sections
    assert nae[2:] == ["1.5"] * 3 + ["9"] * 3
    assert xor[4] == xor[7] == "infinite"
    assert folds.sections[0][0][2:4] == ["10 %", "no fold"]
    assert {path.name for path in finished.folder.iterdir()} >= {"figure.png", "figure.pdf", "table.md"}


def test_every_number_of_a_panel_is_in_the_frame(finished: FinishedRun) -> None:
    """Two curves in units of condensation, one without in units of its least degree; all three rows have a place."""
    (sheet,) = figures(from_rows(finished.rows), resolve(finished.config)).values()
    points, phases = sheet.panels
    assert points is not None
    assert phases is not None
    parity = found(finished, "threshold")[1]
    unit, curve = parity.value("condensation_c"), found(finished, "curve")
    assert sorted(points.numbers()) == sorted(point.overlap for point in curve)
    places = {(line.row, line.overlap): points.x(line) for line in points.lines if callable(points.x)}
    for row, scale in ((0, 4.5), (1, unit), (2, min(point.value("c") for point in curve if point.row == 2))):
        own = {(row, point.overlap): point.value("c") / scale for point in curve if point.row == row}
        assert {place: x for place, x in places.items() if place[0] == row} == pytest.approx(own)
    ends = [parity.value(f"{name}_c") + sign * parity.value(f"{name}_c_error") for name in _BOTH for sign in (0, -1, 1)]
    assert phases.numbers() == pytest.approx([1.0] * 9 + [end / unit for end in ends])
    left, right = sheet.draw().axes
    assert len([line for line in left.get_lines() if str(line.get_gid()).startswith("row")]) == 3
    names = ["NAE q=2 k=3, satisfied", "XOR k=3, satisfied", "4-colouring, satisfied, 10 % revealed"]
    assert [label.get_text() for label in right.get_yticklabels()] == names
    crosses = [line.get_xdata()[0] for line in right.get_lines() if line.get_marker() == "x"]
    assert crosses == pytest.approx([2.45541 / unit, 2.75381 / unit], rel=1e-5)
    assert [line.get_xdata()[0] for line in right.get_lines() if line.get_marker() == ">"] == pytest.approx([1, 1.6])


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"ensemble": {"family": "sat", "k": 3}}, r"family must be one of colouring, nae, xor"),
        ({"ensemble": {"family": "colouring", "q": 3, "k": 3}}, r"colourings have k = 2"),
        ({"ensemble": {"family": "nae"}, "revealed": 1.0}, r"below 1, got 1"),
        ({"ensemble": {"family": "nae"}, "revealed": -0.1}, r"revealed must be at least 0"),
        ({"ensemble": {"family": "nae"}, "budget": {"size": 5}}, r"a population has 512"),
        ({"ensemble": {"family": "nae"}, "reference": {}}, r"unknown key"),
    ],
)
def test_wrong_settings_are_named(row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        resolve({**copy.deepcopy(TINY), "rows": [row]})


def test_the_published_table_has_the_required_rows() -> None:
    """Colourings and NAE for both modes; both values of a parity say the same, so for it one mode is enough."""
    pairs = [("colouring", q, 2) for q in (3, 4, 5, 6)] + [("nae", q, k) for q, k in ((2, 3), (2, 4), (2, 5), (3, 3))]
    required = {RowSpecification(*pair, observed) for pair in pairs for observed in ("satisfied", "all")}
    required |= {RowSpecification("xor", 2, k) for k in (3, 4, 5)}
    rows = load(EXPERIMENTS / "thresholds.yaml").rows
    assert {row.ensemble.specification for row in rows} == required
    assert len(rows) == 19
    assert all(row.revealed > 0 for row in load(EXPERIMENTS / "side_information.yaml").rows)


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
