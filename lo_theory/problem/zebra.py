"""Zebra puzzles of 2 to 9 houses: clues as truth tables, read, check, solve, count, draw, grade.

H houses are in a row, and each of A attributes has H values, one in every house. Latent a H + v is the house, 0 to
H - 1, of value v of attribute a; a solution is int8[A H]. A clue is a predicate on one to three latents (``KINDS``).
``problem`` is the L&O problem of a puzzle, and the law of its solutions that problem with every observation given as 1
(``Conditioned``).
"""

from __future__ import annotations

import functools
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lo_theory.problem import _zebra_kernels
from lo_theory.problem.distribution import LODistribution
from lo_theory.problem.observations import TableObservations
from lo_theory.problem.predicates import Predicate, from_function
from lo_theory.problem.puzzles import Difficulty, all_solutions, count_up_to, only_solution
from lo_theory.problem.seams import checked, is_whole
from lo_theory.rng import Key, below, fill_words, shuffle

__all__ = [
    "KINDS",
    "TECHNIQUES",
    "Clue",
    "Puzzle",
    "count_solutions",
    "difficulty",
    "draw_puzzle",
    "problem",
    "read_puzzle",
    "solutions",
    "solve",
    "write_puzzle",
]

Rule = Callable[..., bool]

KINDS: Mapping[str, Rule] = {
    "same": lambda a, b: a == b,
    "not_same": lambda a, b: a != b,
    "just_left_of": lambda a, b: a + 1 == b,
    "left_of": lambda a, b: a < b,
    "next_to": lambda a, b: abs(a - b) == 1,
    "not_next_to": lambda a, b: abs(a - b) != 1,
    "at": lambda a, *, house: a == house,
    "not_at": lambda a, *, house: a != house,
    "between": lambda a, b, c: b < a < c or c < a < b,
}
"""Kinds of clue: when one is true, of the houses of its one to three latents, and of a house that it names."""

TECHNIQUES = ("single clues", "all different", "search")
"""From easy to hard; each is used with all before it (``difficulty``)."""

_MOST = 9  # houses, and attributes
_ARITY = 3  # latents of a clue


def arguments(rule: Rule) -> tuple[int, bool]:
    """How many latents a rule reads, and whether it names a house."""
    names = set(inspect.signature(rule).parameters)
    return len(names - {"house"}), "house" in names


@functools.cache
def _predicate(rule: Rule, houses: int, house: int | None) -> Predicate:
    fixed = {} if house is None else {"house": house}
    return from_function(functools.partial(rule, **fixed), houses, arguments(rule)[0])


@checked
@dataclass(frozen=True)
class Clue:
    """What a puzzle says: ``kind``, a key of ``KINDS``, of ``latents``, and for the kinds that name one a ``house``.

    Errors: ValueError for another kind, for another number of latents, and for a house too many or too few.
    """

    kind: str
    latents: tuple[int, ...]
    house: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no kind of clue is called {self.kind!r}: there are {', '.join(KINDS)}")
        latents = tuple(self.latents) if isinstance(self.latents, Sequence) else ()
        arity, housed = arguments(KINDS[self.kind])
        if not all(map(is_whole, latents)) or not len(latents) == len(set(latents)) == arity:
            raise ValueError(f"a clue {self.kind} names {arity} latents, all different, got {self.latents!r}")
        if (self.house is not None) != housed:
            raise ValueError(f"a clue {self.kind} names {'a' if housed else 'no'} house, got {self.house}")
        object.__setattr__(self, "latents", tuple(map(int, latents)))
        object.__setattr__(self, "house", int(self.house) if self.house is not None else None)

    def predicate(self, houses: int) -> Predicate:
        """The truth table bool[H, ..., H] over the houses of its latents."""
        return _predicate(KINDS[self.kind], houses, self.house)


@checked
@dataclass(frozen=True)
class Puzzle:
    """``clues`` about ``attributes`` A of H values each, one value in every one of ``houses`` H.

    Errors: ValueError for fewer than 2 or more than 9 houses, for fewer than 1 or more than 9 attributes, and for a
    clue that is there twice or names a latent or a house that is not.
    """

    houses: int
    attributes: int
    clues: tuple[Clue, ...] = ()

    def __post_init__(self) -> None:
        for name, number, least in (("houses", self.houses, 2), ("attributes", self.attributes, 1)):
            if not least <= number <= _MOST:
                raise ValueError(f"a puzzle has {least} to {_MOST} {name}, got {number}")
        if not isinstance(self.clues, Sequence):
            raise ValueError(f"clues must be a tuple of Clue(...), got {self.clues!r}")
        object.__setattr__(self, "clues", tuple(self.clues))
        seen: set[Clue] = set()
        for number, clue in enumerate(self.clues):
            if not isinstance(clue, Clue):
                raise ValueError(f"clue {number} must be a Clue(...), got {clue!r}")
            if not all(0 <= latent < self.n_latents for latent in clue.latents):
                raise ValueError(f"clue {number}, {clue}, names a latent that is not in 0..{self.n_latents - 1}")
            if clue.house is not None and not 0 <= clue.house < self.houses:
                raise ValueError(f"clue {number}, {clue}, names a house that is not in 0..{self.houses - 1}")
            if clue in seen:
                raise ValueError(f"clue {number}, {clue}, is there twice: leave one out")
            seen.add(clue)

    @property
    def n_latents(self) -> int:
        """N = A H."""
        return self.houses * self.attributes


@checked
def read_puzzle(text: str) -> Puzzle:
    """A puzzle of lines: ``houses 3 attributes 2``, and a clue a line, such as ``left_of 0.1 1.2`` and ``at 1.0 2``.

    0.1 is value 1 of attribute 0; everything counts from 0. Empty lines do not count. Errors: ValueError for other
    words, and for what ``Puzzle`` refuses; it names the line.
    """
    lines = [(number, " ".join(line.split())) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    first = lines[0][1] if lines else ""
    head = re.fullmatch(r"houses ([0-9]{1,9}) attributes ([0-9]{1,9})", first)
    if not head:
        raise ValueError(f"a puzzle begins with a line such as 'houses 3 attributes 2', got {first[:90]!r}")
    empty = Puzzle(int(head[1]), int(head[2]))
    seen: dict[Clue, int] = {}
    for number, line in lines[1:]:
        try:
            clue = _read_clue(line, empty)
        except ValueError as error:
            raise ValueError(f"line {number}, {line[:90]!r}: {error}") from error
        if clue in seen:
            raise ValueError(f"line {number} says what line {seen[clue]} says: leave one out")
        seen[clue] = number
    return Puzzle(empty.houses, empty.attributes, tuple(seen))


def _read_clue(line: str, puzzle: Puzzle) -> Clue:
    kind, *words = line.split()
    if kind not in KINDS:
        return Clue(kind, ())  # refuses it
    arity, housed = arguments(KINDS[kind])
    if len(words) != arity + housed:
        what = f"{arity} values{' and a house' if housed else ''}"
        raise ValueError(f"{what} follow {kind}, got {len(words)} words")
    latents = []
    for word in words[:arity]:
        parts = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,9})", word)
        if not parts:
            raise ValueError(f"{word!r} is no value: write attribute.value, such as 0.1")
        attribute, value = int(parts[1]), int(parts[2])
        if attribute >= puzzle.attributes or value >= puzzle.houses:
            raise ValueError(
                f"there is no value {word}: attributes are 0 to {puzzle.attributes - 1}, their values 0 to "
                f"{puzzle.houses - 1}"
            )
        latents.append(attribute * puzzle.houses + value)
    if housed and (not re.fullmatch("[0-9]{1,9}", words[-1]) or int(words[-1]) >= puzzle.houses):
        raise ValueError(f"{words[-1]!r} is no house: write a number from 0 to {puzzle.houses - 1}")
    return Clue(kind, tuple(latents), int(words[-1]) if housed else None)


@checked
def write_puzzle(puzzle: Puzzle) -> str:
    """The lines that ``read_puzzle`` reads."""
    lines = [f"houses {puzzle.houses} attributes {puzzle.attributes}"]
    for clue in puzzle.clues:
        values = (f"{latent // puzzle.houses}.{latent % puzzle.houses}" for latent in clue.latents)
        lines.append(" ".join([clue.kind, *values, *([] if clue.house is None else [str(clue.house)])]))
    return "\n".join(lines)


@functools.cache
def _bits(predicate: Predicate) -> NDArray[np.int64]:
    """int64[H, H]: houses of a third latent that make a clue true, given those of two; it may not read them all."""
    houses, missing = predicate.q, _ARITY - predicate.k
    table = np.broadcast_to(predicate.table.reshape((houses,) * predicate.k + (1,) * missing), (houses,) * _ARITY)
    return table @ (1 << np.arange(houses))


def _arrays(puzzle: Puzzle) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """What the kernels read: all houses for every latent, and scopes and tables of the clues."""
    full = np.full(puzzle.n_latents, (1 << puzzle.houses) - 1, np.int64)
    scopes = np.empty((len(puzzle.clues), _ARITY), np.int64)
    tables = np.empty((len(puzzle.clues), puzzle.houses, puzzle.houses), np.int64)
    for number, clue in enumerate(puzzle.clues):
        scopes[number] = _padded(clue, _ARITY)
        tables[number] = _bits(clue.predicate(puzzle.houses))
    return full, scopes, tables


def _padded(clue: Clue, arity: int) -> tuple[int, ...]:
    """Its latents, the last again until they are ``arity``."""
    return clue.latents + clue.latents[-1:] * (arity - len(clue.latents))


def _search(puzzle: Puzzle, limit: int, keep: int) -> tuple[NDArray[np.int8], int, int]:
    """The first ``keep`` solutions, how many there are up to ``limit``, and the houses tried."""
    found = np.empty((keep, puzzle.n_latents), np.int8)
    count, tried = _zebra_kernels.search(*_arrays(puzzle), limit, found)
    return found[:count], count, tried


@checked
def count_solutions(puzzle: Puzzle, limit: int = 1000) -> int:
    """How many solutions a puzzle has, up to ``limit``, at which the count ends."""
    return count_up_to(functools.partial(_search, puzzle), limit)


@checked
def solutions(puzzle: Puzzle, most: int = 1000) -> NDArray[np.int8]:
    """All solutions, int8[S, A H], in the order of the search; ValueError for more than ``most``."""
    return all_solutions(functools.partial(_search, puzzle), most)


@checked
def solve(puzzle: Puzzle) -> NDArray[np.int8]:
    """The only solution, int8[A H]; ValueError where there is none, and where there are several."""
    return only_solution(functools.partial(_search, puzzle), lambda: "the puzzle")


@checked
def difficulty(puzzle: Puzzle) -> Difficulty:
    """What a puzzle needs; ValueError unless it has one solution.

    Single clues: a house goes where no houses of the clue's other latents make the clue true, and where another value
    of the attribute is known to be. All different: s values of an attribute that have s houses between them take them
    from its other values. ``tried``: houses that the solver, which knows both, assumes.
    """
    solve(puzzle)
    tried = _search(puzzle, 2, 0)[2]
    for level, name in enumerate(TECHNIQUES[:-1]):
        state, scopes, tables = _arrays(puzzle)
        _zebra_kernels.propagate(state, scopes, tables, level)
        if (state & (state - 1) == 0).all():
            return Difficulty(name, tried)
    return Difficulty(TECHNIQUES[-1], tried)


@checked
def problem(puzzle: Puzzle) -> LODistribution:
    """The L&O problem of a puzzle: A H uniform latents, and an observation for every pair of an attribute and clue.

    The first are 1 where the two values stand in different houses, the others where the clue is true, in its order.
    Given that all are 1 (``Conditioned``), the latents are a uniform solution; of the pairs alone, uniform among
    (H!)**A. All scopes have the arity of the clue that reads most, 2 at least: others name their last latent again.
    """
    houses, values = puzzle.houses, np.arange(puzzle.n_latents).reshape(-1, puzzle.houses).tolist()
    pairs = [pair for attribute in values for pair in itertools.combinations(attribute, 2)]
    clues = [*(Clue("not_same", pair) for pair in pairs), *puzzle.clues]
    k = max(len(clue.latents) for clue in clues)
    predicates = [clue.predicate(houses) for clue in clues]
    kinds = list(dict.fromkeys(predicates))
    tables = np.stack([each.emission().repeat(houses ** (k - each.k), axis=0) for each in kinds])
    scopes = np.array([_padded(clue, k) for clue in clues], np.int32)
    law = TableObservations(scopes, tables, np.array([kinds.index(each) for each in predicates], np.int32))
    return LODistribution(np.full((puzzle.n_latents, houses), 1 / houses), law)


@checked
def draw_puzzle(
    key: Key, houses: int, attributes: int, *, kinds: Sequence[str] = tuple(KINDS)
) -> tuple[Puzzle, NDArray[np.int8]]:
    """Draw a puzzle with one solution at the address ``key``, and that solution, int8[A H].

    The solution is uniform: an independent permutation for every attribute. Clues that it makes true are added until it
    is the only one, each of a uniform kind and uniform among those of it; then they are removed in random order, each
    unless the solution would then not be the only one. So the puzzle is minimal: no clue of it can be removed. Errors:
    ValueError for kinds whose clues all together leave several solutions.
    """
    empty = Puzzle(houses, attributes)
    check_kinds(kinds)
    place = key.fold("zebra")
    parts = [_shuffled(np.arange(houses), place.fold("solution").fold(a)) for a in range(attributes)]
    solution = np.concatenate(parts).astype(np.int8)
    offered = _offered(empty, solution, kinds, place.fold("clues"))
    clues: list[Clue] = []
    while not _one_solution(empty, clues):
        clue = next(offered, None)
        if clue is None:
            raise ValueError(f"all clues of the kinds {', '.join(kinds)} leave several solutions: take more kinds")
        clues.append(clue)
    kept = clues
    for number in _shuffled(np.arange(len(clues)), place.fold("removal")):
        rest = [clue for clue in kept if clue is not clues[number]]
        kept = rest if _one_solution(empty, rest) else kept
    return Puzzle(houses, attributes, tuple(kept)), solution


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise ValueError unless ``kinds`` are some of ``KINDS``, at least one, each once."""
    if not isinstance(kinds, Sequence) or not kinds or not set(kinds) <= set(KINDS) or len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds are some of {', '.join(KINDS)}, each once, got {kinds!r}")


def _one_solution(puzzle: Puzzle, clues: list[Clue]) -> bool:
    return count_solutions(Puzzle(puzzle.houses, puzzle.attributes, tuple(clues)), 2) == 1


def _words(count: int, key: Key) -> NDArray[np.uint64]:
    words = np.empty(count, np.uint64)
    fill_words(words, 0, *key.words())
    return words


def _shuffled(items: NDArray[np.int64], key: Key) -> NDArray[np.int64]:
    """The items in uniform random order, in place."""
    shuffle(items, len(items), _words(len(items), key))
    return items


def _offered(puzzle: Puzzle, solution: NDArray[np.int8], kinds: Sequence[str], key: Key) -> Iterator[Clue]:
    """Each clue that a solution makes true, once: every next one of a uniform kind, and uniform among those of it."""
    piles = []
    for kind in kinds:
        true = true_clues(kind, puzzle.houses, solution)
        piles.append([(kind, *true[number]) for number in _shuffled(np.arange(len(true)), key.fold(kind))])
    for word in _words(sum(map(len, piles)), key):
        piles = [pile for pile in piles if pile]
        yield Clue(*piles[below(word, len(piles))].pop())


def true_clues(kind: str, houses: int, solution: NDArray[np.integer]) -> list[tuple[tuple[int, ...], int | None]]:
    """Latents and house of the clues of a kind that ``solution`` int[A H] makes true; latents in every order."""
    arity, housed = arguments(KINDS[kind])
    names = _ordered(len(solution), arity)
    found: list[tuple[tuple[int, ...], int | None]] = []
    for house in range(houses) if housed else [None]:
        holds = _predicate(KINDS[kind], houses, house).table[tuple(solution[names].T)]
        found += [(tuple(latents), house) for latents in names[holds].tolist()]
    return found


@functools.cache
def _ordered(latents: int, arity: int) -> NDArray[np.int64]:
    """int64[T, k]: all ordered choices of k different latents."""
    return np.array(list(itertools.permutations(range(latents), arity)), np.int64).reshape(-1, arity)
