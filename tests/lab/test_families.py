"""The experiment on families: the satisfied mask law, settings, rows against known truths, verdicts, tables, figure."""

from __future__ import annotations

import copy
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import LAWS, TwoRates, Uniform
from lo_theory.diffusion.satisfied import Satisfied
from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.config import Experiment, load, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.families.figure import make_figures
from lo_theory.lab.families.row import Evaluation, Row, check_exact, evaluation_law
from lo_theory.lab.families.tables import Gaps, Place, along, gaps
from lo_theory.lab.families.work import SingleTokens
from lo_theory.lab.figures import write_figures
from lo_theory.lab.laws import check_laws
from lo_theory.lab.problems import NaeSat
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.render import to_markdown
from lo_theory.lab.rows import read_rows
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.settings import Training
from lo_theory.lab.summary import group
from lo_theory.lab.tables import tables
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK, Layout, nae_sat, sparse_parity
from lo_theory.rng import Key
from tests.figures import rendered

LAYOUT = Layout(3, 6, 2, 2, np.array([4, 0, 8, 1, 2, 3, 5, 6, 7]))
_LAWS = ["uniform", "two_rates(1,0)", "two_rates(0.5,0)"]
_TINY: dict[str, Any] = {
    "experiment": "tiny_families",
    "task": "families",
    "model": {"shape": {"layers": 1, "heads": 2, "width": 16}},
    "training": {"steps": 40, "batch": 16, "warmup": 5},
    "masked": {"stages": [{"steps": 10, "laws": ["two_rates(0.1,0.9)"]}]},
    "evaluation": {"sequences": 32, "contexts": 64, "laws": _LAWS},
    "rows": [
        {
            "name": "not all equal",
            "problem": {"family": "nae_sat", "N": 5, "P": 9},
            "evaluation": {"laws": [*_LAWS, "satisfied"]},
        },
        {"name": "odd parity", "problem": {"family": "sparse_parity", "N": 5, "P": 12, "k": 3}},
        {"name": "slab", "problem": {"family": "random_slab", "N": 5, "P": 9}},
    ],
}


def tiny(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(_TINY), **changes}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    with rendered():
        return execute(resolve(tiny()), Request(tmp_path_factory.mktemp("runs"), threads=1), SilentProgress())


@pytest.fixture(scope="module")
def experiment(finished: FinishedRun) -> Experiment:
    return resolve(finished.config)


# --- the mask law -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_satisfied_hides_the_observations_of_value_zero_and_latents_at_its_rate(rate: float) -> None:
    tokens = np.tile(np.array([1, 0, 1, 1, 0, 0, 1, 0, 1], np.int8), (40, 1))
    masked, weight = Satisfied(rate).sample(Key(1), tokens, LAYOUT)
    assert masked.shape == weight.shape == (1, 40, 9)
    assert weight.dtype == np.float32
    observed = ~LAYOUT.is_latent
    assert (masked[0][:, observed] == (tokens[:, observed] == 0)).all()
    latents, _ = TwoRates(rate, 1.0).sample(Key(1), tokens, LAYOUT)
    assert (masked[0][:, ~observed] == latents[0][:, ~observed]).all()
    assert weight[0].sum(axis=1) == pytest.approx(1.0)
    assert ((weight > 0) == masked).all()


def test_satisfied_with_nothing_hidden_weighs_nothing() -> None:
    masked, weight = Satisfied(0.0).sample(Key(1), np.ones((3, 9), np.int8), LAYOUT)
    assert not masked.any()
    assert not weight.any()


def test_satisfied_answers_a_row_by_its_number_alone() -> None:
    tokens = np.random.default_rng(0).integers(0, 2, (20, 9)).astype(np.int8)
    whole = Satisfied(0.5).sample(Key(2), tokens, LAYOUT)
    part = Satisfied(0.5).sample(Key(2), tokens[7:], LAYOUT, start=7)
    for one, other in zip(whole, part, strict=True):
        assert (one[:, 7:] == other).all()


def test_satisfied_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ValueError, match="r = 3"):
        Satisfied().sample(Key(0), np.zeros((1, 5), np.int8), Layout(2, 3, 2, 3))
    with pytest.raises(ValueError, match="rate of latents"):
        Satisfied(1.5)


@dataclass(frozen=True)
class Heavy:
    """A law of one's own whose weights sum to two."""

    name: str = "heavy"

    def sample(self, key: Key, tokens: np.ndarray, layout: Layout, *, start: int = 0) -> Any:
        masked, weight = Uniform().sample(key, tokens, layout, start=start)
        return masked, 2 * weight - 4 * ~masked


def test_a_law_of_ones_own_is_checked_wherever_masks_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAWS, "heavy", Heavy)
    row = resolve(tiny(evaluation={"laws": ["heavy"]})).rows[1]
    with pytest.raises(ValueError, match=r"evaluation\.laws: heavy gives row 0 at position \d+ the weight -4"):
        check_laws([("evaluation.laws", ["heavy"])], LAYOUT)
    with pytest.raises(ValueError, match="heavy gives row 0"):
        check_exact(row, row.problem.make())


# --- settings ---------------------------------------------------------------------------------------------------------


def test_laws_are_read_by_the_names_that_tables_print() -> None:
    for text in ("satisfied", "satisfied(0.75)", "uniform", "two_rates(1,0)"):
        assert evaluation_law(text).name == text
    assert evaluation_law("satisfied(1)") == Satisfied()
    for text, message in (("satisfid", "unknown mask law"), ("satisfied(2)", "2"), ("satisfied(1.1.1)", "1.1.1")):
        with pytest.raises(ValueError, match=message):
            evaluation_law(text)


def test_rows_that_make_no_sense_are_refused() -> None:
    problem, training = NaeSat("nae_sat", 5, 9), Training(40)
    with pytest.raises(ValueError, match="name is empty"):
        Row(" ", problem, training)
    with pytest.raises(ValueError, match="must hold 1"):
        Row("a", problem, training, shares=(0.5,))
    with pytest.raises(ValueError, match=r"two_rates\(1,0\) twice"):
        Evaluation(laws=("two_rates(1,0)", "two_rates(1, 0)"))
    with pytest.raises(ValueError, match="at least one"):
        Evaluation(laws=())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"evaluation": {"laws": ["pattern(9)"]}}, "evaluation.laws: .*l = 9 at N = 5"),
        ({"evaluation": {"laws": ["two_rates(1,0)"], "limit_states": 2}}, "evaluation.* the exact posterior needs"),
        ({"masked": {"laws": ["pattern(9)"]}}, "l = 9 at N = 5"),
    ],
)
def test_what_does_not_fit_the_problem_stops_before_training(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    rows = [{"name": "a", "problem": {"family": "nae_sat", "N": 5, "P": 9}, **row}]
    with pytest.raises(ValueError, match=message):
        execute(resolve(tiny(rows=rows)), Request(tmp_path), SilentProgress())
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_published_configuration_and_its_presets_hold() -> None:
    path = Path(__file__).parents[2] / "experiments" / "families.yaml"
    cpu = load(path, preset="cpu")
    names = [row.name for row in cpu.rows]
    assert len(set(names)) == len(names) == 9
    assert sum("parity" in name for name in names) == 4
    assert all({"uniform", "two_rates(1,0)"} <= set(row.evaluation.laws) for row in cpu.rows)
    assert [row.name for row in cpu.rows if "satisfied" in row.evaluation.laws] == names[:2]
    assert [len(load(path, preset=preset).rows) for preset in ("quick", "longer")] == [3, 1]


# --- what is measured -------------------------------------------------------------------------------------------------


def test_single_tokens_answer_whatever_is_revealed_as_bayes_does_with_nothing_revealed() -> None:
    distribution = nae_sat(6, 12, seed=1)
    posterior, exact = SingleTokens(distribution), ExactPosterior(distribution)
    tokens = distribution.sample(Key(0), 3)
    tokens[:, ::2] = MASK
    probs = posterior.marginals(tokens).probs
    assert probs.sum(axis=2) == pytest.approx(1.0)
    assert (probs[:, 1::2].argmax(axis=2) == tokens[:, 1::2]).all()
    hidden = exact.marginals(np.full((1, 18), MASK, np.int8)).probs[0]
    assert probs[0, ::2] == pytest.approx(hidden[::2])


def test_every_unit_leaves_its_rows(finished: FinishedRun) -> None:
    assert [item.keys["family"] for item in group(finished.rows, "problem")] == ["not all equal", "odd parity", "slab"]
    trainings = group(finished.rows, "training")
    assert [(item.keys["learner"], item.keys["training_steps"]) for item in trainings[:4]] == [
        (name, steps) for steps in (20, 40) for name in ("latents_first", "mdm")
    ]
    assert len(trainings) == 12
    for steps in (20, 40):  # both learners of a row at equal FLOPs
        flops = [item.keys["flops"] for item in trainings if item.keys["training_steps"] == steps]
        assert flops[::2] == flops[1::2]
    found = gaps(finished.rows)
    whole = [place for place in found if place.role == "all"]
    assert [(place.law, place.row) for place in whole] == [
        *((law, row) for law in _LAWS for row in range(3)),
        ("satisfied", 0),
    ]
    assert all(list(gap.models) == [20, 40] for gap in found.values())
    assert {row: list(items) for row, items in along(finished.rows).items()} == {row: [20, 40] for row in range(3)}


def test_a_problem_without_a_factor_graph_is_judged_without_belief_propagation(finished: FinishedRun) -> None:
    for place, gap in gaps(finished.rows).items():
        assert (gap.bp is None) == (place.family == "slab")


def test_symmetric_problems_leave_single_latents_unknown_and_odd_parities_do_not(finished: FinishedRun) -> None:
    found = gaps(finished.rows)
    inverse = {place.family: gap for place, gap in found.items() if place.law == "two_rates(1,0)"}
    assert inverse["not all equal"].nothing
    assert inverse["slab"].nothing
    assert not inverse["odd parity"].nothing
    shown = {place.family: gap for place, gap in found.items() if place.law == "two_rates(0.5,0)"}
    assert not any(gap.nothing for gap in shown.values())
    assert inverse["not all equal"].verdict == "nothing to know"


def test_odd_parities_determine_their_latents() -> None:
    distribution = sparse_parity(5, 12, 3, 0.0, seed=0)
    tokens = distribution.sample(Key(0), 1)
    tokens[:, distribution.layout.latent_positions] = MASK
    exact = ExactPosterior(distribution).marginals(tokens).probs[0, distribution.layout.latent_positions]
    assert exact.max(axis=1) == pytest.approx(1.0)


def test_the_gap_of_bp_on_odd_parities_is_all_there_is_to_know(finished: FinishedRun) -> None:
    (gap,) = (
        gap
        for place, gap in gaps(finished.rows).items()
        if (place.family, place.law, place.role) == ("odd parity", "two_rates(1,0)", "all")
    )
    assert gap.bp is not None
    assert gap.marginals is not None
    assert gap.marginals.mean == pytest.approx(math.log(2))
    assert gap.bp.mean == pytest.approx(math.log(2))
    assert gap.verdict == f"level with BP; gap {gap.trend}", "neither knows anything"


# --- the verdicts -----------------------------------------------------------------------------------------------------


def around(mean: float, spread: float = 0.01) -> Sums:
    return Sums.of([mean - spread, mean + spread] * 50)


@pytest.mark.parametrize(
    ("half", "whole", "above", "verdict"),
    [
        (0.5, 0.01, None, "learned"),
        (0.5, 0.2, 0.2, "above BP; gap falls"),
        (0.5, 0.5, 0.5, "above BP; gap flat"),
        (0.2, 0.5, 0.5, "above BP; gap rises"),
        (0.5, 0.5, 0.0, "level with BP; gap flat"),
        (0.5, 0.5, 0.01, "level with BP; gap flat"),  # above, but by less than what counts
        (0.5, 0.4, -0.2, "below BP; gap falls"),
        (0.5, 0.2, None, "not compared with BP; gap falls"),
    ],
)
def test_a_verdict_follows_from_the_intervals(half: float, whole: float, above: float | None, verdict: str) -> None:
    models, difference = {20: around(half), 40: around(whole)}, None if above is None else around(above)
    assert Gaps(models, around(0.7), around(0.3), difference).verdict == verdict


def test_wide_intervals_say_little() -> None:
    wide = around(0.01, spread=0.5)
    models = {20: around(0.5), 40: wide}
    assert Gaps(models, around(0.7)).verdict == "no BP; gap falls"
    assert Gaps(models, around(0.7), wide, wide).verdict == "not told apart from BP; gap falls"
    assert Gaps(models, around(0.7), wide, around(0.0)).verdict == "level with BP; gap falls", "paired, they are level"
    assert Gaps({20: around(0.5), 40: around(0.5)}, Sums.of([0.0] * 9), None).verdict == "nothing to know"


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_tables_hold_every_family_and_the_figure_every_law(finished: FinishedRun, experiment: Experiment) -> None:
    content = tables(experiment, finished.rows)
    assert [sum(map(len, table.sections)) for table in content] == [3, 3, 3, 1, 6 + 3 + 3 + 2]
    for table in content:
        assert all(len(line) == len(table.columns) for section in table.sections for line in section)
    assert [line[2] for line in content[0].sections[0]][2] == "-"
    markdown = to_markdown(content)
    assert markdown == (finished.folder / "table.md").read_text()
    for word in ("Above Bayes under satisfied", "missing at random", "nothing to know", "10^-3 nats", "odd parity"):
        assert word in markdown
    figure = make_figures(experiment, finished.rows)["figure"]
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == 4 + 1
    assert all(axes.get_yscale() == "log" for axes in panels)
    assert [len(axes.get_xticks()) for axes in panels] == [3, 3, 3, 1, 3]
    assert len(panels[0].containers) == 3 * 3 + 2  # two trainings and what there is to know; belief propagation of two


def test_gaps_of_one_place_do_not_mix_with_those_of_another(finished: FinishedRun) -> None:
    found = gaps(finished.rows)
    place = Place(1, "odd parity", "two_rates(0.5,0)", "all")
    only = [row for row in finished.rows if row.unit in ("row1/losses/two_rates(0.5,0)", "row1/problem")]
    assert gaps(only)[place] == found[place]


@pytest.mark.renders
def test_the_figure_has_equal_bytes_for_equal_rows(
    finished: FinishedRun, experiment: Experiment, tmp_path: Path
) -> None:
    write_figures(tmp_path, experiment, finished.rows)
    for name in ("figure.png", "figure.pdf"):
        assert (tmp_path / name).read_bytes() == (finished.folder / name).read_bytes()


def test_a_run_that_lost_its_last_units_ends_in_the_same_rows(finished: FinishedRun, tmp_path: Path) -> None:
    folder = tmp_path / "tiny_families" / finished.folder.name
    shutil.copytree(finished.folder, folder)
    (folder / "done.json").unlink()
    units = (folder / "rows.jsonl").read_bytes().split(b"\n\n")
    (folder / "rows.jsonl").write_bytes(b"\n\n".join(units[:9]) + b"\n\n{torn")
    again = execute(resolve(tiny()), Request(tmp_path, threads=1), SilentProgress())
    assert again.folder == folder
    assert list(read_rows(folder / "rows.jsonl")) == list(finished.rows)
