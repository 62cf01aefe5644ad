"""The experiment on decoding rules: known answers, denoisers by name, rules that hide again, who is on the frontier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import POLICIES
from lo_theory.lab.config import resolve
from lo_theory.lab.denoisers import DENOISERS, denoiser
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.samplers import Group, Row
from lo_theory.lab.experiments.samplers_shown import Found
from lo_theory.lab.frame import Record, from_rows, of_kind
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.subject import Subject
from lo_theory.lab.task import tables
from lo_theory.lab.units import Context, Options
from lo_theory.posterior import ExactPosterior, Forgetful, MarginalsOnly
from lo_theory.problem import MASK
from tests.lab.tiny import tiny_of

PARITY = {"family": "sparse_parity", "N": 5, "P": 7, "k": 3, "noise": 0.0}


def run_of(folder: Path, **row: Any) -> FinishedRun:
    document = tiny_of("samplers", rows=[{"name": "a", "problem": PARITY, "denoisers": ["exact"], **row}])
    return execute(resolve(document), Request(folder, workers=1, threads=1, device="cpu"), SilentProgress())


def lines_of(run: FinishedRun, kind: str, **keys: Any) -> list[Record]:
    found = of_kind(from_rows(run.rows), kind)
    return [line for line in found if all(line.get(name) == value for name, value in keys.items())]


@pytest.fixture(scope="module")
def finished(tiny_runs: Callable[[str], FinishedRun]) -> FinishedRun:
    return tiny_runs("samplers")


# --- known answers ----------------------------------------------------------------------------------------------------


def test_a_single_step_costs_the_total_correlation(tmp_path: Path) -> None:
    """Of parities without noise every sequence costs it: all single tokens are uniform, and all sequences as likely."""
    run = run_of(tmp_path, rules=[{"policies": ["vanilla", "margin"], "steps": [1]}])
    (whole,) = (line for line in lines_of(run, "information") if "total_correlation" in line.metrics)
    assert whole.value("total_correlation") == pytest.approx(7 * np.log(2))
    costs = [line.value("cost") for line in lines_of(run, "decode")]
    assert costs == pytest.approx([7 * np.log(2)] * 2, abs=1e-9)
    (one,) = lines_of(run, "information", schedule="best", steps=1)
    assert one.value("curve_cost") == pytest.approx(7 * np.log(2), abs=1), "the curve is measured"


def test_one_token_a_step_costs_nothing_with_the_exact_posterior(finished: FinishedRun) -> None:
    exact = lines_of(finished, "decode", denoiser="exact", schedule="fixed_count")
    whole = [line for line in exact if line.steps == line.N + line.P and "(" not in line.policy]
    assert {line.policy for line in whole} == {"vanilla", "margin", "fixed_order"}
    assert [line.value("cost") for line in whole] == pytest.approx([0.0] * len(whole), abs=1e-9)
    assert min(line.value("cost") for line in exact if line.steps == 1) > 0.5
    weak = lines_of(finished, "decode", denoiser="mixed(0.3)")
    assert min(line.value("cost") for line in weak if line.steps == line.N + line.P) > 0.01


def test_latents_and_then_observations_cost_nothing_in_two_steps(finished: FinishedRun) -> None:
    for line in lines_of(finished, "decode", schedule="by_role"):
        assert line.value("calls") == line.steps
        assert (abs(line.value("cost")) < 1e-9) == (line.steps == 2)


def test_the_best_counts_are_never_above_equal_ones_and_more_steps_never_cost_more(finished: FinishedRun) -> None:
    for row in (0, 1):
        best, equal = (
            {line.steps: line.value("curve_cost") for line in lines_of(finished, "information", row=row, schedule=name)}
            for name in ("best", "fixed_count")
        )
        assert sorted(best) == list(range(1, max(equal) + 1))
        assert all(best[steps] <= equal[steps] + 1e-9 for steps in equal)
        assert any(best[steps] < equal[steps] - 1e-3 for steps in equal), "they are not the same"
        costs = [best[steps] for steps in sorted(best)]
        assert costs == sorted(costs, reverse=True)


def test_rules_are_measured_on_the_same_sequences_and_others_on_fewer(finished: FinishedRun) -> None:
    found = {row.keys["denoiser"]: row.sums.n for row in finished.rows if row.metric == "infinite_cost"}
    assert found == {"exact": 40, "model": 12, "few_rounds(2)": 12, "mixed(0.3)": 12}
    ones = {row.sums.total for row in finished.rows if row.metric == "cost" and row.keys["steps"] == 1}
    exact = [line.value("cost") for line in lines_of(finished, "decode", row=0, denoiser="exact", steps=1)]
    assert len(ones) >= 3
    assert exact == pytest.approx([exact[0]] * len(exact), abs=1e-12), "one step, one set of sequences"


# --- denoisers by name ------------------------------------------------------------------------------------------------


def subject() -> Subject:
    (row,) = resolve(tiny_of("samplers", rows=[{"name": "a", "problem": PARITY}])).rows
    nothing: Any = None
    context = Context(nothing, Options(), nothing, nothing)
    return Subject(0, row, context, row.problem.make())


def test_every_denoiser_answers_by_its_name() -> None:
    s = subject()
    tokens = s.distribution.sample(s.key, 6)
    tokens[:, ::2] = MASK
    numbers = {"few_rounds": "(2)", "forgetful": "(0.25)", "mixed": "(0.3)", "sharpened": "(0.5)"}
    for name in DENOISERS.keys() - {"model"}:
        probs = denoiser(f"{name}{numbers.get(name, '')}")(s).marginals(tokens).probs
        assert probs.sum(axis=2) == pytest.approx(1.0), name
    exact, prior = ExactPosterior(s.distribution).marginals(tokens).probs, MarginalsOnly(s.distribution)
    mixed = denoiser("mixed(0.3)")(s).marginals(tokens).probs
    assert mixed == pytest.approx(0.7 * exact + 0.3 * prior.marginals(tokens).probs)


def test_a_share_of_the_observations_is_forgotten_the_same_each_time() -> None:
    s = subject()
    made = [denoiser(text)(s) for text in ("forgetful(0.25)", "forgetful(0.25)", "forgetful(1)", "forgetful(0)")]
    forgotten = [one.forgotten.tolist() for one in made if isinstance(one, Forgetful)]
    assert [len(numbers) for numbers in forgotten] == [2, 2, 7, 0]
    assert forgotten[0] == forgotten[1]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("exakt", "unknown denoiser 'exakt': the closest is exact"),
        ("mixed", r"mixed takes 1 numbers \(share\), got 0"),
        ("mixed(2)", r"share lies in \[0, 1\], got 2"),
        ("forgetful(-1)", r"share lies in \[0, 1\], got -1"),
        ("few_rounds(0)", "rounds must be at least 1, got 0"),
        ("sharpened(-1)", "excess must be above -1, got -1"),
    ],
)
def test_a_denoiser_that_is_none_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        denoiser(text)


def test_a_run_of_rules_that_hide_again_alone_has_tables_and_no_frontier(tmp_path: Path) -> None:
    run = run_of(
        tmp_path, rules=[{"policies": ["remdm_cap(0.1)"], "schedules": ["binomial"], "steps": [3]}], generated=8
    )
    shown = {table.title: table for table in tables(resolve(run.config), run.rows)}
    assert len(shown["Rules that hide again"].lines) == 1
    assert not (run.folder / "figure.png").exists()


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ({"policies": ["vanilla"], "denoisers": ["mixed(0.3)"]}, r"no rule is measured with exact: rules name mixed"),
        ({"policies": ["vanilla"], "schedules": ["bset"]}, r"unknown schedule 'bset': .*random_sizes, best, by_role"),
        ({"policies": ["vanilla"], "schedules": ["best(3)"]}, r"best"),
        ({"policies": ["vanilla"], "steps": []}, r"steps is empty"),
    ],
)
def test_rules_that_measure_nothing_are_refused(rules: Mapping[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        resolve(tiny_of("samplers", rows=[{"name": "a", "problem": PARITY, "denoisers": ["exact"], "rules": [rules]}]))


# --- rules ------------------------------------------------------------------------------------------------------------


def test_a_rule_that_is_named_twice_is_measured_once() -> None:
    rules = [{"policies": ["vanilla"], "steps": [2, "L/6", "L"]}, {"policies": ["vanilla", "margin"], "steps": [2, 3]}]
    row: Row = resolve(tiny_of("samplers", rows=[{"name": "a", "problem": PARITY, "rules": rules}])).rows[0]
    found = [group for group in row.groups(12) if group.denoiser == "exact"]
    assert found == [
        Group("exact", "vanilla", "fixed_count", (2, 12, 3)),
        Group("exact", "margin", "fixed_count", (2, 3)),
    ]


@dataclass(frozen=True)
class Again:
    """Hides all again but for what the schedule reveals anew, until the last step."""

    name: str = "again"
    remasks: bool = True

    def plan(self, view: Any, budget: Any) -> Any:
        return np.full(view.masked.shape, view.step < view.steps - 1)


def test_a_rule_that_hides_again_is_decoded_and_has_no_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "again", Again)
    run = run_of(tmp_path, rules=[{"policies": ["vanilla", "again"], "steps": [4]}])
    (line,) = lines_of(run, "decode", policy="again")
    assert not {"cost", "infinite_cost", "dependence_error"} & line.metrics.keys()
    assert line.value("calls") == 4
    assert 0 <= line.value("self_consistency") <= 1
    (table,) = (table for table in tables(resolve(run.config), run.rows) if table.title == "Rules that hide again")
    assert [line.policy for line in table.lines] == ["vanilla", "again"], "random order is beside it"


def test_the_frontier_has_the_cheapest_rule_within_each_budget(finished: FinishedRun) -> None:
    found = tables(resolve(finished.config), finished.rows)
    (table,) = (table for table in found if table.title.startswith("The frontier"))
    lines: Mapping[Any, Record] = {(line.row, line.denoiser, line.budget): line for line in table.lines}
    priced = [line for line in Found(from_rows(finished.rows)).priced if line.policy != "fixed_order"]
    for (row, who, budget), line in lines.items():
        own = [one for one in priced if (one.row, one.denoiser) == (row, who) and one.value("calls") <= budget]
        assert line.value("cost") == min(one.value("cost") for one in own)
    assert lines[0, "exact", 12].value("cost") == pytest.approx(0, abs=1e-9)


def test_random_order_between_two_numbers_of_steps_is_on_the_line_between(finished: FinishedRun) -> None:
    found = Found(from_rows(finished.rows))
    best = {line.steps: line.value("curve_cost") for line in found.random[0]}
    for line in found.priced:
        if line.row == 0 and line.steps in best and line.value("calls") == line.steps:
            assert line.value("random_cost") == pytest.approx(best[line.steps])
    (between,) = (line for line in found.priced if line.row == 0 and line.schedule == "binomial")
    assert best[3] <= between.value("random_cost") <= best[2]
    (ahead,) = (line for line in found.priced if line.row == 0 and line.policy == "lookahead")
    assert ahead.value("calls") > 3 == ahead.value("taken"), "asking about what follows takes no further steps"
    assert ahead.value("random_cost") == pytest.approx(best[3])
