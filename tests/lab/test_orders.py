"""The experiment on orders: settings, units, rows against known truths, tables and figure, going on after a stop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lo_theory.diffusion import POLICIES, View, fixed_order
from lo_theory.diffusion.orders import closed_form, reading_order
from lo_theory.diffusion.statistics import Estimate, Sums
from lo_theory.lab.config import Experiment, resolve
from lo_theory.lab.drawing import styled
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.orders import MaskedLearner, Row, above, figures, reached, readers
from lo_theory.lab.frame import Record, from_rows, kind, pool, records
from lo_theory.lab.measures import pooled
from lo_theory.lab.problems import NaeSat
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.settings import Stage, Training
from lo_theory.lab.task import tables
from lo_theory.rng import Key
from tests.lab.tiny import tiny_of

LEARNERS = ["latents_first", "closer-0", "closer-1", "reversed", "mdm"]
LENGTH, FLOOR = 14, 5 * math.log(2) / 14


def tiny(**changes: Any) -> dict[str, Any]:
    return tiny_of("orders", **changes)


@pytest.fixture(scope="module")
def finished(tiny_runs: Callable[[str], FinishedRun]) -> FinishedRun:
    return tiny_runs("orders")


@pytest.fixture(scope="module")
def experiment(finished: FinishedRun) -> Experiment:
    return resolve(finished.config)


def group(rows: Sequence[Line], name: str) -> list[Record]:
    """What the rows of one kind say, by their keys."""
    return records(pool(kind(from_rows(rows), name)))


def row_of(**changes: Any) -> Row:
    return Row(NaeSat("nae_sat", 5, 9), Training(100), **changes)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_budgets_are_shares_of_the_steps_and_shorten_warm_up_and_stages_alike() -> None:
    row = row_of(shares=(1.0, 0.25), masked=(MaskedLearner("mdm", stages=(Stage(40, ("uniform",)),)),))
    assert row.budgets() == (25, 100)
    assert (row.training_of(25).steps, row.training_of(25).warmup) == (25, 25)
    assert row.training_of(100) == row.training
    assert row.masked[0].objective(0.25).stages[0].steps == 10


@dataclass(frozen=True)
class Mine:
    """A policy of one's own that takes a number: everything at once below it, else latents first."""

    bound: float

    @property
    def name(self) -> str:
        return f"mine({self.bound})"

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        return fixed_order().plan(view, budget)


def test_policies_are_those_that_decoding_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    made = resolve(tiny(generation={"policies": list(POLICIES)}))
    assert made.rows[0].generation.policies == tuple(POLICIES)
    with pytest.raises(ValueError, match=r"generation: unknown policy 'mine\(2\)'"):
        resolve(tiny(generation={"policies": ["mine(2)"]}))
    monkeypatch.setitem(POLICIES, "mine", Mine)
    assert resolve(tiny(generation={"policies": ["mine(2)"]})).rows[0].generation.policies == ("mine(2)",)
    with pytest.raises(ValueError, match="takes 1 numbers"):
        resolve(tiny(generation={"policies": ["mine"]}))


def test_every_draw_is_a_learner_with_an_order_of_its_own() -> None:
    row = resolve(tiny()).rows[0]
    layout = row.problem.make().layout
    both = readers(row, layout)
    assert [reader.name for reader in both] == LEARNERS[:4]
    assert len({reader.reading for reader in both}) == 4
    key = Key(0).fold("orders").fold("closer").fold(1)
    assert both[2].reading == reading_order("closer", layout, key, swaps=2)
    assert [reader.reads_latents_first(layout) for reader in both] == [True, False, False, False]


# --- what is measured -------------------------------------------------------------------------------------------------


def test_the_floor_is_the_same_along_every_order_and_is_met_sequence_by_sequence(finished: FinishedRun) -> None:
    items = group(finished.rows, "along")
    assert len(items) == 4 * 2 + 4
    for item in items:
        exact = item.metrics["exact"][1]
        assert exact.mean == pytest.approx(FLOOR, abs=1e-9)
        assert exact.sums.deviations == pytest.approx(0, abs=1e-9)  # without noise -ln p(x) is one number
        assert item.value("kl") > 0
        roles = item.value("kl_latents") + item.value("kl_observations")
        assert roles == pytest.approx(item.value("kl"), rel=1e-9)


def test_positions_add_up_to_the_order(finished: FinishedRun) -> None:
    whole = [item for item in group(finished.rows, "along") if item.keys["training_steps"] == 12]
    positions = group(finished.rows, "position")
    assert len(positions) == len(whole) * LENGTH
    for item in whole:
        own = [place for place in positions if all(place.keys[k] == item.keys[k] for k in ("learner", "order"))]
        assert [place.keys["time"] for place in own] == list(range(LENGTH))
        assert sorted(place.keys["position"] for place in own) == list(range(LENGTH))
        assert sum(place.keys["role"] == "latent" for place in own) == 5
        for metric in ("model", "exact", "kl"):
            assert sum(place.value(metric) for place in own) / LENGTH == pytest.approx(item.value(metric), rel=1e-9)


def test_formulas_stand_beside_the_measured_positions(finished: FinishedRun) -> None:
    formulas = group(finished.rows, "formula")
    first = [item for item in formulas if item.keys["order"] == "latents_first"]
    assert [item.value("exact") for item in first] == pytest.approx([math.log(2)] * 5 + [0.0] * 9)
    exact = {
        (item.keys["order"], item.keys["time"]): item.value("exact")
        for item in group(finished.rows, "position")
        if item.keys["learner"] == item.keys["order"]
    }
    for item in first:
        assert exact["latents_first", item.keys["time"]] == pytest.approx(item.value("exact"), abs=1e-12)
    distribution = resolve(tiny()).rows[0].problem.make()
    known = np.isfinite(closed_form(distribution, reading_order("reversed", distribution.layout, Key(0))))
    times = [item.keys["time"] for item in formulas if item.keys["order"] == "reversed"]
    assert times == np.flatnonzero(known).tolist()
    assert 0 < len(times) < LENGTH


def test_the_masked_learner_is_compared_on_the_same_sequences(finished: FinishedRun) -> None:
    whole = [item for item in group(finished.rows, "along") if item.keys["training_steps"] == 12]
    own = {item.keys["order"]: item for item in whole if item.keys["learner"] == item.keys["order"]}
    others = [item for item in whole if item.keys["learner"] == "mdm"]
    assert len(others) == 4
    for item in others:
        difference = item.value("kl") - own[item.keys["order"]].value("kl")
        assert item.value("above_causal") == pytest.approx(difference, abs=1e-9)
        kl = (of.metrics["kl"][1].sums for of in (item, own[item.keys["order"]]))
        apart = sum(sums.standard_error for sums in kl)
        assert 0 < item.metrics["above_causal"][1].sums.standard_error < apart


def test_all_learners_have_the_same_flops_by_the_stated_count(finished: FinishedRun) -> None:
    trainings = group(finished.rows, "training")
    assert [(item.keys["learner"], item.keys["training_steps"]) for item in trainings] == [
        (name, steps) for steps in (6, 12) for name in LEARNERS
    ]
    assert len({item.value("core_parameters") for item in trainings}) == 1
    for item in trainings:
        per_token = 6 * item.value("core_parameters") + 12 * 1 * 16 * LENGTH
        assert item.keys["flops"] == item.keys["training_steps"] * 8 * LENGTH * per_token


def test_without_the_exact_posterior_losses_are_measured_and_curves_are_those_that_were_logged(tmp_path: Path) -> None:
    document = tiny(evaluation={"sequences": 16, "contexts": 16, "exact": False}, shares=[1.0])
    document |= {"orders": [{"name": "reversed"}], "training": {"steps": 60, "batch": 8, "warmup": 2}}
    document["masked"][0]["stages"][0]["steps"] = 20
    done = execute(resolve(document), Request(tmp_path, threads=1), SilentProgress())
    assert not [row for row in done.rows if row.metric in ("exact", "kl") and row.keys["kind"] != "formula"]
    log = [json.loads(line) for line in (done.folder / "log.jsonl").read_text().splitlines()]
    for name, first in (("reversed", 20), ("mdm", 40)):  # the first log of the masked one is of its stage
        curve = [item for item in group(done.rows, "curve") if item.keys["learner"] == name]
        logged = {
            entry["step"]: entry["loss"] for entry in log if entry.get("model") == f"0-{name}-60" and "loss" in entry
        }
        assert [item.keys["step"] for item in curve] == list(range(first, 61, 20))
        assert [item.value("loss") for item in curve] == pytest.approx([logged[s] for s in range(first, 61, 20)])
        assert curve[-1].keys["flops"] == max(item.keys["flops"] for item in group(done.rows, "training"))
    panels = drawn(resolve(done.config), done.rows)
    assert sum(line.get_alpha() == 0.45 for line in panels[0].lines) == 2, "a faint curve for each training"


def test_pooling_keeps_every_entry_and_groups_late_steps() -> None:
    losses = {step: 1.0 / step for step in range(20, 2001, 20)}
    groups = pooled(losses, 12)
    assert sum(sums.n for sums in groups.values()) == 100
    assert max(groups) == 2000
    assert len(groups) <= 12
    assert groups[2000].n > groups[min(groups)].n
    assert pooled(losses, 12)[2000].mean == pytest.approx(np.mean([1 / s for s in list(losses)[-groups[2000].n :]]))
    assert pooled({}) == {}


def test_generated_sequences_are_judged_and_their_cost_counted(finished: FinishedRun) -> None:
    cells = {(cell.keys["learner"], cell.keys["policy"]): cell for cell in group(finished.rows, "generate")}
    own = [(name, "own order") for name in LEARNERS[:4]]
    assert list(cells) == [("data", "exact sampler"), *own, ("mdm", "vanilla"), ("mdm", "fixed_order")]
    data = cells["data", "exact sampler"]
    assert data.value("self_consistency") == data.value("consistent") == 1
    for (learner, _), cell in cells.items():
        assert cell.metrics["self_consistency"][1].sums.n == 16
        assert {"unpaired", "observation_mean", "bias_z", "distinct", "total_variation"} <= cell.metrics.keys()
        if learner != "data":
            passes = LENGTH if learner == "mdm" else 1
            assert (cell.value("forwards"), cell.value("passes")) == (LENGTH, passes)
            assert cell.value("seconds") > 0
    one_pass = {item.keys["learner"]: set(item.metrics) for item in group(finished.rows, "one_pass")}
    assert one_pass == {"latents_first": {"conditional"}, "mdm": {"conditional", "infill", "infill_drawn"}}


def test_a_latents_first_learner_that_has_learned_answers_from_true_latents(tmp_path: Path) -> None:
    document = tiny(orders=[{"name": "latents_first"}], masked=[], shares=[1.0])
    document["problem"] = {"family": "nae_sat", "N": 4, "P": 6}
    document["training"] = {"steps": 300, "batch": 64, "warmup": 20, "learning_rate": 1e-2}
    document["model"]["shape"] = {"layers": 1, "heads": 4, "width": 48}
    done = execute(resolve(document), Request(tmp_path, threads=1), SilentProgress())
    (item,) = group(done.rows, "one_pass")
    cell = group(done.rows, "generate")[1]
    (loss,) = group(done.rows, "along")
    assert loss.value("kl") < 0.03, "or the rest says nothing"
    assert item.value("conditional") > 0.97
    assert cell.value("self_consistency") > 0.97


# --- what is shown ----------------------------------------------------------------------------------------------------


def record(metrics: dict[str, float | Sums], **keys: Any) -> Record:
    """A record of single numbers and of statistics."""
    estimates = {
        name: Estimate(value.mean, *value.interval())
        if isinstance(value, Sums)
        else Estimate(value, math.nan, math.nan)
        for name, value in metrics.items()
    }
    return Record(keys, {name: (value, {}) for name, value in estimates.items()})


def test_the_floor_counts_as_reached_when_the_interval_lies_below_the_share() -> None:
    problem = record({"floor": 0.2, "marginals_only": 0.6, "reached": 0.05})
    far, wide, near = (
        record({"kl": Sums.of(kl)}, flops=flops).plus(problem)
        for flops, kl in ((1, [0.03] * 100), (2, [0.0, 0.038] * 50), (3, [0.019, 0.0195] * 50))
    )
    assert reached([far, wide, near]) == 3
    assert math.isnan(reached([far, wide]))


def test_without_the_exact_posterior_the_excess_is_the_loss_less_the_floor() -> None:
    values = [0.3, 0.5, 0.4]
    truth = Sums.of([value - 0.25 for value in values])
    loss = record({"model": Sums.of(values), "floor": 0.25})
    assert above(loss) == pytest.approx((truth.mean, *truth.interval()))
    assert above(loss.plus(record({"kl": 1.0}))).value == 1


def drawn(experiment: Experiment, rows: Sequence[Line]) -> Any:
    """The panels of the figure, drawn."""
    (sheet,) = figures(from_rows(rows), experiment).values()
    with styled():
        return [axes for axes in sheet.draw().axes if axes.axison]


def test_rows_of_shorter_trainings_are_shown_beside_those_of_longer_ones(
    finished: FinishedRun, experiment: Experiment
) -> None:
    """A second row whose trainings took half as long, made of the first one's rows."""

    def shorter(row: Line) -> Line:
        keys = {**row.keys, "row": 1, "N": 6}
        keys |= {name: keys[name] / 2 for name in ("flops", "training_steps") if name in keys}
        return Line(f"other/{row.unit}", row.metric, row.sums, keys)

    rows = [*finished.rows, *map(shorter, finished.rows)]
    (alone,) = (table for table in tables(experiment, finished.rows) if table.title == "Along the orders")
    (both,) = (table for table in tables(experiment, rows) if table.title == "Along the orders")
    assert len(both.sections) == 2 * len(alone.sections) > 0
    assert [section[0][0] for section in both.sections] == ["5, 9"] * 4 + ["6, 9"] * 4
    assert [[line[1:] for line in section] for section in both.sections] == alone.sections * 2
    two, one = (drawn(experiment, shown) for shown in (rows, finished.rows))
    for panel in (0, 1):  # training and along: every mark twice
        assert len(two[panel].containers) == 2 * len(one[panel].containers)
