"""Slow, obvious truths for the tests: joint laws by enumeration, and posteriors that read them off.

Independent of the package's posteriors and kernels: only ``prior``, ``observations.probabilities`` and the layout are
used.
"""

from __future__ import annotations

import itertools

import numpy as np

from lo_theory.posterior import Marginals
from lo_theory.problem import MASK, LODistribution


def joint_law(distribution: LODistribution) -> tuple[np.ndarray, np.ndarray]:
    """All sequences int8[S, L] of positive probability, and their probabilities float64[S]."""
    layout, rows, probabilities = distribution.layout, [], []
    for latents in itertools.product(range(layout.q), repeat=layout.n_latents):
        weight = np.prod([distribution.prior[i, value] for i, value in enumerate(latents)])
        laws = distribution.observations.probabilities([latents])[0]
        for observed in itertools.product(*(np.flatnonzero(law) for law in laws)):
            p = weight * np.prod([law[value] for law, value in zip(laws, observed, strict=True)])
            if p > 0:
                rows.append(layout.join(latents, observed))
                probabilities.append(p)
    return np.array(rows, np.int8), np.array(probabilities)


class BruteForcePosterior:
    """Posterior by summing the joint law over the sequences that agree with what is revealed."""

    def __init__(self, distribution: LODistribution) -> None:
        self.layout = distribution.layout
        self.rows, self.probabilities = joint_law(distribution)

    def marginals(self, tokens: np.ndarray) -> Marginals:
        layout = self.layout
        probs = np.zeros((len(tokens), layout.length, layout.n_values))
        evidence = np.empty(len(tokens))
        for b, context in enumerate(tokens):
            agrees = ((context == MASK) | (self.rows == context)).all(axis=1)
            evidence[b] = self.probabilities[agrees].sum()
            for position in range(layout.length):
                if context[position] != MASK:
                    probs[b, position, context[position]] = 1
                elif evidence[b] == 0:
                    probs[b, position, : layout.values[position]] = 1 / layout.values[position]
                else:
                    for value in range(layout.values[position]):
                        probs[b, position, value] = (
                            self.probabilities[agrees & (self.rows[:, position] == value)].sum() / evidence[b]
                        )
        with np.errstate(divide="ignore"):
            return Marginals(probs, np.log(evidence), np.ones(len(tokens), bool))


class IndependentPosterior:
    """A predictor that knows every single-token marginal and no constraint."""

    def __init__(self, distribution: LODistribution) -> None:
        self.layout, self.token_marginals = distribution.layout, distribution.token_marginals

    def marginals(self, tokens: np.ndarray) -> Marginals:
        probs = np.repeat(self.token_marginals[None], len(tokens), axis=0)
        revealed = tokens != MASK
        probs[revealed] = np.eye(self.layout.n_values)[tokens[revealed]]
        return Marginals(probs, np.full(len(tokens), np.nan), np.ones(len(tokens), bool))
