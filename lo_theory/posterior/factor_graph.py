"""Factor graphs: a problem and a partly masked sequence as flat arrays, what belief propagation takes.

Every latent is a variable with a field (its prior, cut down to the token where it is revealed), every revealed
observation a factor with the likelihood of the value seen. Masked observations are no factors: they sum to one. A
planted constraint satisfaction problem is a sequence with every latent masked. Imports the problem room only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem import MASK, Layout, LODistribution, TableObservations
from lo_theory.problem.layout import Record, frozen, plain
from lo_theory.problem.seams import checked

__all__ = ["Conditioning", "FactorGraph", "condition", "to_networkx"]


@checked
@dataclass(frozen=True, eq=False, repr=False)
class FactorGraph(Record):
    """Variables with fields, factors with tables: weight(x) = prod_i field[i, x_i] prod_a tables[table[a], x at
    scopes[a]].

    ``field`` float64[n, q]; ``scopes`` int32[F, k]; ``table`` int32[F], not decreasing; ``tables`` float64[T, q**k],
    nonnegative, states in C order; ``observation`` int32[F], the observation a factor comes from; the first
    ``n_latents`` variables are the latents. F may be 0. The edge of factor a and argument b has number a k + b.

    A scope that names a latent twice keeps its first mention; the later ones read one further variable, fixed at value
    0 with weight 1, and the table is cut down to agreeing states, so that the weight is the same.

    Errors: ValueError for shapes that do not fit, factors not sorted by table, and numbers that name no variable or
    table, or are no weights.
    """

    field: NDArray[np.float64]
    scopes: NDArray[np.int32]
    table: NDArray[np.int32]
    tables: NDArray[np.float64]
    observation: NDArray[np.int32]
    n_latents: int

    def __post_init__(self) -> None:
        check_size(self)
        field, tables = plain(self.field, "field", np.float64), plain(self.tables, "tables", np.float64)
        whole = {name: plain(getattr(self, name), name) for name in ("scopes", "table", "observation")}
        scopes, table = whole["scopes"], whole["table"]
        if field.ndim != 2 or scopes.ndim != 2 or tables.shape[1:] != (field.shape[1] ** scopes.shape[1],):
            raise ValueError(
                f"a factor graph has field [n, q], scopes [F, k] and tables [T, q**k], got {field.shape}, "
                f"{scopes.shape} and {tables.shape}"
            )
        if len(field) < 1 or field.shape[1] < 2:
            raise ValueError(f"a factor graph has variables of two values or more, got field of shape {field.shape}")
        if not 1 <= self.n_latents <= len(field):
            raise ValueError(f"n_latents must lie in 1..{len(field)}, the number of variables, got {self.n_latents}")
        for name, array, largest in (
            ("scopes", scopes, len(field) - 1),
            ("table", table, len(tables) - 1),
            ("observation", whole["observation"], 2**31 - 1),
        ):
            if array.shape[:1] != scopes.shape[:1] or array.ndim > 2 or array.dtype.kind not in "iu":
                raise ValueError(f"{name} must be integers, one row a factor, got {array.dtype} of shape {array.shape}")
            if array.size and not 0 <= array.min() <= array.max() <= largest:
                raise ValueError(f"{name} must lie in 0..{largest}, found {array.min()}..{array.max()}")
        if (table[1:] < table[:-1]).any():
            raise ValueError(
                "factors must come sorted by table: put scopes, table and observation in the order of "
                "np.argsort(table, kind='stable')"
            )
        for name, weights in (("field", field), ("tables", tables)):
            if weights.size and not (weights.min() >= 0 and weights.max() < np.inf):
                raise ValueError(f"{name} must hold finite weights that are not negative")
        for name, array in (("field", field), ("tables", tables)):
            object.__setattr__(self, name, frozen(array, np.float64))
        for name, array in whole.items():
            object.__setattr__(self, name, frozen(array, np.int32))

    @property
    def n_variables(self) -> int:
        """Latents, and one more where scopes repeat a latent."""
        return len(self.field)

    @property
    def n_factors(self) -> int:
        """F, the revealed observations."""
        return len(self.scopes)

    @property
    def q(self) -> int:
        """Values of a variable."""
        return int(self.field.shape[1])

    @property
    def k(self) -> int:
        """Variables of a factor."""
        return int(self.scopes.shape[1])

    @property
    def degree(self) -> float:
        """c = kF/N, mean number of factors of a latent."""
        return self.k * self.n_factors / self.n_latents

    @property
    def density(self) -> float:
        """F/N."""
        return self.n_factors / self.n_latents

    @property
    def neighbours(self) -> float:
        """(k - 1)c, mean number of variables that share a factor with a latent."""
        return (self.k - 1) * self.degree

    @property
    def log_weight_bounds(self) -> tuple[float, float]:
        """Between what ln of the partition function lies if any state has positive weight, nats.

        The least is the sum of ln of the smallest positive numbers of all fields and tables, the most that of the sums
        of the fields and the largest numbers of the tables.
        """
        least = [np.where(a > 0.0, a, np.inf).min(axis=1, initial=np.inf) for a in (self.field, self.tables)]
        most = [(self.field / 2.0).sum(axis=1), self.tables.max(axis=1, initial=0.0) / 2.0]  # halves: no sum overflows
        bounds = []
        for of_fields, of_tables in (least, most):
            logs = [np.log(a, out=np.zeros_like(a), where=(a > 0.0) & (a < np.inf)) for a in (of_fields, of_tables)]
            bounds.append(float(logs[0].sum() + logs[1][self.table].sum()))
        return bounds[0], bounds[1] + math.log(2.0) * (self.n_variables + self.n_factors)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """int64[T + 1]: factors ``groups[t]:groups[t + 1]`` use table t."""
        return frozen(np.searchsorted(self.table, np.arange(len(self.tables) + 1)), np.int64)

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """int64[n + 1]: variable i has the edges ``edges[first[i]:first[i + 1]]``."""
        counts = np.bincount(self.scopes.ravel(), minlength=self.n_variables)
        return frozen(np.concatenate([[0], np.cumsum(counts)]), np.int64)

    @cached_property
    def edges(self) -> NDArray[np.int64]:
        """int64[F k]: edges sorted by variable."""
        return frozen(np.argsort(self.scopes.ravel(), kind="stable"), np.int64)


def _repetitions(scopes: NDArray[np.int32]) -> NDArray[np.int64]:
    """int64[P, k]: the argument at which the latent of each argument is first named."""
    return (scopes[:, :, None] == scopes[:, None, :]).argmax(axis=2)


def _agreeing(tables: NDArray[np.float64], pattern: NDArray[np.int64], q: int) -> NDArray[np.float64]:
    """Move the agreeing states of ``tables`` [E, q**k, r] to value 0 of the later mentions; all other states get 0."""
    k = len(pattern)
    states = np.stack(np.unravel_index(np.arange(q**k), (q,) * k))
    later = pattern != np.arange(k)
    source = np.ravel_multi_index(tuple(states[pattern]), (q,) * k)
    return np.where((states[later] == 0).all(axis=0)[:, None], tables[:, source], 0.0)


@checked
class Conditioning:
    """``condition`` bound to a problem: does once what all contexts share.

    Errors: ValueError for observations that are no tables (random slabs read all latents).
    """

    def __init__(self, distribution: LODistribution) -> None:
        law = distribution.observations
        if not isinstance(law, TableObservations):
            raise ValueError(
                f"{type(law).__name__} have no scopes: a factor graph needs TableObservations; use ExactPosterior "
                "for slabs"
            )
        self.distribution, self.law = distribution, law
        n_tables = len(law.tables)
        patterns, which = np.unique(_repetitions(law.scopes), axis=0, return_inverse=True)
        blocks = [_agreeing(law.tables, pattern, law.q) for pattern in patterns]
        likelihoods = np.concatenate(blocks).transpose(0, 2, 1).reshape(-1, law.q**law.k)
        later = patterns[which.ravel()] != np.arange(law.k)
        self._repeats = bool(later.any())
        self._scopes = frozen(np.where(later, len(distribution.prior), law.scopes), np.int32)
        self._base = frozen((which.ravel() * n_tables + law.index) * law.r, np.int64)
        self._likelihoods = frozen(likelihoods, np.float64)

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.distribution.layout

    def graph(self, tokens: NDArray[np.int8]) -> FactorGraph:
        """Factor graph of one checked sequence int8[L]. Cost: a sort of the revealed observations."""
        latents, observed = self.layout.split(tokens)
        field = np.where(
            (latents == MASK)[:, None] | (latents[:, None] == np.arange(self.layout.q)), self.distribution.prior, 0.0
        )
        if self._repeats:
            field = np.concatenate([field, np.eye(1, self.layout.q)])
        revealed = np.flatnonzero(observed != MASK)
        used = self._base[revealed] + observed[revealed]
        by_table = np.argsort(used, kind="stable")
        present, table = np.unique(used[by_table], return_inverse=True)
        return FactorGraph(
            field=field,
            scopes=self._scopes[revealed[by_table]],
            table=table.ravel().astype(np.int32),
            tables=self._likelihoods[present],
            observation=revealed[by_table].astype(np.int32),
            n_latents=self.layout.n_latents,
        )


@checked
def condition(distribution: LODistribution, tokens: ArrayLike) -> FactorGraph:
    """Factor graph of one partly masked sequence ``tokens`` int8[L], MASK = -1 where hidden.

    Its partition function is P(revealed tokens), priors of the revealed latents included. Contradictory tokens are no
    error. Errors: ValueError for tokens out of range, more than one row, or observations without scopes. For many
    sequences of one problem use ``Conditioning``.
    """
    rows = distribution.layout.check_tokens(tokens)
    if len(rows) != 1:
        raise ValueError(f"a factor graph belongs to one sequence, got {len(rows)} rows: call condition on each")
    return Conditioning(distribution).graph(rows[0])


@checked
def to_networkx(graph: FactorGraph) -> Any:
    """Return the bipartite networkx.Graph for drawing and inspection.

    Nodes ("variable", i) with ``field``, and ("factor", observation) with ``table`` reshaped to [q, ..., q]; edges
    carry ``argument``. Cost: Python objects for every edge, meant for small graphs.
    """
    import networkx

    drawn = networkx.Graph()
    for i, field in enumerate(graph.field):
        drawn.add_node(("variable", i), bipartite=0, field=field)
    shape = (graph.q,) * graph.k
    for scope, table, observation in zip(graph.scopes, graph.table, graph.observation, strict=True):
        node = ("factor", int(observation))
        drawn.add_node(node, bipartite=1, table=graph.tables[table].reshape(shape))
        for argument, i in enumerate(scope):
            # Later mentions of a repeated latent all read the one fixed variable, which can be met twice.
            drawn.add_edge(node, ("variable", int(i)), argument=argument)
    return drawn


def check_size(graph: FactorGraph) -> None:
    """Refuse, before memory is taken, a graph whose messages cannot be addressed by 32 bits."""
    numbers = len(graph.scopes) * int(np.prod(np.shape(graph.scopes)[1:])) * int(np.prod(np.shape(graph.field)[1:]))
    if numbers > 2**31:
        gigabytes = math.ceil(numbers * 8 / 2**30)
        raise ValueError(
            f"the messages are {numbers} numbers ({gigabytes} GiB), over the limit of 2**31: split the graph"
        )
