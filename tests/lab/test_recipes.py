"""Recipes by name, and the experiment that compares them: settings, rows, intervals, tables, figure, after a kill."""

from __future__ import annotations

import copy
import csv
import dataclasses
import importlib
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lo_theory.lab.config import Experiment, load, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.recipes.figure import make_figures
from lo_theory.lab.recipes.tables import difference_table, recipes
from lo_theory.lab.render import to_markdown
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.settings import Stage, Training
from lo_theory.lab.summary import between, group, welch
from lo_theory.lab.tables import tables
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


def test_every_training_has_its_curve(finished: FinishedRun, experiment: Experiment) -> None:
    found = recipes(experiment, finished.rows)
    assert [(one.setting.name, one.pair, len(one.curves)) for one in found] == [
        ("first", (5, 12), 2),
        ("second", (5, 12), 2),
        ("elsewhere", (6, 12), 1),
    ]
    assert len({gap for one in found for gap in one.finals}) == 5, "every training has its own data and contexts"
    items = group(finished.rows, "held_out")
    assert [item.keys["step"] for item in items] == [10, 20, 30] * 5
    assert all(item.metrics["excess"].n == 32 for item in items)
    flops = {one.setting.name: one.curves[0].flops[-1] for one in found}
    assert flops["first"] == flops["second"]
    assert all(item.value("diverged") == 0 for item in group(finished.rows, "training"))


def test_intervals_are_students_and_welchs() -> None:
    from scipy import stats

    first, second = [0.1, 0.4, 0.3], [0.5, 0.65]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(first), scale=stats.sem(first))
    assert between(first) == pytest.approx((np.mean(first), low, high))
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    difference, half = welch(first, second)
    assert (difference - half, difference + half) == pytest.approx((expected.low, expected.high))
    assert np.isnan(between([0.5])[1])
    assert np.isnan(welch([0.5], first)[1])


def test_the_tables_hold_every_recipe(finished: FinishedRun, experiment: Experiment) -> None:
    content = tables(experiment, finished.rows)
    assert [table.title for table in content] == [
        "What each recipe reaches",
        "What it costs to get there",
        "Against the first recipe",
    ]
    assert [sum(map(len, table.sections)) for table in content] == [3, 3, 1]
    assert all(len(row) == len(table.columns) for table in content for section in table.sections for row in section)
    assert to_markdown(content) == (finished.folder / "table.md").read_text()
    second = content[0].sections[0][1]
    assert second[1:10] == ("second", "rope", "0.2", "adamw", "0.0004", "8", "30", "none", "2")
    assert content[0].sections[0][0][8] == "27 % two_rates(0.1,0.9)", "8 of 30 steps"


def test_the_figure_has_a_line_of_panels_for_each_problem(finished: FinishedRun, experiment: Experiment) -> None:
    (figure,) = make_figures(experiment, finished.rows).values()
    assert len(figure.axes) == 6
    ends = [axes for axes in figure.axes if "after the last step" in axes.get_xlabel()]
    assert [[label.get_text() for label in axes.get_yticklabels()] for axes in ends] == [
        ["first", "second"],
        ["elsewhere"],
    ]
    lines = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 4]
    assert len(lines) == 4


def test_a_killed_run_goes_on_to_the_same_gaps(finished: FinishedRun, tmp_path: Path) -> None:
    target = tmp_path / finished.folder.parent.name / finished.folder.name
    shutil.copytree(finished.folder, target)
    (target / "done.json").unlink()
    parts = (target / "rows.jsonl").read_bytes().split(b"\n\n")
    (target / "rows.jsonl").write_bytes(b"\n\n".join(parts[:2]) + b"\n\n" + parts[2][:20])
    (target / "model-0-1.safetensors").unlink()  # trained again, the others are read from journal and checkpoint
    again = execute(resolve(tiny()), Request(tmp_path, threads=1), SilentProgress())
    assert again.folder == target
    measured = [[row for row in run.rows if not row.metric.endswith("_seconds")] for run in (again, finished)]
    assert measured[0] == measured[1]


def test_a_recipe_that_diverges_is_a_result(tmp_path: Path) -> None:
    rate = {"learning_rate": 1e30, "warmup_share": 0.0, "clip": 1e30, "optimiser": "adamw"}
    document = tiny(rows=[{"name": "steady", "recipe": "tuned"}, {"name": "wild", "recipe": "tuned", "training": rate}])
    run = execute(resolve(document), Request(tmp_path, threads=1), SilentProgress())
    found = {one.setting.name: one for one in recipes(resolve(document), run.rows)}
    assert found["wild"].diverged == 1
    assert not found["wild"].curves
    assert found["steady"].diverged == 0
    text = (run.folder / "table.md").read_text()
    assert "0 (1 diverged)" in text


def test_there_is_no_verdict_on_a_recipe_that_diverged_now_and_then(
    finished: FinishedRun, experiment: Experiment
) -> None:
    first, second, _ = recipes(experiment, finished.rows)
    ((line,),) = difference_table([first, second]).sections
    assert line[-1] in ("better than first", "worse than first", "not told apart from first")
    ((line,),) = difference_table([first, dataclasses.replace(second, diverged=1)]).sections
    assert line[-1] == "none: 1 of 2 of second diverged"


# --- the script beside it ---------------------------------------------------------------------------------------------


@pytest.fixture
def forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The script, called with words; ``forward.csv`` goes to the folder ``out``."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))  # where its worker finds it too
    script = importlib.import_module("forward_direction")

    def call(*words: str) -> int:
        where = ["forward_direction.py", "--out", str(tmp_path / "out"), "--workers", "1"]
        monkeypatch.setattr(sys, "argv", [*where, *words])
        return int(script.main())

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ways", "muon"], "'muon' is no optimiser:rate:scale:batch"),
        (["--problems", "8"], "'8' is no N:P"),
        (["--ways", "sgd:1e-3:0.1:16"], "optimiser must be one of adamw, muon, got 'sgd'"),
        (["--sequences", "500"], "a batch of 16 and --sequences 500"),
        (["--ways", "muon:1e-3:0.1:1000", "--sequences", "900"], "a batch of 1000 and --sequences 900"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--device", "abacus"], "abacus"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        (["--shape", "20M"], "invalid choice: '20M' (choose from"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_the_forward_direction_is_not_begun_with_bad_words(
    forward: Callable[..., int], words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        forward(*words)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sequences_until_the_forward_direction_is_known(
    forward: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that learns it is ended by it, one at which nothing moves by its sequences, one by divergence."""
    ways = ("adamw:1e30:0.1:16", "muon:2e-3:0.1:16", "muon:1e-9:0.1:16")
    assert forward("--problems", "5:6", "--sequences", "2400", "--ways", *ways) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    with open(tmp_path / "out" / "forward.csv") as file:
        wild, learned, still = csv.DictReader(file)
    assert [line["ended"] for line in (wild, learned, still)] == ["diverged", "learned", "used up"]
    reached = [int(learned[f"sequences_to_{share}"]) for share in (0.9, 0.5, 0.1)]
    assert reached == sorted(reached)
    assert int(learned["sequences"]) == reached[-1] <= 2_400
    assert float(learned["loss_share"]) < 0.1
    assert [still[f"sequences_to_{share}"] for share in (0.9, 0.5, 0.1)] == ["", "", ""]
    assert (int(still["sequences"]), float(still["loss_share"])) == (2_400, pytest.approx(1, abs=0.3))
    assert still["precision"] in ("float32", "bfloat16")


def test_the_forward_direction_goes_on_where_it_was(
    forward: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the second call only the seed that has no line yet is trained; a file of other columns is left alone."""
    words = ["--problems", "5:6", "--sequences", "800", "--ways", "muon:1e-9:0.1:16"]
    assert forward(*words) == 0
    before = (tmp_path / "out" / "forward.csv").read_text()
    capsys.readouterr()
    assert forward(*words, "--seeds", "0", "1") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    after = (tmp_path / "out" / "forward.csv").read_text()
    assert after.startswith(before)
    with open(tmp_path / "out" / "forward.csv") as file:
        assert [line["seed"] for line in csv.DictReader(file)] == ["0", "1"]
    (tmp_path / "out" / "forward.csv").write_text(after[:-40])  # torn by a kill
    assert forward(*words, "--seeds", "0", "1") == 0
    assert len((tmp_path / "out" / "forward.csv").read_text().splitlines()) == 4
    (tmp_path / "out" / "forward.csv").write_text("N,P\n5,6\n")
    with pytest.raises(SystemExit):
        forward(*words)
    assert "has no column optimiser" in capsys.readouterr().err


def test_a_forward_training_that_fails_loses_no_other_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    script = importlib.import_module("forward_direction")
    done, lost = Future[dict[str, Any]](), Future[dict[str, Any]]()
    done.set_result({"N": 5, "ended": "learned"})
    lost.set_exception(MemoryError("not enough"))
    with open(tmp_path / "forward.csv", "w") as file:
        assert script.write_lines(file, {lost: "the lost job", done: "the other"}) == 1
    assert (tmp_path / "forward.csv").read_text() == "N,ended\n5,learned\n"
    assert "the lost job: not enough" in capsys.readouterr().err


def test_an_interrupted_forward_run_ends_at_once_and_keeps_its_lines(tmp_path: Path) -> None:
    """One short training and one that would take an hour; SIGINT to the group, as Ctrl-C gives it."""
    ways = ["muon:2e-3:0.1:16", "muon:1e-9:0.1:16"]
    words = ["--out", str(tmp_path), "--problems", "5:6", "--ways", *ways, "--workers", "1", "--sequences", "10000000"]
    command = [sys.executable, str(EXPERIMENTS / "forward_direction.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith("N 5, P 6")
        os.killpg(run.pid, signal.SIGINT)
        _, error = run.communicate(timeout=60)
    assert (run.returncode, error.startswith("interrupted; ")) == (130, True), error
    assert len((tmp_path / "forward.csv").read_text().splitlines()) == 2
