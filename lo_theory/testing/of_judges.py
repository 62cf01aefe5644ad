"""Checks of code that evaluates: asked about the exact posterior, whose accuracy and loss are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import Uniform
from lo_theory.diffusion.contexts import draw_contexts, row_means
from lo_theory.posterior import Posterior
from lo_theory.problem import Distribution
from lo_theory.problem.distribution import entropies
from lo_theory.problem.seams import checked
from lo_theory.rng import Key
from lo_theory.testing.of_posteriors import surprise_spread
from lo_theory.testing.p_values import mean_test
from lo_theory.testing.report import Check, exact, statistical

__all__ = ["Judge", "judge_checks"]

_FEW = 16
_DEVIATIONS = 6.0  # standard errors that a test at 1e-4 finds with probability 0.98

Function = Callable[[Posterior, NDArray[np.int8], NDArray[np.bool_]], NDArray[np.float64]]


@checked
@dataclass(frozen=True)
class Judge:
    """Code that judges posteriors: ``function(posterior, truth, masked)`` -> float64[n], one value a sequence.

    ``truth`` int8[n, L] are complete sequences, ``masked`` bool[n, L] what is hidden of them. ``what`` says what the
    value is: "accuracy", the share of the hidden positions whose most likely value is the true one, or "loss", the mean
    cross-entropy of the hidden positions in nats.
    """

    function: Function
    what: str = "accuracy"

    def __post_init__(self) -> None:
        if self.what not in ("accuracy", "loss"):
            raise ValueError(f"a judge tells 'accuracy' or 'loss', got {self.what!r}")


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean()))


def judge_checks(judge: Judge, problem: Distribution, truth: Posterior, key: Key, n: int) -> list[Check]:
    """Let it judge ``truth``, the exact posterior, on n contexts; its expectation in each of them is known."""
    ((batch,),) = draw_contexts(problem, Uniform(), key, n, size=n)
    probs = batch.ask(truth).probs
    sure, weight = probs.max(axis=2), batch.masked / np.maximum(batch.masked.sum(axis=1, keepdims=True), 1)
    known = sure if judge.what == "accuracy" else entropies(probs)
    if judge.what == "accuracy":  # a value so rare that it has not come would have moved it down, and a loss up
        spread = 0.0, _root_mean_square((weight * np.sqrt(sure * (1 - sure))).sum(axis=1))
    else:
        spread = _root_mean_square(surprise_spread(probs, weight)), 0.0
    expected = row_means(known, batch.masked)

    def judged(rows: slice) -> NDArray[np.float64]:
        values = np.asarray(judge.function(truth, batch.truth[rows], batch.masked[rows]), np.float64)
        if values.shape != batch.truth[rows].shape[:1]:
            raise ValueError(f"a judge answers one value a sequence, {len(batch.truth[rows])}; got {values.shape}")
        return values

    values = judged(slice(None))
    parts = np.concatenate([judged(slice(_FEW)), judged(slice(_FEW, n))])
    worst = float(np.abs(parts - values).max())
    difference = values - expected
    return [
        statistical(
            f"{judge.what} is that of the exact posterior",
            mean_test(difference, 0.0, spread=spread),
            f"the exact posterior has the {judge.what} {expected.mean():.4f}, and so it says",
            f"the exact posterior has the {judge.what} {expected.mean():.4f}, and it says {values.mean():.4f}",
            f"finds a difference of {_DEVIATIONS * difference.std() / np.sqrt(n):.2g}",
        ),
        exact(
            "rows independent of the batch",
            worst,
            worst < 1e-6,
            "a few rows by themselves are judged as in the batch",
            f"a value changes by {worst:.3g} with the other rows of the batch",
        ),
    ]
