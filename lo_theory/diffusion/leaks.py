"""No posterior beats Bayes: a test for posteriors that know of the tokens they are asked about. Touches nothing.

A posterior that sees the context only gives the true token a probability q whose ratio to the exact p has E[q/p |
context] = sum of q over the values with p > 0, which is at most 1 however bad the posterior is. So wealth that is bet
on q/p, a share of it on every context, grows by chance at most: P(wealth >= 1/a) <= a (Markov), for any number of
contexts and any law. The paired difference of the losses is -ln(q/p); its mean with a normal interval would be no such
test, because an overconfident posterior beats Bayes a little in most contexts and pays for it in a few: a small sample
may hold none of these (tests/diffusion/test_losses_leaks.py holds that case).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from lo_theory.problem.layout import plain
from lo_theory.problem.seams import checked

__all__ = ["FAMILY_LEVEL", "evidence", "find_leaks", "leak_threshold"]

FAMILY_LEVEL = 1e-3
"""Probability that any row at all of an honest posterior is called a leak."""

_STAKES = np.array([1.0, 0.5, 0.25, 0.125])  # shares of the wealth that are bet; a quarter of it begins with each

T = TypeVar("T")


def evidence(ratios: ArrayLike) -> float:
    """ln of the wealth after betting on ``ratios`` [n], of expectation at most 1: the mean of q/p over tokens of one
    context, chosen by the context.

    ln mean over stakes s of prod over contexts (1 - s + s ratio), in nats. For a posterior that knows the context only
    the wealth has expectation at most 1, so evidence >= t has probability at most exp(-t). Evidence of independent
    contexts adds. Errors: ValueError for a negative ratio or nan.
    """
    values = plain(ratios, "ratios", np.float64).ravel()
    if not (values >= 0).all():
        raise ValueError(f"ratios of probabilities are not negative, got {values[~(values >= 0)][0]}")
    with np.errstate(divide="ignore"):  # a whole wealth that is lost
        wealth = np.log1p(np.multiply.outer(_STAKES, values - 1.0)).sum(axis=1)
    return float(np.logaddexp.reduce(wealth)) - math.log(len(_STAKES))


@checked
def leak_threshold(rows: int, level: float = FAMILY_LEVEL) -> float:
    """Evidence from which one of ``rows`` rows is a leak, in nats: ln(rows/level), the family-wise level ``level``
    (Bonferroni, whatever depends on what).
    """
    if rows < 1 or not 0 < level < 1:
        raise ValueError(f"a family has at least one row and a level in (0, 1), got {rows} rows, level {level}")
    return math.log(rows / level)


@checked
def find_leaks(rows: Mapping[T, float], level: float = FAMILY_LEVEL) -> list[T]:
    """Names of the rows whose evidence is over ``leak_threshold``: none for honest posteriors, with probability
    1 - ``level`` or more over all rows together.

    Not promised: that a leak is found. Where the exact posterior is certain nobody can beat it.
    """
    if not rows:
        return []
    threshold = leak_threshold(len(rows), level)
    return [name for name, value in rows.items() if value >= threshold]
