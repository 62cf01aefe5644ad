"""Losses against the Bayes optimum, over all contexts and class by class.

A class is (law, latents hidden, observations hidden): the key of every table of losses. The distance of two posteriors
is the KL divergence of their marginals, whose weighted mean is exactly the model's loss minus the Bayes loss, with less
noise than that difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.masks import MaskLaw, describe, draw_masks
from lo_theory.diffusion.statistics import Sums
from lo_theory.posterior import Posterior
from lo_theory.posterior.protocol import ask
from lo_theory.problem.distribution import LODistribution
from lo_theory.problem.layout import MASK
from lo_theory.problem.seams import check_count, checked
from lo_theory.rng import Key

__all__ = ["ClassLoss", "Losses", "gap_closed", "gap_share", "gap_span", "kl_divergence", "losses"]

_BATCH = 1024  # contexts sent through a posterior at once
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
def gap_closed(excess: float, distribution: LODistribution) -> float:
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


def _token_losses(
    truth: NDArray[np.int8], q: NDArray[np.float64], p: NDArray[np.float64] | None
) -> dict[str, NDArray[np.float64]]:
    """float64[B, L] for every position: cross-entropies at the true token and KL(p, q); without p the model's only."""
    true = truth.astype(np.intp)[:, :, None]
    with np.errstate(divide="ignore"):
        result = {"model": -np.log(np.take_along_axis(q, true, axis=2)[:, :, 0])}
        if p is not None:
            result |= {"exact": -np.log(np.take_along_axis(p, true, axis=2)[:, :, 0]), "kl": kl_divergence(p, q)}
    return result


@checked
def losses(
    model: Posterior, exact: Posterior | None, distribution: LODistribution, law: MaskLaw, *, key: Key, n: int
) -> Losses:
    """Compare ``model`` with the ``exact`` posterior on n contexts: fresh data under a mask law.

    Cross-entropies at the true token, KL between the two marginals. Without ``exact`` (out of reach), ``exact`` and
    ``kl`` of the answer are empty: n = 0, mean nan. Cost: n rows through each posterior. Errors: ValueError for answers
    that are no probabilities, and for masks and weights that are none.
    """
    check_count(n, "losses are measured on at least one context")
    layout, names = distribution.layout, ("model",) if exact is None else ("model", "exact", "kl")
    weighted: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    classes: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    for start in range(0, n, _BATCH):
        truth = distribution.sample(key.fold("data"), min(_BATCH, n - start), start=start)
        masks, weights = draw_masks(law, key.fold("masks"), truth, layout, start=start)
        for masked, weight in zip(masks, weights, strict=True):
            contexts = np.where(masked, np.int8(MASK), truth)
            p = None if exact is None else np.asarray(ask(exact, contexts, layout, start=start).probs, np.float64)
            q = np.asarray(ask(model, contexts, layout, start=start).probs, np.float64)
            values = _token_losses(truth, q, p)
            for name in names:
                weighted[name].append(np.where(weight > 0, weight * values[name], 0.0).sum(axis=1))
            size = np.maximum(masked.sum(axis=1), 1)
            means = np.stack([np.where(masked, values[name], 0.0).sum(axis=1) / size for name in names], axis=1)
            for row, kind in enumerate(zip(*describe(masked, layout), strict=True)):
                classes.setdefault((int(kind[0]), int(kind[1])), []).append(means[row])
    empty = {"model": Sums.of([]), "exact": Sums.of([]), "kl": Sums.of([])}
    rows = []
    for kind, members in sorted(classes.items()):
        sums = empty | dict(zip(names, map(Sums.of, np.stack(members).T), strict=True))
        rows.append(ClassLoss(*kind, sums["model"], sums["exact"], sums["kl"]))
    overall = empty | {name: Sums.of(np.concatenate(values)) for name, values in weighted.items()}
    return Losses(law.name, overall["model"], overall["exact"], overall["kl"], tuple(rows))
