"""Recipes by name, and the experiment that compares them: settings, rows, intervals, tables, figure, after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lo_theory.lab.config import Experiment, load, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.recipes import differences, figures, recipes
from lo_theory.lab.frame import from_rows, kind, pool, records
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.settings import Training
from lo_theory.lab.training_recipes import PARTS, RECIPES, spell_out
from tests.lab.tiny import tiny_of

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILE = EXPERIMENTS / "recipes.yaml"


def tiny(**changes: Any) -> dict[str, Any]:
    return tiny_of("recipes", **{"training": {"steps": 30, "batch": 8, "evaluations": 3}, **changes})


@pytest.fixture(scope="module")
def finished(tiny_runs: Callable[[str], FinishedRun]) -> FinishedRun:
    return tiny_runs("recipes")


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


def test_a_task_without_one_objective_takes_no_recipe() -> None:
    with pytest.raises(ValueError, match="unknown key recipe"):
        load(EXPERIMENTS / "orders.yaml", sets=["recipe=tuned"])
    with pytest.raises(ValueError, match="recipe must be one of"):
        resolve(tiny(), sets=["recipe=[tuned]"])


# --- the experiment ---------------------------------------------------------------------------------------------------


def test_every_training_has_its_curve(frame: Any, experiment: Experiment) -> None:
    found = recipes(frame, experiment)
    assert [(one.name, one.N, one.P, len(one.curves)) for one in found] == [
        ("first", 5, 12, 2),
        ("second", 5, 12, 2),
        ("elsewhere", 6, 12, 1),
    ]
    curves = [curve for one in found for curve in one.curves]
    assert [[point.step for point in curve] for curve in curves] == [[2, 4, 6]] * 5
    assert len({gap for one in found for gap in one.finals}) == 5, "every training has its own data and contexts"
    assert set(pool(kind(frame, "held_out")).query("metric == 'excess'")["n"]) == {16}
    assert curves[0][-1].flops == curves[2][-1].flops
    assert all(line.value("diverged") == 0 for line in records(pool(kind(frame, "training"))))


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
