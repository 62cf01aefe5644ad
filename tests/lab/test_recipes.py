"""Recipes by name, and the experiment that compares them: settings, rows, intervals, tables, figure, after a kill."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest

from lo_theory.lab.config import Experiment, load, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.recipes import differences, figures, recipes
from lo_theory.lab.frame import from_rows, kind, pool, records
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.settings import Stage, Training
from lo_theory.lab.task import tables
from lo_theory.lab.training_recipes import PARTS, RECIPES, spell_out

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILE = EXPERIMENTS / "recipes.yaml"
_TINY: dict[str, Any] = {
    "experiment": "tiny_recipes",
    "task": "recipes",
    "problem": {"family": "nae_sat", "N": 5, "P": 12},
    "model": {"shape": {"layers": 1, "heads": 2, "width": 16}},
    "training": {"steps": 30, "batch": 8, "evaluations": 3, "evaluation_contexts": 32},
    "rows": [
        {"name": "first", "recipe": "tuned", "draws": 2, "training": {"batch": 8}},
        {"name": "second", "recipe": "paper", "draws": 2, "training": {"batch": 8}, "model": {"embedding_scale": 0.2}},
        {"name": "elsewhere", "recipe": "tuned", "training": {"batch": 8}, "problem": {"N": 6}},
    ],
}


def tiny(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(_TINY), **changes}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return execute(resolve(tiny()), Request(tmp_path_factory.mktemp("runs"), threads=1), SilentProgress())


@pytest.fixture(scope="module")
def experiment(finished: FinishedRun) -> Experiment:
    return resolve(finished.config)


@pytest.fixture(scope="module")
def frame(finished: FinishedRun) -> Any:
    return from_rows(finished.rows)


# --- recipes by name --------------------------------------------------------------------------------------------------


def test_all_recipes_set_the_same_settings_so_that_none_leaves_a_rest_of_another() -> None:
    keys = [{part: set(settings) for part, settings in recipe.items()} for recipe in RECIPES.values()]
    assert all(found == keys[0] for found in keys)
    assert set(keys[0]) == set(PARTS)
    assert "steps" not in keys[0]["training"]


def test_the_paper_is_what_the_paper_says_and_shares_scale() -> None:
    paper = resolve(tiny(rows=[{"name": "paper", "recipe": "paper"}])).rows[0]
    training = paper.training
    assert (training.optimiser, training.learning_rate, training.weight_decay) == ("adamw", 4e-4, 0.1)
    assert training.learning_rate * training.final_ratio == pytest.approx(4e-5)
    assert (training.betas, training.clip, paper.model.positions) == ((0.9, 0.95), 1.0, "rope")
    assert paper.objective.stages == ()
    for steps, warmup in ((2_000, 100), (50_000, 500)):
        assert Training(steps, warmup=training.warmup, warmup_share=training.warmup_share).warmup_steps == warmup
    tuned = resolve(tiny(rows=[{"name": "tuned", "recipe": "tuned"}])).rows[0]
    (stage,) = tuned.objective.stages
    assert [stage.length(steps) for steps in (30, 1_000, 2_000)] == [8, 250, 500]
    assert tuned.training.warmup_steps == 3
    assert paper.model.embedding_scale == pytest.approx(math.sqrt(2 / (5 * 384)), rel=1e-3), "the borrowed code's"
    assert (tuned.model.embedding_scale, tuned.training.learning_rate) == (0.1, 2e-3)


def test_a_recipe_is_short_for_its_settings_where_it_stands() -> None:
    document = tiny(recipe="paper", rows=[{"name": "a"}, {"name": "b", "recipe": "tuned", "training": {"batch": 4}}])
    document["presets"] = {"other": {"recipe": "tuned", "training": {"learning_rate": 0.5}}}
    first, second = resolve(document).rows
    assert (first.training.batch, first.training.learning_rate) == (8, 4e-4), "a key beside it wins"
    assert (second.training.batch, second.training.optimiser, second.model.positions) == (4, "muon", "learned")
    first, second = resolve(document, preset="other").rows
    assert (first.training.batch, first.training.learning_rate) == (16, 0.5), "a preset wins over the file"
    first, second = resolve(document, sets=["recipe=tuned", "training.clip=2"]).rows
    assert first.training == second.training
    assert (first.training.batch, first.training.optimiser, first.training.clip) == (16, "muon", 2.0)
    first, second = resolve(document, sets=["rows.0.recipe=tuned"]).rows
    assert (first.training.optimiser, first.training.batch) == ("muon", 16)
    (only,) = resolve(document, sets=["rows=[{name: a, recipe: tuned}]", "training.batch=2"]).rows
    assert (only.training.optimiser, only.training.batch) == ("muon", 2), "what is set last wins"
    with pytest.raises(ValueError, match="recipe: null undoes nothing"):
        spell_out({"recipe": None, "seed": 1})
    again = resolve(document)
    assert resolve(again.to_mapping()).rows == again.rows


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"recipe": "tuend"}, r"recipe must be one of paper, tuned, got 'tuend' .*the closest is tuned"),
        ({"recipe": ["tuned"]}, r"recipe must be one of"),
        ({"rows": [{"name": "a", "recipe": "best"}]}, r"rows\[0\]\.recipe must be one of"),
        ({"rows": [{"name": " "}]}, r"name is empty"),
        ({"training": {"steps": 3}}, r"training\.evaluations is 0"),
        ({"targets": []}, r"targets is empty"),
        ({"targets": [0]}, r"targets must be greater than 0"),
        ({"objective": {"stages": [{"laws": ["uniform"]}]}}, r"a stage lasts steps or a share of them"),
        ({"objective": {"stages": [{"steps": 3, "share": 0.5}]}}, r"a stage lasts steps or a share of them"),
        ({"objective": {"stages": [{"share": 1.5}]}}, r"share must be at most 1"),
        ({"objective": {"stages": [{"share": 0.7}, {"share": 0.5}]}}, r"objective: the shares .* at most 1.* up 1\.2"),
        (
            {"objective": {"stages": [{"steps": 20}, {"share": 0.5}]}},
            r"stages last 20 \+ 15 steps, .*steps is 30: .*share",
        ),
        ({"model": {"embedding_scale": 0}}, r"model\.embedding_scale must be greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        resolve(tiny(**{"rows": [{"name": "a"}], **changes}))


def test_a_task_without_one_objective_takes_no_recipe() -> None:
    with pytest.raises(ValueError, match="unknown key recipe"):
        load(EXPERIMENTS / "orders.yaml", sets=["recipe=tuned"])
    with pytest.raises(ValueError, match="recipe must be one of"):
        resolve(tiny(), sets=["recipe=[tuned]"])


def test_a_problem_without_a_gap_is_refused(tmp_path: Path) -> None:
    parity = {"family": "sparse_parity", "N": 5, "P": 3, "k": 3, "noise": 0.5}
    with pytest.raises(ValueError, match="no gap to close"):
        execute(resolve(tiny(problem=parity, rows=[{"name": "a"}])), Request(tmp_path), SilentProgress())


def test_what_came_later_is_silent_at_its_default() -> None:
    from lo_theory.lab.schema import plain

    assert plain(Stage(3)) == {"steps": 3, "laws": ["uniform"]}
    assert plain(Stage(share=0.5))["share"] == 0.5
    assert not {"warmup_share", "evaluations", "evaluation_contexts"} & plain(Training(5)).keys()


def test_the_presets() -> None:
    for preset in ("quick", "cpu", "full", "larger", "table1", "paper"):
        rows = load(FILE, preset=preset).rows
        for row in rows:
            row.check_fits(row.problem.make())
            own = [other for other in rows if other.problem == row.problem]
            sequences = [other.training.steps * other.training.batch for other in own]
            assert max(sequences) - min(sequences) <= max(other.training.batch for other in own), "equal operations"
    former = load(FILE, preset="larger").rows[1]  # what `tuned` set until it met N = 32
    assert (former.model.embedding_scale, former.training.learning_rate) == (1.0, 4e-3)
    assert load(FILE, preset="paper").rows[0].model.shape == "19M"


# --- the experiment ---------------------------------------------------------------------------------------------------


def test_every_training_has_its_curve(frame: Any, experiment: Experiment) -> None:
    found = recipes(frame, experiment)
    assert [(one.name, one.N, one.P, len(one.curves)) for one in found] == [
        ("first", 5, 12, 2),
        ("second", 5, 12, 2),
        ("elsewhere", 6, 12, 1),
    ]
    curves = [curve for one in found for curve in one.curves]
    assert [[point.step for point in curve] for curve in curves] == [[10, 20, 30]] * 5
    assert len({gap for one in found for gap in one.finals}) == 5, "every training has its own data and contexts"
    assert set(pool(kind(frame, "held_out")).query("metric == 'excess'")["n"]) == {32}
    assert curves[0][-1].flops == curves[2][-1].flops
    assert all(line.value("diverged") == 0 for line in records(pool(kind(frame, "training"))))


def test_the_tables_hold_every_recipe(finished: FinishedRun, experiment: Experiment) -> None:
    content = tables(experiment, finished.rows)
    assert {table.title: [len(part) for part in table.sections] for table in content} == {
        "What each recipe reaches": [2, 1],
        "What it costs to get there": [2, 1],
        "Against the first recipe": [1],
    }
    second = content[0].sections[0][1]
    assert second[1:10] == ["second", "rope", "0.2", "adamw", "0.0004", "8", "30", "none", "2"]
    assert content[0].sections[0][0][8] == "27 % two_rates(0.1,0.9)", "8 of 30 steps"


def test_the_figure_has_a_line_of_panels_for_each_problem(frame: Any, experiment: Experiment) -> None:
    (sheet,) = figures(frame, experiment).values()
    axes = sheet.draw().axes
    names = [[label.get_text() for label in axes[place].get_yticklabels()] for place in (2, 5)]
    assert names == [["first", "second"], ["elsewhere"]]
    assert [len(axes[place].containers) for place in range(6)] == [4, 4, 4 + 2, 1, 1, 1 + 1], "a line for each training"
    assert all(len(one.lines[0].get_xdata()) == 4 for one in axes[0].containers)


def test_a_recipe_that_diverges_is_a_result(tmp_path: Path) -> None:
    rate = {"learning_rate": 1e30, "warmup_share": 0.0, "clip": 1e30, "optimiser": "adamw"}
    document = tiny(rows=[{"name": "steady", "recipe": "tuned"}, {"name": "wild", "recipe": "tuned", "training": rate}])
    run = execute(resolve(document), Request(tmp_path, threads=1), SilentProgress())
    steady, wild = recipes(from_rows(run.rows), resolve(document))
    assert (steady.diverged, wild.diverged) == (0, 1)
    assert not wild.curves
    assert "0 (1 diverged)" in (run.folder / "table.md").read_text()
    (sheet,) = figures(from_rows(run.rows), resolve(document)).values()
    assert "diverged" in [text.get_text() for text in sheet.draw().axes[2].texts]


def test_there_is_no_verdict_on_a_recipe_that_diverged_now_and_then(frame: Any, experiment: Experiment) -> None:
    first, second, _ = recipes(frame, experiment)
    (line,) = differences([first, second])
    assert line.verdict in ("better than first", "worse than first", "not distinguished from first")
    (line,) = differences([first, second.plus(diverged=1)])
    assert line.verdict == "none: 1 of 2 of second diverged"
