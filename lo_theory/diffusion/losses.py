"""Losses against the Bayes optimum, over all contexts and class by class.

A class is (law, latents hidden, observations hidden): the key of every table of losses. The distance of two posteriors
is the KL divergence of their marginals, whose weighted mean is exactly the model's loss minus the Bayes loss, with less
noise than that difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.contexts import at_truth, by_class, draw_contexts, row_means
from lo_theory.diffusion.masks import MaskLaw
from lo_theory.diffusion.statistics import Sums
from lo_theory.posterior import Posterior
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["ClassLoss", "Losses", "cross_entropy", "gap_closed", "gap_share", "gap_span", "kl_divergence", "losses"]

_RESOLUTION = 1e-9  # relative, of the difference of two entropies


@dataclass(frozen=True)
class ClassLoss:
    """Losses of one class of contexts, one value a context: nats per *hidden* token, the mean over hidden positions."""

    latents_hidden: int
    observations_hidden: int
    model: Sums
    exact: Sums
    kl: Sums


@dataclass(frozen=True)
class Losses:
    """Losses under one mask law, nats per token (weighted as the law says).

    ``model``, ``exact`` and ``kl`` over all contexts.

    model - exact and kl have the same expectation; kl is the less noisy. ``classes`` splits by (latents hidden,
    observations hidden).
    """

    law: str
    model: Sums
    exact: Sums
    kl: Sums
    classes: tuple[ClassLoss, ...]


@checked
def gap_closed(excess: float, distribution: Distribution) -> float:
    """(marginals - loss)/(marginals - floor) of a loss that lies ``excess`` nats per token above the floor, under the
    uniform law.

    floor = entropy/L, marginals = entropy of the single tokens/L. 1: Bayes-optimal; 0: knows no constraint; ValueError
    where they coincide (``gap_span``).
    """
    length = distribution.layout.length
    floor, marginals = distribution.entropy() / length, distribution.marginal_entropy() / length
    if math.isnan(gap_span(floor, marginals)):
        raise ValueError(
            "the tokens of this problem are independent (marginals-only line = floor): there is no gap to close"
        )
    return gap_share(excess, floor, marginals)


def gap_share(excess: float, floor: float, marginals: float) -> float:
    """1 - excess/(marginals - floor), of three numbers in one unit; nan where the lines coincide (``gap_span``)."""
    return 1.0 - excess / gap_span(floor, marginals)


def gap_span(floor: float, marginals: float) -> float:
    """marginals - floor, what there is to know; nan where it is below 1e-9 of the larger line.

    Entropies are sums with rounding of some 1e-15: a smaller difference is that of independent tokens.
    """
    span = marginals - floor
    return span if span > _RESOLUTION * max(abs(floor), abs(marginals)) else math.nan


def kl_divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p, q) = sum of p ln(p/q) in nats along the last axis; infinite where q excludes a value that p does not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0).sum(axis=-1)


def cross_entropy(laws: NDArray[np.float64], truth: NDArray[Any]) -> NDArray[np.float64]:
    """-ln of the probability in nats that ``laws`` float64[n, L, V] give the tokens ``truth`` [n, L]: float64[n, L]."""
    with np.errstate(divide="ignore"):
        return -np.log(at_truth(laws, truth))


def _sums(values: NDArray[np.float64]) -> tuple[Sums, Sums, Sums]:
    """Model, exact and kl, the rows of ``values``; the last two are empty where there is the first alone."""
    model, *others = map(Sums.of, values)
    exact, kl = others or (Sums.of([]), Sums.of([]))
    return model, exact, kl


@checked
def losses(
    model: Posterior, exact: Posterior | None, distribution: Distribution, law: MaskLaw, *, key: Key, n: int
) -> Losses:
    """Compare ``model`` with the ``exact`` posterior on n contexts: fresh data under a mask law.

    Cross-entropies at the true token, KL between the two marginals. Without ``exact`` (out of reach), ``exact`` and
    ``kl`` of the answer are empty: n = 0, mean nan. Cost: n rows through each posterior. Errors: ValueError for answers
    that are no probabilities, and for masks and weights that are none.
    """
    totals, means, classes = [], [], []
    for batch in chain.from_iterable(draw_contexts(distribution, law, key, n)):
        p = None if exact is None else np.asarray(batch.ask(exact).probs, np.float64)
        q = np.asarray(batch.ask(model).probs, np.float64)
        parts = [cross_entropy(q, batch.truth)]
        if p is not None:
            parts += [cross_entropy(p, batch.truth), kl_divergence(p, q)]
        values = np.stack(parts)
        totals.append(np.where(batch.weight > 0, batch.weight * values, 0.0).sum(axis=2))
        means.append(row_means(values, batch.masked))
        classes.append(batch.classes)
    each = np.concatenate(means, axis=1)
    rows = (ClassLoss(*kind, *_sums(each[:, members])) for kind, members in by_class(np.concatenate(classes)).items())
    return Losses(law.name, *_sums(np.concatenate(totals, axis=1)), tuple(rows))
