"""The evidence bound of single sequences: drawn, exact by enumeration, and how its variance splits.

Preference optimisation of a masked model compares bounds in place of likelihoods (VRPO of LLaDA 1.5, arXiv 2505.19223):
what counts is the variance of the difference between a model and its reference. Here it is known without training, for
every way to spend a budget of contexts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion.contexts import BATCH, at_truth
from lo_theory.diffusion.masks import hide_subset, row_integers
from lo_theory.posterior import Posterior
from lo_theory.posterior.protocol import ask, check_layout
from lo_theory.problem.layout import MASK, Record
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["Allocation", "ElboVariance", "elbo", "elbo_variance"]

_LONGEST = 12  # 4095 contexts a sequence


@dataclass(frozen=True)
class Allocation:
    """``rates`` sizes with ``masks`` masks each, drawn once for both predictors (``shared``) or for each of them.

    ``variance``, in nats**2: of the difference of the two bounds, the mean over the sequences.
    """

    rates: int
    masks: int
    shared: bool
    variance: float


@dataclass(frozen=True, eq=False, repr=False)
class ElboVariance(Record):
    """Bounds of n sequences by a model and its reference, and the variance of one draw of them.

    ``bounds`` float64[2, n] in nats, of the model and of the reference. ``rate`` = Var_s E[f | s] and ``mask`` =
    E_s Var[f | s] float64[3, n] in nats**2, f one draw and s its number of hidden tokens: of the model, of the
    reference, and of their difference on the same mask.
    """

    bounds: NDArray[np.float64]
    rate: NDArray[np.float64]
    mask: NDArray[np.float64]

    @property
    def difference(self) -> NDArray[np.float64]:
        """float64[n]: the bound of the model less that of the reference, exact."""
        return np.asarray(self.bounds[0] - self.bounds[1])

    def variance(self, rates: int, masks: int, *, shared: bool) -> NDArray[np.float64]:
        """Variance float64[n] of the difference, each bound drawn by ``elbo`` with ``rates`` and ``masks``.

        rate/rates + mask/(rates masks): of the difference if both share their draws, else of model and reference, added
        up. So for a given number of contexts one mask a rate is best, whatever the predictors are.
        """
        _check_counts(rates, masks)
        each = self.rate / rates + self.mask / (rates * masks)
        return np.asarray(each[2] if shared else each[0] + each[1])

    def table(self, budget: int) -> tuple[Allocation, ...]:
        """Every way to spend ``budget`` contexts a sequence and predictor, most rates first."""
        _check_counts(budget, 1)
        ways = [(budget // masks, masks) for masks in range(1, budget + 1) if budget % masks == 0]
        return tuple(
            Allocation(*way, shared, float(self.variance(*way, shared=shared).mean()))
            for shared in (True, False)
            for way in ways
        )


def _check_counts(rates: int, masks: int) -> None:
    if rates < 1 or masks < 1:
        raise ValueError(f"a bound is drawn with at least one rate and one mask a rate, got {rates} and {masks}")


@checked
def elbo(
    posterior: Posterior, sequences: ArrayLike, *, key: Key, rates: int = 1, masks: int = 1, start: int = 0
) -> NDArray[np.float64]:
    """Mean over ``rates`` sizes s, uniform on 1..L, with ``masks`` masks each, of (L/s) sum over hidden i of ln q(x_i).

    float64[n] in nats, of complete ``sequences`` int8[n, L]; its mean is the bound E ln q(x) along a random order, of
    the exact posterior ln p(x). Two predictors with one ``key`` share their draws; row i has the address ``key``,
    ``start`` + i. Cost: n rates masks rows through ``posterior``. -inf where it excludes a token. Errors: ValueError
    for a number below one, and for sequences that are not complete.
    """
    _check_counts(rates, masks)
    rows = posterior.layout.check_tokens(sequences, complete=True)
    length, total = rows.shape[1], np.zeros(len(rows))
    for rate in range(rates):
        place = key.fold(rate)
        sizes = 1 + row_integers(place.fold("size"), len(rows), length, start=start)
        for mask in range(masks):
            masked = np.zeros(rows.shape, np.bool_)
            positions = np.arange(length, dtype=np.int32)
            hide_subset(masked, place.fold("subset").fold(mask), start, positions, sizes)
            total += _values(posterior, rows, masked, start + np.arange(len(rows)))
    return total / (rates * masks)


@checked
def elbo_variance(model: Posterior, reference: Posterior, sequences: ArrayLike) -> ElboVariance:
    """Exact bounds of complete ``sequences`` int8[n, L], L <= 12, and the variance of a draw, by all 2**L - 1 masks.

    Cost: n (2**L - 1) rows through each predictor. Errors: ValueError for longer sequences (``elbo`` draws theirs), for
    predictors of different layouts, and where one excludes a token, which makes its bound -inf.
    """
    check_layout(model.layout, reference.layout, type(model).__name__)
    rows = model.layout.check_tokens(sequences, complete=True)
    n, length = rows.shape
    if length > _LONGEST:
        raise ValueError(f"all masks are enumerated for L <= {_LONGEST}, got L = {length}: draw bounds with elbo")
    masks = (np.arange(1, 2**length)[:, None] >> np.arange(length) & 1).astype(np.bool_)
    sizes = masks.sum(axis=1)
    values = np.empty((3, n, len(masks)))
    for i, row in enumerate(rows):
        repeated, at = np.broadcast_to(row, masks.shape), np.full(len(masks), i)
        values[:2, i] = [_values(predictor, repeated, masks, at) for predictor in (model, reference)]
    excluded = ~np.isfinite(values[:2]).all(axis=(0, 2))
    if excluded.any():
        raise ValueError(
            f"a predictor excludes a token of sequence {int(np.argmax(excluded))}: its bound is -inf, and has no "
            "variance; mix it with the prior (Mixed)"
        )
    values[2] = values[0] - values[1]
    of_size = np.stack([values[..., sizes == s].mean(axis=-1) for s in range(1, length + 1)])
    within = np.stack([values[..., sizes == s].var(axis=-1) for s in range(1, length + 1)])
    return ElboVariance(of_size.mean(axis=0)[:2], of_size.var(axis=0), within.mean(axis=0))


def _values(
    posterior: Posterior, rows: NDArray[np.int8], masked: NDArray[np.bool_], numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """float64[n]: one draw of the bound for each row and its mask; errors call the rows by ``numbers`` int64[n]."""
    values = np.empty(len(rows))
    for first in range(0, len(rows), BATCH):
        part = slice(first, first + BATCH)
        tokens = np.where(masked[part], np.int8(MASK), rows[part])
        answer = ask(posterior, tokens, posterior.layout, rows=numbers[part])
        with np.errstate(divide="ignore"):
            logs = np.log(at_truth(np.asarray(answer.probs, np.float64), rows[part]))
        values[part] = np.where(masked[part], logs, 0.0).sum(axis=1)
    return values * rows.shape[1] / masked.sum(axis=1)
