"""The exact posterior: propagation, contraction, connected components, and of each its enumeration or elimination.

``ExactPosterior`` checks the batch, refuses what would not fit and shares the rows among threads; an engine for each
kind of observation law (``_ENGINES``) holds the arrays and runs the kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.posterior import _kernels, _slab_kernels
from lo_theory.posterior._slab_kernels import SlabProblem, slab_workspace
from lo_theory.posterior.cost import Cost
from lo_theory.posterior.graph import TableGraph, table_graph
from lo_theory.posterior.protocol import Marginals
from lo_theory.posterior.workspace import Rule, workspace
from lo_theory.problem import MASK, Layout, LODistribution, SlabObservations, TableObservations
from lo_theory.problem.layout import frozen
from lo_theory.problem.seams import check_threads, checked

__all__ = ["ExactPosterior"]

_TASKS_PER_THREAD = 8  # rows differ in cost: several tasks a thread keep the threads even
_LEAST_ROWS = 64  # rows of a task, to pay for its start
_SMALL_TABLES = 1 << 13  # numbers that every thread holds, enough for most rows

_NO_COSTS, _NO_PROBS, _NO_EVIDENCE = np.empty((0, 6)), np.empty((0, 0, 0)), np.empty(0)

_METHODS = {"cheapest": (128.0, 4.0), "enumeration": (np.inf, 0.0), "elimination": (1.0, np.inf)}
"""States that are enumerated without looking for an order, and operations of elimination that further ones are taken to
cost.
"""


class _Engine(Protocol):
    """Exact inference for one kind of observation law, bound to a problem."""

    def cost(self, tokens: NDArray[np.int8]) -> Cost:
        """Cost of every row, by its plan."""
        ...

    def refusal(self, row: int, cost: Cost, at: int) -> ValueError:
        """Say what row ``row``, number ``at`` of ``cost``, would take, and what to do instead."""
        ...

    def fill(
        self, tokens: NDArray[np.int8], rows: slice, probs: NDArray[np.float64], log_evidence: NDArray[np.float64]
    ) -> None:
        """Answer ``rows`` of the batch; releases the interpreter lock."""
        ...


class _Tables:
    """Engine for tables: plan, then enumerate or eliminate each component."""

    def __init__(self, distribution: LODistribution, limit: int, method: str) -> None:
        self._graph: TableGraph = table_graph(distribution)
        (p, k), q = self._graph.scopes.shape, self._graph.prior.shape[1]
        self._rule = Rule(float(limit), float(p * max(self._graph.r, k * q)), *_METHODS[method])

    def cost(self, tokens: NDArray[np.int8]) -> Cost:
        costs, work = np.empty((len(tokens), 6)), workspace(self._graph)
        _kernels.answer_rows(self._graph, work, work.law, tokens, 0, self._rule, costs, _NO_PROBS, _NO_EVIDENCE)
        undetermined, states, width, operations, numbers, fits = costs.T
        return Cost(undetermined.astype(np.int64), states, width.astype(np.int64), operations, numbers, fits == 1)

    def refusal(self, row: int, cost: Cost, at: int) -> ValueError:
        return ValueError(
            f"row {row}: of its {cost.undetermined[at]} undetermined latents {cost.width[at]} hang together in a table "
            f"of {cost.states[at]:.4g} states ({cost.numbers[at]:.4g} numbers in all), over the limit of "
            f"{int(self._rule.limit)}: use belief propagation (BPPosterior), reveal more tokens, or raise limit "
            "(8 bytes a number; see estimate_cost)"
        )

    def fill(
        self, tokens: NDArray[np.int8], rows: slice, probs: NDArray[np.float64], log_evidence: NDArray[np.float64]
    ) -> None:
        """Answer the contexts ``rows`` into ``probs`` and ``log_evidence``, with memory of its own, in any thread."""
        batch, part, evidence = tokens[rows], probs[rows], log_evidence[rows]
        work, arena = workspace(self._graph), np.empty(int(self._rule.room) + _SMALL_TABLES)
        start = 0
        while start < len(batch):
            start, numbers = _kernels.answer_rows(
                self._graph, work, arena, batch, start, self._rule, _NO_COSTS, part, evidence
            )
            if numbers < 0:
                raise self.refusal(rows.start + start, self.cost(batch[start : start + 1]), 0)
            if numbers:
                arena = self._room(int(numbers), rows.start + start)

    def _room(self, numbers: int, row: int) -> NDArray[np.float64]:
        try:
            return np.empty(numbers)
        except (MemoryError, ValueError) as error:  # numpy knows sizes that no machine has
            raise ValueError(
                f"row {row} takes {numbers:.4g} numbers, within the limit of {int(self._rule.limit)} but more than "
                "this machine's memory: lower limit, use belief propagation (BPPosterior), or reveal more tokens"
            ) from error


class _Slabs:
    """Engine for random slabs, which couple all latents: enumeration of every masked latent."""

    def __init__(self, distribution: LODistribution, limit: int, method: str) -> None:
        law = distribution.observations
        if method == "elimination":
            raise ValueError("random slabs couple all latents: they are enumerated, take method='cheapest'")
        if not isinstance(law, SlabObservations):
            raise ValueError(f"{type(law).__name__} are no random slabs")
        self._layout, self._prior, self._limit = distribution.layout, distribution.prior, limit
        self._columns, self._bound = frozen(law.vectors.T, np.float64), law.bound

    def cost(self, tokens: NDArray[np.int8]) -> Cost:
        masked = tokens[:, self._layout.latent_positions] == MASK
        free = (masked & (self._prior > 0).all(axis=1)).sum(axis=1)
        n, p = self._columns.shape
        held = np.full(len(tokens), 4.0 * n * p)
        return Cost(free, 2.0**free, free, p * 2.0 ** (free + 1), held, 2.0**free <= self._limit)

    def refusal(self, row: int, cost: Cost, at: int) -> ValueError:
        return ValueError(
            f"row {row}: its {cost.undetermined[at]} masked latents have {cost.states[at]:.4g} assignments, over the "
            f"limit of {self._limit}; slabs couple all latents, so all are enumerated: reveal more latents, or raise "
            "limit (time grows with it, memory does not; see estimate_cost)"
        )

    def fill(
        self, tokens: NDArray[np.int8], rows: slice, probs: NDArray[np.float64], log_evidence: NDArray[np.float64]
    ) -> None:
        problem = SlabProblem(self._layout.order, self._prior, self._columns, self._bound)
        work = slab_workspace(problem)
        _slab_kernels.marginals_of_rows(problem, work, tokens[rows], probs[rows], log_evidence[rows])


_ENGINES: dict[type, Callable[[LODistribution, int, str], _Engine]] = {
    TableObservations: _Tables,
    SlabObservations: _Slabs,
}


@checked
class ExactPosterior:
    """Exact posterior marginals of every masked token.

    Revealed latents are fixed; what the revealed observations then force is propagated (generalised arc consistency);
    latents that determine each other become one class; factors that no longer distinguish anything are dropped. Each
    connected component of the rest is enumerated depth-first, or its classes are eliminated one by one in an order of
    little fill and the laws of all cliques are collected on the way back, whichever is cheaper. The joint law of the
    scope of a masked observation that spans several cliques is carried along the order. Random slabs couple all latents
    and are enumerated whole. ``limit`` is the largest number of states of an enumeration and of float64 numbers held by
    a row; ``threads`` share the rows of a batch, with the same bits for any number of them, each with its own tables.
    ``method`` "enumeration" or "elimination" takes one way whatever it costs. A copy, or one that comes back from a
    pickle, is made again from these arguments.
    """

    def __init__(
        self, distribution: LODistribution, *, limit: int = 2**26, threads: int = 1, method: str = "cheapest"
    ) -> None:
        law = type(distribution.observations)
        if law not in _ENGINES:
            known = ", ".join(sorted(kind.__name__ for kind in _ENGINES))
            raise ValueError(f"no exact posterior for observations of type {law.__name__}: it takes {known}")
        check_threads(threads)
        if not 1 <= limit < 2**62:
            raise ValueError(f"limit must lie in 1..2**62 - 1, got {limit}")
        if method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
        self.distribution, self.limit, self.threads, self.method = distribution, int(limit), int(threads), method
        self._engine = _ENGINES[law](distribution, self.limit, method)

    def __reduce__(self) -> tuple[Any, ...]:
        options: dict[str, Any] = {"limit": self.limit, "threads": self.threads, "method": self.method}
        return functools.partial(type(self), self.distribution, **options), ()

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.distribution.layout

    def estimate_cost(self, tokens: ArrayLike) -> Cost:
        """Return what each row of a batch int8[B, L] would take, without computing it. Errors: ValueError for tokens
        out of range.

        Cost per row: its propagation and, for a component of more than 128 states, at most m**2 neighbours of m classes
        an attempt at an order.
        """
        return self._engine.cost(self.layout.check_tokens(tokens))

    def marginals(self, tokens: ArrayLike, *, threads: int | None = None) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 where hidden: float64 probabilities [B, L, V] and ln P(revealed tokens).

        Exact up to rounding (below 1e-12; a probability below 1e-150 may come out as 0); ``converged`` is always true.
        A contradictory row has log_evidence -inf and uniform probabilities over the values of the role at its masked
        positions. Cost per row: see ``estimate_cost``.
        Errors: ValueError for tokens out of range; for a row that would take more than ``limit``, naming the width met,
        before its memory is taken and, if it is its masked latents that are too many, before any row is answered.
        """
        rows = self.layout.check_tokens(tokens)
        workers = self.threads if threads is None else threads
        check_threads(workers)
        n = len(rows)
        step = n if workers == 1 else max(_LEAST_ROWS, -(-n // (_TASKS_PER_THREAD * workers)))
        tasks = [slice(a, min(a + step, n)) for a in range(0, n, step)] if n else []
        probs, log_evidence = np.empty((n, self.layout.length, self.layout.n_values)), np.empty(n)
        with ThreadPoolExecutor(workers) as pool:
            run = map if len(tasks) == 1 else pool.map
            list(run(lambda task: self._refuse_too_large(rows, task), tasks))
            list(run(lambda task: self._engine.fill(rows, task, probs, log_evidence), tasks))
        return Marginals(probs, log_evidence, np.ones(n, bool))

    def _refuse_too_large(self, tokens: NDArray[np.int8], rows: slice) -> None:
        """Raise for the first row that would not fit; only rows with so many masked latents that it might be are looked
        at.
        """
        bits, most = np.log2(self.layout.q), np.log2(self.limit)
        if self.layout.n_latents * bits <= most:
            return
        masked = (tokens[rows][:, self.layout.latent_positions] == MASK).sum(axis=1)
        suspects = rows.start + np.flatnonzero(masked * bits > most)
        if len(suspects) == 0:
            return
        cost = self._engine.cost(tokens[suspects])
        if not cost.fits.all():
            worst = int(np.argmin(cost.fits))
            raise self._engine.refusal(int(suspects[worst]), cost, worst)
