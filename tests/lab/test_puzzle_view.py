"""One puzzle under each policy: the grids are those of a decode, the KL is that of a formula, what is refused."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from lo_theory.cli import main
from lo_theory.diffusion import DecodeOptions, OneAtATime, decode, first_errors, vanilla
from lo_theory.lab.config import resolve
from lo_theory.lab.drawing import styled
from lo_theory.lab.experiments.puzzles import untrained
from lo_theory.lab.puzzle_view import Wanted, look, make_figure, to_csv
from lo_theory.lab.runs import FinishedRun
from lo_theory.posterior import EnumeratedPosterior
from lo_theory.problem import MASK, sudoku
from lo_theory.rng import Key
from tests.cli.complaint import complaint
from tests.lab.tiny import tiny, tiny_of

EXPERIMENT = resolve(tiny_of("puzzles"))
EXACT = EnumeratedPosterior(sudoku.sudoku_4x4())
WEAK = "few_rounds(1)"


def test_the_exact_posterior_is_as_far_from_itself_as_nothing_and_solves() -> None:
    seen = look(EXPERIMENT, Wanted(denoiser="exact"))
    empty = seen.given == MASK
    for kl in (seen.kl, *(one.kl for one in seen.decodes)):
        np.testing.assert_array_equal(np.isnan(kl), ~empty)
        assert np.nansum(kl) == 0
    for one in seen.decodes:
        np.testing.assert_array_equal(one.tokens, seen.solution)
        assert sorted(one.written[empty]) == list(range(empty.sum()))
    assert [one.policy for one in seen.decodes] == ["vanilla", "margin"]


def test_what_a_weak_denoiser_writes_is_its_decode_and_its_kl_is_that_of_the_context() -> None:
    denoiser, failed = untrained(WEAK, sudoku.sudoku_4x4()), 0
    for seed in range(6):
        seen = look(EXPERIMENT, Wanted(denoiser=WEAK, seed=seed, policies=("vanilla",)))
        (one,) = seen.decodes
        key = Key(seed).fold("puzzle view").fold("decode")
        argmax = DecodeOptions(argmax=True)
        plain = decode(denoiser, vanilla(), OneAtATime(), key=key, n=1, given=seen.given[None], options=argmax)
        np.testing.assert_array_equal(one.tokens, plain.tokens[0])
        np.testing.assert_array_equal(one.written, plain.step_revealed[0])
        step = first_errors(EXACT, plain).step[0]
        failed += step >= 0
        known = (one.written >= 0) & ((step < 0) | (one.written <= step))
        np.testing.assert_array_equal(np.isnan(one.kl), ~known)  # a dead end has no exact answer
        for cell in np.flatnonzero(known):
            context = np.where(one.written < one.written[cell], one.tokens, MASK).astype(np.int8)[None]
            p, q = (posterior.marginals(context).probs[0, cell] for posterior in (EXACT, denoiser))
            nats = sum(chance * np.log(chance / q[digit]) for digit, chance in enumerate(p) if chance > 0)
            assert one.kl[cell] == pytest.approx(nats, abs=1e-9)
        guess = denoiser.marginals(seen.given[None]).probs[0].argmax(axis=1)
        np.testing.assert_array_equal(seen.guess, guess)
    assert failed > 0  # one round of belief propagation errs in random order


def test_figure_and_csv_say_what_became_of_the_puzzle() -> None:
    seen = look(EXPERIMENT, Wanted(denoiser=WEAK, seed=1))
    with styled():
        titles = [axes.get_title(loc="left") for axes in make_figure(seen).axes]
    assert f"of {(seen.given == MASK).sum()} right" in titles[0]
    for title, one in zip(titles[1:3], seen.decodes, strict=True):
        wrong = int((one.tokens != seen.solution).sum())
        assert one.policy in title
        assert ("solved" in title) == (wrong == 0)
        assert wrong == 0 or f"model error at step {one.errors.step[0] + 1}, {wrong} cells wrong" in title
    lines = list(csv.DictReader(to_csv(seen).splitlines()))
    assert len(lines) == 3 * 16
    for policy, digits in [("", seen.guess), *((one.policy, one.tokens) for one in seen.decodes)]:
        own = [line for line in lines if line["policy"] == policy]
        assert [int(line["digit"]) - 1 for line in own] == digits.tolist()
        assert [line["kl"] == "" for line in own if line["given"] == "1"].count(False) == 0


def test_a_line_of_digits_in_several_steps_and_drawn(tmp_path: Path) -> None:
    line = ".1..4.3........2"
    seen = look(EXPERIMENT, Wanted(puzzle=line, denoiser=WEAK, steps=3, drawn=True, policies=("margin",)))
    np.testing.assert_array_equal(seen.given, sudoku.read_puzzle(line))
    assert seen.decodes[0].written.max() == 2


def test_the_command_writes_the_view_of_a_run(tiny_runs: Callable[[str], FinishedRun], tmp_path: Path) -> None:
    folder = str(tiny_runs("puzzles").folder)
    assert main(["puzzle-view", folder, "--to", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"puzzle.png", "puzzle.pdf", "puzzle.csv"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no checkpoint of the model: give --model FILE"),
        (["--denoiser", "oracle"], "unknown denoiser 'oracle'"),
        (["--denoiser", "bp", "--puzzle", "1" + "." * 80], "81 cells, the grids of the experiment 16"),
        (["--denoiser", "bp", "--puzzle", "1..."], "got 4"),
        (["--denoiser", "bp", "--puzzle", "1" + "." * 15], "has several solutions"),
        (["--denoiser", "bp", "--puzzle", "easiest"], "unknown set of puzzles 'easiest'"),
        (["--denoiser", "bp", "--row", "7"], "row 7 does not exist"),
        (["--denoiser", "bp", "--policies", "best"], "unknown policy 'best'"),
    ],
)
def test_what_is_refused(options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tiny_of("puzzles"), sort_keys=False))
    assert words in complaint(["puzzle-view", str(path), "--to", str(tmp_path), *options], capsys)


def test_an_experiment_of_another_task_is_refused() -> None:
    with pytest.raises(ValueError, match="takes experiments of task puzzles, got task table1"):
        look(resolve(tiny()), Wanted())


def test_a_full_grid_is_refused() -> None:
    full = sudoku.write_puzzle(sudoku.draw_grids(Key(0), 1, 4)[0])
    with pytest.raises(ValueError, match="has no empty cell: there is nothing to decode"):
        look(resolve(tiny_of("puzzles")), Wanted(puzzle=full, denoiser="exact"))
