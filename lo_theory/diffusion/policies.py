"""Policies: which positions a decoder reveals next.

A policy answers ``plan(view, budget)`` with the mask after the step, bool[B, L]. ``TopK`` makes a policy of a pure
score. A policy with ``remasks = True`` may say True on a revealed position, which hides it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion import _kernels
from lo_theory.diffusion.schedules import check_budget
from lo_theory.posterior.protocol import Marginals, complain
from lo_theory.problem.layout import Layout, plain
from lo_theory.problem.seams import Seam, checked
from lo_theory.rng import Key

__all__ = [
    "Noise",
    "Policy",
    "TopK",
    "View",
    "check_plan",
    "entropy",
    "fixed_order",
    "hides_again",
    "margin",
    "reveal_best",
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
    not depend on the others (all ``steps`` when left out). ``active`` bool[B] (all when left out): rows that the
    denoiser was asked about; of the others, which have nothing to reveal, the plan is not followed. ``memory`` is kept
    from step to step for the policy, empty at first. The arrays are read-only in a decode.
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
    active: NDArray[np.bool_] | None = None
    denoiser: Callable[[NDArray[np.int8], NDArray[np.intp]], Marginals] | None = None
    memory: dict[str, Any] = field(default_factory=dict)

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
        return np.maximum(self.own_steps - self.step, 0) / np.maximum(self.own_steps, 1)

    @property
    def own_steps(self) -> NDArray[np.int64]:
        """int64[B]: the steps that each row takes."""
        return np.full(len(self.tokens), self.steps) if self.row_steps is None else self.row_steps

    @property
    def asked(self) -> NDArray[np.bool_]:
        """bool[B]: the rows that the denoiser was asked about."""
        return np.ones(len(self.tokens), np.bool_) if self.active is None else self.active

    def ask(self, tokens: NDArray[np.int8], rows: NDArray[np.intp]) -> Marginals:
        """What the denoiser says of further contexts int8[n, L], context i for row ``rows[i]`` of this view.

        For rules that look ahead: each context counts as a forward of its row.
        """
        if self.denoiser is None:
            raise ValueError("this view has no denoiser to ask: it is there in a decode, or as View(denoiser=...)")
        return self.denoiser(tokens, rows)


class Policy(Protocol):
    """Chooses positions. With an attribute ``remasks = True`` it may also hide what is revealed, and is asked at every
    step, whatever the schedule says.
    """

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask after this step, bool[B, L]."""
        ...


def hides_again(policy: Policy) -> bool:
    """Whether a policy may hide what is revealed: its attribute ``remasks``, False where it has none."""
    return bool(getattr(policy, "remasks", False))


POLICY = Seam("a policy", ("name", "plan"), "margin()")


def check_plan(plan: Any, shape: tuple[int, int], name: str) -> NDArray[np.bool_]:
    """Return what a policy answered, contiguous bool[B, L]; ValueError for another shape or kind."""
    next_masked = plain(plan, f"the plan of {name}")
    if next_masked.shape != shape or next_masked.dtype != np.bool_:
        raise ValueError(
            f"{name} must plan the mask after the step, bool[B, L] = bool{list(shape)}, True where hidden; got "
            f"{next_masked.dtype}{list(next_masked.shape)}"
        )
    return np.array(next_masked, order="C")  # the decoder's own, whatever the policy does with its array


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
        return reveal_best(view, self.score(view), budget, self.name)


def reveal_best(view: View, scores: Any, budget: Any, name: str) -> NDArray[np.bool_]:
    """Mask after revealing the ``budget`` int64[B] hidden positions of highest ``scores`` float64[B, L]: the step of
    ``TopK``, its ties, noise and errors, for a rule called ``name`` that chooses the number itself.
    """
    given = _check_scores(scores, view, name)
    if view.noise is not None and view.noise.scale > 0:
        given = _add_noise(given, view, view.noise, name)
    next_masked = view.masked.copy()
    budget = check_budget(budget, len(next_masked), "the schedule", start=view.start)
    _kernels.reveal_highest(next_masked, given, budget, view.start, *view.key.fold("ties").words())
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


def _add_noise(scores: NDArray[np.float64], view: View, noise: Noise, name: str) -> NDArray[np.float64]:
    """Noise is addressed by (step, row, position), so that chunks and threads do not change it."""
    added = np.empty(scores.shape)
    _kernels.fill_noise(added, view.start, *view.key.fold("noise").words(), noise.law == "gaussian")
    scaled = noise.scale * added * view.share_left[:, None] if noise.annealed else noise.scale * added
    if not noise.logarithmic:
        return scores + scaled
    if (scores[view.masked] < 0).any():
        raise ValueError(
            f"{name} has negative scores, and logarithmic noise needs scores that are not negative, such as "
            "probabilities and margins: take plain noise for it"
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
