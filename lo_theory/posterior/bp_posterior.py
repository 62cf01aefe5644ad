"""Belief propagation behind the posterior protocol: marginals of every masked token of a batch of sequences."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.posterior import _bp_closing_kernels
from lo_theory.posterior.bp import BPOptions, run
from lo_theory.posterior.factor_graph import Conditioning
from lo_theory.posterior.protocol import Marginals
from lo_theory.problem import MASK, Layout, LODistribution, TableObservations
from lo_theory.problem.seams import check_threads, checked
from lo_theory.rng import Key

__all__ = ["BPPosterior", "fill_row"]

_DEFAULT = BPOptions(schedule="sequential", noise=0.0)


@checked
class BPPosterior:
    """Posterior marginals by belief propagation on the factor graph of each context.

    Exact, once converged, if the factor graph of the revealed observations is a forest: the marginals of masked latents
    and ``log_evidence`` (the Bethe free entropy). A masked observation is read as a leaf factor hung on the variables
    of its scope: its table averaged over their product of beliefs, exact only if they lie in different components.
    Elsewhere all of it is an approximation, and ``log_evidence`` may err either way.

    The default options are sequential sweeps from uniform messages, so that symmetries of the problem are kept: with
    all latents of an NAE problem masked the latents stay uniform, as they are exactly. A start with ``noise`` breaks
    the symmetry and can find the planted state. ``key`` addresses the start and the order of the sweeps; every row uses
    the same, so a row's answer depends on its tokens only, not on the batch or the ``threads``. A copy,
    or one that comes back from a pickle, is made again from these arguments.
    """

    def __init__(
        self,
        distribution: LODistribution,
        *,
        options: BPOptions = _DEFAULT,
        key: Key | None = None,
        threads: int = 1,
    ) -> None:
        if options.start == "planted":
            raise ValueError("a posterior knows no planted assignment: start with 'noise' or 'random'")
        check_threads(threads)
        self.distribution, self.options, self.threads = distribution, options, int(threads)
        self.key = Key(0) if key is None else key
        self._conditioning = Conditioning(distribution)

    def __reduce__(self) -> tuple[Any, ...]:
        options: dict[str, Any] = {"options": self.options, "key": self.key, "threads": self.threads}
        return functools.partial(type(self), self.distribution, **options), ()

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.distribution.layout

    def marginals(self, tokens: ArrayLike, *, threads: int | None = None) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 where hidden: float64 probabilities [B, L, V], Bethe free entropies,
        converged or not.

        A contradictory row (exact zeros exclude every value of a message, so it is impossible) has log_evidence -inf
        and uniform probabilities over the values of the role at its masked positions. Cost a row: about 0.2 ms to lay
        out the graph, then the sweeps. Errors: ValueError
        for tokens out of range.
        """
        rows = self.layout.check_tokens(tokens)
        workers = self.threads if threads is None else threads
        check_threads(workers)
        probs = np.zeros((len(rows), self.layout.length, self.layout.n_values))
        evidence, converged = np.empty(len(rows)), np.empty(len(rows), np.bool_)

        def answer(b: int) -> None:
            result = run(self._conditioning.graph(rows[b]), key=self.key, options=self.options)
            evidence[b], converged[b] = result.free_entropy, result.converged
            law, possible = self._conditioning.law, not result.contradictory
            fill_row(probs[b], rows[b], self.layout, law, result.marginals, possible=possible)

        if workers == 1:
            for b in range(len(rows)):
                answer(b)
        else:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(answer, range(len(rows))))
        return Marginals(probs, evidence, converged)


def fill_row(
    probs: NDArray[np.float64],
    tokens: NDArray[np.int8],
    layout: Layout,
    law: TableObservations,
    beliefs: NDArray[np.float64],
    *,
    possible: bool = True,
) -> None:
    """Write one row of zeros ``probs`` float64[L, V] by position, from ``beliefs`` float64[N, q] about the latents.

    One-hot where ``tokens`` int8[L] are revealed; elsewhere the belief about a latent, and of an observation its table
    averaged over the product of the beliefs about its scope. Uniform over the role's values if not ``possible``.
    """
    hidden = tokens == MASK
    shown = np.flatnonzero(~hidden)
    probs[shown, tokens[shown]] = 1.0
    if not possible:
        values = layout.values[:, None]
        probs[hidden] = ((np.arange(layout.n_values) < values) / values)[hidden]
        return
    latents = np.flatnonzero(hidden[layout.latent_positions])
    probs[layout.latent_positions[latents], : layout.q] = beliefs[latents]
    masked = np.flatnonzero(hidden[layout.observation_positions])
    if len(masked):
        laws = np.empty((len(masked), layout.r))
        _bp_closing_kernels.observation_laws(masked, law.scopes, law.tables, law.index, beliefs, laws)
        laws /= laws.sum(axis=1, keepdims=True)
        probs[layout.observation_positions[masked], : layout.r] = laws
