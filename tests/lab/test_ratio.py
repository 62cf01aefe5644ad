"""The ratio sweep: exact one-at-a-time decodes, paired differences, where a curve meets a level, tables and figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lo_theory.diffusion.statistics import Estimate, Runs, Sums, between
from lo_theory.lab.config import resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.ratio.figure import make_figures
from lo_theory.lab.ratio.tables import Decode, _met, decodes, facts, falls, settling_ratio
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.sweep.grid import load_grid
from lo_theory.lab.tables import tables
from tests.figures import rendered

_TINY: dict[str, Any] = {
    "experiment": "tiny_ratio",
    "task": "ratio",
    "decoding": {"sequences": 200, "denoisers": ["exact"], "policies": ["vanilla", "margin"], "steps": ["L", "L/8"]},
    "evaluation": {"sequences": 100},
    "rows": [
        {"problem": {"family": "nae_sat", "N": 4, "P": P, "seed": seed}, "seed": seed}
        for P in (4, 28)
        for seed in (0, 1)
    ],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    with rendered():
        return execute(resolve(_TINY), Request(tmp_path_factory.mktemp("runs"), threads=1), SilentProgress())


def curve(*accuracies: float) -> list[Decode]:
    nothing = Estimate(math.nan, math.nan, math.nan)
    return [
        Decode(
            (8, 8 * (i + 1)),
            "exact",
            "vanilla",
            "several",
            Estimate(value, math.nan, math.nan),
            nothing,
            nothing,
            nothing,
            Runs.of(Sums.of([value])),
        )
        for i, value in enumerate(accuracies)
    ]


def test_one_token_a_step_is_the_law_of_the_data_and_several_are_not(finished: FinishedRun) -> None:
    found = decodes(finished.rows)
    assert {(it.kind, it.policy) for it in found} == {(k, p) for k in ("L", "several") for p in ("vanilla", "margin")}
    for it in found:
        assert len(it.problems.parts) == 2
        if it.kind == "L":
            unseen = 1.96**2 / (400 + 1.96**2)  # all 400 sequences agree, and both problems
            assert it.accuracy == pytest.approx((1.0, 1.0 - unseen, 1.0), abs=1e-6)
            assert it.dead[0] == it.live_errors[0] == 0
    late = [it for it in found if it.kind == "several" and it.ratio == 7]
    assert all(0.5 < it.accuracy[0] < 0.9 and it.dead[0] > 0.2 for it in late)
    assert all(1 - it.dead[0] < it.accuracy[0] + it.live_errors[0] < 1 for it in late)


def test_dead_ends_of_a_model_are_those_that_the_exact_posterior_sees(tmp_path: Path) -> None:
    """A hardly trained model contradicts itself soon; rows in which nobody has looked say nothing of it."""
    document = {**_TINY, "rows": _TINY["rows"][2:3], "training": {"steps": 2, "batch": 4}}
    document |= {"model": {"shape": {"layers": 1, "heads": 1, "width": 8}}, "objective": {"laws": ["uniform"]}}
    document["decoding"] = {**_TINY["decoding"], "denoisers": ["exact", "model"]}
    rows = execute(resolve(document), Request(tmp_path, threads=1, workers=1), SilentProgress()).rows
    for it in decodes(rows):
        if it.denoiser == "model":
            assert 0.8 < it.dead[0] <= 1
            assert 0 < it.alive[0] < 0.8
        elif it.kind == "L":
            assert (it.dead[0], it.alive[0]) == (0, 1)
    older = [row for row in rows if row.metric != "alive_steps"]
    assert all(math.isnan(it.dead[0]) == (it.denoiser == "model") for it in decodes(older))


def test_a_difference_is_taken_problem_by_problem(finished: FinishedRun) -> None:
    vanilla, margin = (
        next(it for it in decodes(finished.rows) if (it.kind, it.policy, it.ratio) == ("several", policy, 7))
        for policy in ("vanilla", "margin")
    )
    own = [margin.problems.means[row] - vanilla.problems.means[row] for row in margin.problems.parts]
    low, high = stats.t.interval(0.95, 1, loc=np.mean(own), scale=stats.sem(own))
    assert margin.minus(vanilla) == pytest.approx((np.mean(own), low, high))


def test_between_runs() -> None:
    assert between([1.0, 2.0, 3.0])[0] == 2.0
    assert between([1.0, 2.0, 3.0])[2] == pytest.approx(2 + stats.t.ppf(0.975, 2) / math.sqrt(3))
    assert math.isnan(between([1.0])[1])
    assert math.isnan(between([])[0])


def test_where_a_curve_meets_a_level() -> None:
    assert falls(curve(0.8, 0.7, 0.6), 0.625) == pytest.approx([2 * 1.5**0.75])  # straight on a logarithmic axis
    assert falls(curve(0.8, 0.7, 0.65), 0.625) == []
    assert falls(curve(0.5, 0.4), 0.625) == []  # below from the first ratio on
    assert falls(curve(0.7, 0.6, 0.7, 0.6), 0.65) == pytest.approx([2**0.5, 3 * (4 / 3) ** 0.5])
    assert settling_ratio(curve(0.7, 0.6, 0.7, 0.6), 0.65) == pytest.approx(3 * (4 / 3) ** 0.5)
    assert math.isnan(settling_ratio(curve(0.7, 0.6, 0.7), 0.65))


def test_a_first_meeting_is_told_from_one_for_good() -> None:
    assert _met(curve(0.5, 0.4), 0.625) == "1 or below"
    assert _met(curve(0.5, 0.7), 0.625) == "1 or below, not for good"
    assert _met(curve(0.5, 0.7, 0.6), 0.65) == "1 or below, for good 2.4"
    assert _met(curve(0.8, 0.7, 0.6), 0.65) == "2.4"
    assert _met(curve(0.8, 0.7), 0.625) == "never"
    assert _met(curve(0.7, 0.6, 0.7, 0.6), 0.65) == "1.4, for good 3.5"
    assert _met(curve(0.7, 0.6, 0.7), 0.65) == "1.4, not for good"


def test_more_observations_leave_less_open(finished: FinishedRun) -> None:
    few, many = facts(finished.rows)
    assert few.independent[0] == pytest.approx(0.625)
    assert few.joint_entropy[0] > many.joint_entropy[0] > 0
    assert few.deterministic[0] < many.deterministic[0] < 1
    assert math.isnan(few.gap[0])


def test_tables_and_figure(finished: FinishedRun) -> None:
    experiment = resolve(_TINY)
    shown = tables(experiment, finished.rows)
    assert [len(table.sections) for table in shown] == [2, 1, 1]
    (figure,) = make_figures(experiment, finished.rows).values()
    assert len(figure.axes) == 3
    assert len(figure.axes[0].lines) >= 5


WIDE = ["3.7", "13.7 to 13.8", "2.7", "12.6 to 13.8"]


def test_the_published_figure_marks_where_a_curve_ends_below_and_cuts_no_legend() -> None:
    for name, marks in (("ratio-cpu", ["2.7", "2.7"]), ("ratio-models", []), ("ratio-wide", WIDE)):
        run = FinishedRun(Path(__file__).parents[2] / "experiments" / "results" / name)
        (figure,) = make_figures(resolve(run.config), run.rows).values()
        assert [text.get_text() for axes in figure.axes for text in axes.texts] == marks
        figure.canvas.draw()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(("preset", "cells"), [(None, 64), ("quick", 16), ("models", 6), ("wide", 36), ("paper", 24)])
def test_the_file_is_a_grid(preset: str | None, cells: int) -> None:
    grid = load_grid(Path(__file__).parents[2] / "experiments" / "ratio.yaml", preset=preset)
    assert grid.size == cells
    assert grid.expand()[0].task == "ratio"
