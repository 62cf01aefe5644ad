"""Slow, obvious twins: the joint law and the posterior of a small problem by enumeration, without compiled kernels.

They read the raw arrays of the problem (prior, scopes, tables, index, vectors, width, order), so that they can be held
against everything else here, and against code of one's own.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.posterior import Marginals
from lo_theory.problem import MASK, Distribution, Enumerated, LODistribution, SlabObservations, TableObservations
from lo_theory.problem.seams import checked

__all__ = ["BruteForcePosterior", "assignments", "brute_force", "emissions", "joint_law"]


@checked
def assignments(problem: LODistribution) -> NDArray[np.int64]:
    """Every assignment of the latents, int64[q**N, N], the last latent fastest."""
    n, q = problem.prior.shape
    return np.array(list(itertools.product(range(q), repeat=n)), np.int64)


@checked
def emissions(problem: LODistribution, states: NDArray[Any]) -> NDArray[np.float64]:
    """P(observation j = v | latents), float64[S, P, r], for ``states`` [S, N], read off the arrays of the problem."""
    law = problem.observations
    if isinstance(law, TableObservations):
        number = np.zeros((len(states), law.n_observations), np.int64)
        for a in range(law.k):
            number = number * law.q + states[:, law.scopes[:, a]]
        return np.asarray(law.tables[law.index, number])
    if not isinstance(law, SlabObservations):
        return np.asarray(law.probabilities(states), np.float64)
    result = np.zeros((len(states), law.n_observations, 2))
    for s, assignment in enumerate(states):
        for j, vector in enumerate(law.vectors):
            total = sum(float(entry) * (2 * int(bit) - 1) for bit, entry in zip(assignment, vector, strict=True))
            result[s, j, int(abs(total) <= law.width * math.sqrt(len(vector)))] = 1
    return result


@checked
def joint_law(problem: LODistribution, *, most: int = 2**16) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Every sequence of positive probability, int8[S, L], and its probability float64[S].

    p(x) = prod_i prior[i, x_i] prod_j P(o_j | x). Errors: ValueError beyond ``most`` assignments or sequences.
    """
    layout, prior = problem.layout, problem.prior
    if layout.q**layout.n_latents > most:
        raise ValueError(
            f"{layout.n_latents} latents of {layout.q} values have more than {most} assignments: take a smaller problem"
        )
    states = assignments(problem)
    p, laws = prior[np.arange(layout.n_latents), states].prod(axis=1), emissions(problem, states)
    owner = np.flatnonzero(p > 0)
    p, observed = p[owner], np.empty((len(owner), 0), np.int64)
    for j in range(layout.n_observations):
        chances = laws[owner, j]
        rows, values = np.nonzero(chances > 0)
        if len(rows) > most:
            raise ValueError(f"this problem has more than {most} possible sequences: take a smaller one, or less noise")
        p, owner = p[rows] * chances[rows, values], owner[rows]
        observed = np.column_stack([observed[rows], values])
    return layout.join(states[owner], observed), p


def listed_law(problem: Distribution, *, most: int = 2**16) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Every sequence of positive probability, int8[S, L], and its probability float64[S], of a law that can be listed.

    ``joint_law`` of an L&O problem, the list of an ``Enumerated`` and of a ``Conditioned``. Errors: ValueError for
    other laws, and beyond ``most`` sequences.
    """
    if isinstance(problem, LODistribution):
        return joint_law(problem, most=most)
    listed = getattr(problem, "enumerated", problem)
    if not isinstance(listed, Enumerated):
        raise ValueError(f"the sequences of a {type(problem).__name__} are not listed")
    if len(listed.sequences) > most:
        raise ValueError(f"this law has more than {most} sequences")
    return listed.sequences, listed.probabilities


@checked
class BruteForcePosterior:
    """The exact posterior by summing the joint law over the sequences that agree with what is revealed.

    Cost per context: S L V for S possible sequences. Errors: those of ``joint_law``.
    """

    def __init__(self, problem: LODistribution) -> None:
        self.layout = problem.layout
        self.rows, self.probabilities = joint_law(problem)

    def marginals(self, tokens: NDArray[np.int8]) -> Marginals:
        """See Posterior; an impossible context is uniform over the values of the role."""
        layout = self.layout
        probs, evidence = np.zeros((len(tokens), layout.length, layout.n_values)), np.empty(len(tokens))
        for b, context in enumerate(tokens):
            weights = self.probabilities * ((context == MASK) | (self.rows == context)).all(axis=1)
            evidence[b] = weights.sum()
            for position, values in enumerate(layout.values):
                if context[position] != MASK:
                    probs[b, position, context[position]] = 1
                elif evidence[b] == 0:
                    probs[b, position, :values] = 1 / values
                else:
                    counted = np.bincount(self.rows[:, position], weights, minlength=values)
                    probs[b, position, :values] = counted / evidence[b]
        with np.errstate(divide="ignore"):
            return Marginals(probs, np.log(evidence), np.ones(len(tokens), np.bool_))


@checked
def brute_force(problem: LODistribution, tokens: NDArray[np.int8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Posterior by summing over every assignment of the latents: probabilities float64[B, L, V] and ln P(revealed) [B].

    For problems whose sequences are too many to list. Cost per context: q**N (P r + N).
    """
    layout, prior = problem.layout, problem.prior
    states, n = assignments(problem), len(prior)
    emission = emissions(problem, states)
    probs, log_evidence = np.zeros((len(tokens), layout.length, layout.n_values)), np.empty(len(tokens))
    for b, row in enumerate(tokens):
        x, o = row[layout.order[:n]], row[layout.order[n:]]
        factors = [prior[i, states[:, i]] * ((states[:, i] == x[i]) | (x[i] < 0)) for i in range(n)]
        factors += [emission[:, j, o[j]] for j in range(layout.n_observations) if o[j] >= 0]
        with np.errstate(divide="ignore"):
            logs = np.log(np.array(factors)).sum(axis=0)
        top = logs.max()
        weights = np.exp(logs - top) if np.isfinite(top) else np.zeros(len(states))
        log_evidence[b] = top + np.log(weights.sum()) if np.isfinite(top) else -np.inf
        for role, position in enumerate(layout.order):
            values = layout.values[position]
            if row[position] >= 0:
                probs[b, position, row[position]] = 1
            elif not np.isfinite(top):
                probs[b, position, :values] = 1 / values
            elif role < n:
                probs[b, position, :values] = np.bincount(states[:, role], weights, minlength=values) / weights.sum()
            else:
                probs[b, position, :values] = weights @ emission[:, role - n] / weights.sum()
    return probs, log_evidence
