"""The ratio sweep: exact one-at-a-time decodes, paired differences, where a curve meets a level, tables and figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.config import resolve
from lo_theory.lab.drawing import styled
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.ratio import decodes, differences, facts, falls, figures, met, settling_ratio
from lo_theory.lab.frame import Record, from_rows
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun

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
    return execute(resolve(_TINY), Request(tmp_path_factory.mktemp("runs"), threads=1), SilentProgress())


@pytest.fixture(scope="module")
def frame(finished: FinishedRun) -> Any:
    return from_rows(finished.rows)


def curve(*accuracies: float) -> list[Record]:
    return [
        Record({"ratio": i + 1}, {"self_consistency": (Estimate(value, math.nan, math.nan), {})})
        for i, value in enumerate(accuracies)
    ]


def test_one_token_a_step_is_the_law_of_the_data_and_several_are_not(frame: Any) -> None:
    found = decodes(frame)
    ways = {(it.tokens, it.policy) for it in found}
    assert ways == {(tokens, policy) for tokens in ("one", "several") for policy in ("vanilla", "margin")}
    for it in found:
        assert len(it.runs("self_consistency")) == 2
        if it.tokens == "one":
            unseen = 1.96**2 / (400 + 1.96**2)  # all 400 sequences agree, and both problems
            assert it.estimate("self_consistency") == pytest.approx((1.0, 1.0 - unseen, 1.0), abs=1e-6)
            assert it.value("dead_checks") == it.value("live_errors") == 0
    late = [it for it in found if it.tokens == "several" and it.ratio == 7]
    assert len(late) == 2
    for it in late:
        accuracy, dead = it.value("self_consistency"), it.value("dead_checks")
        assert 0.5 < accuracy < 0.9
        assert dead > 0.2
        assert 1 - dead < accuracy + it.value("live_errors") < 1


def test_dead_ends_of_a_model_are_those_that_the_exact_posterior_sees(tmp_path: Path) -> None:
    """A hardly trained model contradicts itself soon; rows in which nobody has looked say nothing of it."""
    document = {**_TINY, "rows": _TINY["rows"][2:3], "training": {"steps": 2, "batch": 4}}
    document |= {"model": {"shape": {"layers": 1, "heads": 1, "width": 8}}, "objective": {"laws": ["uniform"]}}
    document["decoding"] = {**_TINY["decoding"], "denoisers": ["exact", "model"]}
    rows = execute(resolve(document), Request(tmp_path, threads=1, workers=1), SilentProgress()).rows
    for it in decodes(from_rows(rows)):
        if it.denoiser == "model":
            assert 0.8 < it.value("dead_checks") <= 1
            assert 0 < it.value("alive_steps") < 0.8
        elif it.tokens == "one":
            assert (it.value("dead_checks"), it.value("alive_steps")) == (0, 1)
    older = decodes(from_rows([row for row in rows if row.metric != "alive_steps"]))
    assert all(math.isnan(it.value("dead_checks")) == (it.denoiser == "model") for it in older)


def test_a_difference_is_taken_problem_by_problem(frame: Any) -> None:
    vanilla, margin = (
        next(it for it in decodes(frame) if (it.tokens, it.policy, it.ratio) == ("several", policy, 7))
        for policy in ("vanilla", "margin")
    )
    (apart,) = (it for it in differences(frame) if (it.tokens, it.ratio) == ("several", 7))
    first, second = margin.runs("self_consistency"), vanilla.runs("self_consistency")
    own = [first[row].value - second[row].value for row in first]
    low, high = stats.t.interval(0.95, 1, loc=np.mean(own), scale=stats.sem(own))
    assert apart.estimate("self_consistency") == pytest.approx((np.mean(own), low, high))


def test_where_a_curve_meets_a_level() -> None:
    assert falls(curve(0.8, 0.7, 0.6), 0.625) == pytest.approx([2 * 1.5**0.75])  # straight on a logarithmic axis
    assert falls(curve(0.8, 0.7, 0.65), 0.625) == []
    assert falls(curve(0.5, 0.4), 0.625) == []  # below from the first ratio on
    assert falls(curve(0.7, 0.6, 0.7, 0.6), 0.65) == pytest.approx([2**0.5, 3 * (4 / 3) ** 0.5])
    assert settling_ratio(curve(0.7, 0.6, 0.7, 0.6), 0.65) == pytest.approx(3 * (4 / 3) ** 0.5)
    assert math.isnan(settling_ratio(curve(0.7, 0.6, 0.7), 0.65))


def test_a_first_meeting_is_told_from_one_for_good() -> None:
    assert met(curve(0.5, 0.4), 0.625) == "1 or below"
    assert met(curve(0.5, 0.7), 0.625) == "1 or below, not for good"
    assert met(curve(0.5, 0.7, 0.6), 0.65) == "1 or below, for good 2.4"
    assert met(curve(0.8, 0.7, 0.6), 0.65) == "2.4"
    assert met(curve(0.8, 0.7), 0.625) == "never"
    assert met(curve(0.7, 0.6, 0.7, 0.6), 0.65) == "1.4, for good 3.5"
    assert met(curve(0.7, 0.6, 0.7), 0.65) == "1.4, not for good"


def test_more_observations_leave_less_open(frame: Any) -> None:
    few, many = facts(frame)
    assert few.value("self_consistency_independent") == pytest.approx(0.625)
    assert few.value("joint_entropy") > many.value("joint_entropy") > 0
    assert few.value("deterministic") < many.value("deterministic") < 1
    assert math.isnan(few.value("gap"))


WIDE = ["3.7", "13.7 to 13.8", "2.7", "12.6 to 13.8"]


def test_the_published_figure_marks_where_a_curve_ends_below_and_cuts_no_legend() -> None:
    for name, marks in (("ratio-cpu", ["2.7", "2.7"]), ("ratio-models", []), ("ratio-wide", WIDE)):
        run = FinishedRun(Path(__file__).parents[2] / "experiments" / "results" / name)
        (sheet,) = figures(from_rows(run.rows), resolve(run.config)).values()
        with styled():
            figure = sheet.draw()
            figure.canvas.draw()
        assert [text.get_text() for axes in figure.axes for text in axes.texts] == marks
        box = figure.legends[0].get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
