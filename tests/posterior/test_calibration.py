"""Calibration of the exact posterior on data drawn from the model: are its probabilities the frequencies of the truth?

Tokens of one sequence are dependent (one latent moves all the observations that read it), so the number of hidden
tokens is no number of samples, and a chi-square over tokens would see differences where there are none. Every statistic
is therefore one number a sequence. Given what is revealed, the expectation of any function of one hidden token under
its exact marginal is known, and expectations add whatever depends on what; sequences and their masks are independent.
So each statistic has mean zero over sequences, and its variance is estimated over them too.

Blind spot: a posterior that knows less (one that leaves out an observation, say) is calibrated as well. What catches
that is the comparison with brute force.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from lo_theory.posterior import ExactPosterior
from lo_theory.problem import LODistribution, nae_sat
from lo_theory.rng import Key
from lo_theory.testing import z_test
from tests.budget import accept, reject

EDGES = np.array([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
FEWEST = 300  # sequences that must have a probability in a bin, for the normal law


@dataclass(frozen=True)
class Answers:
    """Hidden truth int8[n, L] (-1 where revealed) and the posterior's probabilities [n, L, V] of the sequences in which
    anything is open; of all the others every statistic is zero.
    """

    truth: np.ndarray
    probs: np.ndarray
    sequences: int

    def each(self, statistic: np.ndarray) -> np.ndarray:
        """One number a sequence, those included in which nothing is open."""
        return np.concatenate([statistic, np.zeros(self.sequences - len(statistic))])


def uniform_masks(key: Key, rows: int, length: int) -> np.ndarray:
    """Mask size uniform on 1..L, then a uniform subset of that size, bool[rows, L]."""
    generator = key.generator()
    sizes = generator.integers(1, length + 1, rows)
    return generator.random((rows, length)).argsort(axis=1) < sizes[:, None]


def masks_at(rate: float) -> Callable[[Key, int, int], np.ndarray]:
    return lambda key, rows, length: key.generator().random((rows, length)) < rate


def ask(
    distribution: LODistribution, rows: int, masks: Callable[[Key, int, int], np.ndarray] = uniform_masks
) -> Answers:
    """Sequences of the model, masked, and what the exact posterior says of them."""
    key, posterior, kept = Key(5).fold(distribution.fingerprint()), ExactPosterior(distribution), []
    complete = distribution.sample(key.fold("data"), rows)
    masked = masks(key.fold("masks"), rows, distribution.layout.length)
    for part in np.array_split(np.arange(rows), max(1, rows // 4000)):
        probs = posterior.marginals(np.where(masked[part], -1, complete[part])).probs
        open_rows = (probs.max(axis=2) < 1).any(axis=1)
        truth = np.where(masked[part], complete[part], -1)
        kept.append((truth[open_rows], probs[open_rows]))
    return Answers(np.concatenate([truth for truth, _ in kept]), np.concatenate([probs for _, probs in kept]), rows)


def sharpened(answers: Answers, power: float) -> Answers:
    """The posterior that reports, for every token by itself, probabilities proportional to p**power.

    At 1.05 its log-odds are 5 % too large; certainties and even chances stay as they are.
    """
    probs = answers.probs**power
    return Answers(answers.truth, probs / probs.sum(axis=2, keepdims=True), answers.sequences)


def surprise(answers: Answers) -> np.ndarray:
    """Sum over hidden tokens of ln p(true value) + H(p), one number a sequence, of mean zero.

    Negative where the truth surprises the posterior more often than it says. A posterior proportional to p**(1 + e)
    gets -e times the variance of ln p, summed over hidden tokens.
    """
    logs = np.log(np.where(answers.probs > 0, answers.probs, 1.0))
    entropy = -(answers.probs * logs).sum(axis=2)
    at_truth = np.take_along_axis(answers.probs, np.maximum(answers.truth, 0)[..., None], axis=2)[..., 0]
    hidden = answers.truth >= 0
    assert (at_truth[hidden] > 0).all()  # what happened was held possible
    return answers.each(((np.log(np.where(hidden, at_truth, 1.0)) + entropy) * hidden).sum(axis=1))


def worst_bin(answers: Answers) -> float:
    """Smallest p-value over bins of predicted probability, times their number.

    In each bin: sum over the hidden tokens' values v with p(v) there of 1[true value is v] - p(v), by sequence. For
    tokens of two values v = 1 only, since v = 0 says the same.
    """
    values = np.arange(1 if answers.probs.shape[2] == 2 else 0, answers.probs.shape[2])
    probs, hidden = answers.probs[..., values], answers.truth >= 0
    gaps = ((answers.truth[..., None] == values) - probs) * hidden[..., None]
    bins = np.where((probs > 0) & (probs < 1), np.searchsorted(EDGES, probs), 0)
    p_values = []
    for number in range(1, len(EDGES)):
        met = bins == number
        if met.any(axis=(1, 2)).sum() >= FEWEST:
            p_values.append(z_test(answers.each((gaps * met).sum(axis=(1, 2))), 0.0))
    assert len(p_values) >= 4
    return min(1.0, len(p_values) * min(p_values))


PROBLEMS: dict[str, tuple[Callable[[], LODistribution], int]] = {
    "nae (20, 280)": (lambda: nae_sat(20, 280, seed=0), 24_000),
    "noisy nae (12, 120)": (lambda: nae_sat(12, 120, seed=1, noise=0.1), 4_000),
    "noisy nae of 3 values (8, 40)": (lambda: nae_sat(8, 40, seed=0, q=3, noise=0.1), 8_000),
}


@cache
def answers_to(name: str) -> Answers:
    make, rows = PROBLEMS[name]
    return ask(make(), rows)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_exact_posterior_is_calibrated_and_five_per_cent_too_sharp_is_not(name: str) -> None:
    answers = answers_to(name)
    accept("calibration", z_test(surprise(answers), 0.0))
    for power in (1.05, 1 / 1.05):
        reject("calibration", z_test(surprise(sharpened(answers, power)), 0.0))


@pytest.mark.parametrize("name", PROBLEMS)
def test_predicted_probabilities_are_frequencies(name: str) -> None:
    answers = answers_to(name)
    accept("calibration", worst_bin(answers))
    reject("calibration", worst_bin(sharpened(answers, 1.05)))


def test_dependent_tokens_are_not_samples() -> None:
    """Why one number a sequence: over tokens the variance of the mean comes out several times too small."""
    answers = answers_to("noisy nae (12, 120)")
    logs = np.log(np.where(answers.probs > 0, answers.probs, 1.0))
    variance = (answers.probs * logs**2).sum(axis=2) - (answers.probs * logs).sum(axis=2) ** 2
    as_if_independent = (variance * (answers.truth >= 0)).sum() / answers.sequences
    assert surprise(answers).var() > 2 * as_if_independent


@pytest.mark.soak
@pytest.mark.parametrize(
    ("make", "rows", "masks"),
    [
        (lambda: nae_sat(20, 280, seed=2), 60_000, uniform_masks),
        (lambda: nae_sat(100, 200, seed=0), 6_000, masks_at(0.7)),
    ],
    ids=["(20, 280)", "(100, 200)"],
)
def test_calibration_at_length(make: Callable[[], LODistribution], rows: int, masks: Callable) -> None:
    answers = ask(make(), rows, masks)
    accept("calibration, long", [z_test(surprise(answers), 0.0), worst_bin(answers)])
    wrong = sharpened(answers, 1.05)
    reject("calibration, long", z_test(surprise(wrong), 0.0))
    reject("calibration, long", worst_bin(wrong))
