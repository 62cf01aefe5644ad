"""Checks of a decoder (posterior, policy, schedule): what it reveals, when, and the law that comes out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import DecodeOptions, OneAtATime, Policy, Schedule, View, decode
from lo_theory.diffusion.asking import Denoiser
from lo_theory.diffusion.contexts import at_truth
from lo_theory.diffusion.policies import check_plan, hides_again
from lo_theory.posterior import Marginals, Posterior
from lo_theory.posterior.protocol import ask
from lo_theory.posterior.weak import Sharpened
from lo_theory.problem import MASK, Distribution
from lo_theory.rng import Key
from lo_theory.testing.claims import Claims, revealed_by
from lo_theory.testing.of_samplers import data_checks
from lo_theory.testing.p_values import mean_test
from lo_theory.testing.report import Check, exact, not_applicable, statistical

__all__ = ["decoder_checks"]

_MOST_PLANS = 20_000  # of one row each
_TIE = 1e-9
_SMALL_CHUNK = 37
_SHARPENED = 1.0

Counts = NDArray[np.int64]


@dataclass
class _Watched:
    """The policy itself, and what it has done: one entry a step of a chunk."""

    policy: Policy
    claims: Claims
    name: str = ""
    revealed: list[tuple[int, slice, Counts]] = field(default_factory=list)
    remasked: list[tuple[slice, Counts]] = field(default_factory=list)
    steps: int = 0
    over_budget: int = 0
    out_of_order: int = 0

    def __post_init__(self) -> None:
        self.name, self.remasks = self.policy.name, hides_again(self.policy)

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The plan of the policy, noted."""
        masked = view.masked.copy()
        following = check_plan(self.policy.plan(view, budget), masked.shape, self.name)
        rows = slice(view.start, view.start + len(masked))
        opened, closed = (masked & ~following).sum(axis=1), (~masked & following).sum(axis=1)
        due = np.minimum(budget, masked.sum(axis=1))
        kept = opened >= due if self.claims.budget == "least" else (opened == due) | (opened - closed == due)
        self.over_budget += int((~kept).sum())
        self.steps += len(masked)
        self.revealed.append((view.step, rows, (~following).sum(axis=1)))
        self.remasked.append((rows, closed))
        if self.claims.score is not None:
            scores = np.asarray(self.claims.score(view), np.float64)
            least = np.where(masked & ~following, scores, np.inf).min(axis=1)
            left = np.where(masked & following, scores, -np.inf).max(axis=1)
            self.out_of_order += int((least < left - _TIE).sum())
        return following


def decoder_checks(
    subject: tuple[Posterior, Policy, Schedule], problem: Distribution, key: Key, n: int, level: float, claims: Claims
) -> list[Check]:
    """Decode n sequences from nothing, watching every step."""
    posterior, policy, schedule = subject
    watched, name = _Watched(policy, claims), "well formed"
    try:
        tokens = decode(posterior, watched, schedule, key=key, n=n, options=DecodeOptions(chunk=n)).tokens
        part = decode(posterior, policy, schedule, key=key, n=n, options=DecodeOptions(chunk=_SMALL_CHUNK)).tokens
    except ValueError as error:
        unfinished = "positions hidden after" in str(error)
        failed = "everything revealed at the end" if unfinished else name
        return [*([_budget(watched, claims)] if watched.steps else []), exact(failed, 1, False, "", str(error))]
    return [
        exact(name, 0, True, "plans, budgets and answers have the form they must have", ""),
        _budget(watched, claims),
        _shares(watched, schedule, problem, n, claims),
        _remasked(watched, n, claims),
        _order(watched, claims),
        _chunks(tokens, part),
        *_likelihood(subject, problem, key),
        *data_checks(problem, tokens, level),
    ]


def _budget(watched: _Watched, claims: Claims) -> Check:
    share = watched.over_budget / watched.steps
    least = " at least" if claims.budget == "least" else ""
    return exact(
        "budget kept",
        share,
        share == 0,
        f"every step reveals{least} as many positions as the schedule says",
        f"{share:.2%} of the steps of a row do not reveal{least} as many positions as the schedule says",
    )


def _shares(watched: _Watched, schedule: Schedule, problem: Distribution, n: int, claims: Claims) -> Check:
    name, length = "revealed share on its schedule", problem.layout.length
    claimed = revealed_by(schedule, length) if claims.revealed is None else np.asarray(claims.revealed, np.float64)
    if claimed is None or (claims.budget == "least" and claims.revealed is None):
        return not_applicable(name, "no share is claimed: Claims(revealed=[...]) after each step")
    counts = np.full((len(claimed), n), -1, np.int64)
    for step, rows, shown in watched.revealed:
        if step >= len(claimed):
            return exact(name, 1, False, "", f"it takes more steps than the {len(claimed)} of the claim")
        counts[step, rows] = shown
    before = np.zeros(n, np.int64)
    for row in counts:  # a step without budget shows what the one before did
        row[row < 0] = before[row < 0]
        before = row
    p_values, off = [], []
    for row, share in zip(counts, claimed, strict=True):
        difference = row.mean() / length - share
        rounded = np.ptp(row) == 0 and abs(difference) <= 0.5 / length + 1e-9  # whole tokens
        p_values.append(1.0 if rounded else mean_test(row / length, share))
        off.append(difference)
    worst = int(np.argmin(p_values))
    return statistical(
        name,
        min(1.0, len(p_values) * min(p_values)),
        "after every step the share revealed is the one claimed",
        f"after step {worst + 1} the share revealed is {claimed[worst] + off[worst]:.4f}, claimed {claimed[worst]:.4f}",
    )


def _remasked(watched: _Watched, n: int, claims: Claims) -> Check:
    name, total = "remasks as its law says", np.zeros(n, np.int64)
    for rows, closed in watched.remasked:
        total[rows] += closed
    if claims.remasked is None:
        return not_applicable(
            name,
            f"hides {total.mean():.3g} positions of a sequence again; Claims(remasked=...) says how many it should",
        )
    right = np.ptp(total) == 0 and abs(total[0] - claims.remasked) < 1e-9
    return statistical(
        name,
        1.0 if right else mean_test(total, claims.remasked),
        f"it hides {claims.remasked:.3g} positions of a sequence again, as claimed",
        f"it hides {total.mean():.3g} positions of a sequence again, claimed are {claims.remasked:.3g}",
    )


def _order(watched: _Watched, claims: Claims) -> Check:
    name = "picks the highest score"
    if claims.score is None:
        return not_applicable(name, "no score is claimed: Claims(score=...), such as entropy().score")
    share = watched.out_of_order / watched.steps
    return exact(
        name,
        share,
        share == 0,
        "what is revealed scores at least as high as what stays hidden",
        f"{share:.1%} of the steps of a row reveal a position that scores lower than one left hidden",
    )


def _chunks(tokens: NDArray[np.int8], part: NDArray[np.int8]) -> Check:
    changed = float((tokens != part).any(axis=1).mean())
    return exact(
        "rows independent of the batch",
        changed,
        changed <= 1e-2,  # rounding in a network may turn a draw
        f"the same sequences in chunks of {_SMALL_CHUNK} rows",
        f"{changed:.1%} of the sequences change when they are decoded in chunks of {_SMALL_CHUNK} rows: a choice or an "
        "answer depends on the batch",
    )


def _along_its_path(
    posterior: Posterior, policy: Policy, problem: Distribution, rows: NDArray[np.int8], key: Key
) -> NDArray[np.float64] | None:
    """float64[S]: the product of the posterior's own probabilities of ``rows`` along the path that the policy takes in
    each, one row at a time; None where it does not reveal exactly one position a step.
    """
    layout, likelihood, masked = problem.layout, np.ones(len(rows)), np.ones(rows.shape, np.bool_)
    one, denoiser, memories = np.ones(1, np.int64), Denoiser(posterior, 1), [dict[str, Any]() for _ in rows]
    for step in range(layout.length):
        tokens = np.where(masked, np.int8(MASK), rows)
        answer = ask(posterior, tokens, layout)
        true = at_truth(answer.probs, rows)
        for row in range(len(rows)):
            it = slice(row, row + 1)
            seen = Marginals(answer.probs[it], answer.log_evidence[it], answer.converged[it])
            place = (layout, step, layout.length, key.fold(step))
            view = View(tokens[it], masked[it].copy(), seen, *place, denoiser=denoiser, memory=memories[row])
            following = check_plan(policy.plan(view, one), (1, layout.length), policy.name)[0]
            chosen = masked[row] & ~following
            if chosen.sum() != 1 or (following & ~masked[row]).any():
                return None
            likelihood[row] *= true[row, chosen][0]
            masked[row] = following
    return likelihood


def _likelihood(subject: tuple[Posterior, Policy, Schedule], problem: Distribution, key: Key) -> list[Check]:
    """For all strings; the sum of a sharpened posterior, for which the order matters even if this one is exact."""
    names = "likelihood of all strings sums to 1", "law of the data: by likelihood"
    posterior, policy, schedule = subject
    values = problem.layout.values
    if not isinstance(schedule, OneAtATime):
        return [not_applicable(name, "needs one position a step") for name in names]
    if float(np.prod(values.astype(np.float64))) * problem.layout.length > _MOST_PLANS:
        return [not_applicable(name, "too many strings to list") for name in names]
    rows = np.array(list(itertools.product(*map(range, values.tolist()))), np.int8)
    likelihood, sharpened = (
        _along_its_path(model, policy, problem, rows, key) for model in (posterior, Sharpened(posterior, _SHARPENED))
    )
    if likelihood is None or sharpened is None:
        return [not_applicable(name, "it does not reveal exactly one position a step") for name in names]
    total = float(sharpened.sum())
    distance = 0.5 * float(np.abs(likelihood - np.exp(problem.log_prob(rows))).sum())
    return [
        exact(
            names[0],
            abs(total - 1),
            abs(total - 1) < 1e-4,
            "its choices depend on the revealed tokens alone, so that its likelihood is exact",
            f"the likelihoods of all {len(rows)} strings sum to {total:.6g}: a choice or an answer depends on more "
            "than the revealed tokens",
        ),
        exact(
            names[1],
            distance,
            distance < 1e-4,
            "its law is that of the data, total variation 0",
            f"its law is at total variation {distance:.3g} from the data",
        ),
    ]
