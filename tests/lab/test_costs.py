"""Costs of decodes in a run: measured where that is asked for, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lo_theory.lab.config import resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.table import Table
from lo_theory.lab.task import tables
from tests.lab.tiny import tiny_of

COSTS = {"cost", "dependence_error", "model_error", "infinite_cost", "calls"}
TITLE = "What each decode costs"


def run(out: Path, **decoding: Any) -> FinishedRun:
    document = tiny_of("table1", rows=[{}])
    document["decoding"] = {**document["decoding"], **decoding}
    return execute(resolve(document), Request(out, threads=1), SilentProgress())


@pytest.fixture(scope="module")
def costed(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return run(tmp_path_factory.mktemp("runs"), cost_sequences=40)


def shown(finished: FinishedRun) -> dict[str, Table]:
    return {table.title: table for table in tables(resolve(finished.config), finished.rows)}


def of_decodes(finished: FinishedRun) -> dict[tuple[Any, ...], dict[str, Row]]:
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in finished.rows:
        if row.keys["kind"] == "decode" and row.metric in COSTS:
            place = tuple(row.keys[name] for name in ("denoiser", "policy", "steps", "argmax"))
            found.setdefault(place, {})[row.metric] = row
    return found


def test_each_decode_that_draws_has_its_cost(costed: FinishedRun) -> None:
    found = of_decodes(costed)
    assert {place[:3] for place in found} == {
        (denoiser, policy, steps)
        for denoiser in ("model", "exact")
        for policy in ("vanilla", "margin")
        for steps in (17, 5)
    }
    assert not any(argmax for *_, argmax in found)
    for (denoiser, _, steps, _), rows in found.items():
        means = {name: rows[name].sums.mean for name in COSTS}
        assert rows["cost"].sums.n == 40
        assert means["calls"] == steps
        assert means["infinite_cost"] == 0
        assert means["cost"] == pytest.approx(means["dependence_error"] + means["model_error"], abs=1e-12)
        assert (means["model_error"] == 0) == (denoiser == "exact")
        assert (abs(means["dependence_error"]) < 1e-12) == (steps == 17)


def test_the_table_of_costs_is_there_where_they_were_measured(costed: FinishedRun, tmp_path: Path) -> None:
    assert len(shown(costed)[TITLE].lines) == 8
    plain = run(tmp_path)
    assert of_decodes(plain) == {}
    assert TITLE not in (plain.folder / "table.md").read_text()
    assert TITLE in (costed.folder / "table.md").read_text()
    left = [
        (row.unit, row.metric, row.sums)
        for row in costed.rows
        if row.metric not in COSTS and "second" not in row.metric
    ]
    assert left == [(row.unit, row.metric, row.sums) for row in plain.rows if "second" not in row.metric]
    assert plain.folder.name != costed.folder.name


def test_without_the_exact_posterior_the_cost_is_the_total_alone(tmp_path: Path) -> None:
    document = tiny_of("table1", rows=[{}])
    document["decoding"] = {
        **{"sequences": 16, "denoisers": ["model"], "policies": ["margin"], "steps": ["L/4"], "cost_sequences": 16}
    }
    document["evaluation"] = {**document["evaluation"], "exact": False}
    finished = execute(resolve(document), Request(tmp_path, threads=1), SilentProgress())
    ((_, rows),) = of_decodes(finished).items()
    assert set(rows) == COSTS - {"dependence_error", "model_error"}


def test_orders_and_rules_that_hide_again(tmp_path: Path) -> None:
    """A masked learner of ``orders`` has its costs where they are asked for; a token drawn twice has none."""
    document = tiny_of("orders")
    document["generation"] = {
        **{"sequences": 16, "policies": ["vanilla", "remdm_cap(0.2)"], "chunk": 8, "cost_sequences": 24}
    }
    finished = execute(resolve(document), Request(tmp_path, threads=1), SilentProgress())
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in finished.rows:
        if row.keys["kind"] == "generate" and row.metric in COSTS:
            found.setdefault((row.keys["learner"], row.keys["policy"]), {})[row.metric] = row
    ((place, rows),) = found.items()
    assert place == ("mdm", "vanilla")
    assert set(rows) == COSTS
    assert rows["cost"].sums.n == 24
    assert rows["calls"].sums.mean == 14
    assert abs(rows["dependence_error"].sums.mean) < 1e-12  # one token a step
    assert rows["cost"].sums.mean == pytest.approx(rows["model_error"].sums.mean, abs=1e-12) != 0
    assert len(shown(finished)[TITLE].lines) == 1


def test_a_decode_takes_any_schedule_by_name(tmp_path: Path) -> None:
    """Each named schedule draws other counts; its cost is that of its counts."""
    found = {}
    for name in ("fixed_count", "binomial", "cosine", "beta(2,1)", "random_sizes"):
        more = {"denoisers": ["exact"], "policies": ["vanilla"], "steps": ["L/4"], "argmax": [False]}
        rows = of_decodes(run(tmp_path, **more, schedule=name, cost_sequences=200))
        ((_, found[name]),) = rows.items()
    costs = {name: rows["cost"].sums.mean for name, rows in found.items()}
    assert len(set(costs.values())) == len(costs)
    assert costs["random_sizes"] > costs["fixed_count"] > 0
    with pytest.raises(ValueError, match="the closest is cosine"):
        run(tmp_path, schedule="cosin")
