"""Rules that look at more than one answer: at the one before (``stable``), or at the answer (``true_margin``)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion import _kernels
from lo_theory.diffusion.policies import Policy, TopK, View, reveal_best, top_probability
from lo_theory.diffusion.schedules import check_budget
from lo_theory.problem.layout import frozen, plain
from lo_theory.problem.seams import checked

__all__ = ["stable", "true_margin"]

_STEPS = 2


@dataclass(frozen=True)
class _Stable:
    """Stable positions first, then the surest."""

    kappa: float
    tau: float

    @property
    def name(self) -> str:
        """``stable(kappa,tau)``."""
        return f"stable({self.kappa:g},{self.tau:g})"

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask after this step, bool[B, L]; the budget is the least number of positions."""
        confidence, probs = top_probability().score(view), view.marginals.probs
        memory = view.memory.setdefault(self.name, {})
        before = memory.setdefault("laws", np.zeros(probs.shape))
        counts = memory.setdefault("stable", np.full(view.masked.shape, -1))
        if memory.get("step") != view.step:  # asked twice at a step, it counts once
            _kernels.count_stable(counts, before, probs, view.masked, view.asked, view.layout.values, self.kappa)
        memory["step"] = view.step
        ready = view.masked & (counts >= _STEPS) & (confidence > self.tau)
        least = check_budget(budget, len(ready), "the schedule", start=view.start)
        return reveal_best(view, confidence + 2.0 * ready, np.maximum(least, ready.sum(axis=1)), self.name)


@checked
def stable(kappa: float = 0.01, tau: float = 0.9) -> Policy:
    """All positions with KL(p_t || p_{t-1}) < ``kappa`` nats at two steps in a row and c_i > ``tau``; else the surest.

    p_t is the marginal at the row's step t, c_i its largest probability (KLASS, arXiv 2511.05664). At least the budget
    is revealed: where fewer are stable, those of largest probability make it up. kappa = 0: never stable, the schedule
    with ``top_probability``. With one a step as the budget, so does the released code; with more, it reveals the stable
    ones alone and falls behind its schedule. Cost: a copy of the marginals. ValueError for a negative number.
    """
    if not 0 <= kappa < np.inf:
        raise ValueError(f"kappa is a finite number of nats, not negative; got {kappa}: the released code takes 0.01")
    if not 0 <= tau < np.inf:
        raise ValueError(f"tau is a probability, not negative; got {tau}: the released code takes 0.9")
    return _Stable(kappa, tau)


@dataclass(frozen=True, eq=False)
class _TrueMargin:
    """By how much the true value is more likely than any other."""

    truth: NDArray[np.int8]

    def __call__(self, view: View) -> NDArray[np.float64]:
        top_probability().score(view)  # complains of marginals that are none
        rows = self.truth[view.start : view.start + len(view.tokens)]
        if len(rows) < len(view.tokens):
            raise ValueError(
                f"true_margin is bound to {len(self.truth)} sequences and asked about row "
                f"{view.start + len(view.tokens) - 1}: bind it to one for each row of the decode"
            )
        truth = view.layout.check_tokens(rows, complete=True).astype(np.intp)[..., None]
        allowed = np.arange(view.layout.n_values) < view.layout.values[:, None]
        laws = np.where(allowed, view.marginals.probs, -1.0).astype(np.float64)
        true = np.take_along_axis(laws, truth, axis=2)[..., 0]
        np.put_along_axis(laws, truth, -1.0, axis=2)
        return np.asarray(true - laws.max(axis=2), np.float64)


def true_margin(truth: ArrayLike) -> TopK:
    """p(true value) - max p(other value), the largest first: an oracle, neither a sampler's rule nor a bound.

    It reads the answer: row i of the decode is ``truth[i]``, int8[n, L] (Gt-Margin, arXiv 2602.09501). Its choices
    depend on hidden tokens, so no sampler can make them: its likelihoods of all strings do not sum to one, and the cost
    along its path is no divergence. It may cost more than ``margin``, some 0.30 against 0.13 nats on one NAE triple in
    two steps. In ``decode_cost`` the truth is ``distribution.sample(key.fold("data"), n)``. ValueError for sequences
    that are incomplete, or fewer than rows.
    """
    given = plain(truth, "truth")
    if given.ndim != 2 or given.dtype.kind not in "iu":
        raise ValueError(f"truth must be complete sequences, int8[n, L]; got {given.dtype} of shape {given.shape}")
    return TopK("true_margin", _TrueMargin(frozen(given, given.dtype.type)))
