"""The hardness map: settings, thresholds at the right place on the edge, what a kill leaves, tables and figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.experiments.hardness import Cells, Population, degree, marks, problems, rate
from lo_theory.lab.frame import Record, from_rows
from lo_theory.lab.runs import FinishedRun
from lo_theory.problem import nae, nae_sat
from lo_theory.thresholds import kesten_stigum, planted_ensemble
from tests.lab.tiny import tiny_of


def tiny(**changes: Any) -> dict[str, Any]:
    return tiny_of("hardness", **{"training": None, **changes})


@pytest.fixture(scope="module")
def finished(tiny_runs: Callable[[str], FinishedRun]) -> FinishedRun:
    return tiny_runs("hardness")


@pytest.fixture(scope="module")
def frame(finished: FinishedRun) -> Any:
    return from_rows(finished.rows)


def test_thresholds_stand_at_the_reveal_rate_that_gives_their_degree(frame: Any) -> None:
    (own,) = marks(frame).values()
    found = {mark.observed: mark for mark in own if mark.threshold == "kesten_stigum"}
    distribution = nae_sat(6, 12, seed=0)
    for observed, gamma in (("all", 1.0), ("satisfied", 0.75)):
        mark, ensemble = found[observed], planted_ensemble(nae(2, 3), observed=observed)
        assert mark.c == pytest.approx(kesten_stigum(ensemble).value)
        assert 3 * 12 / 6 * (1 - rate(mark)) * gamma == pytest.approx(mark.c)
        assert degree(distribution, ensemble, rate(mark)) == pytest.approx(mark.c)


def test_a_threshold_out_of_reach_is_outside_and_moves_with_the_ratio() -> None:
    mark = Record({"c": 6.0, "full": 3.0})
    assert rate(mark) == -1
    assert rate(mark, 4.0) == pytest.approx(0.5)


def test_cells_are_pooled_over_problem_seeds_with_intervals_between_them(finished: FinishedRun) -> None:
    """A second problem of the same size, made of the rows of the first."""
    first = [row for row in finished.rows if row.keys["row"] == 0]
    second = [
        replace(row, sums=Sums.single(0.9 * row.sums.mean), keys={**row.keys, "row": 1, "problem": "b", "seed": 1})
        for row in first
    ]
    (cells,) = problems(from_rows([*first, *second]), "plane").values()
    (cell,) = [cell for cell in cells if (cell.a, cell.b) == (1, 0.5)]
    (mean,) = [
        row.sums.mean
        for row in first
        if row.metric == "joint_entropy" and (row.keys["a"], row.keys["b"], row.keys["form"]) == (1, 0.5, "plane")
    ]
    means = [mean, 0.9 * mean]
    expected = (np.mean(means), *stats.t.interval(0.95, 1, np.mean(means), stats.sem(means)))
    assert cell.estimate("exact joint_entropy") == pytest.approx(expected)


def test_what_does_not_fit_is_counted_and_the_rest_goes_on(frame: Any) -> None:
    plane, lines = (
        {(cell.a, cell.b): cell.value("exact refused") for cells in problems(frame, form).values() for cell in cells}
        for form in ("plane", "lines")
    )
    assert set(plane.values()) == {0}
    assert lines[1.0, 1.0] == 0
    assert any(share > 0 for share in lines.values())


def test_lines_hold_the_edge_and_the_diagonal() -> None:
    columns = Cells("lines", (0.0, 0.5, 1.0), (0.0, 1.0)).columns()
    assert columns == {0.5: (0.5,), 1.0: (0.0, 1.0)}
    assert Population().observed == ("all",)
