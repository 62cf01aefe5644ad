"""Predicates as truth tables, and what the theory asks of them: gamma, Assumption B.11, pair channels.

A predicate g: {0..q-1}^k -> {0, 1} is the array ``table`` bool[q, ..., q] (k axes), nothing else. Everything above sees
tables only, so a new predicate is one call of ``from_function`` or ``from_array``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem.layout import Record, frozen, plain
from lo_theory.problem.seams import checked

__all__ = ["Predicate", "colouring", "from_array", "from_function", "nae", "pair_channels", "sat", "xor"]

_LARGEST_TABLE = 2**24  # entries; a table is held whole


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Predicate(Record):
    """A truth table bool[q, ..., q] over k arguments, with a name for tables and figures."""

    name: str
    table: NDArray[np.bool_]

    def __post_init__(self) -> None:
        table = plain(self.table, "a truth table")
        if table.ndim < 1 or len(set(table.shape)) != 1 or table.shape[0] < 2:
            raise ValueError(f"a truth table has k >= 1 axes of equal length q >= 2, got shape {table.shape}")
        if table.dtype != np.bool_ and not np.isin(table, (0, 1)).all():
            raise ValueError("a truth table holds only 0 and 1 (False and True)")
        object.__setattr__(self, "table", frozen(table, np.bool_))

    @property
    def q(self) -> int:
        """Values of an argument."""
        return int(self.table.shape[0])

    @property
    def k(self) -> int:
        """Arity."""
        return int(self.table.ndim)

    @property
    def gamma(self) -> float:
        """gamma = P(g = 1) under a uniform assignment."""
        return float(self.table.mean())

    def conditional_gamma(self) -> NDArray[np.float64]:
        """float64[k, q]: P(g = 1 | argument a has value c), the other arguments uniform."""
        others = [tuple(b for b in range(self.k) if b != a) for a in range(self.k)]
        return np.stack([self.table.mean(axis=axes) if axes else self.table.astype(float) for axes in others])

    @property
    def satisfies_assumption_b11(self) -> bool:
        """Whether Assumption B.11 holds: P(g = 1 | argument a = c) is the same for every argument a and value c.

        Then, and only then for every density, the uniform (paramagnetic) message is a fixed point of belief
        propagation.
        """
        counts = np.stack([self.table.sum(axis=tuple(b for b in range(self.k) if b != a)) for a in range(self.k)])
        return bool((counts == counts.flat[0]).all())

    def pair_channels(self, value: int = 1) -> NDArray[np.float64]:
        """Conditional laws of one argument given another under a uniform assignment with g = ``value``.

        See ``pair_channels``.
        """
        if value not in (0, 1):
            raise ValueError(f"a predicate has the values 0 and 1, not {value}")
        return pair_channels(self.table == bool(value))

    def emission(self, channel: ArrayLike | None = None) -> NDArray[np.float64]:
        """Emission table float64[q**k, r]: P(token | scope state) with g passed through a noise channel.

        ``channel`` is row-stochastic float64[2, r], P(token | g); the identity when left out. Scope states count in C
        order (first argument slowest).
        """
        rows = np.eye(2) if channel is None else plain(channel, "a noise channel", np.float64)
        if rows.ndim != 2 or rows.shape[0] != 2:
            raise ValueError(f"a noise channel of a predicate has shape [2, r], got {rows.shape}")
        return rows[self.table.ravel().astype(np.intp)]


def pair_channels(likelihood: ArrayLike) -> NDArray[np.float64]:
    """Return T float64[k, k, q, q].

    ``T[a, b, x, y]`` = P(x_b = y | x_a = x) when the scope state has the given likelihood.

    ``likelihood`` is [q, ..., q], nonnegative: the scope state s has probability proportional to it (a uniform
    assignment given the value seen). Diagonal blocks a = b are identities; rows whose condition has probability zero
    are nan. Cost k**2 q**k.
    """
    weights = plain(likelihood, "a likelihood", np.float64)
    k, q = weights.ndim, weights.shape[0]
    channels = np.empty((k, k, q, q))
    for a in range(k):
        for b in range(k):
            rest = tuple(axis for axis in range(k) if axis not in (a, b))
            joint = weights.sum(axis=rest)
            joint = np.diag(joint) if a == b else (joint if a < b else joint.T)
            mass = joint.sum(axis=1, keepdims=True)
            channels[a, b] = np.divide(joint, mass, out=np.full((q, q), np.nan), where=mass > 0)
    return channels


def _check_size(q: int, k: int) -> None:
    if q < 2:
        raise ValueError(f"q must be at least 2, got {q}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if k * math.log(q) > math.log(_LARGEST_TABLE) + 1e-9:
        raise ValueError(
            f"a truth table of q**k = {q}**{k} entries is over the limit of {_LARGEST_TABLE}: take a smaller q or k"
        )


@checked
def nae(q: int = 2, k: int = 3) -> Predicate:
    """Not all equal: 1 unless all k arguments agree. gamma = 1 - q**(1 - k)."""
    _check_size(q, k)
    table = np.ones((q,) * k, np.bool_)
    table[(np.arange(q),) * k] = False
    return Predicate(f"NAE q={q} k={k}", table)


@checked
def xor(k: int = 3) -> Predicate:
    """Parity of k bits: 1 if an odd number of arguments is 1. gamma = 1/2."""
    _check_size(2, k)
    table = np.zeros(1, np.bool_)
    for _ in range(k):
        table = np.concatenate([table, ~table])
    return Predicate(f"XOR k={k}", table.reshape((2,) * k))


@checked
def colouring(q: int = 3) -> Predicate:
    """q-colouring of a graph: 1 if the two ends of an edge differ. gamma = 1 - 1/q."""
    _check_size(q, 2)
    return Predicate(f"{q}-colouring", ~np.eye(q, dtype=bool))


@checked
def sat(k: int = 3, negated: Sequence[bool] | None = None) -> Predicate:
    """A clause of k-SAT: 1 if some literal is true; literal a is ``x_a``, or its negation where ``negated[a]``.

    A random formula has one table for each of the 2**k sign patterns: pass them all to ``TableObservations``. A clause
    breaks Assumption B.11.
    """
    _check_size(2, k)
    signs = (False,) * k if negated is None else tuple(bool(sign) for sign in negated)
    if len(signs) != k:
        raise ValueError(f"negated must name {k} literals, got {len(signs)}")
    table = np.ones((2,) * k, np.bool_)
    table[tuple(int(sign) for sign in signs)] = False  # the one state in which no literal is true
    return Predicate(f"SAT k={k}", table)


@checked
def from_function(function: Callable[..., bool | int], q: int, k: int, *, name: str = "g") -> Predicate:
    """Tabulate ``function(x_1, ..., x_k)`` over {0..q-1}^k. Cost q**k calls."""
    _check_size(q, k)
    table = np.empty((q,) * k)  # of floats, so that 0.5 is refused and not cut to 0
    for state in np.ndindex(table.shape):
        table[state] = function(*state)
    return Predicate(name, table)  # type: ignore[arg-type]


@checked
def from_array(table: ArrayLike, *, name: str = "g") -> Predicate:
    """Make a predicate of a truth table [q, ..., q] of zeros and ones."""
    return Predicate(name, plain(table, "a truth table"))
