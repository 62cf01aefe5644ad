"""Checks of a posterior: calibration, distance to the exact one, and whether rows depend on each other.

Calibration is tested by betting. If a posterior answers q and the truth x has that law, then q'(x)/q(x) has mean 1 for
every law q' that is chosen by the context alone, and so has its mean over the tokens of one context. Wealth that is bet
on it over independent contexts reaches 1/a with probability at most a (Markov), whatever q is: no normal law is
supposed. The bets are that the posterior is too sure or not sure enough, or that it favours a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from lo_theory.diffusion import Uniform, pattern_losses
from lo_theory.diffusion.contexts import BATCH, Contexts, at_truth, draw_contexts, row_means
from lo_theory.diffusion.pattern_losses import LEAST
from lo_theory.posterior import Posterior
from lo_theory.posterior.protocol import ask
from lo_theory.problem import Distribution
from lo_theory.rng import Key
from lo_theory.testing.claims import Claims
from lo_theory.testing.p_values import mean_test
from lo_theory.testing.report import Check, exact, not_applicable, statistical

__all__ = ["posterior_checks", "surprise_spread"]

_TILTS = (-0.5, -0.15, -0.05, 0.05, 0.15, 0.5)
_MOST_VALUES = 3  # bets on favoured values
_ALONE, _TOGETHER = 16, 256
_TESTS = 10
_DEVIATIONS = 6.0  # standard errors that a test at 1e-4 finds with probability 0.98
_NEEDS_EXACT = ("no better than Bayes", "KL to the exact marginals")

Values = NDArray[np.float64]


def posterior_checks(
    posterior: Posterior, problem: Distribution, truth: Posterior, key: Key, n: int, level: float, claims: Claims
) -> list[Check]:
    """Ask about n contexts of fresh data under the uniform mask law, and compare."""
    name = "well formed"
    try:
        batches = [(batch, batch.ask(posterior).probs) for (batch,) in draw_contexts(problem, Uniform(), key, n)]
    except ValueError as error:
        return [exact(name, 1, False, "", str(error))]
    whole = exact(name, 0, True, "answers are probabilities over the values of each token", "")
    answers = [(batch, np.asarray(probs, np.float64)) for batch, probs in batches]
    return [
        whole,
        _echo(answers),
        _rows(posterior, problem, answers, claims),
        _calibration(answers, level),
        _elbo(answers, problem, claims),
        *_against_exact(posterior, problem, truth, key, n, claims),
    ]


def _echo(answers: list[tuple[Contexts, Values]]) -> Check:
    worst = max(
        float(np.max(1 - at_truth(probs, batch.truth), initial=0.0, where=~batch.masked)) for batch, probs in answers
    )
    return exact(
        "revealed tokens kept",
        worst,
        worst < 1e-3,
        "a revealed token has probability 1",
        f"a revealed token gets probability {1 - worst:.3g}: the answer is that of another row, or ignores the context",
    )


def _rows(posterior: Posterior, problem: Distribution, answers: list[tuple[Contexts, Values]], claims: Claims) -> Check:
    tokens = np.concatenate([batch.tokens for batch, _ in answers])[:_TOGETHER]

    def answer(rows: NDArray[np.int8]) -> Values:
        return np.asarray(ask(posterior, rows, problem.layout).probs, np.float64)

    whole = answer(tokens)
    again = [whole - answer(tokens[::-1])[::-1]]
    again += [whole[row] - answer(tokens[row : row + 1])[0] for row in range(min(_ALONE, len(tokens)))]
    worst = max(float(np.abs(difference).max()) for difference in again)
    return exact(
        "rows independent of the batch",
        worst,
        worst <= claims.rounding,
        "a row alone, or in another place, is answered as in the batch",
        f"a probability changes by {worst:.3g} with the other rows of the batch, or from call to call",
    )


@dataclass(frozen=True)
class _Bets:
    """Log-ratios of all bets, float64[bets, contexts]; scores and their variances of each context."""

    logs: Values
    score: Values
    variance: Values


def _bets(batch: Contexts, probs: Values) -> _Bets:
    """One column a context: ln of the mean over its hidden tokens of q'(truth)/q(truth)."""
    logs = np.log(np.maximum(probs, 1e-300))
    true, count = at_truth(logs, batch.truth), min(_MOST_VALUES, probs.shape[2] - 1)
    features = [logs, *(np.broadcast_to(np.eye(probs.shape[2])[v], probs.shape) for v in range(count))]
    rows = []
    for feature in features:
        own = at_truth(feature, batch.truth)
        for tilt in _TILTS:
            ratio = np.exp(np.minimum(tilt * own, 600) - logsumexp(logs + tilt * feature, axis=2))
            for role in (batch.layout.is_latent, ~batch.layout.is_latent):
                rows.append(row_means(ratio, batch.masked & role, 1.0))
    mean = (probs * logs).sum(axis=2)
    variance = (probs * np.square(logs)).sum(axis=2) - np.square(mean)
    with np.errstate(divide="ignore"):
        ratios = np.log(np.array(rows))
    return _Bets(ratios, row_means(true - mean, batch.masked), row_means(variance, batch.masked))


def _calibration(answers: list[tuple[Contexts, Values]], level: float) -> Check:
    found = [_bets(batch, probs) for batch, probs in answers]
    excluded = sum(int((at_truth(probs, batch.truth)[batch.masked] <= 0).sum()) for batch, probs in answers)
    wealth = np.concatenate([part.logs for part in found], axis=1).sum(axis=1)
    evidence = float(logsumexp(wealth)) - math.log(len(wealth))
    p_value = 0.0 if excluded else min(1.0, math.exp(-max(evidence, 0.0)))
    score, variance = (np.concatenate([getattr(part, name) for part in found]) for name in ("score", "variance"))
    needed = 1.28 + math.sqrt(1.28**2 + 2 * math.log(len(wealth) * _TESTS / level))
    signal = variance.mean() * math.sqrt(len(score))
    finds = (
        f"finds answers sharpened or flattened by {100 * needed * score.std() / signal:.2g} %" if signal > 1e-9 else ""
    )
    fails = (
        f"{excluded} tokens came that were predicted never to come"
        if excluded
        else f"outcomes are {'rarer' if score.mean() < 0 else 'more frequent'} than predicted: the posterior is "
        f"{'too sure' if score.mean() < 0 else 'not sure enough'}, or favours a value"
    )
    return statistical("calibration", p_value, "outcomes come as often as predicted", fails, finds)


def surprise_spread(probs: Values, weight: NDArray[np.floating[Any]]) -> Values:
    """Largest standard deviation, float64[B], that sum of weight x (-ln q(x)) has if x has the laws q: with all tokens
    of a context dependent.
    """
    logs = np.log(np.maximum(probs, LEAST))
    variance = (probs * np.square(logs)).sum(axis=2) - np.square((probs * logs).sum(axis=2))
    return np.asarray((weight * np.sqrt(np.maximum(variance, 0))).sum(axis=1), np.float64)


def _elbo(answers: list[tuple[Contexts, Values]], problem: Distribution, claims: Claims) -> Check:
    losses, spreads = [], []
    for batch, probs in answers:
        nll = -np.log(np.maximum(at_truth(probs, batch.truth), LEAST))
        losses.append((batch.weight * nll).sum(axis=1))
        spreads.append(surprise_spread(probs, batch.weight))
    found, floor = np.concatenate(losses), problem.entropy() / problem.layout.length
    spread = float(np.sqrt(np.square(np.concatenate(spreads)).mean()))
    return statistical(
        "ELBO = entropy",
        mean_test(found, floor, claims.kl, spread=(spread, 0.0)),
        f"its loss is entropy/L = {floor:.4f} nats per token",
        f"its loss is {found.mean():.4f} nats per token, and entropy/L is {floor:.4f}",
        f"finds {_DEVIATIONS * found.std() / math.sqrt(len(found)):.2g} nats per token",
    )


def _against_exact(
    posterior: Posterior, problem: Distribution, truth: Posterior, key: Key, n: int, claims: Claims
) -> list[Check]:
    """By ``pattern_losses`` on the same contexts."""
    try:
        for (batch,) in draw_contexts(problem, Uniform(), key, n, size=BATCH):
            if hasattr(truth, "estimate_cost"):  # says beforehand what it would refuse
                if not truth.estimate_cost(batch.tokens).fits.all():
                    raise ValueError("the exact posterior does not fit its limit at this size")
            else:
                batch.ask(truth, "the exact posterior")
    except ValueError as error:
        return [not_applicable(name, str(error)) for name in _NEEDS_EXACT]
    found = pattern_losses({"it": posterior}, truth, problem, Uniform(), key=key, n=n)["it"]
    evidence = max(sums["evidence"].total for sums in found.roles.values())
    sums = found.total["kl"]
    kl, half = sums.mean, max(abs(end - sums.mean) for end in sums.interval())
    name, above = _NEEDS_EXACT[1], f"its loss is {kl:.3g} ± {half:.1g} nats per token above the Bayes loss"
    floored = f"; a probability of 0 counts as {LEAST:g}" if kl > 1 else ""
    if claims.kl <= Claims().kl:  # a claim that it is exact: any context refutes it
        exactly = f"its marginals are exact to {claims.kl:g} nats per token"
        gap = exact(name, kl, kl <= claims.kl, exactly, f"{above} (Claims(kl=...) allows for a gap{floored})")
    else:
        deviation = max(sums.standard_error, 1e-300)
        p_value = 0.5 * math.erfc((kl - claims.kl) / (deviation * math.sqrt(2)))
        claimed = f"claimed is {claims.kl:g} at most"
        gap = statistical(
            name,
            p_value,
            f"{above}, {claimed}",
            f"{above}, {claimed}{floored}",
            f"finds {_DEVIATIONS * deviation:.2g} more",
        )
    return [
        statistical(
            _NEEDS_EXACT[0],
            min(1.0, len(found.roles) * math.exp(-max(evidence, 0.0))),
            "it knows no more than the context says",
            "it beats the exact posterior, which knows all that the context says: the answer leaks into the question",
        ),
        gap,
    ]
