"""Rules that may hide what is revealed: ReMDM (arXiv 2503.00307) and path planning, P2 (arXiv 2502.03540).

Positions that are given stay. A rule needs a schedule whose steps do not end before the rule does, such as
``BinomialRule(T)``: T steps whatever is hidden. The marginals of a revealed position are one-hot, so what a rule knows
of the doubts about it is kept from the time at which it was drawn, or asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import _kernels
from lo_theory.diffusion.contexts import BATCH, at_truth
from lo_theory.diffusion.policies import View, top_probability
from lo_theory.posterior import Marginals
from lo_theory.problem.layout import MASK
from lo_theory.problem.seams import checked

__all__ = [
    "P2",
    "ReMDM",
    "p2",
    "remdm_cap",
    "remdm_confidence",
    "remdm_loop",
    "remdm_rescale",
    "without_one",
]


@checked
@dataclass(frozen=True)
class ReMDM:
    """Hide revealed tokens again with probability sigma, and reveal so many more that the share revealed is kept.

    From share a to share a' at a step, a revealed token stays with 1 - sigma and a hidden one is revealed with
    (a' - (1 - sigma) a)/(1 - a); so any sigma that does not depend on the token leaves the mean share on the schedule.
    sigma <= sigma_max = min(1, (1 - a')/a). By ``form``: cap, min(strength, sigma_max); rescale, strength sigma_max;
    confidence, strength sigma_max softmax(-p) over the revealed tokens, p the probability with which each was drawn,
    and hidden ones as if sigma were 0, as released: the share then falls behind, by strength sigma_max/L a step; loop,
    cap inside a window, 0 outside it.

    a = step/steps; with loop it rises to ``share`` until 1 - ``on`` of the steps, is held there while tokens are hidden
    again, and rises to 1 after 1 - ``off``. At the last step all is revealed. The budget of the schedule is not used.
    """

    strength: float
    form: str = "cap"
    on: float = 0.55
    off: float = 0.05
    share: float = 0.9

    remasks = True

    def __post_init__(self) -> None:
        if self.form not in _FORMS:
            raise ValueError(f"a form of ReMDM is one of {', '.join(_FORMS)}, got {self.form!r}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"the strength of ReMDM is a probability or a share of one, got {self.strength}")
        if not (0 <= self.off < self.on <= 1 and 0 < self.share <= 1):
            raise ValueError(
                "the loop of ReMDM has times 0 <= off < on <= 1, counted from the end, and a share in (0, 1], got "
                f"on = {self.on}, off = {self.off}, share = {self.share}"
            )

    @property
    def name(self) -> str:
        """``remdm_cap(strength)`` and so on; with loop the window and its share follow."""
        window = f",{self.on:g},{self.off:g},{self.share:g}" if self.form == "loop" else ""
        return f"remdm_{self.form}({self.strength:g}{window})"

    def revealed(self, progress: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share that is to be revealed after ``progress`` float64[...] of the steps, 0 to 1."""
        if self.form != "loop":
            return progress
        rise = np.minimum(progress / (1 - self.on), 1) if self.on < 1 else np.ones_like(progress)
        last = np.clip((progress - (1 - self.off)) / self.off, 0, 1) if self.off > 0 else progress >= 1
        return np.where(progress >= 1, 1.0, self.share * rise + (1 - self.share) * last)

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask after this step, bool[B, L]; draws have the address (step, row, position)."""
        free = _free(view.memory.setdefault(self.name, {}), view)
        steps = np.maximum(view.own_steps, 1)
        progress, then = (np.minimum((view.step + k) / steps, 1.0) for k in (0, 1))
        now, after = self.revealed(progress), self.revealed(then)
        most = np.minimum(1.0, np.divide(1 - after, now, out=np.ones_like(now), where=now > 0))
        sigma, kept = _FORMS[self.form](self, view, most, (progress, then))
        hide = np.where(free, np.broadcast_to(sigma, view.masked.shape), 0.0)
        show = np.divide(after - (1 - kept) * now, 1 - now, out=np.ones_like(now), where=now < 1)
        show[then >= 1] = 1.0  # whatever the rounding of a share
        next_masked = view.masked.copy()
        _kernels.remask(next_masked, hide, show, view.start, *view.key.fold("remask").words())
        return next_masked


Shares = NDArray[np.float64]
Sigma = tuple[Shares, Shares]
"""sigma [B, 1] or [B, L] of the revealed tokens, and sigma [B] as hidden ones are revealed by."""


def _cap(rule: ReMDM, view: View, most: Shares, times: tuple[Shares, Shares]) -> Sigma:
    sigma = np.minimum(rule.strength, most)
    return sigma[:, None], sigma


def _rescale(rule: ReMDM, view: View, most: Shares, times: tuple[Shares, Shares]) -> Sigma:
    sigma = rule.strength * most
    return sigma[:, None], sigma


def _loop(rule: ReMDM, view: View, most: Shares, times: tuple[Shares, Shares]) -> Sigma:
    inside = (times[0] >= 1 - rule.on - _SLACK) & (times[1] <= 1 - rule.off + _SLACK)
    sigma = np.where(inside, np.minimum(rule.strength, most), 0.0)
    return sigma[:, None], sigma


def _confidence(rule: ReMDM, view: View, most: Shares, times: tuple[Shares, Shares]) -> Sigma:
    memory = view.memory.setdefault(rule.name, {})
    weights = np.where(_free(memory, view) & ~view.masked, np.exp(-_drawn_with(memory, view)), 0.0)
    total = weights.sum(axis=1, keepdims=True)
    return rule.strength * most[:, None] * weights / np.where(total > 0, total, 1.0), np.zeros_like(most)


_SLACK = 1e-9  # of a time: k/T and 1 - on are rounded
_FORMS: dict[str, Callable[[ReMDM, View, Shares, tuple[Shares, Shares]], Sigma]] = {
    "cap": _cap,
    "rescale": _rescale,
    "confidence": _confidence,
    "loop": _loop,
}


def _free(memory: dict[str, Any], view: View) -> NDArray[np.bool_]:
    """bool[B, L]: positions that were hidden when the decode began."""
    free: NDArray[np.bool_] = memory.setdefault("free", view.masked.copy())
    return free


def _drawn_with(memory: dict[str, Any], view: View) -> NDArray[np.float64]:
    """float64[B, L]: the probability with which each revealed token was drawn, by the marginals of that step."""
    drawn: NDArray[np.float64] = memory.setdefault("drawn", np.ones(view.masked.shape))
    if "masked" in memory:
        new = memory["masked"] & ~view.masked
        drawn[new] = at_truth(memory["probs"], view.tokens)[new]
    memory["masked"], memory["probs"] = view.masked.copy(), view.marginals.probs
    return drawn


def without_one(
    ask: Callable[[NDArray[np.int8], NDArray[np.intp]], Marginals],
    tokens: NDArray[np.int8],
    among: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """float64[B, L]: the probability of each token ``among`` bool[B, L] given all other revealed ones; 0 elsewhere.

    Cost: one context for each of them, ``BATCH`` at once.
    """
    found, (rows, positions) = np.zeros(tokens.shape), np.nonzero(among)
    for start in range(0, len(rows), BATCH):
        row, position = rows[start : start + BATCH], positions[start : start + BATCH]
        contexts = tokens[row]
        contexts[np.arange(len(row)), position] = MASK
        laws = ask(contexts, row).probs[np.arange(len(row)), position]
        found[row, position] = at_truth(laws[:, None], tokens[row, position][:, None])[:, 0]
    return found


@checked
@dataclass(frozen=True)
class P2:
    """Keep the K positions of highest score of all, K = revealed + budget (all at the last step); hide the others.

    Score of a hidden position: ln of the probability of its most likely value; of a revealed one: ``eta`` times ln of
    the probability of its token given all other revealed ones, which costs one context of its own. ``eta`` = 1 is the
    released weight. 0: what is revealed stays and nothing is asked, which is ``top_probability``; larger: more is
    hidden again. Ties at random.
    """

    eta: float = 1.0

    remasks = True

    def __post_init__(self) -> None:
        if not 0 <= self.eta < np.inf:
            raise ValueError(f"eta of P2 weighs a logarithm: finite and not negative, got {self.eta}")

    @property
    def name(self) -> str:
        """``p2(eta)``."""
        return f"p2({self.eta:g})"

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask after this step, bool[B, L]. Cost: one context for each position revealed since the decode began."""
        free = _free(view.memory.setdefault(self.name, {}), view)
        shown, likely = free & ~view.masked, top_probability().score(view)
        if self.eta > 0:
            weighed = without_one(view.ask, view.tokens, shown & view.asked[:, None])
        with np.errstate(divide="ignore"):
            scores = np.log(likely)
            scores[shown] = self.eta * np.log(weighed[shown]) if self.eta > 0 else np.inf
        next_masked = free.copy()
        kept = np.where(view.step + 1 >= view.own_steps, free.sum(axis=1), shown.sum(axis=1) + budget)
        _kernels.reveal_highest(next_masked, scores, kept, view.start, *view.key.fold("ties").words())
        return next_masked


def p2(eta: float = 1.0) -> P2:
    """Path planning by the denoiser itself; 1 is the weight of the released code."""
    return P2(eta)


def remdm_cap(strength: float = 0.008) -> ReMDM:
    """ReMDM: tokens are hidden again with min(strength, sigma_max); the default is that of the released script."""
    return ReMDM(strength, "cap")


def remdm_rescale(strength: float = 0.015) -> ReMDM:
    """ReMDM: with strength sigma_max."""
    return ReMDM(strength, "rescale")


def remdm_confidence(strength: float = 1.0) -> ReMDM:
    """ReMDM: with strength sigma_max softmax(-p) over the revealed tokens."""
    return ReMDM(strength, "confidence")


def remdm_loop(strength: float = 0.02, on: float = 0.55, off: float = 0.05, share: float = 0.9) -> ReMDM:
    """ReMDM: with min(strength, sigma_max) while the share revealed is held, from time ``on`` to ``off``."""
    return ReMDM(strength, "loop", on, off, share)
