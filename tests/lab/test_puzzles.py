"""The task puzzles: sets by name, who solves them, kinds of first errors, what is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import Decoded, DecodeOptions, PuzzleThenMoves
from lo_theory.lab.config import Experiment, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.puzzles import Published, puzzle_set
from lo_theory.lab.experiments.puzzles_shown import by_policy, solved
from lo_theory.lab.frame import Record, from_rows, of_kind
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.subject import Subject
from lo_theory.lab.task import tables
from lo_theory.problem import MASK, sudoku
from lo_theory.rng import Key
from tests.lab.tiny import tiny_of

LAW = sudoku.sudoku_4x4()


@pytest.fixture(scope="module")
def finished(tiny_runs: Callable[[str], FinishedRun]) -> FinishedRun:
    return tiny_runs("puzzles")


@pytest.fixture(scope="module")
def experiment(finished: FinishedRun) -> Experiment:
    return resolve(finished.config)


@pytest.fixture(scope="module")
def frame(finished: FinishedRun) -> Any:
    return from_rows(finished.rows)


def found(frame: Any, **keys: Any) -> list[Record]:
    """The records of whole sets with these keys."""
    whole = [line for line in solved(frame) if not {"clues", "technique"} & line.keys.keys()]
    return [line for line in whole if all(line.get(name) == value for name, value in keys.items())]


# --- sets of puzzles --------------------------------------------------------------------------------------------------


def test_hard_puzzles_take_search() -> None:
    puzzles = puzzle_set("hard")(sudoku.DrawnGrids(9), Key(3), 5)
    assert puzzles.single
    assert {sudoku.difficulty(puzzle).technique for puzzle in puzzles.given} == {"search"}
    for puzzle, grid in zip(puzzles.given, puzzles.grids, strict=True):
        assert (sudoku.solve(puzzle) == grid).all()
    with pytest.raises(ValueError, match="0 of 100 minimal puzzles of 4 x 4 take search"):
        puzzle_set("hard")(LAW, Key(3), 2)


def test_minimal_puzzles_have_one_solution_and_need_every_clue() -> None:
    puzzles = puzzle_set("minimal")(LAW, Key(1), 20)
    assert puzzles.single
    for puzzle, grid in zip(puzzles.given, puzzles.grids, strict=True):
        assert (sudoku.solve(puzzle) == grid).all()
        for clue in np.flatnonzero(puzzle != MASK):
            fewer = puzzle.copy()
            fewer[clue] = MASK
            assert sudoku.count_solutions(fewer) > 1


def test_sets_with_a_number_of_clues() -> None:
    eight, four, none = (puzzle_set(name)(LAW, Key(1), 50) for name in ("clues(8)", "random(4)", "random(0)"))
    assert ((eight.given >= 0).sum(axis=1) == 8).all()
    assert {sudoku.count_solutions(puzzle) for puzzle in eight.given} == {1}
    assert ((four.given >= 0).sum(axis=1) == 4).all()
    assert len({sudoku.count_solutions(puzzle) for puzzle in four.given}) > 1
    assert (four.given[four.given >= 0] == four.grids[four.given >= 0]).all()
    assert (none.given == MASK).all()
    assert (eight.single, four.single, none.single) == (True, False, False)


# --- what is measured -------------------------------------------------------------------------------------------------


def test_every_puzzle_is_solved_or_has_one_kind_of_error(frame: Any) -> None:
    for line in solved(frame):
        assert line.value("solved") + line.value("by_model") + line.value("by_dependence") == pytest.approx(1)
    for line in found(frame, puzzles="minimal"):
        assert line.value("cells_right") + line.value("cells_excluded") + line.value(
            "cells_dead_wrong"
        ) == pytest.approx(1)
        assert line.value("by_dependence") == 0, "one solution leaves no digits that only exclude each other"
    assert any(line.value("by_dependence") > 0 for line in found(frame, puzzles="random(4)"))


def test_the_exact_posterior_errs_by_dependence_alone(frame: Any) -> None:
    lines = found(frame, denoiser="exact")
    assert {line.steps for line in lines} == {3, 16}
    for line in lines:
        assert line.value("by_model") == 0
        assert line.steps == 3 or line.value("solved") == 1
    assert any(line.value("by_dependence") > 0 for line in lines)


def test_a_denoiser_of_one_round_needs_the_order_and_propagation_does_not(frame: Any) -> None:
    lines = by_policy(found(frame, puzzles="minimal", steps=16))
    effect = {line.denoiser: line.estimate("effect") for line in lines if "name" not in line.keys}
    assert effect["few_rounds(1)"].low > 0
    assert effect["propagation"].value == effect["exact"].value == 0


def test_parts_of_a_set_add_up_to_it(frame: Any) -> None:
    whole = found(frame, puzzles="minimal", denoiser="few_rounds(1)", steps=3, policy="margin")[0]
    parts = [
        line
        for line in of_kind(frame, "puzzles", puzzles="minimal", denoiser="few_rounds(1)", steps=3, policy="margin")
        if "clues" in line.keys
    ]
    sums = [line.metrics["solved"][1].sums for line in parts]
    assert sum(one.n for one in sums) == whole.metrics["solved"][1].sums.n == 12
    assert sum(one.total for one in sums) == whole.metrics["solved"][1].sums.total
    assert len(parts) > 1


def test_learners_stand_beside_the_exact_loss(frame: Any) -> None:
    along = of_kind(frame, "along", over="draw")
    assert [line.learner for line in along] == ["rows"]
    floor = math.log(288) / 16
    assert along[0].value("exact") == pytest.approx(floor), "along every order each grid has probability 1/288"
    assert of_kind(frame, "problem")[0].value("floor") == pytest.approx(floor)
    (nothing,) = found(frame, denoiser="causal")
    assert (nothing.puzzles, nothing.policy) == ("random(0)", "rows")
    for line in of_kind(frame, "losses", over="draw"):
        assert line.value("kl") > 0


def test_a_model_of_an_order_also_decodes_along_it(frame: Any) -> None:
    named = {line.policy for line in found(frame, name="drawn")}
    assert named == {"vanilla", "margin", "solver_order"}
    assert "solver_order" not in {line.policy for line in found(frame, denoiser="model") if "name" not in line.keys}


class Scripted:
    """A causal learner that writes the moves of the only solution, or nothing; it knows each token by half."""

    def __init__(self, law: PuzzleThenMoves, solves: bool) -> None:
        self.law, self.solves, self.reading = law, solves, tuple(range(law.layout.length))

    def conditionals(self, tokens: np.ndarray) -> np.ndarray:
        values = np.arange(self.law.layout.n_values)
        others = 0.5 / (len(values) - 1)
        return np.where(tokens[:, :, None] == values, 0.5, others)

    def generate(self, *, key: Key, n: int, given: np.ndarray, options: DecodeOptions) -> Decoded:
        made = np.full_like(given, 20)
        made[:, :16] = given[:, :16]
        for row in made if self.solves else ():
            grid = sudoku.solve(np.where(row[:16] == 20, MASK, row[:16]))
            moves = [(cell + 4, grid[cell]) for cell in np.flatnonzero(row[:16] == 20)]
            row[16 : 16 + 2 * len(moves)] = np.ravel(moves)
        return Decoded(made, np.zeros(made.shape, np.int32), np.full(n, -1, np.int32), 0, 0, 0.0)


@pytest.mark.parametrize("solves", [True, False])
def test_who_writes_the_moves_of_the_solution_solves_all_and_who_writes_none_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solves: bool
) -> None:
    monkeypatch.setattr(Subject, "causal", lambda _, learner: Scripted(learner.distribution, solves))
    decoding = {"sequences": 20, "denoisers": ["exact"], "policies": ["vanilla"], "steps": ["L"], "argmax": [True]}
    changes = {"orders": ["solver_moves", "random_moves"], "rows": [{}], "puzzles": ["minimal"], "decoding": decoding}
    changes["evaluation"] = {"sequences": 400, "laws": ["uniform"]}
    asked = Request(tmp_path, workers=1, threads=1, device="cpu")
    run = execute(resolve(tiny_of("puzzles", **changes, draws=1)), asked, SilentProgress())
    frame = from_rows(run.rows)
    for order in ("solver_moves", "random_moves"):
        (line,) = found(frame, denoiser=order)
        assert (line.policy, line.steps, line.puzzles) == ("own", 16, "minimal")
        assert line.value("solved") == float(solves)
        assert line.value("by_model") == line.value("unfinished") == 1 - float(solves)
        assert line.value("by_dependence") == line.value("void") == 0
        (loss,) = of_kind(frame, "along", learner=order, over="draw")
        assert loss.value("model") == pytest.approx(2 * math.log(2), abs=0.01), "a half at each of 32 tokens"
        assert loss.value("kl") == pytest.approx(loss.value("model") - loss.value("exact"))
    solver, any_order = (
        of_kind(frame, "along", learner=order, over="draw")[0].value("exact")
        for order in ("solver_moves", "random_moves")
    )
    ways = np.mean([math.lgamma(k + 1) for k in range(1, 17)]) / 16
    assert any_order - solver == pytest.approx(ways, rel=0.1), "the order of random moves is not known"


def test_published_numbers_stand_beside_ours(finished: FinishedRun, experiment: Experiment) -> None:
    hard = Published("margin", 49.88, puzzles="hard")
    both = replace(experiment.reference, rows=(*experiment.reference.rows, hard))
    first = tables(replace(experiment, reference=both), finished.rows)[0]
    paper = {line.puzzles: line for line in first.lines if line.denoiser == "paper"}
    assert paper["published"].value("margin solved") == pytest.approx(0.8949)
    assert paper["published hard"].value("margin solved") == pytest.approx(0.4988)
    assert "published" in (finished.folder / "table.md").read_text()


def test_without_training_there_are_tables_of_puzzles_alone(tmp_path: Path) -> None:
    denoisers = ["exact", "bp", "few_rounds(1)", "unit_bp(1)", "unit_bp"]
    decoding = {"sequences": 30, "denoisers": denoisers, "policies": ["vanilla", "margin"]}
    decoding |= {"steps": ["L"], "argmax": [True]}
    changes = {"training": None, "orders": [], "rows": [{}], "puzzles": ["minimal"], "decoding": decoding}
    asked = Request(tmp_path, workers=1, threads=1, device="cpu")
    run = execute(resolve(tiny_of("puzzles", **changes)), asked, SilentProgress())
    effect = {line.denoiser: line for line in by_policy(found(from_rows(run.rows)))}
    assert set(effect) == set(denoisers)
    assert effect["few_rounds(1)"].estimate("effect").low > 0
    assert effect["unit_bp"].value("margin solved") == effect["bp"].value("margin solved") == 1
    assert effect["unit_bp(1)"].value("vanilla solved") > effect["few_rounds(1)"].value("vanilla solved")
    assert "unit_bp(1)" in (run.folder / "table.md").read_text()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"puzzles": ["minimum"]}, "unknown set of puzzles 'minimum': the closest is minimal"),
        ({"puzzles": ["clues"]}, "clues takes 1 numbers"),
        ({"puzzles": []}, "at least one set"),
        ({"puzzles": ["minimal", "minimal"]}, "none twice"),
        ({"decoding": {"denoisers": ["propagate"]}}, "unknown denoiser 'propagate': the closest is propagation"),
        ({"decoding": {"denoisers": ["few_rounds(0)"]}}, "rounds must be at least 1, got 0"),
        ({"decoding": {"denoisers": ["unit_bp(0)"]}}, "rounds must be at least 1, got 0"),
        ({"decoding": {"cost_sequences": 5}}, "cost_sequences"),
        ({"training": None, "orders": [], "rows": [{}]}, "training is null"),
        ({"problem": {"family": "sudoku", "size": 5}}, "problem.size must be one of"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        resolve(tiny_of("puzzles", **changes))


@pytest.mark.parametrize("name", ["random(17)", "clues(17)", "clues(2)"])
def test_a_set_that_no_grid_has_is_refused(name: str) -> None:
    row = resolve(tiny_of("puzzles", puzzles=[name])).rows[0]
    with pytest.raises(ValueError, match=f"puzzles: {re.escape(name)}"):
        row.check_fits(LAW)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (
            {"puzzles": ["minimal"]},
            "evaluation.exact and orders need the exact loss, which is known at 4 x 4, not at 6",
        ),
        ({"puzzles": ["random(0)"], "evaluation": {"exact": False}, "orders": []}, "completions"),
    ],
)
def test_what_is_not_known_of_larger_grids_is_refused_before_a_training(change: dict[str, Any], word: str) -> None:
    row = resolve(tiny_of("puzzles", problem={"family": "sudoku", "size": 6}, **change)).rows[0]
    with pytest.raises(ValueError, match=word):
        row.check_fits(row.problem.make())


def test_a_set_that_is_refused_ends_the_run_with_its_first_unit(tmp_path: Path) -> None:
    """One of 40 puzzles has too many completions, where the one that a dry run draws has not."""
    decoding = {"sequences": 40, "denoisers": ["propagation"], "policies": ["vanilla"], "steps": ["L"]}
    changes = {"training": None, "orders": [], "rows": [{}], "puzzles": ["random(23)"], "decoding": decoding}
    changes |= {"problem": {"family": "sudoku", "size": 9}, "evaluation": {"exact": False}}
    with pytest.raises(ValueError, match=r"puzzles: random\(23\): row \d+ has more than"):
        execute(resolve(tiny_of("puzzles", **changes)), Request(tmp_path, threads=1, device="cpu"), SilentProgress())
