"""The four accuracies, diversity, losses and intervals, on generators whose values are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lo_theory.diffusion import (
    Diversity,
    FixedCount,
    OneAtATime,
    Sums,
    Uniform,
    conditional_accuracy,
    dead_checks,
    decode,
    diversity,
    find_dead_ends,
    gap_closed,
    generated_accuracies,
    infill_accuracies,
    losses,
    margin,
    vanilla,
)
from lo_theory.diffusion.diversity import expected_distinct, total_variation
from lo_theory.diffusion.losses import gap_share, gap_span
from lo_theory.posterior import ExactPosterior, Marginals
from lo_theory.posterior.weak import MarginalsOnly
from lo_theory.problem import LODistribution, nae_sat, random_slab
from lo_theory.rng import Key
from lo_theory.testing import joint_law, z_test
from tests.budget import accept, reject

KEY = Key(21)
N_SEQUENCES = 4_000


def problem() -> LODistribution:
    return nae_sat(8, 24, seed=0)


def p_value(sums: Sums, value: float) -> float:
    """Of the measured mean, if the true one is ``value``."""
    return math.erfc(abs(sums.mean - value) / sums.standard_error / math.sqrt(2))


def p_value_of_largest(z: float, count: int) -> float:
    """Of the largest of ``count`` standard normal |z|, at most (Bonferroni)."""
    return min(1.0, count * math.erfc(z / math.sqrt(2)))


def p_value_of_distance(result: Diversity) -> float:
    """Of the total variation distance, against twenty exact samples of the same size (Student)."""
    t = (result.total_variation - result.total_variation_expected) / result.total_variation_deviation
    return float(2 * stats.t.sf(abs(t) / math.sqrt(1 + 1 / 20), 19))


def test_an_exact_sampler_is_consistent_and_only_62_per_cent_right_unpaired():
    """Self-consistency is 100 %, and unpaired 1 - 2 x 3/16 = 62.5 %, observation mean 3/4."""
    distribution = problem()
    result = generated_accuracies(distribution, distribution.sample(KEY, N_SEQUENCES), KEY.fold("judge"))
    assert result["self_consistency"].mean == result["self_consistency_ceiling"].mean == result["consistent"].mean == 1
    accept("known accuracies", p_value(result["unpaired"], 0.625))
    accept("known accuracies", p_value(result["observation_mean"], 0.75))
    accept("known accuracies", p_value(result["data_observation_mean"], 0.75))
    reject("known accuracies", p_value(result["unpaired"], 0.64))
    reject("known accuracies", p_value(result["observation_mean"], 0.765))


def test_all_ones_with_independent_latents_reach_75_per_cent_and_independent_marginals_62():
    distribution = problem()
    tokens = distribution.sample(KEY, N_SEQUENCES)
    tokens[:, 8:] = 1
    ones = generated_accuracies(distribution, tokens, KEY.fold("judge"))
    accept("known accuracies", p_value(ones["self_consistency"], 0.75))
    accept("known accuracies", p_value(ones["unpaired"], 0.75))
    assert ones["observation_mean"].mean == 1
    independent = decode(MarginalsOnly(distribution), margin(), OneAtATime(), key=KEY, n=N_SEQUENCES)
    result = generated_accuracies(distribution, independent.tokens, KEY.fold("judge"))
    accept("known accuracies", p_value(result["self_consistency"], 0.625))
    accept("known accuracies", p_value(result["unpaired"], 0.625))
    assert result["consistent"].mean < 0.01


def test_self_consistency_of_noisy_data_stands_beside_its_ceiling():
    distribution = nae_sat(6, 18, seed=0, noise=0.1)
    result = generated_accuracies(distribution, distribution.sample(KEY, N_SEQUENCES), KEY.fold("judge"))
    assert math.isclose(result["self_consistency_ceiling"].mean, 0.9)
    accept("known accuracies", p_value(result["self_consistency"], 0.9))
    assert result["consistent"].mean == 1


def test_conditional_and_infill_of_the_exact_posterior_and_of_a_guesser():
    distribution = problem()
    exact, guesser = ExactPosterior(distribution), MarginalsOnly(distribution)
    assert conditional_accuracy(exact, distribution, KEY, 500).mean == 1
    accept("known accuracies", p_value(conditional_accuracy(guesser, distribution, KEY, N_SEQUENCES), 0.75))
    best = infill_accuracies(exact, distribution, Uniform(), KEY, N_SEQUENCES)
    assert 0.8 < best["infill_drawn"].mean < best["infill"].mean < 1
    assert best["infill"].n < N_SEQUENCES, "sequences with no hidden observation do not count"
    guess = infill_accuracies(guesser, distribution, Uniform(), KEY, N_SEQUENCES)
    accept("known accuracies", p_value(guess["infill"], 0.75))
    accept("known accuracies", p_value(guess["infill_drawn"], 0.625))


def test_slabs_are_judged_too():
    distribution = random_slab(6, 12, 0.7, seed=1)
    result = generated_accuracies(distribution, distribution.sample(KEY, 300), KEY.fold("judge"))
    assert result["self_consistency"].mean == result["consistent"].mean == 1


def test_diversity_accepts_exact_samples_and_exposes_one_repeated_sequence():
    distribution = problem()
    tokens = distribution.sample(KEY, 2_000)
    good = diversity(distribution, tokens, KEY.fold("exact"))
    assert abs(good.distinct - good.distinct_expected) < 0.01
    accept("diversity", p_value_of_largest(good.bias_z, good.bias_count))
    accept("diversity", p_value_of_largest(good.pair_z, good.pair_count))
    accept("diversity", p_value_of_distance(good))
    repeated = diversity(distribution, np.repeat(tokens[:1], 2_000, axis=0), KEY.fold("exact"))
    assert repeated.distinct == 1 / 2_000
    reject("diversity", p_value_of_largest(repeated.bias_z, repeated.bias_count))
    reject("diversity", p_value_of_largest(repeated.pair_z, repeated.pair_count))
    reject("diversity", p_value_of_distance(repeated))
    assert repeated.total_variation > 0.99


def test_diversity_sees_a_correlation_that_biases_miss():
    distribution = nae_sat(13, 20, seed=0)
    tokens = distribution.sample(KEY, 2_000)
    tokens[:, 1] = np.where(Key(1).generator().random(2_000) < 0.2, tokens[:, 0], tokens[:, 1])
    result = diversity(distribution, tokens, KEY)
    reject("diversity", p_value_of_largest(result.pair_z, result.pair_count))
    accept("diversity", p_value_of_largest(result.bias_z, result.bias_count))
    assert math.isnan(result.total_variation), "N > 12 has no total variation"


def test_z_scores_are_standard_normal_for_exact_samples():
    from lo_theory.diffusion.diversity import _z_scores

    prior = np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3], [1 / 3, 1 / 3, 1 / 3]])
    generator = np.random.default_rng(0)
    scores, samples = [], []
    for _ in range(300):
        latents = np.stack([generator.choice(3, size=400, p=law) for law in prior], axis=1).astype(np.int8)
        samples.append(latents)
        bias, pairs = _z_scores(latents, prior)
        assert len(bias) == 6
        assert len(pairs) == 12
        scores.append(np.concatenate([bias, pairs]))
    squares = np.square(scores)
    accept("z scores", z_test(squares[:, 0], 1.0))
    accept("z scores", z_test(squares[:, 10], 1.0))
    wrong = [np.square(_z_scores(np.repeat(rows, 2, axis=0), prior)[0][0]) for rows in samples]  # every row twice
    reject("z scores", z_test(wrong, 1.0))


def test_expected_distinct_against_enumeration():
    uniform = np.full((5, 2), 0.5)
    assert math.isclose(expected_distinct(uniform, 40), 32 * (1 - (1 - 1 / 32) ** 40), rel_tol=1e-12)
    skewed = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    p = np.einsum("a,b,c->abc", *skewed).ravel()
    assert math.isclose(expected_distinct(skewed, 9), (1 - (1 - p) ** 9).sum(), rel_tol=1e-12)
    assert math.isclose(expected_distinct(np.full((100, 2), 0.5), 2_000), 2_000, rel_tol=1e-12)
    large = np.full((30, 2), [0.4, 0.6])
    assert math.isclose(expected_distinct(large, 100), 100 - 4950 * 0.52**30, rel_tol=1e-12)


def test_total_variation_against_the_joint_law():
    distribution = nae_sat(3, 3, seed=0, noise=0.2)
    tokens = distribution.sample(KEY, 70)
    rows, p = joint_law(distribution)
    f = np.array([(tokens == row).all(axis=1).mean() for row in rows])
    assert math.isclose(total_variation(distribution, tokens), 0.5 * np.abs(f - p).sum(), rel_tol=1e-12)


def test_losses_of_the_exact_posterior_sit_on_the_floor_and_of_a_guesser_on_the_marginals_line():
    distribution = nae_sat(6, 18, seed=0)
    exact, guesser = ExactPosterior(distribution), MarginalsOnly(distribution)
    same = losses(exact, exact, distribution, Uniform(), key=KEY, n=N_SEQUENCES)
    assert same.kl.mean == 0
    accept("known accuracies", p_value(same.exact, distribution.entropy() / 24))
    guess = losses(guesser, exact, distribution, Uniform(), key=KEY, n=N_SEQUENCES)
    accept("known accuracies", p_value(guess.model, distribution.marginal_entropy() / 24))
    assert abs(gap_closed(guess.kl.mean, distribution)) < 0.02
    assert gap_closed(same.kl.mean, distribution) == 1
    difference = guess.model.mean - guess.exact.mean
    assert abs(difference - guess.kl.mean) < 5 * (guess.model.standard_error + guess.kl.standard_error)


class Blurred:
    """The exact posterior, a twentieth replaced by single-token marginals: a well-trained model."""

    def __init__(self, distribution):
        self.layout = distribution.layout
        self.exact, self.guesser = ExactPosterior(distribution), MarginalsOnly(distribution)

    def marginals(self, tokens):
        exact = self.exact.marginals(tokens)
        return replace(exact, probs=0.95 * exact.probs + 0.05 * self.guesser.marginals(tokens).probs)


def test_kl_measures_a_small_excess_better_than_losses_do():
    distribution = nae_sat(6, 18, seed=0)
    result = losses(
        Blurred(distribution), ExactPosterior(distribution), distribution, Uniform(), key=KEY, n=N_SEQUENCES
    )
    assert 0 < result.kl.mean < 0.05
    assert result.kl.standard_error < 0.2 * result.model.standard_error


def test_loss_classes_partition_the_contexts():
    distribution = nae_sat(4, 8, seed=0)
    result = losses(
        MarginalsOnly(distribution), ExactPosterior(distribution), distribution, Uniform(), key=KEY, n=3_000
    )
    assert sum(row.model.n for row in result.classes) == 3_000
    by_class = {(row.latents_hidden, row.observations_hidden): row for row in result.classes}
    assert by_class[0, 1].exact.mean == 0, "one hidden observation of known latents is certain"
    assert all(0 <= a <= 4 and 0 <= b <= 8 for a, b in by_class)
    assert sum(row.kl.total for row in result.classes) / 3_000 == pytest.approx(result.kl.mean, rel=1e-6)


def test_losses_without_an_exact_posterior_are_the_models_only():
    distribution = nae_sat(4, 8, seed=0)
    guesser = MarginalsOnly(distribution)
    alone = losses(guesser, None, distribution, Uniform(), key=KEY, n=500)
    both = losses(guesser, ExactPosterior(distribution), distribution, Uniform(), key=KEY, n=500)
    assert alone.model == both.model
    assert [row.model for row in alone.classes] == [row.model for row in both.classes]
    assert alone.exact.n == alone.kl.n == 0
    assert math.isnan(alone.kl.mean)


def test_gap_is_refused_where_there_is_none():
    from lo_theory.problem import TableObservations

    independent = LODistribution(np.full((2, 2), 0.5), TableObservations(np.array([[0, 1]]), np.full((1, 4, 2), 0.5)))
    with pytest.raises(ValueError, match="no gap to close"):
        gap_closed(0.1, independent)


@pytest.mark.parametrize("make", [lambda: nae_sat(6, 18, seed=1, noise=0.5), lambda: nae_sat(8, 40, seed=0, noise=0.5)])
def test_noise_of_a_half_leaves_no_gap_to_close(make):
    """Floor and marginals-only line differ by rounding alone, in either direction."""
    law = make()
    floor, marginals = law.entropy() / law.layout.length, law.marginal_entropy() / law.layout.length
    assert abs(marginals - floor) < 1e-13
    for low, high in ((floor, marginals), (marginals, floor), (floor, floor * (1 + 1e-12)), (0.0, 0.0)):
        assert math.isnan(gap_span(low, high))
        assert math.isnan(gap_share(0.01, low, high))
    with pytest.raises(ValueError, match="no gap to close"):
        gap_closed(0.1, law)
    assert gap_span(0.2, 0.2 + 1e-8) == pytest.approx(1e-8), "what is resolved is kept"


def test_sums_add_and_agree_with_numpy():
    values = np.random.default_rng(0).normal(2, 3, 500)
    whole, parts = Sums.of(values), Sums.of(values[:123]) + Sums.of(values[123:])
    assert math.isclose(whole.mean, values.mean())
    assert math.isclose(whole.standard_error, values.std(ddof=1) / math.sqrt(500))
    assert math.isclose(parts.mean, whole.mean)
    assert math.isclose(parts.standard_error, whole.standard_error)
    low, high = whole.interval()
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 499, values.mean(), stats.sem(values)))
    assert all(math.isnan(x) for x in Sums.of([1.0]).interval())


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_intervals_of_shares_cover_what_they_say(p):
    """95 % intervals cover a true share in 93 to 98 % of 4,000 repetitions; a quarter too narrow, they do not."""
    generator = np.random.default_rng(3)
    shares = generator.binomial(10, p, size=(4_000, 300)) / 10
    covered = narrow = 0
    for row in shares:
        low, high = Sums.of(row).interval(share=True)
        middle, half = (low + high) / 2, (high - low) / 2
        covered += low <= p <= high
        narrow += middle - 0.75 * half <= p <= middle + 0.75 * half
    assert 0.93 < covered / 4_000 < 0.98
    assert not 0.93 < narrow / 4_000 < 0.98


def test_interval_of_unanimous_shares_is_not_empty():
    low, high = Sums.of(np.ones(2_000)).interval(share=True)
    assert math.isclose(high, 1)
    assert math.isclose(low, 2_000 / (2_000 + 1.959963984540054**2), rel_tol=1e-9)


@pytest.mark.parametrize("make", [lambda: nae_sat(6, 18, seed=1), lambda: random_slab(6, 18, 0.5, seed=1)])
def test_a_check_is_dead_when_its_value_or_a_latent_it_reads_was_written_after_the_dead_end(make):
    law = make()
    decoded = decode(ExactPosterior(law), margin(), FixedCount(6), key=KEY, n=40)
    order, scopes = law.layout.order, getattr(law.observations, "scopes", np.tile(np.arange(6), (18, 1)))
    latents, observed = law.layout.split(decoded.tokens)
    likely = law.observations.probabilities(latents).argmax(axis=2)
    dead = np.zeros((40, 18), bool)
    for row, (died, step) in enumerate(zip(decoded.dead_from, decoded.step_revealed, strict=True)):
        written = [step[order[role]] for role in range(24)]
        last = [max(written[6 + j], *(written[i] for i in scopes[j])) for j in range(18)]
        dead[row] = [died >= 0 and at >= died for at in last]
    found = dead_checks(law, decoded)
    assert found["dead_checks"].mean == pytest.approx(dead.mean())
    assert found["dead_checks"].mean > decoded.after_dead_end[:, law.layout.observation_positions].mean() > 0
    assert found["live_errors"].mean == pytest.approx((~dead & (likely != observed)).mean())
    assert 0 < found["live_errors"].mean < (likely != observed).mean()


@pytest.mark.parametrize("schedule", [FixedCount(6), OneAtATime()], ids=lambda schedule: schedule.name)
def test_dead_ends_of_a_decode_that_does_not_notice_them(schedule):
    """The exact posterior finds in its own decodes what it noticed, in those of others the first impossible context."""
    law = nae_sat(6, 18, seed=1)
    exact = ExactPosterior(law)
    own = decode(exact, margin(), schedule, key=KEY, n=60)
    forgotten = replace(own, dead_from=np.zeros(60, np.int32))
    assert np.array_equal(find_dead_ends(exact, forgotten).dead_from, own.dead_from)
    blind = decode(_Blind(exact), vanilla(), schedule, key=KEY, n=60)
    assert (blind.dead_from == -1).all()
    first = np.full(60, -1)
    for step in range(int(blind.step_revealed.max()), -1, -1):
        context = np.where(blind.step_revealed < step, blind.tokens, -1)
        first[np.isneginf(exact.marginals(context).log_evidence)] = step
    assert np.array_equal(find_dead_ends(exact, blind).dead_from, first)
    alive = np.where(first >= 0, first / (blind.step_revealed.max(axis=1) + 1), 1)
    assert find_dead_ends(exact, blind).alive_steps == pytest.approx(alive)
    assert (first > 0).mean() > 0.5
    assert len(np.unique(first)) > 3


class _Blind:
    """Coin flips, and nothing known of the evidence."""

    def __init__(self, exact):
        self.layout = exact.layout

    def marginals(self, tokens):
        probs = np.full((*tokens.shape, 2), 0.5)
        return Marginals(probs, np.full(len(tokens), np.nan), np.ones(len(tokens), bool))
