"""The task puzzles with Zebra puzzles: sets, who solves them, kinds of first errors, known lines, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lo_theory.lab.config import Experiment, load, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.puzzle_sets import puzzle_set
from lo_theory.lab.experiments.puzzles_shown import solved
from lo_theory.lab.frame import Record, from_rows, of_kind
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.task import tables
from lo_theory.problem import MASK, zebra
from lo_theory.problem.zebra_law import CluesAndCells
from lo_theory.rng import Key

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
LAW = CluesAndCells(3, 3, 6)

TINY: dict[str, Any] = {
    "experiment": "tiny_zebra",
    "title": "Zebra",
    "task": "puzzles",
    "problem": {"family": "zebra", "houses": 3, "attributes": 3, "clues": 6},
    "puzzles": ["minimal", "random"],
    "model": {"shape": {"layers": 1, "heads": 2, "width": 16}},
    "objective": {"laws": ["latents_only"]},
    "training": {"steps": 6, "batch": 8},
    "draws": 2,
    "decoding": {
        "sequences": 16,
        "denoisers": ["exact", "propagation", "few_rounds(1)", "model"],
        "policies": ["vanilla", "margin"],
        "steps": ["L", 2],
        "argmax": [True],
    },
    "evaluation": {"sequences": 64, "laws": ["latents_only"]},
    "rows": [{}],
}


def tiny(**changes: Any) -> dict[str, Any]:
    """The tiny configuration with other settings in place of its own."""
    return {**TINY, **changes}


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return resolve(tiny())


@pytest.fixture(scope="module")
def finished(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    asked = Request(tmp_path_factory.mktemp("zebra"), workers=1, threads=1, device="cpu")
    return execute(experiment, asked, SilentProgress())


@pytest.fixture(scope="module")
def frame(finished: FinishedRun) -> Any:
    return from_rows(finished.rows)


def found(frame: Any, **keys: Any) -> list[Record]:
    """The records of whole sets with these keys."""
    whole = [line for line in solved(frame) if not {"clues", "technique"} & line.keys.keys()]
    return [line for line in whole if all(line.get(name) == value for name, value in keys.items())]


def test_minimal_puzzles_have_one_solution_need_every_clue_and_are_possible() -> None:
    puzzles = puzzle_set("minimal", "zebra")(LAW, Key(1), 20)
    assert puzzles.single
    assert np.isfinite(LAW.log_prob(puzzles.grids)).all(), "clues that come again have a positive probability"
    numbers = set()
    for given, whole in zip(puzzles.given, puzzles.grids, strict=True):
        puzzle = LAW.puzzle(given)
        assert (zebra.solve(puzzle) == whole[LAW.layout.latent_positions]).all()
        assert (given[LAW.layout.latent_positions] == MASK).all()
        numbers.add(len(puzzle.clues))
        for clue in puzzle.clues:
            fewer = tuple(other for other in puzzle.clues if other != clue)
            assert zebra.count_solutions(zebra.Puzzle(3, 3, fewer)) > 1
    assert len(numbers) > 1


def test_random_puzzles_are_sequences_of_the_law_with_cells_hidden() -> None:
    puzzles = puzzle_set("random", "zebra")(LAW, Key(1), 30)
    assert not puzzles.single
    assert (puzzles.grids == LAW.sample(Key(1), 30)).all()
    assert ((puzzles.given == MASK) == LAW.layout.is_latent).all()
    assert len({zebra.count_solutions(LAW.puzzle(given)) for given in puzzles.given}) > 1


def test_puzzles_with_more_clues_than_a_sequence_has_are_drawn_again_and_at_last_refused() -> None:
    short = CluesAndCells(3, 3, 3)
    assert {len(short.puzzle(row).clues) for row in puzzle_set("minimal", "zebra")(short, Key(0), 3).given} == {3}
    with pytest.raises(ValueError, match=r"none of 200 minimal puzzles has at most 1 clues: give problem.clues more"):
        puzzle_set("minimal", "zebra")(CluesAndCells(3, 3, 1), Key(0), 1)


def test_every_puzzle_is_solved_or_has_one_kind_of_error(frame: Any) -> None:
    for line in solved(frame):
        assert line.value("solved") + line.value("by_model") + line.value("by_dependence") == pytest.approx(1)
    for line in found(frame, puzzles="minimal"):
        assert line.value("by_dependence") == 0
        assert line.value("cells_right") + line.value("cells_excluded") + line.value(
            "cells_dead_wrong"
        ) == pytest.approx(1)
    assert any(line.value("cells_dead") > 0 for line in found(frame, denoiser="model"))


def test_steps_count_cells_and_the_exact_posterior_errs_by_dependence_alone(frame: Any) -> None:
    lines = found(frame, denoiser="exact")
    assert {line.steps for line in lines} == {2, 9}
    for line in lines:
        assert line.value("by_model") == 0
        assert line.steps == 2 or line.value("solved") == 1
    assert any(line.value("by_dependence") > 0 for line in lines)


def test_a_denoiser_of_one_round_needs_the_order(frame: Any) -> None:
    rates = {line.policy: line.value("solved") for line in found(frame, denoiser="few_rounds(1)", steps=9)}
    assert rates["margin"] > rates["vanilla"] + 0.2


def test_parts_of_a_set_are_by_different_clues_and_by_technique(frame: Any) -> None:
    keys = {"puzzles": "minimal", "denoiser": "exact", "steps": 9, "policy": "margin"}
    lines = of_kind(frame, "puzzles", **keys)
    for split, kinds in (("clues", {3, 4, 5, 6}), ("technique", set(zebra.TECHNIQUES))):
        parts = {line.get(split): line for line in lines if split in line.keys}
        assert len(parts) > 1
        assert parts.keys() <= kinds
        assert sum(line.metrics["solved"][1].sums.n for line in parts.values()) == 16


def test_losses_stand_beside_the_exact_ones_whose_mean_is_known(frame: Any) -> None:
    (problem,) = of_kind(frame, "problem")
    counts = [zebra.count_solutions(LAW.puzzle(row)) for row in LAW.sample(Key(0).fold("solutions"), 64)]
    assert problem.value("latents_floor") == pytest.approx(np.log(counts).mean() / 9)
    assert problem.value("latents_marginals_only") == pytest.approx(math.log(3))
    (line,) = of_kind(frame, "losses", over="draw")
    assert 0 < line.value("exact") < 0.3 < line.value("kl")


def test_tables_speak_of_zebra_puzzles(finished: FinishedRun, experiment: Experiment) -> None:
    shown = tables(experiment, finished.rows)
    titles = [table.title for table in shown]
    assert titles == [
        "Puzzles solved",
        "The first error",
        "By number of clues",
        "By technique",
        "What the networks know",
    ]
    text = (finished.folder / "table.md").read_text()
    assert "latents_only" in text.replace("\\", "")
    assert not any(word in text for word in ("grid", "digit", "Sudoku", "nan"))
    assert "Zebra" in (finished.folder / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"puzzles": ["clues(8)"]}, r"unknown set of puzzles 'clues\(8\)'.*sets: minimal, random"),
        ({"puzzles": ["random(8)"]}, "random takes no numbers"),
        ({"orders": ["rows"]}, "orders and objective.kind row_order, solver_order fill Sudoku grids"),
        (
            {"objective": {"kind": "solver_order"}},
            "orders and objective.kind row_order, solver_order fill Sudoku grids",
        ),
        ({"training": {"steps": 6, "evaluations": 2}}, "training.evaluations are under the uniform law"),
        ({"problem": {"family": "zebra", "houses": 1}}, "problem.houses"),
        ({"decoding": {"denoisers": ["unit_bp(1)"]}}, r"unit_bp\(1\) is of the units of a Sudoku"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        resolve(tiny(**changes))


@pytest.mark.parametrize("law", ["uniform", "two_rates(0.5,0.5)"])
def test_the_exact_loss_is_of_laws_that_show_all_clues(law: str) -> None:
    def check(exact: bool, name: str) -> None:
        row = resolve(tiny(evaluation={"sequences": 64, "laws": [name], "exact": exact})).rows[0]
        row.check_fits(row.problem.make())

    check(False, law)
    check(True, "two_rates(0.5,0)")
    with pytest.raises(ValueError, match=r"evaluation.laws: .* hides clues, and the exact loss is known where all are"):
        check(True, law)


def test_the_preset_of_five_houses_runs_at_a_tiny_size(tmp_path: Path) -> None:
    small = "{steps: 2, batch: 4, warmup: 1, optimiser: adamw}"
    sets = (
        *("model.shape={layers: 1, heads: 2, width: 16}", f"training={small}", "decoding.sequences=2"),
        *("evaluation.sequences=8", "decoding.denoisers=[propagation, model]", "decoding.steps=[5]"),
    )
    experiment = load(EXPERIMENTS / "zebra.yaml", preset="five", sets=sets)
    run = execute(experiment, Request(tmp_path, workers=1, threads=1, device="cpu"), SilentProgress())
    lines = found(from_rows(run.rows), puzzles="minimal")
    assert {line.denoiser for line in lines} == {"propagation", "model"}
    assert {(line.N, line.P, line.steps) for line in lines} == {(25, 100, 5)}
