"""Rules that ask the denoiser more than the step itself does: what it would say afterwards, or with nothing revealed.

Expectations over the value of a candidate are exact by the denoiser's own law, not drawn, so the choice is a function
of what is revealed. Every context asked counts as a forward of its row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion import _kernels
from lo_theory.diffusion.contexts import BATCH
from lo_theory.diffusion.policies import TopK, View, entropy, top_probability
from lo_theory.problem.layout import MASK, plain
from lo_theory.problem.seams import checked

__all__ = ["information_gain", "lookahead", "position_calibrated"]

Array = NDArray[np.float64]


def _asking(view: View) -> NDArray[np.bool_]:
    """bool[B, L]: hidden positions of the rows that the denoiser may be asked about."""
    return view.masked & view.asked[:, None]


def _entropy_left(view: View, candidates: NDArray[np.bool_]) -> Array:
    """float64[B, L]: sum over the other hidden j of E_{x_i ~ p(x_i | C)} H(x_j | x_i, C), at ``candidates`` i.

    Asks ``BATCH`` contexts at once, equal ones one after the other, so that they are asked together.
    """
    rows, positions = np.nonzero(candidates)
    left, layout = np.zeros(candidates.shape), view.layout
    if not len(rows):
        return left
    laws = view.marginals.probs[rows, positions].astype(np.float64)
    laws *= np.arange(layout.n_values) < layout.values[positions, None]
    laws /= laws.sum(axis=1, keepdims=True)
    which, values = np.nonzero(laws)  # a value of probability 0 needs no answer
    contexts = view.tokens[rows[which]]
    contexts[np.arange(len(which)), positions[which]] = values
    first, found = np.empty(len(which), np.int64), np.empty(len(which))
    _kernels.first_equal(first, contexts)
    order = np.argsort(first, kind="stable")
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        answer, entropies = view.ask(contexts[part], rows[which[part]]), np.zeros((len(part), layout.length))
        _kernels.confidence(entropies, answer.probs, contexts[part] == MASK, layout.values, 2)
        found[part] = -entropies.sum(axis=1)
    left[rows, positions] = np.bincount(which, found * laws[which, values], minlength=len(rows))
    return left


@dataclass(frozen=True)
class _InformationGain:
    """Candidates by what they leave open; below them the others by confidence."""

    candidates: int

    def __call__(self, view: View) -> Array:
        confidence, asking = top_probability().score(view), _asking(view)
        others = asking.copy()
        most = np.full(len(others), self.candidates)
        _kernels.reveal_highest(others, confidence, most, view.start, *view.key.fold("ties").words())
        chosen = asking & ~others
        left = _entropy_left(view, chosen) / np.maximum(view.masked.sum(axis=1, keepdims=True) - 1, 1)
        below = confidence - 2 - 2 * np.log(view.layout.n_values)
        return np.where(chosen, entropy().score(view) - left, below)


@dataclass(frozen=True)
class _Lookahead:
    """The expected reduction of the total correlation of the rest, for every hidden position."""

    def __call__(self, view: View) -> Array:
        entropies, asking = -entropy().score(view), _asking(view)
        others = entropies.sum(axis=1, keepdims=True) - entropies
        return np.where(asking, others - _entropy_left(view, asking), 0.0)


@dataclass(frozen=True)
class _Calibrated:
    """Confidence against the frequency of the token, discounted by position."""

    decay: float
    cap: float
    prior: tuple[float, ...] | None

    def frequencies(self, view: View) -> Array:
        """float64[V]: the given prior, or the mean over positions of what the denoiser says with nothing revealed."""
        if self.prior is not None:
            if len(self.prior) != view.layout.n_values:
                raise ValueError(
                    f"the prior has {len(self.prior)} values, the tokens of this problem {view.layout.n_values}: give "
                    "one frequency for each"
                )
            return np.array(self.prior)
        memory = view.memory.setdefault("position_calibrated", {})  # the same for all of them
        asked = memory.setdefault("asked", np.zeros(len(view.tokens), np.bool_))
        new = np.flatnonzero(_asking(view).any(axis=1) & ~asked)
        if len(new):
            answer = view.ask(np.full((len(new), view.layout.length), MASK, np.int8), new)
            memory["frequencies"] = answer.probs[0].astype(np.float64).mean(axis=0)
            asked[new] = True
        frequencies: Array = memory["frequencies"]
        return frequencies

    def __call__(self, view: View) -> Array:
        confidence, probs = top_probability().score(view), view.marginals.probs
        with np.errstate(divide="ignore"):
            surprises, surprise = -np.log(self.frequencies(view)), np.zeros(confidence.shape)
        for value in reversed(range(view.layout.n_values)):  # the lowest of equals is the last
            likely = (probs[..., value] >= confidence - 1 / _kernels.TIE) & (value < view.layout.values)
            np.copyto(surprise, surprises[value], where=likely & view.masked)
        first = view.masked.argmax(axis=1)[:, None]  # counted from there, lest far positions be ties at zero
        behind = np.maximum(np.arange(view.layout.length) - first, 0)
        return np.exp(-self.decay * behind) * np.minimum(confidence * surprise, self.cap)


@checked
def information_gain(candidates: int = 8) -> TopK:
    """The budget's k of highest score_i = -H_i - mean_j E_{x_i ~ p(x_i | C)} H(x_j | x_i, C), j the other hidden.

    Scored are the ``candidates`` hidden positions of largest probability; beyond their number the others follow, by
    probability. One candidate: ``top_probability``. The rule of github.com/yks23/Information-Gain-Sampler, with two
    differences: the released code draws one value for each candidate and asks what follows from it, here the
    expectation over all values is exact; its candidates are sets of k positions, the surest set and others drawn with
    Gumbel noise on the confidence, here single positions, the surest. Cost: up to V contexts for each candidate,
    besides the step's own. Errors: ValueError for less than one candidate.
    """
    if candidates < 1:
        raise ValueError(f"at least one candidate is scored, got {candidates}: the released code takes 8")
    return TopK(f"information_gain({candidates})", _InformationGain(candidates))


def lookahead() -> TopK:
    """The position whose reveal most reduces the expected dependence error of the rest, by the denoiser's own answers.

    score_i = sum_j I(x_i; x_j | C) = sum over the other hidden j of [H_j - E_{x_i ~ p(x_i | C)} H(x_j | x_i, C)], since
    E TC(rest | C, x_i) = TC(all hidden | C) - score_i, TC the total correlation. One step ahead, one position: for a
    budget above one the k highest, which depend on one another and may lose more than random ones. All hidden positions
    are candidates: up to V contexts for each at every step, some V L**2 / 2 for a sequence one at a time, for small
    sizes and small chunks.
    """
    return TopK("lookahead", _Lookahead())


@checked
def position_calibrated(decay: float = 0.25, cap: float = 10.0, prior: ArrayLike | None = None) -> TopK:
    """score_i = exp(-``decay`` i) min(-p ln f(v), ``cap``): PC-Sampler (arXiv 2508.13021).

    i is the position, counted from the first hidden one (a factor that changes no order), v its most likely value (the
    lowest of equals) and p its probability, f(v) the frequency of v: ``prior`` float[V], or the mean over positions of
    the denoiser's answer with nothing revealed, which costs one forward a sequence (the paper counts a corpus). decay 0
    and a flat prior: ``top_probability``, as long as the cap is at least ln V. Errors: ValueError for a negative decay,
    a cap that is not positive, and a prior that is no law.
    """
    if not 0 <= decay < np.inf:
        raise ValueError(f"decay is a finite number, not negative; got {decay}: 0 makes all positions equal")
    if not cap > 0:
        raise ValueError(f"cap is a positive number of nats, got {cap}: the paper takes 10")
    return TopK(f"position_calibrated({decay:g},{cap:g})", _Calibrated(decay, cap, _law(prior)))


def _law(prior: ArrayLike | None) -> tuple[float, ...] | None:
    if prior is None:
        return None
    law = plain(prior, "the prior", np.float64)
    if law.ndim != 1 or not (law >= 0).all() or not abs(law.sum() - 1) <= 1e-6:
        raise ValueError(f"the prior is one frequency for each value, not negative, of sum 1; got {law.tolist()}")
    return tuple(law.tolist())
