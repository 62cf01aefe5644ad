"""The experiment of Figure 4: known phases, pooling of instances, the files left, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lo_theory.lab.config import resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.figure4 import degree_points
from lo_theory.lab.frame import from_rows, kind
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from tests.lab.tiny import tiny_of

FILE = Path(__file__).parents[2] / "experiments" / "figure4.yaml"


def tiny(**changes: Any) -> dict[str, Any]:
    return tiny_of("figure4", **changes)


@pytest.fixture
def finished(tiny_runs: Callable[[str], FinishedRun]) -> FinishedRun:
    return tiny_runs("figure4")


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
