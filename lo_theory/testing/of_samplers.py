"""Checks of generated sequences: whether their law is that of the data, and whether rows are independent."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lo_theory.problem import MASK, Distribution, Enumerated, LODistribution
from lo_theory.rng import Key
from lo_theory.testing.p_values import chi_square_of_rows, mean_test
from lo_theory.testing.report import Check, exact, not_applicable, statistical
from lo_theory.testing.same_law import resolution, sampler_of
from lo_theory.testing.twins import listed_law

__all__ = ["data_checks", "sampler_checks"]

_PER_CELL = 20  # draws for each sequence of the joint law, so that its chi-square is to be trusted
_ROUNDING = 1e-9  # nats, of ln p(x) of sequences that are all as probable
_LAGS = (1, 2, 3, 4, 8)  # between rows that are compared
_PAIRS = 100  # of them at least, whose mean is close to normal
_FAMILY = 10  # a threshold at most so much below the family's level is allowed for in what is found


def sampler_checks(sampler: Any, problem: Distribution, key: Key, n: int, level: float) -> list[Check]:
    """Draw n sequences and check them; a sampler is what ``sampler_of`` takes."""
    draw = sampler_of(sampler)
    try:
        drawn = np.asarray(draw(key, n))
        if len(drawn) != n:
            raise ValueError(f"asked for {n} sequences, the sampler gave {len(drawn)}")
        tokens = problem.layout.check_tokens(drawn)
    except ValueError as error:
        return [_form(error)]
    return [_form(None), *data_checks(problem, tokens, level), _addressed(sampler, key, tokens)]


def _form(error: ValueError | None) -> Check:
    fails = f"what is drawn are no sequences of this problem: {error}"
    return exact("well formed", float(error is not None), error is None, "tokens of the right kind", fails)


def data_checks(problem: Distribution, tokens: NDArray[np.int8], level: float) -> list[Check]:
    """All that can be said of sequences int8[n, L] that are said to be independent draws of the data."""
    hidden = int((tokens == MASK).any(axis=1).sum())
    whole = exact(
        "everything revealed at the end",
        hidden / len(tokens),
        hidden == 0,
        "no position is left hidden",
        f"{hidden} of {len(tokens)} sequences still hide positions",
    )
    if hidden:
        return [whole]
    joint = _joint(problem, tokens, level)
    return [
        whole,
        joint,
        _first_moments(problem, tokens, level),
        _second_moments(problem, tokens, level),
        _probability(problem, tokens, joint.p_value is not None, level),
        _independent(problem, tokens, level),
    ]


def _joint(problem: Distribution, tokens: NDArray[np.int8], level: float) -> Check:
    name, n = "law of the data: joint", len(tokens)
    try:
        support, p = listed_law(problem, most=n // _PER_CELL)
        p_value = chi_square_of_rows(tokens, support, p / p.sum())
    except ValueError as error:
        few = f"too many sequences are possible for {n:,} draws: see the moments below, or take a smaller problem"
        return not_applicable(name, few if isinstance(problem, LODistribution | Enumerated) else str(error))
    _, smallest = resolution(p, n, level / _FAMILY)
    return statistical(
        name,
        p_value,
        "all sequences come as often as in the data",
        "the sequences do not come as often as in the data",
        f"finds any law at total variation {smallest:.2g} or more",
    )


def _errors(level: float, tests: int = 1) -> float:
    """How many standard errors a mean must be off to be found with probability 0.99 in a family of the level."""
    return float(stats.norm.isf(level / _FAMILY / tests / 2) + stats.norm.ppf(0.99))


def _exact_tails(counts: NDArray[np.int64], n: int, laws: NDArray[np.float64]) -> tuple[float, tuple[int, ...]]:
    """P-value of the count that fits its binomial law least, times the number of counts, and its place."""
    tails = np.minimum(stats.binom.cdf(counts, n, laws), stats.binom.sf(counts - 1, n, laws))
    free = max(1, int(((laws > 0) & (laws < 1)).sum()))
    place = np.unravel_index(np.argmin(tails), tails.shape)
    return min(1.0, 2 * free * float(tails.min())), tuple(int(i) for i in place)


def _first_moments(problem: Distribution, tokens: NDArray[np.int8], level: float) -> Check:
    name, n = "law of the data: single tokens", len(tokens)
    try:
        laws = problem.token_marginals
    except ValueError as error:
        return not_applicable(name, str(error))
    counts = (tokens[:, :, None] == np.arange(problem.layout.n_values)).sum(axis=0)
    p_value, (place, value) = _exact_tails(counts, n, laws)
    return statistical(
        name,
        p_value,
        "every token has its own law",
        f"value {value} at position {place} came with share {counts[place, value] / n:.4g}, in the data "
        f"{laws[place, value]:.4g}",
        f"finds a token whose share is off by {_errors(level, laws.size) * 0.5 / n**0.5:.2g} or more",
    )


def _second_moments(problem: Distribution, tokens: NDArray[np.int8], level: float) -> Check:
    name = "law of the data: pairs of latents"
    if not isinstance(problem, LODistribution):
        return not_applicable(name, "what pairs should be is known of L&O problems, whose latents are independent")
    count, q = problem.prior.shape
    if count < 2:
        return not_applicable(name, "there is one latent")
    latents = problem.layout.split(tokens)[0]
    each = (latents[:, :, None] == np.arange(q)).reshape(len(tokens), -1).astype(np.float32)
    first, second = np.triu_indices(count * q, 1)
    different = first // q != second // q
    first, second = first[different], second[different]
    counts, prior = np.rint(each.T @ each).astype(np.int64)[first, second], problem.prior.ravel()
    p_value, (worst,) = _exact_tails(counts, len(tokens), prior[first] * prior[second])
    pair = first[worst] // q, second[worst] // q
    return statistical(
        name,
        p_value,
        "latents are independent, as in the data",
        f"latents {pair[0]} and {pair[1]} of a sequence are correlated, and in the data they are independent",
        f"finds a pair whose share is off by {_errors(level, len(first)) * 0.5 / len(tokens) ** 0.5:.2g} or more",
    )


def _probability(problem: Distribution, tokens: NDArray[np.int8], listed: bool, level: float) -> Check:
    """Where the joint law is ``listed`` its test sees more than the mean, and only what is impossible counts here."""
    logs = problem.log_prob(tokens)
    impossible = int(np.isneginf(logs).sum())
    expected = -problem.entropy()
    fails = f"mean ln p(x) is {logs.mean():.4f} nats, of data {expected:.4f}"
    finds = f"finds what is impossible if it comes once in {len(logs) / math.log(100):,.0f} sequences or more often"
    if not listed and not impossible and logs.std() > _ROUNDING:
        finds += f", and a mean that is off by {_errors(level) * logs.std() / len(logs) ** 0.5:.2g} nats or more"
    return statistical(
        "law of the data: probability",
        0.0 if impossible else 1.0 if listed else mean_test(logs, expected),
        "sequences are possible" if listed else "sequences are possible, and as probable as data",
        f"{impossible} of {len(tokens)} sequences are impossible" if impossible else fails,
        finds,
    )


def _independent(problem: Distribution, tokens: NDArray[np.int8], level: float) -> Check:
    """Correlation of rows 1, 2, 3, 4 and 8 apart, and of the rows of two halves: what two ranks would have drawn.

    Every row is in one pair at most, so that the pairs are independent.
    """
    name = "rows independent of each other"
    if len(tokens) < 2 * _PAIRS:
        return not_applicable(name, f"there are fewer than {_PAIRS} pairs of rows")
    features = (tokens[:, :, None] == np.arange(problem.layout.n_values)).reshape(len(tokens), -1).astype(np.float64)
    features -= features.mean(axis=0)
    apart = [lag for lag in (*_LAGS, len(tokens) // 2) if len(tokens) // (2 * lag) * lag >= _PAIRS]
    products = {lag: _pairs(features, lag) for lag in dict.fromkeys(apart)}
    p_values = {lag: mean_test(values, 0.0) for lag, values in products.items()}
    worst = min(p_values, key=lambda lag: p_values[lag])
    own, errors = float(np.square(features).sum(axis=1).mean()), _errors(level, len(products))
    share = max(_copies(errors, values, own) for values in products.values()) if own else 1.0
    return statistical(
        name,
        min(1.0, len(p_values) * p_values[worst]),
        "rows 1, 2, 3, 4 and 8 apart, and the two halves, are uncorrelated",
        f"rows that are {worst} apart resemble each other: they share random numbers",
        f"finds copies in a share of {min(1.0, share):.2g} of such pairs or more",
    )


def _copies(errors: float, products: NDArray[np.float64], own: float) -> float:
    """The share s of copies that moves the mean of m products by ``errors`` of its standard errors.

    A copy's product is ``own`` in the mean, so s own = errors sqrt((v + s own**2)/m), v the variance without copies.
    """
    m, k, v = len(products), errors**2, float(products.var()) / own**2
    return (k + math.sqrt(k * k + 4 * m * k * v)) / (2 * m)


def _pairs(features: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """Scalar products of rows that are ``lag`` apart, of each two blocks of ``lag`` rows."""
    blocks = features[: len(features) // (2 * lag) * 2 * lag].reshape(-1, 2, lag, features.shape[1])
    products: NDArray[np.float64] = (blocks[:, 0] * blocks[:, 1]).sum(axis=2).ravel()
    return products


def _addressed(sampler: Any, key: Key, tokens: NDArray[np.int8]) -> Check:
    """For samplers that take ``start``: the same rows however a batch is split."""
    name = "rows independent of the batch"
    function: Callable[..., Any] = getattr(sampler, "sample", sampler)
    if "start" not in inspect.signature(function).parameters:
        return not_applicable(name, "the sampler takes no start=, so that it promises nothing for split batches")
    half = len(tokens) // 2
    parts = [function(key, half), function(key, len(tokens) - half, start=half)]
    changed = float((np.concatenate(parts) != tokens).any(axis=1).mean())
    return exact(
        name,
        changed,
        changed == 0,
        "two half batches hold the rows of the whole",
        f"{changed:.1%} of the rows change when the batch is drawn in two halves: they depend on batch or rank",
    )
