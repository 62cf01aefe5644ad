"""Where the noise of a masked loss comes from: the mask, the rate of masking, the data (arXiv 2511.18159).

l is the loss of one sequence as a mask law draws it, in nats per token: with two masks the mean of the two losses. Its
variance is A + B + C, A = E Var(l | x, t) of the mask, B = E Var(E[l | x, t] | x) of the rate t, C = Var(E[l | x]) of
the data; of ``Uniform`` and ``PlackettLuce`` the rate is the number of hidden positions. A batch of n sequences has
1/n of it. All laws here draw a size, then a set of that size, so their variances are sums over sizes of what one walk
along a random order measures, with weights by quadrature over t: no weight 1/t is ever drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import comb, gammaln, xlogy
from scipy.stats import binom

from lo_theory.diffusion.contexts import BATCH
from lo_theory.diffusion.losses import cross_entropy
from lo_theory.diffusion.masks import Bernoulli, MaskLaw, Uniform
from lo_theory.diffusion.mirrored import Mirror, MirrorUniform
from lo_theory.diffusion.plackett_luce import PlackettLuce, draw_orders, order_chances
from lo_theory.diffusion.rates import AtRates, Rates, TableRates, UniformRates, factors, quadrature, table_rates
from lo_theory.diffusion.statistics import Sums
from lo_theory.posterior import Posterior
from lo_theory.posterior.protocol import ask
from lo_theory.problem.layout import MASK, Layout
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import check_count, checked
from lo_theory.rng import Key

__all__ = ["LossVariance", "can_enumerate", "exact_variances", "loss_variances", "pots_rates"]

_LARGEST = 2**20
_CERTAIN = 1e-18  # a squared loss, in nats, that is a certain token's and rounding


@dataclass(frozen=True)
class LossVariance:
    """The variance of the loss of one sequence by its source, (nats per token)**2; ``mean`` in nats per token.

    ``masks`` A, ``rates`` B, ``data`` C, ``total`` their sum. ``copies`` is the number of masks, forward passes, a
    sequence; of two, ``covariance`` is E Cov(one loss, the other | x, t), and A is half of it and half of one mask's A.
    Measured ones have an interval over sequences, exact ones none; A is infinite where its integral over t is.
    """

    law: str
    copies: int
    mean: Sums
    masks: Sums
    rates: Sums
    data: Sums
    total: Sums
    covariance: Sums

    @property
    def per_pass(self) -> float:
        """copies x total: the variance of a batch of B passes, times B."""
        return self.copies * self.total.mean


@checked
def loss_variances(
    posterior: Posterior, distribution: Distribution, laws: Sequence[MaskLaw], *, key: Key, n: int
) -> list[LossVariance]:
    """Measure A, B and C of each law on n sequences, without bias.

    Two independent orders a sequence, losses of the first and the last k positions of each, k = 1..L; products of the
    two orders have the expectation of squared means. Cost: 4 n L rows through ``posterior`` for all laws of
    exchangeable positions together, half as many more for each ``PlackettLuce``. Errors: ValueError for n < 2, for
    laws that are not drawn by size (``Pattern``, ``TwoRates``, ``Suffix``, ``Rotation``, others), and for a predictor
    that excludes a token.
    """
    if n < 2:
        raise ValueError(f"a variance is measured on at least two sequences, got n = {n}")
    layout = distribution.layout
    walks: dict[Any, NDArray[np.float64]] = {}
    found = []
    for law in laws:
        form = _form(law, layout)
        at = tuple(form.weights.tolist()), form.normalised
        if at not in walks:
            walks[at] = _walk(posterior, distribution, form, key, n)
        values = walks[at]
        one, two = values[:, 0].mean(axis=1), values[:, 1].mean(axis=1)
        first = _weighed(np.square(values).mean(axis=(1, 2)), form.first)
        cross, mean = ((one @ form.cross) * two).sum(axis=1), (one + two) @ form.mean / 2
        between = cross - (one @ form.mean) * (two @ form.mean)
        both = None
        if form.pair is not None:
            both = ((values[:, :, 0] @ form.pair) * values[:, :, 1]).sum(axis=2).mean(axis=1) - cross
        apart = [means - means.mean() for means in (one @ form.mean, two @ form.mean)]
        data = apart[0] * apart[1] * n / (n - 1)
        found.append(_result(law, mean, first - cross, between, data, both, Sums.of))
    return found


@checked
def exact_variances(posterior: Posterior, distribution: Distribution, laws: Sequence[MaskLaw]) -> list[LossVariance]:
    """A, B and C of each law exactly, by all sequences of positive probability and all masks.

    Only t is integrated numerically. Cost: S 2**L rows through ``posterior`` for S sequences, once. Errors: ValueError
    where strings, or possible sequences times masks, are more than 2**20 (10 bits), and as ``loss_variances`` for laws.
    """
    layout, possible = distribution.layout, _possible(distribution)
    if possible is None:
        raise ValueError(
            f"variances are exact where possible sequences times masks are at most 2**20, such as 10 bits: L = "
            f"{layout.length} here, with {_strings(layout)} strings; measure them with loss_variances"
        )
    truth, chances = possible
    masks = ((np.arange(2**layout.length)[:, None] >> np.arange(layout.length)) & 1).astype(np.bool_)
    sizes = masks.sum(axis=1)
    losses = np.stack([_losses(posterior, row, masks, layout) for row in truth])
    found = []
    for law in laws:
        form = _form(law, layout)
        values = np.einsum("sml,ml->sm", losses, form.position_weights(masks))
        of_size = np.zeros((len(masks), layout.length + 1))
        of_size[np.arange(len(masks)), sizes] = order_chances(form.weights)[::-1]  # the set revealed is the rest
        means = values @ of_size
        first = _weighed(np.square(values) @ of_size, form.first)
        cross, mean = ((means @ form.cross) * means).sum(axis=1), means @ form.mean
        both = None if form.pair is None else _paired(values, sizes, form.pair) - cross
        floor = float(chances @ mean)

        def exact(parts: NDArray[np.float64]) -> Sums:
            return Sums.single(float(chances @ parts))

        found.append(_result(law, mean, first - cross, cross - mean**2, (mean - floor) ** 2, both, exact))
    return found


@checked
def can_enumerate(distribution: Distribution) -> bool:
    """Whether ``exact_variances`` answers: strings, and possible ones times 2**L masks, are at most 2**20.

    Cost: the probability of every string, where they are so few.
    """
    return _possible(distribution) is not None


def _strings(layout: Layout) -> int:
    return math.prod(int(size) for size in layout.values)


def _possible(distribution: Distribution) -> tuple[NDArray[np.int8], NDArray[np.float64]] | None:
    """The sequences of positive probability int8[S, L] and their probabilities float64[S]; None where too many."""
    layout = distribution.layout
    if _strings(layout) > _LARGEST:
        return None
    every = np.ascontiguousarray(np.indices(tuple(layout.values), np.int8).reshape(layout.length, -1).T)
    chances = np.exp(distribution.log_prob(every))
    some = chances > 0
    return (every[some], chances[some]) if some.sum() * 2**layout.length <= _LARGEST else None


@checked
def pots_rates(
    posterior: Posterior, distribution: Distribution, *, key: Key, n: int, label: str = "measured"
) -> TableRates:
    """Measure the table of P-POTS, p(t) ~ sqrt(g(t)**2 + v(t)), for a predictor on n sequences.

    4 t E[loss at t squared] is the sum over sizes k of Binomial(k; L, t) times the mean squared loss at size k, over t.
    ``AtRates`` makes a law of it, ``Mirror`` one of two masks. Cost: 4 n L rows through ``posterior``. Errors:
    ValueError for n < 1, where the losses are all zero, and where one is infinite.
    """
    check_count(n, "a table is measured on at least one sequence")
    layout = distribution.layout
    walk = _walk(posterior, distribution, _form(Uniform(), layout), key, n)
    squares = np.square(walk).mean(axis=(0, 1, 2))
    if not squares.any():
        raise ValueError(
            "this predictor loses nothing at any rate, so none is better than another: take UniformRates()"
        )
    sizes = np.arange(layout.length + 1)

    def of_rates(rates: NDArray[np.float64]) -> NDArray[np.float64]:
        pmf = binom.pmf(sizes, layout.length, rates[..., None])
        return np.asarray(4 * (pmf @ np.maximum(squares, _CERTAIN)) / rates)

    return table_rates(of_rates, label)


def _result(
    law: MaskLaw,
    mean: NDArray[np.float64],
    alone: NDArray[np.float64],
    between: NDArray[np.float64],
    data: NDArray[np.float64],
    both: NDArray[np.float64] | None,
    summed: Callable[[NDArray[np.float64]], Sums],
) -> LossVariance:
    """From the parts of every sequence; infinite ones have an infinite sum."""
    masks = alone if both is None else (alone + both) / 2
    covariance = Sums.of([]) if both is None else summed(both)
    return LossVariance(
        law.name,
        1 if both is None else 2,
        mean=summed(mean),
        masks=summed(masks),
        rates=summed(between),
        data=summed(data),
        total=summed(masks + between + data),
        covariance=covariance,
    )


@dataclass(frozen=True, eq=False)
class _Form:
    """A law by the size k = 0..L of what it hides, given which the set is a Plackett-Luce order's last k.

    With f_k the loss at size k: E l**2 = sum of first_k f_k**2, E (E[l | t])**2 = sum of cross_km f_k f_m, E l = sum of
    mean_k f_k, and E of the product of two losses = sum of pair_km f_k f_m, of the last k and the first m positions.
    """

    weights: NDArray[np.float64]
    first: NDArray[np.float64]
    cross: NDArray[np.float64]
    mean: NDArray[np.float64]
    pair: NDArray[np.float64] | None = None
    normalised: bool = False

    def position_weights(self, masked: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What each hidden position weighs in f: 1/L, or its share of the weights of all that are hidden."""
        if not self.normalised:
            return np.asarray(masked / masked.shape[-1])
        hidden = masked * self.weights
        return np.asarray(hidden / np.maximum(hidden.sum(axis=-1, keepdims=True), self.weights.min()))


def _form(law: MaskLaw, layout: Layout) -> _Form:
    if type(law) not in _FORMS:
        raise ValueError(
            f"{getattr(law, 'name', law)} has no variance by size: that is known of "
            f"{', '.join(kind.__name__ for kind in _FORMS)}"
        )
    return _FORMS[type(law)](law, layout)


def _by_size(law: Any, layout: Layout) -> _Form:
    """Size uniform on 1..L, weight 1/k; of two masks both have it."""
    length = layout.length
    share = np.append(0.0, np.full(length, 1 / length))
    factor = np.append(0.0, length / np.arange(1, length + 1))
    squares = share * factor**2
    pair = np.diag(squares) if isinstance(law, MirrorUniform) else None
    return _Form(np.ones(length), squares, np.diag(squares), share * factor, pair)


def _by_order(law: Any, layout: Layout) -> _Form:
    share = np.append(0.0, np.full(layout.length, 1 / layout.length))
    weights = law.at(layout)
    return _Form(weights, share, np.diag(share), share, normalised=True)


def _by_rate(law: Any, layout: Layout) -> _Form:
    if isinstance(law, Bernoulli) and law.alpha is not None:
        return _at(np.array([law.alpha]), np.ones(1), np.array([1 / law.alpha]), layout)
    density: Rates = UniformRates() if isinstance(law, Bernoulli) else law.rates
    weighted = getattr(law, "weighted", True)
    rates, chances = quadrature(density)
    form = _at(rates, chances, factors(density, rates, weighted), layout, pair=isinstance(law, Mirror))
    if not weighted or np.isfinite(density.density(np.zeros(1)))[0]:
        form.first[1] = np.inf  # the integral of 1/(t p(t)), or of p(t)/t
    return form


def _at(
    rates: NDArray[np.float64],
    chances: NDArray[np.float64],
    factor: NDArray[np.float64],
    layout: Layout,
    *,
    pair: bool = False,
) -> _Form:
    length = layout.length
    pmf = binom.pmf(np.arange(length + 1), length, rates[:, None])
    squares = chances * factor**2
    mirrored = np.zeros((length + 1, length + 1))
    for rate, square in zip(rates, squares, strict=True) if pair else ():
        mirrored += square * _mirrored_sizes(rate, length)
    cross = (pmf * squares[:, None]).T @ pmf
    return _Form(np.ones(length), squares @ pmf, cross, (chances * factor) @ pmf, mirrored if pair else None)


def _mirrored_sizes(rate: float, length: int) -> NDArray[np.float64]:
    """P(k hidden by u < t, m by u >= 1 - t), float64[L+1, L+1]: multinomial, of one, the other, and none or both."""
    one, other = np.indices((length + 1, length + 1))
    if rate > 0.5:
        one, other, rate = length - other, length - one, 1 - rate  # what only one of them hides
    rest = length - one - other
    fits = np.maximum(rest, 0)
    log = gammaln(length + 1) - gammaln(one + 1) - gammaln(other + 1) - gammaln(fits + 1)
    log = log + xlogy(one + other, rate) + xlogy(fits, 1 - 2 * rate)
    return np.asarray(np.where(rest >= 0, np.exp(log), 0.0))


_FORMS: dict[type, Callable[[Any, Layout], _Form]] = {
    Uniform: _by_size,
    MirrorUniform: _by_size,
    Bernoulli: _by_rate,
    AtRates: _by_rate,
    Mirror: _by_rate,
    PlackettLuce: _by_order,
}


def _weighed(squares: NDArray[np.float64], first: NDArray[np.float64]) -> NDArray[np.float64]:
    """``squares`` [n, L + 1] @ ``first``, infinite where an infinite weight meets a loss that is not rounding."""
    endless = np.isinf(first)
    sums = squares[:, ~endless] @ first[~endless]
    return np.where((squares[:, endless] > _CERTAIN).any(axis=1), np.inf, sums)


def _losses(
    posterior: Posterior, truth: NDArray[np.int8], masked: NDArray[np.bool_], layout: Layout
) -> NDArray[np.float64]:
    """Cross-entropies in nats of ``truth`` int8[..., L] under ``masked`` bool[..., L], zero where not hidden."""
    rows = np.broadcast_to(truth, masked.shape).reshape(-1, layout.length)
    hidden = masked.reshape(-1, layout.length)
    probs = np.asarray(ask(posterior, np.where(hidden, np.int8(MASK), rows), layout).probs, np.float64)
    losses = np.where(hidden, cross_entropy(probs, rows), 0.0)
    if np.isinf(losses).any():
        excluded = rows[np.isinf(losses).any(axis=1)][0]
        raise ValueError(
            f"{type(posterior).__name__} excludes a token of the sequence {excluded.tolist()}: its loss is infinite, "
            "and has no variance; mix it with the prior (Mixed)"
        )
    return losses.reshape(masked.shape)


def _walk(posterior: Posterior, distribution: Distribution, form: _Form, key: Key, n: int) -> NDArray[np.float64]:
    """f along two orders from both ends, float64[n, 2, 2, L + 1]: the last k positions, and the first k, are hidden.

    Only the last k have the law of a Plackett-Luce mask, so of weights that differ both ends are the last k.
    """
    layout = distribution.layout
    values, size = np.zeros((n, 2, 2, layout.length + 1)), max(1, 2 * BATCH // layout.length)
    for start in range(0, n, size):
        truth = distribution.sample(key.fold("data"), min(size, n - start), start=start)
        for number in range(2):
            at = key.fold("order").fold(number)
            places = np.argsort(draw_orders(at, len(truth), form.weights, start=start), axis=1)[:, None]
            sizes = np.arange(1, layout.length + 1)[:, None]
            ends = [places >= layout.length - sizes] + ([] if form.normalised else [places < sizes])
            for end, masked in enumerate(ends):
                losses = _losses(posterior, truth[:, None], masked, layout)
                found = (losses * form.position_weights(masked)).sum(axis=2)
                values[start : start + len(truth), number, end:, 1:] = found[:, None]
    return values


def _paired(values: NDArray[np.float64], sizes: NDArray[np.int64], pair: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of pair_km E[f(A) f(B)] for every row of ``values`` [S, 2**L]: A of k positions, B of m, chosen uniformly
    among the pairs that are disjoint (k + m <= L) or together everything: sums over subsets, one bit after another.
    """
    length = len(pair) - 1
    full, total = len(sizes) - 1, np.zeros(len(values))
    for m in range(1, length + 1):
        below = np.where(sizes == m, values, 0.0)
        above = below.copy()
        for bit in range(length):
            without = np.flatnonzero(~(np.arange(full + 1) >> bit) & 1)
            below[:, without | (1 << bit)] += below[:, without]
            above[:, without] += above[:, without | (1 << bit)]
        for k in range(1, length + 1):
            one = np.flatnonzero(sizes == k)
            if k + m <= length:
                partners, ways = below[:, full ^ one], comb(length - k, m)
            else:
                partners, ways = above[:, full ^ one], comb(k, k + m - length)
            total += pair[k, m] * (values[:, one] * partners).sum(axis=1) / (len(one) * ways)
    return total
