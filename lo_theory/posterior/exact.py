"""The exact posterior: propagation, connected components, enumeration.

``ExactPosterior`` checks the batch, refuses what would not fit and shares the rows among threads; an engine for each kind of
observation law (``_ENGINES``) holds the arrays and runs the kernels. A solver for components too wide to enumerate has its place
beside ``enumerate_component``, which ``_kernels`` calls for one component at a time; its cost goes where ``states`` is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.posterior import _kernels, _slab_kernels
from lo_theory.posterior._slab_kernels import SlabProblem, slab_workspace
from lo_theory.posterior.graph import TableGraph, table_graph, workspace
from lo_theory.posterior.protocol import Marginals
from lo_theory.problem import MASK, Layout, LODistribution, SlabObservations, TableObservations
from lo_theory.problem.layout import frozen

__all__ = ["ExactPosterior"]

_TASKS_PER_THREAD = 8  # rows differ in cost: several tasks a thread keep the threads even
_LEAST_ROWS = 64  # rows of a task, to pay for its start


class _Engine(Protocol):
    """Exact inference for one kind of observation law, bound to a problem."""

    def states(self, tokens: NDArray[np.int8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Per row, the states of the largest enumeration it asks for and the number of undetermined latents."""
        ...

    def fill(self, tokens: NDArray[np.int8], rows: slice, probs: NDArray[np.float64], log_evidence: NDArray[np.float64]) -> None:
        """Answer ``rows`` of the batch; releases the interpreter lock."""
        ...


class _Tables:
    """Engine for tables: propagation, components, enumeration of each."""

    def __init__(self, distribution: LODistribution, limit: int) -> None:
        self._graph: TableGraph = table_graph(distribution)
        self._limit = limit

    def states(self, tokens: NDArray[np.int8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        states, undetermined = np.empty(len(tokens)), np.empty(len(tokens), np.int64)
        _kernels.largest_components(self._graph, workspace(self._graph), tokens, states, undetermined)
        return states, undetermined

    def fill(self, tokens: NDArray[np.int8], rows: slice, probs: NDArray[np.float64], log_evidence: NDArray[np.float64]) -> None:
        batch, part, evidence = tokens[rows], probs[rows], log_evidence[rows]
        (p, k), q = self._graph.scopes.shape, self._graph.prior.shape[1]
        work, cells = workspace(self._graph), np.empty(p * max(self._graph.r, k * q))
        most = max(self._limit, len(cells))
        start = 0
        while start < len(batch):
            start, needed = _kernels.marginals_of_rows(self._graph, work, cells, batch, start, part, evidence)
            if needed > most:
                raise ValueError(
                    f"row {rows.start + start}: the joint laws of the scopes of its masked observations take {needed} numbers, "
                    f"over the limit of {most}: reveal more latents or raise limit"
                )
            if needed:
                cells = np.empty(needed)


class _Slabs:
    """Engine for random slabs, which couple all latents: enumeration of every masked latent."""

    def __init__(self, distribution: LODistribution, limit: int) -> None:
        law = distribution.observations
        if not isinstance(law, SlabObservations):
            raise ValueError(f"{type(law).__name__} are no random slabs")
        self._layout, self._prior = distribution.layout, distribution.prior
        self._columns, self._bound = frozen(law.vectors.T, np.float64), law.bound

    def states(self, tokens: NDArray[np.int8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        masked = tokens[:, self._layout.latent_positions] == MASK
        free = (masked & (self._prior > 0).all(axis=1)).sum(axis=1)
        return 2.0**free, free

    def fill(self, tokens: NDArray[np.int8], rows: slice, probs: NDArray[np.float64], log_evidence: NDArray[np.float64]) -> None:
        problem = SlabProblem(self._layout.order, self._prior, self._columns, self._bound)
        _slab_kernels.marginals_of_rows(problem, slab_workspace(problem), tokens[rows], probs[rows], log_evidence[rows])


_ENGINES: dict[type, Callable[[LODistribution, int], _Engine]] = {TableObservations: _Tables, SlabObservations: _Slabs}


class ExactPosterior:
    """Exact posterior marginals of every masked token, by propagation, connected components and enumeration.

    Revealed latents are fixed; what the revealed observations then force is propagated (generalised arc consistency); factors that
    no longer distinguish anything are dropped; each connected component of the rest is enumerated depth-first. Random slabs couple
    all latents and are enumerated whole. ``limit`` is the largest number of states (product of domain sizes) of one component;
    ``threads`` share the rows of a batch, with the same bits for any number of them.
    """

    def __init__(self, distribution: LODistribution, *, limit: int = 2**26, threads: int = 1) -> None:
        law = type(distribution.observations)
        if law not in _ENGINES:
            known = ", ".join(sorted(kind.__name__ for kind in _ENGINES))
            raise ValueError(f"no exact posterior for observations of type {law.__name__}: it takes {known}")
        if limit < 1 or threads < 1:
            raise ValueError(f"limit and threads must be at least 1, got limit={limit}, threads={threads}")
        self.distribution, self.limit, self.threads = distribution, int(limit), int(threads)
        self._engine = _ENGINES[law](distribution, self.limit)

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.distribution.layout

    def marginals(self, tokens: ArrayLike, *, threads: int | None = None) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 where hidden: float64 probabilities [B, L, V] and ln P(revealed tokens).

        Exact up to rounding (below 1e-12); ``converged`` is always true. A contradictory row has log_evidence -inf and uniform
        probabilities over the values of the role at its masked positions. Cost per row: the revealed factors, then the nodes of
        positive weight of each component's tree. Errors: ValueError for tokens out of range; for a row with a component of more
        than ``limit`` states, before any row is enumerated; for a row whose masked observations read several components at once
        and need joint laws of more than ``limit`` numbers in all, when its turn comes.
        """
        rows = self.layout.check_tokens(tokens)
        workers = self.threads if threads is None else threads
        if workers < 1:
            raise ValueError(f"threads must be at least 1, got {workers}")
        self._refuse_too_large(rows)
        n = len(rows)
        probs, log_evidence = np.empty((n, self.layout.length, self.layout.n_values)), np.empty(n)
        step = n if workers == 1 else max(_LEAST_ROWS, -(-n // (_TASKS_PER_THREAD * workers)))
        tasks = [slice(a, min(a + step, n)) for a in range(0, n, step)] if n else []
        if len(tasks) == 1:
            self._engine.fill(rows, tasks[0], probs, log_evidence)
        elif tasks:
            with ThreadPoolExecutor(min(workers, len(tasks))) as pool:
                list(pool.map(lambda task: self._engine.fill(rows, task, probs, log_evidence), tasks))
        return Marginals(probs, log_evidence, np.ones(n, bool))

    def _refuse_too_large(self, tokens: NDArray[np.int8]) -> None:
        """Raise for the first row that would not fit; only rows with so many masked latents that it might be are looked at."""
        if self.layout.n_latents * np.log2(self.layout.q) <= np.log2(self.limit):
            return
        masked = (tokens[:, self.layout.latent_positions] == MASK).sum(axis=1)
        suspects = np.flatnonzero(masked * np.log2(self.layout.q) > np.log2(self.limit))
        if len(suspects) == 0:
            return
        states, undetermined = self._engine.states(tokens[suspects])
        if (states > self.limit).any():
            worst = int(np.argmax(states > self.limit))
            raise ValueError(
                f"row {suspects[worst]}: of its {undetermined[worst]} undetermined latents one component has {states[worst]:.4g} "
                f"states, over the limit of {self.limit}: reveal more tokens, or raise limit (time grows with the states)"
            )
