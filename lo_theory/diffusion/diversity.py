"""Whether generated sequences have the law of the data, not only its consistency.

A decoder that repeats one consistent sequence scores 100 % on every accuracy. These numbers catch it: distinct latent
strings, biases and correlations of the latents, and the total variation distance to p_data where it can be measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.problem.distribution import LODistribution
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["Diversity", "diversity", "expected_distinct", "total_variation"]

_ENUMERABLE_STATES = 2**20
_LATENTS_FOR_TOTAL_VARIATION = 12
_REPLICATES = 20


@dataclass(frozen=True)
class Diversity:
    """Diversity of n generated sequences against the data.

    ``distinct`` share of distinct latent strings and ``distinct_expected`` its expectation under p_data; ``bias_z``
    largest |z| of a latent's mean over ``bias_count`` of them, ``pair_z`` likewise of a pair's correlation over
    ``pair_count``: under p_data each z is standard normal for large n. ``total_variation`` distance of the empirical
    law to p_data, with mean and standard deviation of the same number for n exact samples (it is not zero for them);
    nan for N > 12.
    """

    distinct: float
    distinct_expected: float
    bias_z: float
    bias_count: int
    pair_z: float
    pair_count: int
    total_variation: float
    total_variation_expected: float
    total_variation_deviation: float


@checked
def diversity(distribution: LODistribution, tokens: NDArray[np.int8], key: Key) -> Diversity:
    """Measure the diversity of complete sequences int8[n, L]; ``key`` addresses the exact samples compared with.

    Cost n N**2 q**2.
    """
    rows = distribution.layout.check_tokens(tokens, complete=True)
    if len(rows) < 1:
        raise ValueError("diversity is measured on at least one sequence, got none")
    latents: NDArray[Any] = distribution.layout.split(rows)[0]
    bias, pairs = _z_scores(latents, distribution.prior)
    distance, expected, deviation = math.nan, math.nan, math.nan
    if distribution.layout.n_latents <= _LATENTS_FOR_TOTAL_VARIATION:
        distance = total_variation(distribution, rows)
        exact = [total_variation(distribution, distribution.sample(key.fold(i), len(rows))) for i in range(_REPLICATES)]
        expected, deviation = float(np.mean(exact)), float(np.std(exact, ddof=1))
    return Diversity(
        distinct=len(np.unique(latents, axis=0)) / len(rows),
        distinct_expected=expected_distinct(distribution.prior, len(rows)) / len(rows),
        bias_z=float(np.abs(bias).max()),
        bias_count=len(bias),
        pair_z=float(np.abs(pairs).max()) if len(pairs) else math.nan,
        pair_count=len(pairs),
        total_variation=distance,
        total_variation_expected=expected,
        total_variation_deviation=deviation,
    )


def _z_scores(latents: NDArray[Any], prior: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """z-scores of the mean of every indicator [latent i = v] and of the product of every two centred ones of different
    latents.

    The last value of a latent says nothing new and is left out; a value of prior probability 0 or 1 that disagrees
    scores infinity.
    """
    n, n_latents = latents.shape
    spread = np.sqrt(prior * (1 - prior))
    centred = (latents[:, :, None] == np.arange(prior.shape[1])) - prior
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(centred == 0, 0.0, centred / spread)[:, :, :-1]
    owner = np.repeat(np.arange(n_latents), prior.shape[1] - 1)
    flat = scores.reshape(n, -1)
    bias = flat.sum(axis=0) / math.sqrt(n)
    finite = np.where(np.isfinite(flat), flat, 0.0)
    products = finite.T @ finite / math.sqrt(n)
    return bias, products[owner[:, None] < owner[None, :]]


def expected_distinct(prior: NDArray[np.float64], n: int) -> float:
    """Expected number of distinct strings among n draws from the product ``prior``: sum_x 1 - (1 - p(x))**n.

    Exact for uniform priors and up to 2**20 strings; else n - C(n, 2) sum_x p(x)**2, a lower bound that misses triple
    coincidences.
    """
    n_latents, q = prior.shape
    if (prior == 1 / q).all():
        log_strings = n_latents * math.log(q)
        if log_strings < math.log(2.0**52):
            return -math.expm1(n * math.log1p(-math.exp(-log_strings))) * math.exp(log_strings)
    elif q**n_latents <= _ENUMERABLE_STATES:
        strings = np.ones(1)
        for law in prior:
            strings = np.outer(strings, law).ravel()
        with np.errstate(divide="ignore"):
            return float(-np.expm1(n * np.log1p(-strings)).sum())
    return n - n * (n - 1) / 2 * math.exp(float(np.log(np.square(prior).sum(axis=1)).sum()))


def total_variation(distribution: Distribution, tokens: NDArray[np.int8]) -> float:
    """Total variation distance between the empirical law of complete sequences int8[n, L] and p_data.

    (1/2)(1 + sum over the distinct sequences seen of |f - p| - p), f the frequency: exact however many sequences are
    possible.
    """
    seen, counts = np.unique(tokens, axis=0, return_counts=True)
    p, f = np.exp(distribution.log_prob(seen)), counts / len(tokens)
    return float(0.5 * (1.0 + (np.abs(f - p) - p).sum()))
