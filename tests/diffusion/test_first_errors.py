"""The first error of a decode: by hand, against a walk over all sequences, and what each kind needs to occur."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lo_theory.diffusion import (
    Decoded,
    FirstErrors,
    FixedCount,
    OneAtATime,
    decode,
    find_dead_ends,
    first_errors,
    margin,
    vanilla,
)
from lo_theory.posterior import EnumeratedPosterior, MarginalsOnly
from lo_theory.problem import MASK, Enumerated
from lo_theory.problem.sudoku import draw_puzzles, sudoku_4x4
from lo_theory.rng import Key

GRIDS = sudoku_4x4()
EXACT, WEAK = EnumeratedPosterior(GRIDS), MarginalsOnly(GRIDS)
PUZZLES, SOLUTIONS = draw_puzzles(Key(5), 60, 4)
EMPTY = np.full((60, 16), MASK, np.int8)


def walked(decoded: Decoded) -> FirstErrors:
    """The same by lists: step after step, which sequences are left, and which tokens none of them has."""
    n, length = decoded.tokens.shape
    step, excluded, dead = np.full(n, -1, np.int32), np.zeros((n, length), bool), np.zeros((n, length), bool)
    for i in range(n):
        tokens, revealed = decoded.tokens[i], decoded.step_revealed[i]
        left = [grid for grid in GRIDS.sequences if (grid == tokens)[revealed < 0].all()]
        for t in range(revealed.max() + 1):
            here = np.flatnonzero(revealed == t)
            after = [grid for grid in left if (grid == tokens)[here].all()]
            if not left:
                dead[i, here] = True
            elif not after:
                step[i] = t
                excluded[i, here] = [all(grid[place] != tokens[place] for grid in left) for place in here]
            left = after
    return FirstErrors(step, excluded, dead)


CASES = {
    "puzzles, one a step": (WEAK, OneAtATime(), PUZZLES),
    "puzzles, three steps": (WEAK, FixedCount(3), PUZZLES),
    "nothing given, one a step": (WEAK, OneAtATime(), EMPTY),
    "nothing given, three steps": (WEAK, FixedCount(3), EMPTY),
    "nothing given, exact, four steps": (EXACT, FixedCount(4), EMPTY),
}


def decodes(name: str) -> Decoded:
    denoiser, schedule, given = CASES[name]
    return decode(denoiser, vanilla(), schedule, key=Key(1), n=len(given), given=given)


@pytest.mark.parametrize("name", list(CASES))
def test_first_errors_are_those_of_a_walk_over_all_sequences(name: str) -> None:
    decoded = decodes(name)
    ours, theirs = first_errors(EXACT, decoded), walked(decoded)
    for part in ("step", "excluded", "dead"):
        assert (getattr(ours, part) == getattr(theirs, part)).all(), part
    kinds = np.stack([ours.solved, ours.by_model, ours.by_dependence])
    assert (kinds.sum(axis=0) == 1).all()
    assert not ours.solved.all()
    seen = find_dead_ends(EXACT, decoded)
    assert ((seen.dead_from >= 0) <= ~ours.solved).all()
    assert (seen.dead_from[seen.impossible] == ours.step[seen.impossible] + 1).all()


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("puzzles, one a step", (True, False)),
        ("puzzles, three steps", (True, False)),  # one solution leaves no two digits that only exclude each other
        ("nothing given, one a step", (True, False)),
        ("nothing given, three steps", (True, True)),
        ("nothing given, exact, four steps", (False, True)),  # the exact posterior makes no model errors
    ],
)
def test_which_errors_occur(name: str, kinds: tuple[bool, bool]) -> None:
    found = first_errors(EXACT, decodes(name))
    assert (bool(found.by_model.any()), bool(found.by_dependence.any())) == kinds


def made(tokens: list[int], revealed: list[int]) -> Decoded:
    arrays: tuple[NDArray[np.int8], NDArray[np.int32]] = np.array([tokens], np.int8), np.array([revealed], np.int32)
    return Decoded(*arrays, np.array([-1], np.int32), 1, 1, 0.0)


LAW = EnumeratedPosterior(Enumerated(np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1]], np.int8)))


@pytest.mark.parametrize(
    ("tokens", "revealed", "kind"),
    [
        ([0, 1, 1], [0, 1, 2], "solved"),
        ([1, 1, 0], [0, 0, 1], "dependence"),  # each is possible by itself
        ([1, 1, 0], [0, 1, 2], "model"),  # after the first 1 the second is not
        ([1, 1, 0], [-1, 0, 0], "model"),
        ([0, 1, 0], [0, 1, 1], "dependence"),
    ],
)
def test_a_case_by_hand(tokens: list[int], revealed: list[int], kind: str) -> None:
    found = first_errors(LAW, made(tokens, revealed))
    names = {"solved": found.solved, "model": found.by_model, "dependence": found.by_dependence}
    assert [name for name, here in names.items() if here[0]] == [kind]


def test_what_is_written_after_the_first_error_is_dead() -> None:
    found = first_errors(LAW, made([1, 1, 0], [0, 0, 1]))
    assert (found.step[0], found.dead.tolist(), found.excluded.any()) == (0, [[False, False, True]], False)
    found = first_errors(LAW, made([1, 1, 0], [0, 1, 2]))
    assert (found.excluded.tolist(), found.dead.tolist()) == ([[False, True, False]], [[False, False, True]])


def test_an_impossible_puzzle_is_refused() -> None:
    with pytest.raises(ValueError, match="row 0 is impossible before anything"):
        first_errors(LAW, made([1, 1, 0], [-1, -1, 0]))


def test_a_finished_grid_is_solved() -> None:
    decoded = decode(WEAK, margin(), OneAtATime(), key=Key(0), n=60, given=SOLUTIONS)
    assert first_errors(EXACT, decoded).solved.all()
