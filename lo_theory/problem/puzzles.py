"""What every kind of puzzle answers by its search: how many solutions, all of them, the only one; how hard it is.

A search (limit, keep) finds the first ``keep`` solutions, int8[S, n], counts them up to ``limit``, and counts the
values that it tries. ``sudoku`` and ``zebra`` have one each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Difficulty", "Search", "all_solutions", "count_up_to", "only_solution"]

Search = Callable[[int, int], tuple[NDArray[np.int8], int, int]]


@dataclass(frozen=True)
class Difficulty:
    """``technique``: the first of ``TECHNIQUES`` that solves a puzzle, with those before it; ``tried``: the values that
    the solver tries to find the solution and to prove that there is no other.
    """

    technique: str
    tried: int


def count_up_to(search: Search, limit: int) -> int:
    """How many solutions there are, up to ``limit``; ValueError for a limit below 1."""
    if limit < 1:
        raise ValueError(f"solutions are counted up to a limit of at least 1, got {limit}")
    return search(limit, 0)[1]


def all_solutions(search: Search, most: int) -> NDArray[np.int8]:
    """All solutions, in the order of the search; ValueError for more than ``most``."""
    if most < 1:
        raise ValueError(f"at least one solution is kept, got most = {most}")
    found, count, _ = search(most + 1, most)
    if count > most:
        raise ValueError(f"the puzzle has more than {most:,} solutions: give more clues, or raise most")
    return found


def only_solution(search: Search, name: Callable[[], str]) -> NDArray[np.int8]:
    """The only solution; ValueError that calls the puzzle ``name()`` where there is none, or several."""
    found, count, _ = search(2, 1)
    if count != 1:
        several = "several solutions (at least 2; count_solutions counts them): give more clues"
        raise ValueError(f"{name()} has {several if count else 'no solution: change or remove a clue'}")
    return found[0]
