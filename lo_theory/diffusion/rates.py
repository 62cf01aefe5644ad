"""Mask laws with a rate t for each sequence, drawn from a density p(t): every position is hidden with probability t.

With weight 1/(p(t) t L) on each hidden position the mean is that of ``Bernoulli()``, whatever p is, so the plain loss
(Proposition 2.1). Its variance depends on p: wherever p(0) is finite it is infinite, since a mask of one position has
weight 1/t, unless all tokens are known from all others. A density of 1/sqrt(t) near 0 makes it finite.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from lo_theory.diffusion import _kernels
from lo_theory.diffusion.masks import Masks, check_length, keep_plain, number_text
from lo_theory.problem.layout import Layout
from lo_theory.problem.seams import Seam, checked
from lo_theory.rng import Key

__all__ = [
    "AtRates",
    "BellRates",
    "Rates",
    "TableRates",
    "UniformRates",
    "bell",
    "bell_unweighted",
    "draw_rates",
    "factors",
    "p_pots",
    "quadrature",
    "row_units",
    "weight_spread",
]

_LEAST_RATE = 2.0**-53
_BINS = 64
_LEAST_WIDTH = 0.2
_WIDTHS = 8.0  # of a bell, beyond which it is 1e-14 of its height


class Rates(Protocol):
    """A density p(t) on (0, 1]."""

    @property
    def name(self) -> str:
        """Name with its parameters."""
        ...

    @property
    def edges(self) -> NDArray[np.float64]:
        """Values of sqrt(t) from 0 to 1 between which the density is smooth."""
        ...

    def quantiles(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """The t below which ``shares`` float64[n], in (0, 1], of the probability lie: float64[n], in (0, 1]."""
        ...

    def density(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """p(t) at ``rates`` float64[n] in [0, 1]; infinite where it is."""
        ...


RATES = Seam("a density of rates", ("name", "edges", "quantiles", "density"), "UniformRates()")


@dataclass(frozen=True)
class UniformRates:
    """p(t) = 1."""

    @property
    def name(self) -> str:
        """``uniform``."""
        return "uniform"

    @property
    def edges(self) -> NDArray[np.float64]:
        """See Rates."""
        return np.array([0.0, 1.0])

    def quantiles(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """See Rates."""
        return shares

    def density(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """See Rates."""
        return np.ones_like(rates)


@checked
@dataclass(frozen=True)
class BellRates:
    """p(t) ~ exp(-(t - 1/2)**2 / (2 width**2)) on (0, 1]; ValueError for a width that is not positive."""

    width: float

    def __post_init__(self) -> None:
        keep_plain(self)
        if not 0 < self.width < np.inf:
            raise ValueError(f"the width of a bell is a positive number, got {self.width}")

    @property
    def name(self) -> str:
        """``bell(width)``."""
        return f"bell({number_text(self.width)})"

    @property
    def edges(self) -> NDArray[np.float64]:
        """See Rates."""
        ends = np.clip(0.5 + np.array([-_WIDTHS, _WIDTHS]) * self.width, 0.0, 1.0)
        return np.unique(np.sqrt([0.0, *ends, 1.0]))

    @property
    def _below(self) -> float:
        """Probability below 0 of the normal law that is cut off at 0 and 1."""
        return float(ndtr(-0.5 / self.width))

    def quantiles(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """See Rates."""
        rates = 0.5 + self.width * ndtri(self._below + (1 - 2 * self._below) * shares)
        return np.asarray(np.clip(rates, _LEAST_RATE, 1.0))

    def density(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """See Rates."""
        scale = self.width * np.sqrt(2 * np.pi) * (1 - 2 * self._below)
        return np.asarray(np.exp(-np.square((rates - 0.5) / self.width) / 2) / scale)


@checked
@dataclass(frozen=True)
class TableRates:
    """P-POTS: p(t) = h_k / (2 sqrt(t)) where sqrt(t) lies in bin k of K equal ones, (k/K, (k+1)/K]; arXiv 2511.18159.

    So sqrt(t) has the density h_k, ``heights`` divided by their mean, and p has the tail at 0 that a loss with weight
    1/t asks for. The variance of the loss is least where h_k**2 is the mean over bin k of 4 t E[loss at t squared], so
    that p(t) ~ sqrt(g(t)**2 + v(t)), g the mean and v the variance of the loss at rate t (``variance.pots_rates``).
    ``label``: what stands in the brackets of its name. Errors: ValueError for heights that are not positive.
    """

    heights: tuple[float, ...]
    label: str = "table"

    def __post_init__(self) -> None:
        heights = np.asarray(self.heights, np.float64)
        if heights.ndim != 1 or not len(heights) or not ((heights > 0) & (heights < np.inf)).all():
            raise ValueError(f"the heights of a table of rates are positive numbers, got {self.heights}")
        object.__setattr__(self, "heights", tuple((heights / heights.mean()).tolist()))

    @property
    def name(self) -> str:
        """``p_pots(label)``."""
        return f"p_pots({self.label})"

    @property
    def edges(self) -> NDArray[np.float64]:
        """See Rates."""
        return np.linspace(0.0, 1.0, len(self.heights) + 1)

    def quantiles(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """See Rates."""
        below = np.cumsum([0.0, *self.heights]) / len(self.heights)
        return np.asarray(np.maximum(np.square(np.interp(shares, below, self.edges)), _LEAST_RATE))

    def density(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """See Rates."""
        root, count = np.sqrt(rates), len(self.heights)
        bins = np.clip(np.ceil(root * count).astype(np.intp) - 1, 0, count - 1)
        with np.errstate(divide="ignore"):
            return np.asarray(np.take(self.heights, bins) / (2 * root))


@checked
@dataclass(frozen=True)
class AtRates:
    """t from ``rates``, every position hidden with probability t; weight 1/(p(t) t L).

    ``weighted`` False leaves p(t) out: weight 1/(t L), whose mean is the integral of p(t) g(t), another loss.
    """

    rates: Rates
    weighted: bool = True

    def __post_init__(self) -> None:
        keep_plain(self)
        RATES.check(self.rates, "rates")

    @property
    def name(self) -> str:
        """The name of the rates, ``bell_unweighted(0.2)`` where p(t) is left out of the weights."""
        name, bracket, rest = self.rates.name.partition("(")
        return f"{name}{'' if self.weighted else '_unweighted'}{bracket}{rest}"

    def weight_spread(self, length: int) -> float:
        """Standard deviation of the sum of a row's weights; see ``draw_masks``."""
        return weight_spread(self.rates, length) if self.weighted else math.inf

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        check_length(tokens, layout)
        rates = draw_rates(self.rates, key.fold("rate"), len(tokens), start=start)
        masked = row_units(key.fold("positions"), tokens.shape, start=start) < rates[:, None]
        weight = masked * (factors(self.rates, rates, self.weighted) / layout.length)[:, None]
        return masked[None], weight.astype(np.float32)[None]


def row_units(key: Key, shape: tuple[int, ...], *, start: int = 0) -> NDArray[np.float64]:
    """Draw uniform numbers in [0, 1) for rows ``start .. start + n``: float64[n, L], by address."""
    drawn = np.empty(shape)
    _kernels.draw_rows_of_units(drawn, start, *key.words())
    return drawn


def draw_rates(rates: Rates, key: Key, n: int, *, start: int = 0) -> NDArray[np.float64]:
    """Draw a rate for each of rows ``start .. start + n``: float64[n], by address."""
    shares = np.empty(n)
    _kernels.draw_units(shares, start, *key.words())
    return rates.quantiles(1.0 - shares)


def factors(rates: Rates, at: NDArray[np.float64], weighted: bool = True) -> NDArray[np.float64]:
    """L times the weight of a hidden position at the rates ``at`` float64[n]: 1/(p(t) t), or 1/t.

    ValueError where p(t) is zero in float64, as that of a narrow bell is far from 1/2.
    """
    if not weighted:
        return 1.0 / at
    density = rates.density(at)
    if not (density > 0).all():
        raise ValueError(
            f"{rates.name} has a density of zero at the rate {at[np.argmin(density > 0)]:g}, where the weight 1/p(t) "
            "is infinite: take a wider one, or AtRates(rates, weighted=False)"
        )
    return np.asarray(1.0 / (at * density))


def weight_spread(rates: Rates, length: int) -> float:
    """Standard deviation of the sum of Binomial(L, t) weights 1/(p(t) t L), t of density p; infinite where p(0) is not.

    That sum is 1/p(t), and noise: few rows may carry much of the mean, or lie far below it.
    """
    if math.isfinite(rates.density(np.zeros(1))[0]):
        return math.inf
    at, chances = quadrature(rates)
    squares = np.square(factors(rates, at)) * (np.square(at) + at * (1 - at) / length)
    return math.sqrt(max(float(chances @ squares) - 1, 0.0))


@functools.cache
def _gauss(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places, masses = np.polynomial.legendre.leggauss(count)
    return np.asarray(places), np.asarray(masses)


def quadrature(rates: Rates, nodes: int = 256) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rates t and weights, float64[m], with sum of weight x h(t) = integral of p(t) h(t): Gauss-Legendre in sqrt(t).

    Between all edges of the density and 1/2, some ``nodes`` in all, at least eight in each part.
    """
    edges = np.unique(np.append(rates.edges, np.sqrt(0.5)))
    places, masses = _gauss(max(8, nodes // (len(edges) - 1)))
    halves, middles = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    roots, widths = (middles + halves * places).ravel(), (halves * masses).ravel()
    return np.square(roots), widths * rates.density(np.square(roots)) * 2 * roots


@checked
def bell(width: float) -> AtRates:
    """Rates from a Gaussian bell around 1/2, cut off at 0 and 1, weight 1/(p(t) t L): unbiased. arXiv 2605.13026
    (*second hand*). Errors: ValueError for a width below 0.2, where rates with large weights are too rare to be met.
    """
    if width < _LEAST_WIDTH:
        raise ValueError(
            f"a bell with weights 1/p(t) has a width of at least {_LEAST_WIDTH}, got {width}: take a wider one, or "
            "bell_unweighted"
        )
    return AtRates(BellRates(width))


@checked
def bell_unweighted(width: float) -> AtRates:
    """``bell`` with weight 1/(t L): another loss, in which rates near 1/2 count for more."""
    return AtRates(BellRates(width), weighted=False)


@checked
def p_pots(ratio: float) -> AtRates:
    """P-POTS with a table in closed form, p(t) ~ sqrt(1 + ratio/t): the best for independent tokens.

    Their loss l_i does not depend on what else is hidden, so E[loss squared at t] = c1 + c2/t with c2 = sum E[l_i**2]
    and c1 = sum over i != j of E[l_i l_j]; ratio = c2/c1, 1/(L - 1) where all l_i are one number. Errors: ValueError
    for a ratio that is not positive.
    """
    if not 0 < ratio < np.inf:
        raise ValueError(f"p_pots(ratio) takes a positive number, got {ratio}")
    return AtRates(table_rates(lambda rates: 4 * (rates + ratio), number_text(ratio)))


def table_rates(
    squares: Callable[[NDArray[np.float64]], NDArray[np.float64]], label: str, bins: int = _BINS
) -> TableRates:
    """The table whose h_k**2 is the mean of ``squares``, 4 t E[loss at t squared], over bin k of sqrt(t)."""
    places, masses = _gauss(8)
    roots = (np.arange(bins)[:, None] + (places + 1) / 2) / bins
    return TableRates(tuple(np.sqrt(squares(np.square(roots)) @ masses / 2).tolist()), label)
