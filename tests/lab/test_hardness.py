"""The hardness map: settings, thresholds at the right place on the edge, what a kill leaves, tables and figure."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lo_theory.lab.config import resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.hardness import Cells, Population, degree, marks, problems, rate
from lo_theory.lab.frame import Record, from_rows
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from lo_theory.problem import nae, nae_sat
from lo_theory.thresholds import kesten_stigum, planted_ensemble

_TINY: dict[str, Any] = {
    "experiment": "tiny_hardness",
    "task": "hardness",
    "cells": {"latents": [0, 0.5, 1], "observations": [0, 0.5, 1], "contexts": 20},
    "rows": [
        {
            "problem": {"family": "nae_sat", "N": 8, "P": 24},
            "thresholds": {"size": 512, "scan": 1e5, "dynamic": 1e5, "condensation": 1e5},
            "population": {"latents": [0.5, 1], "observations": [0, 0.5], "size": 512, "sweeps": 8, "discard": 4},
        },
        {"problem": {"family": "nae_sat", "N": 8, "P": 24, "seed": 1}},
        {"problem": {"family": "nae_sat", "N": 8, "P": 8}, "cells": {"form": "lines"}},
        {"problem": {"family": "nae_sat", "N": 8, "P": 40}, "cells": {"form": "lines", "limit_states": 4}},
    ],
}


def tiny(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(_TINY), **changes}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return execute(resolve(tiny()), Request(tmp_path_factory.mktemp("runs"), threads=1), SilentProgress())


@pytest.fixture(scope="module")
def frame(finished: FinishedRun) -> Any:
    return from_rows(finished.rows)


def test_thresholds_stand_at_the_reveal_rate_that_gives_their_degree(frame: Any) -> None:
    (own,) = marks(frame).values()
    found = {mark.observed: mark for mark in own if mark.threshold == "kesten_stigum"}
    distribution = nae_sat(8, 24, seed=0)
    for observed, gamma in (("all", 1.0), ("satisfied", 0.75)):
        mark, ensemble = found[observed], planted_ensemble(nae(2, 3), observed=observed)
        assert mark.c == pytest.approx(kesten_stigum(ensemble).value)
        assert 3 * 24 / 8 * (1 - rate(mark)) * gamma == pytest.approx(mark.c)
        assert degree(distribution, ensemble, rate(mark)) == pytest.approx(mark.c)


def test_a_threshold_out_of_reach_is_outside_and_moves_with_the_ratio() -> None:
    mark = Record({"c": 6.0, "full": 3.0})
    assert rate(mark) == -1
    assert rate(mark, 4.0) == pytest.approx(0.5)


def test_cells_are_pooled_over_problem_seeds_with_intervals_between_them(finished: FinishedRun, frame: Any) -> None:
    (cells,) = problems(frame, "plane").values()
    assert len(cells) == 8  # (0, 0) hides nothing
    (cell,) = [cell for cell in cells if (cell.a, cell.b) == (1, 0.5)]
    means = [
        row.sums.mean
        for row in finished.rows
        if row.metric == "joint_entropy" and (row.keys["a"], row.keys["b"], row.keys["form"]) == (1, 0.5, "plane")
    ]
    assert len(means) == 2
    expected = (np.mean(means), *stats.t.interval(0.95, 1, np.mean(means), stats.sem(means)))
    assert cell.estimate("exact joint_entropy") == pytest.approx(expected)
    assert math.isnan(cell.value("model kl_latent"))


def test_what_does_not_fit_is_counted_and_the_rest_goes_on(frame: Any) -> None:
    refused = {
        name[2]: {(cell.a, cell.b): cell.value("exact refused") for cell in cells}
        for name, cells in problems(frame, "lines").items()
    }
    assert refused[8][1.0, 0.5] == 0
    assert refused[40][1.0, 1.0] == 0
    assert any(share > 0 for share in refused[40].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": {"latents": [0, 1.5]}}, "1.5"),
        ({"cells": {"latents": [-0.1, 1]}}, "-0.1"),
        ({"cells": {"latents": []}}, "latents is empty"),
        ({"cells": {"observations": []}}, "observations is empty"),
        ({"cells": {"observations": [0.5, 0.5]}}, "must ascend"),
        ({"cells": {"latents": [0], "observations": [0]}}, "hides nothing"),
        ({"judged": ["bp", "model"], "training": None}, "training is null"),
        ({"training": {"steps": 5}}, "does not name model"),
        ({"judged": ["bp", "bp"]}, "twice"),
        ({"population": {"observations": [0.5, 1.0]}}, "below 1"),
        ({"population": {"latents": [0.0, 1.0]}}, "greater than 0"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    rows = [{"problem": {"family": "nae_sat", "N": 8, "P": 24}}]
    with pytest.raises(ValueError, match=message):
        resolve({**tiny(rows=rows), **changes})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": {"family": "random_slab", "N": 5, "P": 9}}, "leave bp out"),
        ({"problem": {"family": "random_slab", "N": 5, "P": 9}, "judged": [], "thresholds": {}}, "random slabs"),
        ({"problem": {"family": "all_k_subsets", "N": 5, "predicate": "sat"}, "thresholds": {}}, "set thresholds"),
    ],
)
def test_what_does_not_fit_the_problem_stops_before_work(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        execute(resolve(tiny(rows=[row])), Request(tmp_path), SilentProgress())


def test_lines_hold_the_edge_and_the_diagonal() -> None:
    columns = Cells("lines", (0.0, 0.5, 1.0), (0.0, 1.0)).columns()
    assert columns == {0.5: (0.5,), 1.0: (0.0, 1.0)}
    assert Population().observed == ("all",)
