"""The experiment of Figure 4: known phases, pooling of instances, the files left, refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from lo_theory.lab.config import load, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.figure4 import degree_points
from lo_theory.lab.frame import from_rows, kind
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.task import tables

FILE = Path(__file__).parents[2] / "experiments" / "figure4.yaml"
TINY: dict[str, Any] = {
    "experiment": "tiny4",
    "task": "figure4",
    "ensemble": {"family": "nae", "q": 2, "k": 3},
    "N": 1500,
    "degrees": [2, 9],
    "instances": 2,
    "iteration": {"iterations": 300},
    "thresholds": {"size": 600, "scan": 1e6, "dynamic": 1e6, "condensation": 1e6},
    "reference": {"source": "made up", "rows": [{"name": "kesten_stigum", "neighbours": 9}]},
}


def tiny(**over: Any) -> dict[str, Any]:
    return {**copy.deepcopy(TINY), **over}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return execute(resolve(tiny()), Request(tmp_path_factory.mktemp("runs")), SilentProgress())


def test_below_kesten_stigum_nothing_is_found_and_above_everything(finished: FinishedRun) -> None:
    """NAE q=2 k=3 is continuous at c = 4.5: all starts forget at 2 and agree at 9."""
    points = {(point.start, point.c): point for point in degree_points(from_rows(finished.rows))}
    assert list(points) == [(start, c) for start in ("planted", "random", "noise") for c in (2, 9)]
    assert all(len(point.runs("overlap")) == 2 for point in points.values())  # instances pool
    for low in (point for (_, c), point in points.items() if c == 2):
        assert abs(low.value("overlap")) < 1e-6
        assert low.value("confidence") == pytest.approx(0.5, abs=1e-3)
        assert low.value("excess") == pytest.approx(0, abs=1e-8)  # the uniform fixed point
        assert low.value("degree") == pytest.approx(2, rel=0.1)
    planted, noise = points["planted", 9], points["noise", 9]
    assert planted.value("overlap") > 0.9
    assert noise.value("overlap") == pytest.approx(planted.value("overlap"), abs=1e-3)
    assert noise.value("excess") > 0.05


def test_the_uniform_fixed_point_has_no_excess_with_all_observations(tmp_path: Path) -> None:
    """Values with g = 0 and g = 1 have different probabilities: both enter the line that excess is measured from."""
    document = tiny(
        ensemble={"family": "nae", "q": 3, "k": 3, "observed": "all"}, degrees=[1], thresholds=None, starts=["noise"]
    )
    found = execute(resolve(document), Request(tmp_path), SilentProgress())
    frame = from_rows(found.rows)
    (point,) = degree_points(frame)
    assert point.value("converged") == 1
    assert point.value("excess") == pytest.approx(0, abs=1e-8)
    assert kind(frame, "threshold").empty


def test_tables_and_files(finished: FinishedRun) -> None:
    thresholds, overlaps = tables(resolve(finished.config), finished.rows)
    assert [len(section) for section in thresholds.sections] == [3]
    assert thresholds.sections[0][2][-1] == "9"  # the stated value stands in the row of its threshold
    assert float(thresholds.sections[0][2][4]) == pytest.approx(9)
    assert [[line[:3] for line in section] for section in overlaps.sections] == [
        [[start, "2", "4"], [start, "9", "18"]] for start in ("planted", "random", "noise")
    ]
    assert all(line[-1] == "0/2" for section in overlaps.sections for line in section)
    names = {path.name for path in finished.folder.iterdir()}
    assert {"figure.png", "figure.pdf", "table.csv", "table.md", "done.json"} <= names


@pytest.mark.parametrize(
    ("over", "complaint"),
    [
        ({"degrees": []}, r"degrees must hold at least one value"),
        ({"degrees": [2, 2]}, r"degrees must hold at least one value, each once"),
        ({"degrees": [0]}, r"degrees must be greater than 0, got 0"),
        ({"N": 0}, r"N must be at least 2, got 0"),
        ({"starts": ["planted", "warm"]}, r"starts\[1\] must be one of planted, random, noise"),
        ({"iteration": {"damping": 1.0}}, r"damping must be below 1"),
        ({"ensemble": {"family": "xor", "q": 3, "k": 3}}, r"parities q = 2"),
        ({"training": {"steps": 5}}, r"unknown key training"),
    ],
)
def test_wrong_settings_are_named(over: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        resolve(tiny(**over))


def test_a_degree_that_does_not_fit_is_refused_before_any_work(tmp_path: Path) -> None:
    document = tiny(N=5, degrees=[2, 80])
    with pytest.raises(ValueError, match=r"rows\[0\]\.degrees\[1\]: degree 80.*raise N"):
        execute(resolve(document), Request(tmp_path), SilentProgress())
    assert not list(tmp_path.rglob("rows.jsonl"))


def test_the_published_presets_are_what_the_paper_shows() -> None:
    row = load(FILE, preset="cpu").rows[0]
    assert (row.N, row.ensemble.family, row.ensemble.q, row.ensemble.k) == (10_000, "nae", 3, 3)
    assert row.instances >= 3
    assert set(row.starts) == {"planted", "random", "noise"}
    assert load(FILE, preset="quick").rows[0].N < row.N
