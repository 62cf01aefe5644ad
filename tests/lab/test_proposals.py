"""Training proposals: equal operations, pairs of trainings, objectives by name, what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import DecodeOptions, FixedCount, decode, margin
from lo_theory.diffusion.statistics import Estimate, between, welch
from lo_theory.lab.config import Experiment, load, resolve
from lo_theory.lab.execute import Request, prepare
from lo_theory.lab.experiments.proposals import (
    Quantity,
    Row,
    _measured,
    differences,
    figures,
    paths,
    proposals,
    trained_steps,
)
from lo_theory.lab.frame import Record, from_rows, kind, of_kind, pool, records
from lo_theory.lab.measures import generated
from lo_theory.lab.planning import plan_trainings
from lo_theory.lab.runs import FinishedRun, Followed
from lo_theory.lab.settings import Cell, Objective, Stage
from lo_theory.lab.training import make_objective
from lo_theory.lab.units import Options
from lo_theory.neural import (
    Focal,
    LearnedOrder,
    Masked,
    ProSeCo,
    Puma,
    SelfCorrection,
    Staged,
    TrainedPosterior,
    Transformer,
    load_model,
)
from lo_theory.neural.objectives import count_passes
from lo_theory.problem import nae_sat
from lo_theory.rng import Key
from tests.lab.test_recipes import EXPERIMENTS
from tests.lab.tiny import tiny_of
from tests.neural.small import KEY, NETWORK
from tests.neural.test_objectives import on_torch

PROBLEM = nae_sat(4, 8, seed=3)


@pytest.fixture(scope="module")
def finished(tiny_runs: Callable[[str], FinishedRun]) -> FinishedRun:
    return tiny_runs("proposals")


@pytest.fixture(scope="module")
def experiment(finished: FinishedRun) -> Experiment:
    return resolve(finished.config)


@pytest.fixture(scope="module")
def frame(finished: FinishedRun) -> Any:
    return from_rows(finished.rows)


# --- objectives by name -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("puma(8)", Puma(PROBLEM, 8)),
        ("puma(8,0.9)", Puma(PROBLEM, 8, 0.9)),
        ("proseco", ProSeCo(PROBLEM)),
        ("proseco(0.5)", ProSeCo(PROBLEM, 0.5)),
        ("learned_order", LearnedOrder(PROBLEM)),
        ("learned_order(1,0.5)", LearnedOrder(PROBLEM, 1, 0.5)),
    ],
)
def test_an_objective_is_made_by_its_name(kind: str, made: Any) -> None:
    assert make_objective(Objective(kind=kind), PROBLEM, 10).describe() == made.describe()
    stages = (Stage(steps=4, laws=("two_rates(0.1,0.9)",)),)
    staged = make_objective(Objective(stages=stages, kind=kind), PROBLEM, 10)
    assert isinstance(staged, Staged)
    assert staged.label(3) == "two_rates(0.1,0.9)"
    assert staged.label(4) == made.label(4)


@pytest.mark.parametrize("kind", ["focal(2)", "puma(8)", "proseco", "learned_order"])
def test_all_have_the_plain_loss_in_their_first_stage(kind: str) -> None:
    stages = (Stage(steps=4, laws=("two_rates(0.1,0.9)",)),)
    plain, other = (make_objective(Objective(stages=stages, kind=name), PROBLEM, 10) for name in ("masked", kind))
    model = getattr(other, "network", Transformer)(NETWORK, seed=1)
    for step, same in ((0, True), (3, True), (4, False)):
        values = []
        for objective in (plain, other):
            state = on_torch(objective.initial_state())
            batch = on_torch(objective.draw(KEY, step, (0, 8)))
            values.append(objective.loss(model, batch, state)[0].item())
        assert (values[0] == values[1]) == same, (step, values)
        assert (plain.label(step) == other.label(step)) == same


def test_objectives_of_mask_laws_keep_laws_and_stages() -> None:
    setting = {"laws": ("mirror_uniform",), "stages": (Stage(steps=4),)}
    masked, focal = (make_objective(Objective(**setting, kind=name), PROBLEM, 10) for name in ("masked", "focal(2)"))
    assert isinstance(focal, Staged)
    assert (type(masked), type(focal.objective)) == (Masked, Focal)
    assert masked.describe()["stages"] == focal.describe()["stages"] != []
    assert focal.label(4) == "focal(2) mirror_uniform"


# --- equal operations -------------------------------------------------------------------------------------------------


def row(steps: int, **objective: Any) -> Row:
    document = tiny_of("proposals", rows=[{"name": "one"}], objective=objective)
    document["training"] = {**document["training"], "steps": steps}
    made: Row = resolve(document).rows[0]
    return made


@pytest.mark.parametrize(
    ("objective", "passes"),
    [
        ({"kind": "puma(2)"}, 1),
        ({"kind": "proseco"}, 2),
        ({"kind": "learned_order"}, 3),
        ({"laws": ["mirror_uniform"]}, 2),
    ],
)
@pytest.mark.parametrize("first", [0, 20])
def test_several_passes_a_row_are_fewer_steps_of_as_many_operations(
    objective: dict[str, Any], passes: int, first: int
) -> None:
    setting = row(100, **objective, stages=[{"steps": first, "laws": ["uniform"]}])
    steps = trained_steps(setting, PROBLEM)
    assert steps == first + (100 - first) // passes
    made = make_objective(setting.objective, PROBLEM, steps)
    assert 100 - passes < count_passes(made, steps) <= 100


def test_all_proposals_of_the_file_take_as_many_operations() -> None:
    for preset in ("quick", "cpu", "more", "large", "paper", "paper40"):
        found = load(EXPERIMENTS / "proposals.yaml", preset=preset)
        first = found.rows[0].training
        for one in found.rows:
            steps, batch = trained_steps(one, PROBLEM), one.training.batch
            made, budget = make_objective(one.objective, PROBLEM, steps), one.training.steps
            assert budget - 3 < count_passes(made, steps) <= budget
            assert budget * batch == first.steps * first.batch


def test_two_masks_of_half_the_batch_take_as_many_steps_after_the_first_stage_as_the_plain_loss() -> None:
    plain, _, mirror, *_ = load(EXPERIMENTS / "proposals.yaml", preset="more").rows
    first, staged = (sum(stage.length(0) for stage in one.objective.stages) for one in (plain, mirror))
    assert (mirror.objective.laws, 2 * mirror.training.batch) == (("mirror_uniform",), plain.training.batch)
    assert staged * mirror.training.batch == first * plain.training.batch
    assert trained_steps(mirror, PROBLEM) - staged == trained_steps(plain, PROBLEM) - first == 3000


def test_planned_operations_are_those_that_are_logged(frame: Any, experiment: Experiment) -> None:
    ends = [curve[-1] for line in proposals(frame, experiment) for curve in line.curves]
    assert len({end.flops for end in ends if end.N == 5}) == 1
    assert {(end.row, end.step) for end in ends} == {(0, 8), (1, 8), (2, 4), (3, 8), (4, 5)}


# --- decodes of their own ---------------------------------------------------------------------------------------------


def test_a_corrected_decode_is_that_of_the_network_with_its_own_corrector(finished: FinishedRun, frame: Any) -> None:
    """The decode again from the kept network; without the corrector the sequences are others."""
    distribution, cell = nae_sat(5, 12, seed=0), Cell("model", "corrected_margin", "L", False, "fixed_count")
    for number in (0, 4):
        network = load_model(finished.folder / f"model-{number}-0.safetensors", problem=distribution.fingerprint())
        model = TrainedPosterior(network, distribution.layout, batch=128)
        key = Key(0).fold("judged").fold(0).fold("decode").fold(cell.name)
        made = [
            decode(model, margin(), FixedCount(17), key=key, n=8, options=DecodeOptions(rewriter=rewriter))
            for rewriter in (SelfCorrection(model, every=2, passes=4), None)
        ]
        (line,) = records(pool(kind(frame, "decode", row=number, draw=0, policy=cell.policy)))
        accuracy, bare = (generated(distribution, one.tokens, key.fold("judge")) for one in made)
        for metric in ("self_consistency", "unpaired", "observation_mean"):
            assert line.value(metric) == pytest.approx(accuracy[metric].mean)
        assert not np.array_equal(made[0].tokens, made[1].tokens)
        assert any(line.value(metric) != pytest.approx(bare[metric].mean) for metric in line.metrics)


def test_proseco_and_the_plain_loss_are_corrected_and_such_decodes_have_no_cost(frame: Any) -> None:
    corrected: dict[int, set[str]] = {}
    for line in of_kind(frame, "decode"):
        corrected.setdefault(line.row, set())
        if line.policy.startswith("corrected_"):
            corrected[line.row].add(line.policy)
        assert ("cost" in line.metrics) == (line.policy in ("vanilla", "margin", "learned_order"))
    both = {"corrected_vanilla", "corrected_margin"}
    assert corrected == {0: both, 1: set(), 2: set(), 3: both, 4: both}


def test_forward_passes_are_counted_where_a_step_takes_several(frame: Any, finished: FinishedRun) -> None:
    """One of the denoiser and one of the order's head at each of 17 steps; a corrector stops before its four passes."""
    passes = {(line.row, line.draw, line.policy): line.value("forward_passes") for line in of_kind(frame, "decode")}
    for (row, _, policy), count in passes.items():
        if policy == "learned_order":
            assert count == 2 * 17
        elif policy.startswith("corrected_"):
            assert 17 + 8 <= count <= 17 + 8 * 4, (row, policy)
        else:
            assert math.isnan(count)
    assert len({count for (*_, policy), count in passes.items() if policy.startswith("corrected_")}) > 1
    network = load_model(finished.folder / "model-4-0.safetensors", problem=nae_sat(5, 12, seed=0).fingerprint())
    model = TrainedPosterior(network, nae_sat(5, 12, seed=0).layout, batch=128)
    key = Key(0).fold("judged").fold(0).fold("decode").fold("model/corrected_margin/fixed_count(L)/drawn")
    options = DecodeOptions(rewriter=SelfCorrection(model, every=2, passes=4))
    made = decode(model, margin(), FixedCount(17), key=key, n=8, options=options)
    assert passes[4, 0, "corrected_margin"] == made.forwards / 8
    assert "learned_order 17 passes" in (finished.folder / "table.md").read_text().split("Against the first row")[0]


@pytest.mark.parametrize(
    ("objective", "own"),
    [
        ({}, 2 * 8 * (17 + 8 * 4)),  # a corrector adds four passes at every second step
        ({"kind": "proseco"}, 2 * 8 * (17 + 8 * 4)),
        ({"kind": "puma(2)"}, 0),
        ({"kind": "learned_order"}, 12 * 17 * 2),  # which asks for scores too
    ],
    ids=str,
)
def test_what_follows_a_training_is_counted(objective: dict[str, Any], own: int, tmp_path: Path) -> None:
    """Decodes of eight sequences at 17 steps and four for the cost, losses, calibration, evaluations on the way."""
    document = tiny_of("proposals", rows=[{"name": "one", "draws": 1}])
    document["objective"] = {**document["objective"], **objective}
    prepared, folder = prepare(resolve(document), Request(tmp_path))
    (planned,) = plan_trainings(prepared, Followed(folder, {}), Options())
    assert planned.forwards == 2 * 12 * 17 + own + 2 * 16 + 16 + 2 * 16


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_differences_are_of_trainings_of_one_number(frame: Any, experiment: Experiment) -> None:
    first, second, third, _, elsewhere = found = proposals(frame, experiment)
    assert (len(first.trainings), len(elsewhere.trainings)) == (2, 1)
    learned = Quantity("self_consistency", decode="learned_order 17")
    assert learned in third.quantities
    assert learned not in second.quantities
    assert learned.name in third.metrics
    apart = differences(found)
    assert [line.name for line in apart] == ["PUMA", "LoMDM", "ProSeCo"], (
        "the first of each problem is compared with none"
    )
    of_laws = [Quantity("kl", law=law) for law in ("uniform", "two_rates(0,1)")]
    for one in (Quantity("gap"), *of_laws, Quantity("overconfidence"), Quantity("cost", decode="vanilla 17")):
        pairs = [second.trainings[i][one] - first.trainings[i][one] for i in (0, 1)]
        assert apart[0].estimate(one.name) == between(pairs)
    ours, theirs = ([line.trainings[i][Quantity("gap")] for i in (0, 1)] for line in (second, first))
    assert apart[0].estimate("gap").half != pytest.approx(welch(ours, theirs).half), "not paired"


def test_trainings_of_one_number_are_judged_on_the_same_contexts(frame: Any) -> None:
    exact = {
        (line.N, line.draw, line.row): line.value("exact")
        for line in records(pool(kind(frame, "losses", law="uniform")))
    }
    assert exact[5, 0, 0] == exact[5, 0, 1] == exact[5, 0, 2] != exact[5, 1, 0]


def test_what_differs_from_zero_is_marked() -> None:
    def cell(estimate: Estimate, **keys: str) -> str:
        return _measured("gap", "gap", ".1f", 100).text(Record(keys, {"gap": (estimate, {})}))

    assert cell(Estimate(0.02, 0.01, 0.03), first="plain") == "+2.0 ±1.0!"
    assert cell(Estimate(-0.02, -0.05, 0.01), first="plain") == "-2.0 ±3.0"
    assert cell(Estimate(-0.02, math.nan, math.nan), first="plain") == "-2.0"
    assert cell(Estimate(0.02, 0.01, 0.03)) == "2.0 ±1.0"


def test_tables_and_figure_show_the_differences(frame: Any, experiment: Experiment, finished: FinishedRun) -> None:
    assert "Against the first row: loss" in (finished.folder / "table.md").read_text()
    (sheet,) = figures(frame, experiment).values()
    axes = sheet.draw().axes
    assert [label.get_text() for label in axes[1].get_yticklabels()] == ["PUMA", "LoMDM", "ProSeCo"]


def test_the_path_of_a_learned_order_is_a_mean_over_trainings_and_that_of_no_other_proposal() -> None:
    def curve(offset: float) -> list[Record]:
        values = {"latents_first": 0.5 + offset, "latents_first_reverse": 0.4 + offset, "gap": offset}
        metrics = {name: (Estimate(value, math.nan, math.nan), {}) for name, value in values.items()}
        return [Record({"step": step}, metrics) for step in (10, 20)]

    line = Record({"N": 4, "P": 8, "name": "LoMDM", "curves": [curve(0.1), curve(0.3)]}, {})
    first, second = paths(line)
    assert (first.step, second.step) == (10, 20)
    expected = between([0.6, 0.8])
    assert first.estimate("latents_first") == expected
    assert first.value("latents_first_reverse") == pytest.approx(0.6)
    plain = [Record({"step": 10}, {"gap": (Estimate(0.1, math.nan, math.nan), {})})]
    assert paths(Record({**line.keys, "curves": [plain]}, {})) == []
