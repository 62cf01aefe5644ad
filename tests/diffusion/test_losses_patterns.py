"""Losses by mask pattern and role: against a slow twin, known answers, and what is not a posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import MaskLaw, Pattern, Suffix, Sums, TwoRates, Uniform, describe, losses
from lo_theory.diffusion.pattern_losses import LEAST, PatternLosses, pattern_losses
from lo_theory.posterior import BPPosterior, ExactPosterior, Marginals
from lo_theory.posterior.weak import MarginalsOnly
from lo_theory.problem import MASK, LODistribution, TableObservations, nae_sat
from lo_theory.rng import Key
from lo_theory.testing import BruteForcePosterior
from tests.budget import accept, reject

KEY = Key(33)


def shuffled(noise: float = 0.0) -> LODistribution:
    """A small problem whose roles stand in another order than its positions."""
    plain = nae_sat(4, 6, seed=2, noise=noise)
    return LODistribution(plain.prior, plain.observations, np.array([3, 9, 0, 5, 1, 2, 8, 4, 7, 6]))


class Mixture:
    """The exact posterior, a share of it replaced by single-token marginals, in the precision of a network."""

    def __init__(self, distribution: LODistribution, share: float) -> None:
        self.layout, self.share = distribution.layout, share
        self.exact, self.guesser = ExactPosterior(distribution), MarginalsOnly(distribution)

    def marginals(self, tokens: np.ndarray) -> Marginals:
        exact, guess = self.exact.marginals(tokens), self.guesser.marginals(tokens)
        probs = (1 - self.share) * exact.probs + self.share * guess.probs
        return replace(exact, probs=probs.astype(np.float32))


def p_value(sums: Sums, value: float) -> float:
    return math.erfc(abs(sums.mean - value) / sums.standard_error / math.sqrt(2))


def slow_rows(
    posterior: Any, proxy: Any, distribution: LODistribution, law: MaskLaw, n: int
) -> dict[tuple[int, int, str], dict[str, list[float]]]:
    """The values of every row by loops over contexts and tokens, with the joint law as the truth."""
    layout, exact, rows = distribution.layout, BruteForcePosterior(distribution), {}
    truth = distribution.sample(KEY.fold("data"), n)
    masked, weight = (part[0] for part in law.sample(KEY.fold("masks"), truth, layout))
    for b in range(n):
        context = np.where(masked[b], MASK, truth[b]).astype(np.int8)[None]
        p, q, r = (model.marginals(context).probs[0].astype(np.float64) for model in (exact, posterior, proxy))
        hidden = [int(counts[0]) for counts in describe(masked[b : b + 1], layout)]
        certain = all(max(p[position]) > 1 - 1e-9 for position in layout.latent_positions)
        for role in ("latent", "observation"):
            places = [i for i in range(layout.length) if weight[b, i] > 0 and layout.is_latent[i] == (role == "latent")]
            if not places:
                continue
            values: dict[str, list[float]] = {}
            for i in places:
                true = [max(float(law_of[i, truth[b, i]]), LEAST) for law_of in (p, q, r)]
                divergence = sum(p[i, v] * math.log(p[i, v] / max(q[i, v], LEAST)) for v in range(2) if p[i, v] > 0)
                for name, value in (
                    ("model", -math.log(true[1])),
                    ("exact", -math.log(true[0])),
                    ("excess", math.log(true[0] / true[1])),
                    ("kl", divergence),
                    ("log_ratio", math.log(true[1] / true[0]) ** 2),
                    ("proxy_log_ratio", math.log(true[1] / true[2]) ** 2),
                    ("excluded", float(q[i, truth[b, i]] < LEAST)),
                ):
                    values.setdefault(name, []).append(value)
            row = rows.setdefault((*hidden, role), {})
            means = {name: sum(part) / len(part) for name, part in values.items()}
            for name, value in {**means, "deterministic": float(certain), "converged": 1.0}.items():
                row.setdefault(name, []).append(value)
            if certain:
                row.setdefault("kl_deterministic", []).append(means["kl"])
    return rows


@pytest.mark.parametrize("law", [Uniform(), Pattern(2), TwoRates(1, 0.5), Suffix()], ids=lambda law: law.name)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_every_row_is_that_of_a_slow_twin(law: MaskLaw, noise: float) -> None:
    distribution = shuffled(noise)
    posterior, proxy = Mixture(distribution, 0.3), Mixture(distribution, 0.05)
    exact = ExactPosterior(distribution)
    arguments: dict[str, Any] = {"key": KEY, "n": 150, "beside": "proxy"}
    measured = pattern_losses({"model": posterior, "proxy": proxy}, exact, distribution, law, **arguments)
    assert not any("proxy_log_ratio" in sums for sums in measured["proxy"].classes.values())
    found, expected = measured["model"], slow_rows(posterior, proxy, distribution, law, 150)
    assert found.law == law.name
    assert found.classes.keys() == expected.keys()
    for kind, values in expected.items():
        for name, part in values.items():
            assert_sums(found.classes[kind][name], Sums.of(part))
    for role in {role for *_, role in expected}:
        for name in ("model", "exact", "excess", "kl", "log_ratio", "deterministic"):
            parts = [values[name] for (*_, own), values in expected.items() if own == role]
            assert_sums(found.roles[role][name], Sums.of(np.concatenate(parts)))


def assert_sums(found: Sums, expected: Sums) -> None:
    assert found.n == expected.n
    assert found.total == pytest.approx(expected.total, rel=1e-10, abs=1e-10)
    assert found.deviations == pytest.approx(expected.deviations, rel=1e-10, abs=1e-10)


def test_the_contexts_and_totals_are_those_of_losses() -> None:
    distribution = nae_sat(6, 18, seed=0)
    model, exact = Mixture(distribution, 0.2), ExactPosterior(distribution)
    for law in (Uniform(), Suffix(), TwoRates(0.2, 0.7)):
        (found,) = pattern_losses({"model": model}, exact, distribution, law, key=KEY, n=1_500).values()
        expected = losses(model, exact, distribution, law, key=KEY, n=1_500)
        for name in ("model", "exact", "kl"):
            assert_sums_loosely(found.total[name], getattr(expected, name))


def assert_sums_loosely(found: Sums, expected: Sums) -> None:
    """Up to the rounding of float32 weights."""
    assert found.n == expected.n
    assert found.mean == pytest.approx(expected.mean, rel=1e-6, abs=1e-9)


def test_another_posterior_is_compared_context_by_context() -> None:
    """Contexts differ more than two mixtures of one posterior do: the paired difference is the sharper."""
    distribution = nae_sat(6, 18, seed=0)
    judged = {"far": Mixture(distribution, 0.3), "near": Mixture(distribution, 0.2)}
    found = pattern_losses(
        judged, ExactPosterior(distribution), distribution, Uniform(), key=KEY, n=1_500, beside="near"
    )
    far, near = found["far"], found["near"]
    for one, other in ((far.total, near.total), (far.roles["latent"], near.roles["latent"])):
        assert "kl_above" not in other
        assert one["kl_above"].mean == pytest.approx(one["kl"].mean - other["kl"].mean)
        assert 0 < one["kl_above"].standard_error < 0.5 * one["kl"].standard_error


def test_posteriors_do_not_disturb_each_other_and_threads_change_no_bit() -> None:
    distribution = nae_sat(6, 18, seed=0)
    model, guesser = Mixture(distribution, 0.2), MarginalsOnly(distribution)
    both = pattern_losses(
        {"a": model, "b": guesser}, ExactPosterior(distribution), distribution, Uniform(), key=KEY, n=1_100
    )
    alone = pattern_losses(
        {"b": guesser}, ExactPosterior(distribution, threads=3), distribution, Uniform(), key=KEY, n=1_100
    )
    assert both["b"] == alone["b"]
    assert both["a"] != both["b"]


def size_loss(measured: PatternLosses, size: int) -> Sums:
    """Bayes loss per hidden token of contexts that hide ``size`` tokens, with its error (classes are independent)."""
    n, total, variance = 0, 0.0, 0.0
    for (latents, observations, role), sums in measured.classes.items():
        if latents + observations == size:
            share = (latents if role == "latent" else observations) / size
            first = role == "latent" or latents == 0
            n += sums["exact"].n if first else 0
            total += share * sums["exact"].total
            error = sums["exact"].standard_error
            # The roles of a context are dependent: the sum of two errors bounds the error of a sum.
            variance += 2 * (share * sums["exact"].n * (0.0 if math.isnan(error) else error)) ** 2
    spread = variance / n**2
    return Sums(n, total, n * spread * (n - 1))


def test_the_bayes_loss_by_size_is_the_known_one() -> None:
    """h(n) of one NAE triple on three latents is .375, .719361, .952820, .952820 in units of ln 2."""
    one = nae_sat(3, 1, seed=0)
    distribution = LODistribution(np.full((3, 2), 0.5), TableObservations([[0, 1, 2]], one.observations.tables))
    exact = ExactPosterior(distribution)
    (found,) = pattern_losses({"exact": exact}, exact, distribution, Uniform(), key=KEY, n=40_000).values()
    known = [0.375, 0.719361, 0.952820, 0.952820]
    accept("pattern losses", [p_value(size_loss(found, n), h * math.log(2)) for n, h in enumerate(known, start=1)])
    reject("pattern losses", p_value(size_loss(found, 2), 0.78 * math.log(2)))
    accept("pattern losses", p_value(found.total["exact"], distribution.entropy() / 4))
    reject("pattern losses", p_value(found.total["exact"], distribution.marginal_entropy() / 4))
    assert all(sums["kl"].total == sums["excess"].total == 0 for sums in found.classes.values())


def test_the_kl_is_what_the_posterior_loses_to_bayes() -> None:
    distribution = nae_sat(8, 24, seed=0)
    exact, model = ExactPosterior(distribution), Mixture(distribution, 0.3)
    (found,) = pattern_losses({"model": model}, exact, distribution, Pattern(6), key=KEY, n=6_000).values()
    for role in ("latent", "observation"):
        sums = found.roles[role]
        error = math.hypot(sums["excess"].standard_error, sums["kl"].standard_error)
        accept("pattern losses", math.erfc(abs(sums["excess"].mean - sums["kl"].mean) / error / math.sqrt(2)))
        reject("pattern losses", math.erfc(abs(sums["excess"].mean - 2 * sums["kl"].mean) / error / math.sqrt(2)))


def test_along_the_order_latents_cost_ln_2_and_observations_nothing() -> None:
    distribution = shuffled()
    exact = ExactPosterior(distribution)
    (found,) = pattern_losses({"exact": exact}, exact, distribution, Suffix(), key=KEY, n=400).values()
    kinds = {(4 - i, 6, "latent") for i in range(4)} | {(0, 6 - j, "observation") for j in range(6)}
    assert set(found.classes) == kinds
    for (_, _, role), sums in found.classes.items():
        assert sums["exact"].mean == pytest.approx(math.log(2) if role == "latent" else 0.0, abs=1e-12)
        assert sums["deterministic"].mean == (role == "observation")


def test_deterministic_contexts_are_those_with_one_assignment_left() -> None:
    """Without noise and with a uniform prior exp(evidence) 2**N counts the assignments."""
    distribution = nae_sat(6, 18, seed=1)
    exact = ExactPosterior(distribution)
    for law in (Uniform(), Pattern(4)):
        (found,) = pattern_losses({"exact": exact}, exact, distribution, law, key=KEY, n=600).values()
        truth = distribution.sample(KEY.fold("data"), 600)
        masked = law.sample(KEY.fold("masks"), truth, distribution.layout)[0][0]
        evidence = exact.marginals(np.where(masked, MASK, truth).astype(np.int8)).log_evidence
        single = np.rint(np.exp(evidence) * 2**6) == 1
        for role, positions in (("latent", slice(0, 6)), ("observation", slice(6, None))):
            assert_sums(found.roles[role]["deterministic"], Sums.of(single[masked[:, positions].any(axis=1)]))
        assert 0.1 < single.mean() < 0.9


def test_with_noise_only_contexts_without_hidden_latents_are_deterministic() -> None:
    distribution = nae_sat(6, 18, seed=1, noise=0.05)
    exact = ExactPosterior(distribution)
    (found,) = pattern_losses({"exact": exact}, exact, distribution, TwoRates(0.3, 0.5), key=KEY, n=500).values()
    shares = {kind: sums["deterministic"].mean for kind, sums in found.classes.items()}
    assert {share for (latents, _, _), share in shares.items() if latents == 0} == {1.0}
    assert {share for (latents, _, _), share in shares.items() if latents > 0} == {0.0}


def test_the_share_of_deterministic_contexts_at_the_papers_size() -> None:
    """(20, 280), l = 11, 16, 17, 18, 19: .998, .785, .48, .08, 0 (averages over problems, hence the tolerance)."""
    distribution = nae_sat(20, 280, seed=0)
    exact = ExactPosterior(distribution)
    for count, known in ((11, 0.998), (16, 0.785), (17, 0.48), (18, 0.08), (19, 0.0)):
        (found,) = pattern_losses({"exact": exact}, exact, distribution, Pattern(count), key=KEY, n=400).values()
        assert found.roles["latent"]["deterministic"].mean == pytest.approx(known, abs=0.1 if 0 < known < 0.9 else 0.01)


@dataclass
class Answers:
    """A posterior that answers what it is told."""

    layout: Any
    probs: Any

    def marginals(self, tokens: np.ndarray) -> Marginals:
        return Marginals(self.probs(tokens), np.full(len(tokens), np.nan), np.zeros(len(tokens), bool))


def test_an_excluded_true_value_costs_a_finite_amount_and_is_counted() -> None:
    distribution = nae_sat(6, 18, seed=0)
    zeros = Answers(distribution.layout, lambda tokens: np.eye(2)[np.zeros(tokens.shape, int)])
    (found,) = pattern_losses(
        {"zeros": zeros}, ExactPosterior(distribution), distribution, TwoRates(1, 1), key=KEY, n=2_000
    ).values()
    latents = found.roles["latent"]
    assert latents["model"].mean == pytest.approx(latents["excluded"].mean * -math.log(LEAST))
    accept("pattern losses", p_value(latents["excluded"], 0.5))
    reject("pattern losses", p_value(latents["excluded"], 0.55))
    assert latents["kl"].mean == pytest.approx(math.log(0.5) - 0.5 * math.log(LEAST))
    assert latents["converged"].mean == 0


def test_belief_propagation_is_judged_like_any_posterior() -> None:
    distribution = nae_sat(8, 24, seed=0)
    exact, law = ExactPosterior(distribution), TwoRates(1, 0.5)
    (found,) = pattern_losses({"bp": BPPosterior(distribution)}, exact, distribution, law, key=KEY, n=300).values()
    assert found.roles["latent"]["kl"].mean == pytest.approx(0, abs=1e-12), "by symmetry, as exactly"
    assert found.roles["observation"]["kl"].mean > 0.2, "it reads the observations off a product of uniform beliefs"


def test_what_is_no_posterior_is_refused() -> None:
    distribution, other = nae_sat(6, 18, seed=0), nae_sat(6, 18, seed=1)
    exact, layout = ExactPosterior(distribution), distribution.layout

    def judge(posterior: Any, truth: Any = exact, law: Any = None, **more: Any) -> None:
        arguments = {"key": KEY, "n": 50, **more}
        pattern_losses({"mine": posterior}, truth, distribution, law or TwoRates(0.5, 0.5), **arguments)

    twice = Answers(layout, lambda tokens: np.ones((*tokens.shape, 2)))
    with pytest.raises(ValueError, match=r"mine gives row 0 at position 0 no probabilities: .* sums to 2"):
        judge(twice)
    negative = Answers(layout, lambda tokens: np.broadcast_to([1.5, -0.5], (*tokens.shape, 2)))
    with pytest.raises(ValueError, match="mine gives row 0 at position 0 no probabilities"):
        judge(negative)
    nothing = Answers(layout, lambda tokens: np.full((*tokens.shape, 2), np.nan))
    with pytest.raises(ValueError, match="mine gives row 0 at position 0 no probabilities"):
        judge(nothing)
    with pytest.raises(ValueError, match=r"mine answers with shape \(50, 25, 2\) .* another problem"):
        judge(Answers(layout, lambda tokens: np.full((len(tokens), 25, 2), 0.5)))
    with pytest.raises(ValueError, match=r"exact posterior gives the true token of sequence \d+ .* probability 0"):
        judge(exact, ExactPosterior(other), n=500)
    with pytest.raises(ValueError, match="at least one context, got n = 0"):
        judge(exact, n=0)
    with pytest.raises(ValueError, match="beside is 'theirs', and must be one of the posteriors"):
        judge(exact, beside="theirs")


def test_paired_masks_are_refused() -> None:
    class Paired:
        name = "paired"

        def sample(self, key: Key, tokens: np.ndarray, layout: Any, *, start: int = 0) -> Any:
            masked, weight = Uniform().sample(key, tokens, layout, start=start)
            return np.concatenate([masked, masked]), np.concatenate([weight, weight])

    distribution = nae_sat(6, 18, seed=0)
    exact = ExactPosterior(distribution)
    with pytest.raises(ValueError, match="paired gives 2 masks a sequence"):
        pattern_losses({"exact": exact}, exact, distribution, Paired(), key=KEY, n=10)
