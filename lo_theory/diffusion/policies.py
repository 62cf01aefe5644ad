"""Policies and schedules: which positions a decoder reveals next, and how many.

A policy answers ``plan(view, budget)`` with the mask after the step, bool[B, L]; True on a revealed position hides it
again, so remasking fits. ``TopK`` makes a policy of a pure score. A schedule answers ``budget(...)`` with how many
positions each row reveals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from lo_theory.diffusion import _kernels
from lo_theory.posterior.protocol import Marginals, complain
from lo_theory.problem.layout import Layout, plain
from lo_theory.problem.seams import Seam, checked
from lo_theory.rng import Key

__all__ = [
    "POLICIES",
    "BinomialRule",
    "Counts",
    "FixedCount",
    "Noise",
    "OneAtATime",
    "Policy",
    "RevealCurve",
    "Schedule",
    "TopK",
    "View",
    "check_budget",
    "check_plan",
    "entropy",
    "fixed_order",
    "margin",
    "schedule_counts",
    "top_probability",
    "vanilla",
]


@checked
@dataclass(frozen=True)
class Noise:
    """Oracle noise on the scores of ``TopK``.

    ``law`` gumbel or gaussian (standard), times ``scale``; added to the score, or with ``logarithmic`` to its
    logarithm; with ``annealed`` times the share of the row's steps still to come, 1 at its first and 1/steps at its
    last (the paper's puzzle code: gumbel, 0.5, logarithmic, annealed).
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
    """What a policy sees: rows ``start .. start + B`` of the decode, before step ``step`` of ``steps``.

    ``steps`` is what the row with most hidden positions takes, ``row_steps`` int64[B] what each row takes, which does
    not depend on the others (all ``steps`` when left out). The arrays are read-only in a decode.
    """

    tokens: NDArray[np.int8]
    masked: NDArray[np.bool_]
    marginals: Marginals
    layout: Layout
    step: int
    steps: int
    key: Key
    start: int = 0
    noise: Noise | None = None
    row_steps: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.tokens), self.layout.length)
        wanted = {"tokens": shape, "masked": shape, "marginals.probs": (*shape, self.layout.n_values)}
        for name, array in (
            ("tokens", self.tokens),
            ("masked", self.masked),
            ("marginals.probs", self.marginals.probs),
        ):
            if array.shape != wanted[name]:
                raise ValueError(f"{name} of a view have the shape {wanted[name]}, got {array.shape}")

    @property
    def share_left(self) -> NDArray[np.float64]:
        """float64[B]: share of a row's steps still to come, (row_steps - step)/row_steps, this one included."""
        steps = np.full(len(self.tokens), self.steps) if self.row_steps is None else self.row_steps
        return np.maximum(steps - self.step, 0) / np.maximum(steps, 1)


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


POLICY = Seam("a policy", ("name", "plan"), "margin()")
SCHEDULE = Seam("a schedule", ("name", "steps", "budget"), "FixedCount(4)")


def check_plan(plan: Any, shape: tuple[int, int], name: str) -> NDArray[np.bool_]:
    """Return what a policy answered, contiguous bool[B, L]; ValueError for another shape or kind."""
    next_masked = plain(plan, f"the plan of {name}")
    if next_masked.shape != shape or next_masked.dtype != np.bool_:
        raise ValueError(
            f"{name} must plan the mask after the step, bool[B, L] = bool{list(shape)}, True where hidden; got "
            f"{next_masked.dtype}{list(next_masked.shape)}"
        )
    return np.array(next_masked, order="C")  # the decoder's own, whatever the policy does with its array


def check_budget(budget: Any, rows: int, name: str, *, start: int = 0) -> NDArray[np.int64]:
    """Return what a schedule answered, int64[B]; ValueError for another shape or kind, and for a negative number."""
    counts = plain(budget, f"the budget of {name}")
    if counts.shape != (rows,) or counts.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must budget how many positions each row reveals, int64[{rows}]; got "
            f"{counts.dtype}{list(counts.shape)}"
        )
    wrong = (counts < 0) | (counts > np.iinfo(np.int64).max)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name} budgets {counts[row]} positions for row {start + row}: at least 0 are revealed, at most all"
        )
    return np.require(counts, np.int64, ("C", "W"))


@dataclass(frozen=True)
class TopK:
    """Reveal the K hidden positions of highest score, K the budget; ties (to 1e-12) uniformly at random.

    ``score(view)`` returns float64[B, L]; only hidden positions count. Errors: ValueError for a score of another shape,
    or that is nan.
    """

    name: str
    score: Callable[[View], NDArray[np.float64]]

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask after this step, bool[B, L]."""
        scores = _check_scores(self.score(view), view, self.name)
        if view.noise is not None and view.noise.scale > 0:
            scores = _add_noise(scores, view, view.noise)
        next_masked = view.masked.copy()
        budget = check_budget(budget, len(next_masked), "the schedule", start=view.start)
        _kernels.reveal_highest(next_masked, scores, budget, view.start, *view.key.fold("ties").words())
        return next_masked


def _check_scores(scores: Any, view: View, name: str) -> NDArray[np.float64]:
    given = plain(scores, f"the score of {name}", np.float64)
    if given.shape != view.masked.shape:
        raise ValueError(f"the score of {name} has the shape [B, L] = {view.masked.shape}, got {given.shape}")
    wrong = np.isnan(given) & view.masked
    if wrong.any():
        row, position = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"the score of {name} is nan for row {view.start + row} at position {position}")
    return np.require(given, np.float64, ("C", "W"))


def _add_noise(scores: NDArray[np.float64], view: View, noise: Noise) -> NDArray[np.float64]:
    """Noise is addressed by (step, row, position), so that chunks and threads do not change it."""
    added = np.empty(scores.shape)
    _kernels.fill_noise(added, view.start, *view.key.fold("noise").words(), noise.law == "gaussian")
    scaled = noise.scale * added * view.share_left[:, None] if noise.annealed else noise.scale * added
    if not noise.logarithmic:
        return scores + scaled
    if (scores[view.masked] < 0).any():
        raise ValueError(
            "logarithmic noise needs scores that are not negative, such as probabilities and margins: "
            "take plain noise for the entropy and for a fixed order"
        )
    return np.log(np.maximum(scores, np.finfo(np.float64).tiny)) + scaled


@dataclass(frozen=True)
class _Constant:
    """The same score everywhere."""

    def __call__(self, view: View) -> NDArray[np.float64]:
        return np.zeros(view.masked.shape)


@dataclass(frozen=True)
class _Confidence:
    """A score of the marginals: see ``_kernels.confidence`` for its kinds. ValueError for marginals that are none."""

    kind: int

    def __call__(self, view: View) -> NDArray[np.float64]:
        scores, probs, values = np.zeros(view.masked.shape), view.marginals.probs, view.layout.values
        row, position, what = _kernels.confidence(scores, probs, view.masked, values, self.kind)
        if what:
            who = f"the posterior gives row {view.start + row}"
            raise complain(probs[row, position], what, int(values[position]), who, position)
        return scores


@dataclass(frozen=True)
class _InOrder:
    """Earlier positions of a reading order score higher."""

    reading: tuple[int, ...] | None

    def __call__(self, view: View) -> NDArray[np.float64]:
        rank = np.empty(view.layout.length)
        rank[view.layout.reading(self.reading)] = -np.arange(view.layout.length)
        return np.broadcast_to(rank, view.masked.shape).copy()


def vanilla() -> TopK:
    """Uniformly random positions (the paper's vanilla inference)."""
    return TopK("vanilla", _Constant())


def top_probability() -> TopK:
    """Positions whose most likely value is most likely: max_j p(x = j)."""
    return TopK("top_probability", _Confidence(0))


def margin() -> TopK:
    """Positions with the largest margin between the two most likely values (the paper's adaptive inference)."""
    return TopK("margin", _Confidence(1))


def entropy() -> TopK:
    """Positions whose marginal has the least entropy."""
    return TopK("entropy", _Confidence(2))


def fixed_order(reading: ArrayLike | None = None) -> TopK:
    """Positions in the order of ``reading`` (first to last); the roles in order, latents first, when left out."""
    return TopK("fixed_order", _InOrder(None if reading is None else tuple(plain(reading, "a reading order").tolist())))


POLICIES: dict[str, Callable[..., Policy]] = {
    "vanilla": vanilla,
    "top_probability": top_probability,
    "margin": margin,
    "entropy": entropy,
    "fixed_order": fixed_order,
}


@checked
def schedule_counts(schedule: Schedule, hidden: int, key: Key) -> list[int]:
    """How many of ``hidden`` masked positions a schedule reveals at each of its steps; steps of none are left out."""
    masked, counts = np.ones((1, hidden), np.bool_), []
    for step in range(schedule.steps(hidden)):
        budget = schedule.budget(step, masked, key.fold(step), 0)
        count = int(min(check_budget(budget, 1, schedule.name)[0], masked.sum()))
        masked[0, np.flatnonzero(masked[0])[:count]] = False
        counts += [count] if count else []
    return counts


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


@checked
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


@checked
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


@checked
@dataclass(frozen=True)
class Counts:
    """So many positions at each step, from ``counts``: a schedule found elsewhere, such as ``best_counts``.

    What is left after the last step is revealed with it, and a row that has less hidden takes fewer steps.
    """

    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1:
            raise ValueError(f"counts are positive numbers of positions, one a step, got {list(self.counts)}")

    @property
    def name(self) -> str:
        """``counts(3,1,2)``."""
        return f"counts({','.join(map(str, self.counts))})"

    def steps(self, hidden: int) -> int:
        """The first step by which all are revealed."""
        done = np.flatnonzero(np.cumsum(self.counts) >= hidden)
        return int(done[0]) + 1 if len(done) else len(self.counts)

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """The count of the step, at the last one all that is left."""
        hidden = masked.sum(axis=1)
        return hidden if step >= len(self.counts) - 1 else np.minimum(self.counts[step], hidden)


@checked
@dataclass(frozen=True)
class RevealCurve:
    """``count`` steps along a curve of the share revealed, a(t) from a(0) = 0 to a(1) = 1, at least one a step.

    beta(a, b): a(t) = sin(pi/2 G(t))**2, G the distribution function of Beta(a, b) (arXiv 2509.13866): Beta(1, 1) is
    the squared sine, Beta(1/2, 1/2) equal steps. cosine: a(t) = 1 - cos(pi/2 t), few tokens first (arXiv 2202.04200).
    """

    count: int
    form: Literal["beta", "cosine"] = "beta"
    a: float = 1.0
    b: float = 1.0

    def __post_init__(self) -> None:
        _check_steps(self.count)
        if self.form not in ("beta", "cosine"):
            raise ValueError(f"the form of a curve is beta or cosine, got {self.form!r}")
        if not (0 < self.a < np.inf and 0 < self.b < np.inf):
            raise ValueError(f"a and b of a Beta law are positive numbers, got {self.a} and {self.b}")

    @property
    def name(self) -> str:
        """``beta(steps,a,b)`` or ``cosine(steps)``."""
        return f"cosine({self.count})" if self.form == "cosine" else f"beta({self.count},{self.a:.3g},{self.b:.3g})"

    def steps(self, hidden: int) -> int:
        """``count``, or fewer where fewer positions are hidden."""
        return min(self.count, hidden)

    def revealed(self, t: float) -> float:
        """a(t), the share revealed at time t in [0, 1]."""
        if self.form == "cosine":
            return 1 - math.cos(math.pi / 2 * t)
        return math.sin(math.pi / 2 * float(special.betainc(self.a, self.b, t))) ** 2

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """hidden less round(hidden (1 - a(t'))/(1 - a(t))), t' the next time; each step left after it is kept one."""
        hidden = masked.sum(axis=1)
        steps = np.minimum(self.count, hidden + step)
        left = np.maximum(steps - step - 1, 0)
        now, then = 1 - self.revealed(step / self.count), 1 - self.revealed(min(1.0, (step + 1) / self.count))
        kept = np.rint(hidden * (then / now if now > 0 else 0.0)).astype(np.int64)
        return hidden - np.where(left > 0, np.clip(kept, left, np.maximum(hidden - 1, 0)), 0)
