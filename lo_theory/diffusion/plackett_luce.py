"""Masks as one-at-a-time decoding along a Plackett-Luce order meets them (arXiv 2511.19152, 2602.02112)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion.masks import Masks, check_length, keep_plain, number_text, row_integers
from lo_theory.diffusion.rates import row_units
from lo_theory.problem.layout import Layout
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["PlackettLuce", "draw_orders", "order_chances"]

_LEAST = 1e-100  # sums and ratios of weights that are no further from 1 are finite


@checked
@dataclass(frozen=True)
class PlackettLuce:
    """An order drawn by weights w, all but its first k revealed, k uniform on 0..L-1; weight w_i / sum of hidden w.

    The next position is i with probability w_i / (sum of w not yet drawn), and a hidden position has in the loss the
    probability of being next. So for any predictor the mean is the average over Plackett-Luce orders of the
    autoregressive loss along the order, in nats per token. It is the law that hides i with probability t**w_i, t
    uniform, weight w_i/(t L), with t integrated out: there weights are unbounded, here at most 1. Equal w:
    ``Uniform``; ratios to infinity: ``Suffix`` along that order. With the exact posterior all orders lose the same.

    ``latents``: weight of a latent where an observation has 1. ``weights``: one for each position, in their place.
    """

    latents: float = 1.0
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        keep_plain(self)
        given = _positive([self.latents] if self.weights is None else self.weights)
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(given.tolist()))

    @property
    def name(self) -> str:
        """``plackett_luce(latents)``, else ``plackett_luce(weights 0.5,1,2)``."""
        if self.weights is None:
            return f"plackett_luce({number_text(self.latents)})"
        return f"plackett_luce(weights {number_text(*self.weights)})"

    def at(self, layout: Layout) -> NDArray[np.float64]:
        """float64[L]: the weight of each position; ValueError for another number of weights."""
        if self.weights is None:
            return np.where(layout.is_latent, float(self.latents), 1.0)
        if len(self.weights) != layout.length:
            raise ValueError(f"{self.name} has {len(self.weights)} weights, sequences have length {layout.length}")
        return np.asarray(self.weights, np.float64)

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        check_length(tokens, layout)
        weights = self.at(layout)
        known = row_integers(key.fold("known"), len(tokens), layout.length, start=start)
        places = np.argsort(draw_orders(key.fold("order"), len(tokens), weights, start=start), axis=1)
        masked = places >= known[:, None]
        hidden = masked * weights
        return masked[None], (hidden / hidden.sum(axis=1, keepdims=True)).astype(np.float32)[None]


def _positive(weights: ArrayLike) -> NDArray[np.float64]:
    given = np.asarray(weights, np.float64)
    if given.ndim != 1 or not ((given >= _LEAST) & (given <= 1 / _LEAST)).all():
        raise ValueError(
            f"the weights of a Plackett-Luce law are positive numbers, one for each position, from {_LEAST:g} to "
            f"{1 / _LEAST:g}, got {given.tolist()}"
        )
    return given


@checked
def draw_orders(key: Key, n: int, weights: ArrayLike, *, start: int = 0) -> NDArray[np.int64]:
    """Draw Plackett-Luce orders of the positions for rows ``start .. start + n``: int64[n, L], first to last.

    The order of independent exponential times of rates ``weights`` float[L].
    """
    rates = _positive(weights)
    times = -np.log1p(-row_units(key, (n, len(rates)), start=start)) / rates
    return np.argsort(times, axis=1, kind="stable")


@checked
def order_chances(weights: ArrayLike) -> NDArray[np.float64]:
    """float64[2**L]: the probability that the first |R| positions of an order are the set R, whose bits number it.

    f(R) = sum over i in R of f(R - i) w_i / (sum of w outside R - i). Cost: L 2**L.
    """
    each = _positive(weights)
    sets = np.arange(2 ** len(each))
    bits = (sets[:, None] >> np.arange(len(each))) & 1
    left, sizes = (1 - bits) @ each, bits.sum(axis=1)
    chances = np.zeros(len(sets))
    chances[0] = 1.0
    for size in range(1, len(each) + 1):
        for i in range(len(each)):
            to = sets[(sizes == size) & (bits[:, i] == 1)]
            chances[to] += chances[to - (1 << i)] * each[i] / left[to - (1 << i)]
    return chances
