"""Policies and schedules: which positions a decoder reveals next, and how many.

A policy answers ``plan(view, budget)`` with the mask after the step, bool[B, L]; True on a revealed position hides it
again, so remasking fits. ``TopK`` makes a policy of a pure score. A schedule answers ``budget(...)`` with how many
positions each row reveals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion import _kernels
from lo_theory.posterior import Marginals
from lo_theory.problem.layout import Layout
from lo_theory.rng import Key

__all__ = [
    "POLICIES",
    "BinomialRule",
    "FixedCount",
    "Noise",
    "OneAtATime",
    "Policy",
    "Schedule",
    "TopK",
    "View",
    "entropy",
    "fixed_order",
    "margin",
    "top_probability",
    "vanilla",
]


@dataclass(frozen=True)
class Noise:
    """Oracle noise on the scores of ``TopK``.

    ``law`` gumbel or gaussian (standard), times ``scale``; added to the score, or with ``logarithmic`` to its
    logarithm; with ``annealed`` times the share of steps still to come (the paper's puzzle code: gumbel, 0.5,
    logarithmic, annealed).
    """

    scale: float
    law: str = "gumbel"
    logarithmic: bool = False
    annealed: bool = False

    def __post_init__(self) -> None:
        if self.scale < 0 or not np.isfinite(self.scale):
            raise ValueError(f"the scale of oracle noise must be finite and not negative, got {self.scale}")
        if self.law not in _NOISE_LAWS:
            raise ValueError(f"oracle noise is one of {sorted(_NOISE_LAWS)}, not {self.law!r}")


_NOISE_LAWS = ("gumbel", "gaussian")


@dataclass(frozen=True)
class View:
    """What a policy sees: rows ``start .. start + B`` of the decode, before step ``step`` of ``steps``."""

    tokens: NDArray[np.int8]
    masked: NDArray[np.bool_]
    marginals: Marginals
    layout: Layout
    step: int
    steps: int
    key: Key
    start: int = 0
    noise: Noise | None = None


class Policy(Protocol):
    """Chooses positions."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask after this step, bool[B, L]."""
        ...


class Schedule(Protocol):
    """Chooses how many positions."""

    @property
    def name(self) -> str:
        """Name with its parameters."""
        ...

    def steps(self, hidden: int) -> int:
        """Steps a decode takes from ``hidden`` masked positions."""
        ...

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """How many positions each row reveals at this step, int64[B]."""
        ...


@dataclass(frozen=True)
class TopK:
    """Reveal the K hidden positions of highest score, K the budget; ties (to 1e-12) uniformly at random.

    ``score(view)`` returns float64[B, L]; only hidden positions count.
    """

    name: str
    score: Callable[[View], NDArray[np.float64]]

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask after this step, bool[B, L]."""
        scores = self.score(view)
        if view.noise is not None and view.noise.scale > 0:
            scores = _add_noise(scores, view, view.noise)
        next_masked = view.masked.copy()
        _kernels.reveal_highest(next_masked, scores, budget, view.start, *view.key.fold("ties").words())
        return next_masked


def _add_noise(scores: NDArray[np.float64], view: View, noise: Noise) -> NDArray[np.float64]:
    """Noise is addressed by (step, row, position), so that chunks and threads do not change it."""
    added = np.empty(scores.shape)
    _kernels.fill_noise(added, view.start, *view.key.fold("noise").words(), noise.law == "gaussian")
    share = (view.steps - view.step) / view.steps if noise.annealed else 1.0
    if not noise.logarithmic:
        return scores + noise.scale * share * added
    if (scores[view.masked] < 0).any():
        raise ValueError(
            "logarithmic noise needs scores that are not negative, such as probabilities and margins: "
            "take plain noise for the entropy and for a fixed order"
        )
    return np.log(np.maximum(scores, np.finfo(np.float64).tiny)) + noise.scale * share * added


def _confidence(kind: int) -> Callable[[View], NDArray[np.float64]]:
    def score(view: View) -> NDArray[np.float64]:
        scores = np.zeros(view.masked.shape)
        _kernels.confidence(scores, view.marginals.probs, view.masked, view.layout.values, kind)
        return scores

    return score


def vanilla() -> TopK:
    """Uniformly random positions (the paper's vanilla inference)."""
    return TopK("vanilla", lambda view: np.zeros(view.masked.shape))


def top_probability() -> TopK:
    """Positions whose most likely value is most likely: max_j p(x = j)."""
    return TopK("top_probability", _confidence(0))


def margin() -> TopK:
    """Positions with the largest margin between the two most likely values (the paper's adaptive inference)."""
    return TopK("margin", _confidence(1))


def entropy() -> TopK:
    """Positions whose marginal has the least entropy."""
    return TopK("entropy", _confidence(2))


def fixed_order(reading: ArrayLike | None = None) -> TopK:
    """Positions in the order of ``reading`` (first to last); the roles in order, latents first, when left out."""

    def score(view: View) -> NDArray[np.float64]:
        rank = np.empty(view.layout.length)
        rank[view.layout.reading(reading)] = -np.arange(view.layout.length)
        return np.broadcast_to(rank, view.masked.shape).copy()

    return TopK("fixed_order", score)


POLICIES: dict[str, Callable[..., Policy]] = {
    "vanilla": vanilla,
    "top_probability": top_probability,
    "margin": margin,
    "entropy": entropy,
    "fixed_order": fixed_order,
}


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a decode takes at least one step, got {steps}")


@dataclass(frozen=True)
class OneAtATime:
    """One position a step."""

    name: str = "one_at_a_time"

    def steps(self, hidden: int) -> int:
        """As many steps as hidden positions."""
        return hidden

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """One for every row in which something is hidden."""
        return np.asarray(masked.any(axis=1), np.int64)


@dataclass(frozen=True)
class FixedCount:
    """Exactly ``count`` steps of equal size: what is left, divided by the steps left, rounded up."""

    count: int

    def __post_init__(self) -> None:
        _check_steps(self.count)

    @property
    def name(self) -> str:
        """``fixed_count(steps)``."""
        return f"fixed_count({self.count})"

    def steps(self, hidden: int) -> int:
        """``count``, or fewer where fewer positions are hidden."""
        return min(self.count, hidden)

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """ceil(hidden / steps left)."""
        return -(-masked.sum(axis=1) // max(1, self.count - step))


@dataclass(frozen=True)
class BinomialRule:
    """The paper's rule on an even grid.

    K ~ Binomial(hidden, (alpha_s - alpha_t)/(1 - alpha_t)) = Binomial(hidden, 1/(steps left)).

    With the vanilla policy every position is revealed independently, as in the paper's reverse process.
    """

    count: int

    def __post_init__(self) -> None:
        _check_steps(self.count)

    @property
    def name(self) -> str:
        """``binomial(steps)``."""
        return f"binomial({self.count})"

    def steps(self, hidden: int) -> int:
        """``count``: a step may reveal nothing."""
        return self.count

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """Independent binomial draws, row by row; at the last step all that is left."""
        counts = np.empty(len(masked), np.int64)
        rate = 1.0 / max(1, self.count - step)
        _kernels.draw_binomial(counts, start, *key.fold("budget").words(), masked.sum(axis=1), rate)
        return counts
