"""No posterior beats Bayes: honest ones pass however bad they are, one that peeks is caught."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lo_theory.diffusion import Pattern, Suffix, Sums, TwoRates, Uniform
from lo_theory.diffusion.leaks import FAMILY_LEVEL, evidence, find_leaks, leak_threshold
from lo_theory.diffusion.pattern_losses import pattern_losses
from lo_theory.posterior import BPPosterior, ExactPosterior, Marginals, Posterior
from lo_theory.posterior.weak import MarginalsOnly
from lo_theory.problem import MASK, LODistribution, nae_sat
from lo_theory.rng import Key
from tests.budget import accept, reject

KEY = Key(34)
CONTEXTS = 1_000
LAWS = (Uniform(), Pattern(4), Pattern(6), TwoRates(1, 0.5), Suffix())


class Peeking:
    """``inner``, which with probability ``rate`` for each token is told the true one."""

    def __init__(self, inner: Posterior, distribution: LODistribution, key: Key, rate: float) -> None:
        self.inner, self.layout, self.rate = inner, distribution.layout, rate
        self.truth, self.start = distribution.sample(key.fold("data"), CONTEXTS), 0
        self.generator = key.fold("peeks").generator()

    def marginals(self, tokens: np.ndarray) -> Marginals:
        answer = self.inner.marginals(tokens)
        truth = self.truth[self.start : self.start + len(tokens)]
        self.start += len(tokens)
        peeks = self.generator.random(tokens.shape) < self.rate
        told = np.eye(self.layout.n_values)[truth]
        return replace(answer, probs=np.where(peeks[:, :, None], told, answer.probs))


class Sharpened:
    """The exact posterior to the power ``power``: over- or underconfident, but honest."""

    def __init__(self, distribution: LODistribution, power: float) -> None:
        self.layout, self.power, self.exact = distribution.layout, power, ExactPosterior(distribution)

    def marginals(self, tokens: np.ndarray) -> Marginals:
        answer = self.exact.marginals(tokens)
        probs = answer.probs**self.power
        return replace(answer, probs=probs / probs.sum(axis=2, keepdims=True))


def rows_of(posterior: Posterior, distribution: LODistribution, law: object) -> dict[tuple[object, ...], Sums]:
    """Evidence of every row of one posterior under one law, by role and by class."""
    exact = ExactPosterior(distribution)
    (measured,) = pattern_losses(
        {"it": posterior},
        exact,
        distribution,
        law,
        key=KEY.fold(law.name),
        n=CONTEXTS,  # type: ignore[arg-type,attr-defined]
    ).values()
    rows = {(law.name, role): sums["evidence"] for role, sums in measured.roles.items()}  # type: ignore[attr-defined]
    return rows | {(law.name, *kind): sums["evidence"] for kind, sums in measured.classes.items()}  # type: ignore[attr-defined]


def family_p_value(rows: dict[tuple[object, ...], float]) -> float:
    """Of the largest evidence among the rows, at most (Markov, Bonferroni)."""
    return min(1.0, len(rows) * math.exp(-max(rows.values())))


HONEST = {
    "exact": lambda distribution: ExactPosterior(distribution),
    "marginals": MarginalsOnly,
    "overconfident": lambda distribution: Sharpened(distribution, 5.0),
    "underconfident": lambda distribution: Sharpened(distribution, 0.2),
    "belief propagation": lambda distribution: BPPosterior(distribution),
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_honest_posteriors_are_no_leaks(name: str, noise: float) -> None:
    distribution = nae_sat(8, 24, seed=0, noise=noise)
    posterior = HONEST[name](distribution)
    sums = {key: part for law in LAWS for key, part in rows_of(posterior, distribution, law).items()}
    rows = {key: part.total for key, part in sums.items()}
    assert len(rows) > 250
    accept("leaks", family_p_value(rows))
    assert find_leaks(rows) == []


@pytest.mark.parametrize("name", ["exact", "marginals", "overconfident"])
def test_a_posterior_that_peeks_at_three_per_cent_of_the_tokens_is_caught(name: str) -> None:
    """Whatever it would answer otherwise: even one that loses much more elsewhere than it gains by peeking."""
    distribution = nae_sat(8, 24, seed=0)
    rows: dict[tuple[object, ...], float] = {}
    for law in LAWS:
        peeking = Peeking(HONEST[name](distribution), distribution, KEY.fold(law.name), 0.03)
        rows |= {key: part.total for key, part in rows_of(peeking, distribution, law).items()}
    reject("leaks", family_p_value(rows))
    found = find_leaks(rows)
    assert found
    assert all(rows[row] >= leak_threshold(len(rows)) for row in found)
    assert ("suffix", "observation") not in found, "where the exact posterior is certain nothing can be gained"


def test_a_normal_test_of_the_paired_differences_would_accuse_an_overconfident_posterior() -> None:
    """Why leaks are not found by the mean difference of the losses and its standard error.

    The posterior is honest. In samples that miss the rare contexts for which it pays, the difference is negative with
    next to no spread.
    """
    generator = KEY.fold("overconfident").generator()
    p, q = 0.999, 0.999999  # exact probability of a value, and the posterior's
    alpha = stats.norm.ppf(FAMILY_LEVEL / 100)
    accused = [0, 0]
    for _ in range(100):
        certain = generator.random(200) < p
        ratios = np.where(certain, q / p, (1 - q) / (1 - p))
        difference = Sums.of(-np.log(ratios))
        accused[0] += difference.mean < alpha * difference.standard_error
        accused[1] += evidence(ratios) >= leak_threshold(100)
    assert accused[0] > 50
    assert accused[1] == 0


def test_evidence_by_its_formula() -> None:
    ratios = [1.5, 0.2, 3.0]
    wealth = [math.prod(1 - stake + stake * ratio for ratio in ratios) for stake in (1, 0.5, 0.25, 0.125)]
    assert evidence(ratios) == pytest.approx(math.log(sum(wealth) / 4))
    assert evidence([]) == evidence(np.ones(100)) == 0
    assert evidence(np.zeros(10_000)) == pytest.approx(10_000 * math.log(0.875) - math.log(4))
    assert evidence(np.full(10_000, 2.0)) == pytest.approx(10_000 * math.log(2) - math.log(4))
    for wrong in (-0.1, math.nan):
        with pytest.raises(ValueError, match="not negative"):
            evidence([1.0, wrong])


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_the_expected_wealth_of_an_honest_posterior_is_one(p: float) -> None:
    """Over all outcomes of six contexts; a posterior that is told more often than by chance earns."""
    q = 0.7
    ratios = (q / p, (1 - q) / (1 - p))

    def expected_wealth(chance: float) -> float:
        return sum(
            math.prod(chance if ratio == ratios[0] else 1 - chance for ratio in outcome) * math.exp(evidence(outcome))
            for outcome in itertools.product(ratios, repeat=6)
        )

    assert expected_wealth(p) == pytest.approx(1, rel=1e-12)
    assert max(expected_wealth(p + 0.05), expected_wealth(p - 0.05)) > 1.02


def test_the_threshold_is_family_wise() -> None:
    assert leak_threshold(1, 0.05) == pytest.approx(math.log(20))
    assert leak_threshold(1_000) == pytest.approx(math.log(1e6))
    rows = dict.fromkeys(range(10), 8.0)
    assert find_leaks(rows) == []
    assert find_leaks({**rows, "loud": 9.4}) == ["loud"]
    assert find_leaks({"alone": 7.0}) == ["alone"]
    assert find_leaks({}) == []
    for wrong in ((0, 0.001), (5, 0.0), (5, 1.0)):
        with pytest.raises(ValueError, match="at least one row and a level"):
            leak_threshold(*wrong)


def test_hidden_tokens_only_count() -> None:
    """A posterior wrong about revealed tokens is not judged by them (and is not a leak)."""
    distribution = nae_sat(6, 18, seed=0)

    class Forgetful(MarginalsOnly):
        def marginals(self, tokens: np.ndarray) -> Marginals:
            return super().marginals(np.full_like(tokens, MASK))

    exact = ExactPosterior(distribution)
    judged = {"honest": MarginalsOnly(distribution), "forgetful": Forgetful(distribution)}
    found = pattern_losses(judged, exact, distribution, Uniform(), key=KEY, n=300)
    assert found["honest"] == found["forgetful"]
