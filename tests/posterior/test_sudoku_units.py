"""Belief propagation on whole units of a Sudoku: its factor against enumeration, its rounds against a slow twin."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from lo_theory.posterior import EnumeratedPosterior
from lo_theory.posterior._sudoku_unit_kernels import unit_messages
from lo_theory.posterior.sudoku import SudokuPosterior
from lo_theory.posterior.sudoku_units import UnitBP
from lo_theory.problem import MASK, sudoku
from lo_theory.rng import Key

Matrix = NDArray[np.float64]
Factor = Callable[[Matrix], tuple[Matrix, float]]

LAW = sudoku.sudoku_4x4()
GRID = LAW.sequences[100]
KNOWN = ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).astype(bool)
CONTEXTS = np.where(KNOWN, GRID, np.int8(MASK))


# --- one factor -------------------------------------------------------------------------------------------------------


def fast(incoming: Matrix) -> tuple[Matrix, float]:
    """The kernel; its scratch holds rubbish at first."""
    k = len(incoming)
    out = np.full((k, k), np.nan)
    weight = unit_messages(incoming, np.full(2**k, np.nan), np.full(2**k, np.nan), out)
    return out, weight


def slow(incoming: Matrix) -> tuple[Matrix, float]:
    """The sum over all permutations."""
    k, weight = len(incoming), 0.0
    out = np.zeros((k, k))
    for digits in itertools.permutations(range(k)):
        numbers = incoming[np.arange(k), digits]
        weight += numbers.prod()
        for i in range(k):
            out[i, digits[i]] += np.delete(numbers, i).prod()
    return out, weight


def with_the_receiver(incoming: Matrix) -> tuple[Matrix, float]:
    """Wrong: what a cell says comes back to it."""
    out, weight = slow(incoming)
    return out * incoming, weight


def by_functions(incoming: Matrix) -> tuple[Matrix, float]:
    """Wrong: the other cells may have one digit."""
    k, sums = len(incoming), incoming.sum(axis=1)
    return np.outer([np.delete(sums, i).prod() for i in range(k)], np.ones(k)), float(sums.prod())


def agrees(factor: Factor) -> bool:
    """Whether a factor answers as the slow one, of numbers of all sizes with exact zeros among them."""
    rng = np.random.default_rng(0)
    for k in (0, 1, 2, 3, 4, 5, 6, 7):
        for kept in (1.0, 0.7, 0.4):
            incoming = rng.random((k, k)) ** 8 * (rng.random((k, k)) < kept)
            (out, weight), (expected, total) = factor(incoming), slow(incoming)
            same = np.allclose(out, expected, rtol=1e-12, atol=0) and math.isclose(weight, total, rel_tol=1e-12)
            if not same or ((out > 0) != (expected > 0)).any():
                return False
    return True


def test_a_factor_sums_over_permutations() -> None:
    assert agrees(fast)


@pytest.mark.parametrize("wrong", [with_the_receiver, by_functions])
def test_factors_that_are_wrong_are_found_out(wrong: Factor) -> None:
    assert not agrees(wrong)


def test_the_smallest_messages_do_not_underflow() -> None:
    incoming = np.full((9, 9), 1e-33)
    out, weight = fast(incoming)
    assert np.allclose(out, math.factorial(8) * 1e-264, rtol=1e-12, atol=0)
    assert weight == pytest.approx(math.factorial(9) * 1e-297, rel=1e-12)


# --- whole rows -------------------------------------------------------------------------------------------------------


def rounds_of(row: NDArray[np.int8], rounds: int, damping: float = 0.0) -> tuple[Matrix, float]:
    """Beliefs [L, n] and ln P, by units as they are written on paper; uniform and -inf on a contradiction."""
    size = round(len(row) ** 0.5)
    members = sudoku.geometry(size).members
    uniform = np.full((len(row), size), 1 / size), -np.inf
    cells = [[i for i in unit if row[i] < 0] for unit in members]
    free = [sorted(set(range(size)) - set(row[unit].tolist())) for unit in members]
    if any(len(some) != len(digits) for some, digits in zip(cells, free, strict=True)):
        return uniform
    told = {(u, i): np.isin(np.arange(size), free[u]) / len(free[u]) for u in range(3 * size) for i in cells[u]}

    def say(u: int) -> Matrix:
        others = [np.prod([told[w, i] for w in range(3 * size) if i in cells[w] and w != u], axis=0) for i in cells[u]]
        spoken = np.array(others).reshape(-1, size)
        with np.errstate(invalid="ignore"):
            return spoken / spoken.sum(axis=1, keepdims=True)

    for done in range(rounds):
        fresh = {}
        for u in range(3 * size):
            out = slow(say(u)[:, free[u]])[0]
            for i, numbers in zip(cells[u], out, strict=True):
                if not numbers.sum() > 0:
                    return uniform
                fresh[u, i] = np.zeros(size)
                fresh[u, i][free[u]] = numbers / numbers.sum()
        for at, old in told.items():
            told[at] = np.where(fresh[at] > 0, fresh[at] + damping * (done > 0) * (old - fresh[at]), 0)
    beliefs, entropy = np.eye(size)[row], 0.0
    for i in np.flatnonzero(row < 0):
        beliefs[i] = np.prod([told[u, i] for u in range(3 * size) if i in cells[u]], axis=0)
        entropy += np.log(beliefs[i].sum())
        beliefs[i] /= beliefs[i].sum()
    for u in range(3 * size):
        spoken = say(u)
        entropy += np.log(slow(spoken[:, free[u]])[1])
        entropy -= sum(np.log(spoken[j] @ told[u, i]) for j, i in enumerate(cells[u]))
    if not np.isfinite(entropy):
        return uniform
    return beliefs, entropy - math.log(sudoku.GRIDS[size])


@pytest.mark.parametrize(("rounds", "damping"), [(1, 0.0), (1, 0.4), (3, 0.0), (4, 0.4)])
def test_rounds_are_their_slow_twin(rounds: int, damping: float) -> None:
    nine, _ = sudoku.draw_puzzles(Key(1), 1, clues=58)
    six, _ = sudoku.draw_puzzles(Key(2), 2, 6, clues=18)
    small = np.concatenate([CONTEXTS[5::4111], [[0, 0] + 14 * [MASK], [0, 1] + 4 * [MASK, MASK, 2] + 2 * [MASK]]])
    for rows in (small.astype(np.int8), six, nine):
        size = round(rows.shape[1] ** 0.5)
        answer = UnitBP(size, rounds=rounds, damping=damping).marginals(rows)
        for row, probs, evidence in zip(rows, answer.probs, answer.log_evidence, strict=True):
            beliefs, expected = rounds_of(row, rounds, damping)
            hidden = row < 0
            assert np.allclose(probs[hidden], beliefs[hidden], rtol=0, atol=1e-12)
            assert evidence == pytest.approx(expected, abs=1e-9)
            assert (probs[~hidden] == np.eye(size)[row[~hidden]]).all()


# --- against the truth ------------------------------------------------------------------------------------------------


def is_forest(hidden: NDArray[np.bool_], size: int) -> bool:
    """Whether hidden cells and their units have no cycle: as many edges as nodes less components."""
    members = sudoku.geometry(size).members
    parent = list(range(size * size + 3 * size))

    def root(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    for u, unit in enumerate(members):
        for cell in (int(i) for i in unit if hidden[i]):
            one, other = root(cell), root(size * size + u)
            if one == other:
                return False
            parent[one] = other
    return True


def test_forests_are_exact() -> None:
    few = CONTEXTS[(~KNOWN).sum(axis=1) <= 6]
    rows = np.array([row for row in few[::7] if is_forest(row < 0, 4) and (row < 0).any()])
    assert len(rows) > 100
    wrong = rows.copy()  # a shown digit is changed: most have no completion
    at = np.array([np.flatnonzero(row >= 0)[0] for row in rows])
    wrong[np.arange(len(rows)), at] = (wrong[np.arange(len(rows)), at] + 1) % 4
    both = np.concatenate([rows, wrong])
    ours, theirs = UnitBP(4).marginals(both), SudokuPosterior(4).marginals(both)
    assert ours.converged.all()
    assert np.isneginf(theirs.log_evidence).sum() > 50
    assert np.allclose(ours.probs, theirs.probs, rtol=0, atol=1e-12)
    possible = np.isfinite(theirs.log_evidence)
    assert (np.isneginf(ours.log_evidence) == ~possible).all()
    assert np.allclose(ours.log_evidence[possible], theirs.log_evidence[possible], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [4, 6, 9])
def test_a_hidden_unit_is_exact(size: int) -> None:
    members = sudoku.geometry(size).members
    rows = sudoku.draw_grids(Key(3), len(members), size)
    rows[np.arange(len(members))[:, None], members] = MASK
    ours, theirs = UnitBP(size).marginals(rows), SudokuPosterior(size).marginals(rows)
    assert ours.converged.all()
    assert np.allclose(ours.probs, theirs.probs, rtol=0, atol=1e-12)
    assert np.allclose(ours.log_evidence, theirs.log_evidence, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [4, 6, 9])
def test_nothing_shown_and_all_shown(size: int) -> None:
    rows = np.concatenate([np.full((1, size * size), MASK, np.int8), sudoku.draw_grids(Key(0), 1, size)])
    answer = UnitBP(size).marginals(rows)
    assert np.allclose(answer.probs[0], 1 / size, rtol=0, atol=1e-12)
    all_grids = math.log(sudoku.GRIDS[size])
    bethe = 3 * size * math.lgamma(size + 1) - 2 * size**2 * math.log(size)
    assert answer.log_evidence == pytest.approx([bethe - all_grids, -all_grids], abs=1e-9)
    assert answer.converged.all()


def excludes_nothing_true(probs: Matrix, exact: Matrix) -> bool:
    return not ((probs == 0) & (exact > 0)).any()


def test_what_is_possible_keeps_a_belief() -> None:
    rows = CONTEXTS[3::17]
    assert excludes_nothing_true(UnitBP(4).marginals(rows).probs, EnumeratedPosterior(LAW).marginals(rows).probs)
    puzzles, grids = sudoku.draw_puzzles(Key(4), 40)
    truth = np.eye(9)[grids]
    for rounds in (1, 5, 100):
        answer = UnitBP(9, rounds=rounds, damping=0.0).marginals(puzzles)
        assert excludes_nothing_true(answer.probs, truth)
        assert np.isfinite(answer.log_evidence).all()
    assert (answer.probs == 0).any()
    assert not excludes_nothing_true(np.where(answer.probs < 1e-3, 0, answer.probs), truth), "what small beliefs are"


def test_impossible_rows_are_flagged() -> None:
    twice = [4, 4] + 79 * [MASK]
    # the first row leaves 9 for its last cell, and the cell below has it
    nine_again = [*range(8), *[MASK] * 9, 8, *[MASK] * 63]
    answer = UnitBP(9).marginals(np.array([twice, nine_again, [*range(8), *[MASK] * 73]], np.int8))
    assert np.isneginf(answer.log_evidence).tolist() == [True, True, False]
    assert answer.converged[:2].all()
    assert np.allclose(answer.probs[1, 20], 1 / 9)
    assert answer.probs[1, 3].tolist() == np.eye(9)[3].tolist()


def test_damping_changes_the_way_not_the_end() -> None:
    puzzles, _ = sudoku.draw_puzzles(Key(5), 20, clues=32)
    one, other = (UnitBP(9, damping=d, tolerance=1e-12).marginals(puzzles) for d in (0.1, 0.6))
    both = one.converged & other.converged
    assert both.sum() > 15
    close = np.abs(one.probs - other.probs).max(axis=(1, 2)) < 1e-6
    assert close[both].mean() > 0.8, "apart from puzzles with several fixed points"


def test_a_row_does_not_depend_on_the_batch_and_copies_answer_the_same() -> None:
    puzzles, _ = sudoku.draw_puzzles(Key(6), 6)
    bound = UnitBP(9, rounds=7, damping=0.2, tolerance=1e-3)
    answer = bound.marginals(puzzles)
    for again in (copy.copy(bound), copy.deepcopy(bound), pickle.loads(pickle.dumps(bound))):
        assert np.array_equal(again.marginals(puzzles[::-1]).probs[::-1], answer.probs)
    assert np.array_equal(bound.marginals(puzzles[3]).probs[0], answer.probs[3])


def test_a_transposed_grid_has_the_transposed_answer() -> None:
    puzzles, _ = sudoku.draw_puzzles(Key(7), 5)
    turned = puzzles.reshape(-1, 9, 9).transpose(0, 2, 1).reshape(-1, 81)
    one, other = (UnitBP(9, rounds=3).marginals(rows).probs.reshape(-1, 9, 9, 9) for rows in (puzzles, turned))
    assert np.allclose(one, other.transpose(0, 2, 1, 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 8}, "size 4, 6 or 9, got 8"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"damping": 1.0}, r"damping lies in \[0, 1\), got 1.0"),
        ({"tolerance": 0.0}, "tolerance must be positive, got 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UnitBP(**options)  # type: ignore[arg-type]
