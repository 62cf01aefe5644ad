"""Policies, schedules and the decoding loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lo_theory import diffusion
from lo_theory.diffusion import (
    POLICIES,
    BinomialRule,
    DecodeOptions,
    FixedCount,
    Noise,
    OneAtATime,
    Policy,
    TopK,
    View,
    decode,
    entropy,
    fixed_order,
    margin,
    vanilla,
)
from lo_theory.diffusion import _kernels as kernels
from lo_theory.diffusion.policies import hides_again
from lo_theory.posterior import ExactPosterior, Marginals
from lo_theory.problem import LODistribution, TableObservations, nae_sat
from lo_theory.problem.layout import MASK
from lo_theory.rng import Key, fill_words
from lo_theory.testing import BruteForcePosterior, chi_square, joint_law, z_test
from tests.budget import accept, reject

KEY = Key(11)

LIMITS = {"threshold": (2,), "factor": (0,), "frechet": (1,), "entropy_bounded": (0,), "stable": (0,)}
"""Numbers with which rules that choose how many reveal what the schedule says, or certain tokens (entropy_bounded)."""

OTHER_CALLS = ("entropy_bounded", "information_gain", "lookahead", "position_calibrated")
"""Rules that ask the posterior another number of times than once a step and token."""


def make(name: str) -> Policy:
    """The policy of that name, with numbers that keep it to its schedule."""
    return POLICIES[name](*LIMITS.get(name, ()))


def small_problem() -> LODistribution:
    """A skewed prior, two tables (one noisy), an order that is no identity: 3 latents, 3 observations."""
    tables = np.array([[[0.9, 0.1], [0.2, 0.8], [0.0, 1.0], [0.5, 0.5]], [[1, 0], [0, 1], [0, 1], [1, 0]]], float)
    law = TableObservations(np.array([[0, 1], [1, 2], [2, 0]]), tables, np.array([0, 1, 1]))
    return LODistribution(np.array([[0.5, 0.5], [0.3, 0.7], [0.8, 0.2]]), law, np.array([2, 5, 0, 1, 4, 3]))


def frequencies(rows, tokens):
    """Counts of each of ``rows`` among ``tokens``, and how many tokens are none of them."""
    code = {row.tobytes(): i for i, row in enumerate(rows)}
    found = np.array([code.get(row.tobytes(), -1) for row in tokens])
    return np.bincount(found[found >= 0], minlength=len(rows)), int((found < 0).sum())


ONLY_REVEAL = sorted(name for name in POLICIES if not hides_again(POLICIES[name]()))
"""Rules that hide again have laws and tests of their own (test_remasking.py): no schedule makes them one at a time."""


@pytest.mark.parametrize("name", ONLY_REVEAL)
def test_one_at_a_time_keeps_the_law_of_the_data_under_every_policy(name):
    """And several at a time does not: the wrong sampler."""
    distribution = small_problem()
    posterior, (rows, p) = ExactPosterior(distribution), joint_law(distribution)
    decoded = decode(posterior, make(name), OneAtATime(), key=KEY.fold(name), n=20_000)
    counts, impossible = frequencies(rows, decoded.tokens)
    assert impossible == 0
    accept("decode keeps p_data", chi_square(counts, p))
    several = decode(posterior, make(name), FixedCount(1), key=KEY.fold(name), n=20_000)
    counts, impossible = frequencies(rows, several.tokens)
    assert impossible > 0
    reject("decode keeps p_data", chi_square(np.append(counts, impossible), np.append(p, 0.0)))


def test_latents_first_is_exact_in_two_steps():
    """Latents are independent, and so are observations given all latents: this order needs no more than two steps."""
    distribution = small_problem()
    rows, p = joint_law(distribution)
    decoded = decode(ExactPosterior(distribution), fixed_order(), FixedCount(2), key=KEY.fold("two"), n=20_000)
    counts, impossible = frequencies(rows, decoded.tokens)
    assert impossible == 0
    accept("decode keeps p_data", chi_square(counts, p))
    backwards = decode(
        ExactPosterior(distribution),
        fixed_order(distribution.order[::-1]),
        FixedCount(2),
        key=KEY.fold("two"),
        n=20_000,
    )
    counts, impossible = frequencies(rows, backwards.tokens)
    reject("decode keeps p_data", chi_square(np.append(counts, impossible), np.append(p, 0.0)))


@pytest.mark.parametrize("name", ONLY_REVEAL)
def test_exact_one_at_a_time_is_consistent_and_several_is_not(name):
    distribution = nae_sat(8, 24, seed=1)
    posterior = ExactPosterior(distribution)
    one = decode(posterior, make(name), OneAtATime(), key=KEY, n=500)
    assert np.isfinite(distribution.log_prob(one.tokens)).all()
    assert not one.impossible.any()
    assert (one.forwards == 500 * 32) == (name not in OTHER_CALLS)
    several = decode(posterior, make(name), FixedCount(3), key=KEY, n=500)
    assert not np.isfinite(distribution.log_prob(several.tokens)).all()


@pytest.mark.parametrize("schedule", [OneAtATime(), FixedCount(3), BinomialRule(4)], ids=lambda s: s.name)
@pytest.mark.parametrize(
    "options", [DecodeOptions(), DecodeOptions(temperature=0.5, noise=Noise(0.5))], ids=["plain", "noisy"]
)
def test_neither_chunks_nor_threads_change_a_decode(schedule, options):
    posterior = ExactPosterior(nae_sat(5, 10, seed=2))
    whole = decode(posterior, margin(), schedule, key=KEY, n=60, options=options)
    for chunk, threads in ((60, 1), (7, 1), (16, 3), (1, 2)):
        split = decode(
            posterior, margin(), schedule, key=KEY, n=60, options=replace(options, chunk=chunk, threads=threads)
        )
        assert np.array_equal(split.tokens, whole.tokens)
        assert np.array_equal(split.step_revealed, whole.step_revealed)
    fewer = decode(posterior, margin(), schedule, key=KEY, n=25, options=options)
    assert np.array_equal(fewer.tokens, whole.tokens[:25])


def test_given_tokens_stay_and_only_hidden_ones_are_filled():
    distribution = nae_sat(5, 10, seed=2)
    truth = distribution.sample(KEY, 40)
    hidden = np.zeros(truth.shape, bool)
    hidden[:, [0, 3, 6, 9]] = True
    context = np.where(hidden, np.int8(-1), truth)
    decoded = decode(ExactPosterior(distribution), vanilla(), OneAtATime(), key=KEY, n=40, given=context)
    assert np.array_equal(decoded.tokens[~hidden], truth[~hidden])
    assert (decoded.step_revealed[~hidden] == -1).all()
    assert (np.sort(decoded.step_revealed[:, [0, 3, 6, 9]], axis=1) == np.arange(4)).all()
    assert np.isfinite(distribution.log_prob(decoded.tokens)).all()


def test_contradictory_context_is_a_flagged_row():
    distribution = nae_sat(4, 8, seed=3)
    truth = distribution.sample(KEY, 6)
    truth[2, 4] = 1 - truth[2, 4]  # a wrong observation beside all its latents
    truth[:, 6:] = -1
    decoded = decode(ExactPosterior(distribution), margin(), OneAtATime(), key=KEY, n=6, given=truth)
    assert np.array_equal(decoded.impossible, [False, False, True, False, False, False])
    assert np.array_equal(decoded.dead_from, [-1, -1, 0, -1, -1, -1])
    assert np.array_equal(decoded.after_dead_end, (decoded.step_revealed >= 0) & decoded.impossible[:, None])
    assert (decoded.tokens >= 0).all()


def test_a_sequence_is_dead_from_the_first_step_whose_context_is_impossible():
    posterior = ExactPosterior(nae_sat(6, 18, seed=1))
    decoded = decode(posterior, margin(), FixedCount(6), key=KEY, n=50)
    died = np.full(50, -1)
    for step in reversed(range(6)):
        context = np.where(decoded.step_revealed < step, decoded.tokens, np.int8(-1))
        died[np.isneginf(posterior.marginals(context).log_evidence)] = step
    assert np.array_equal(decoded.dead_from, died)
    assert len(set(died)) > 3
    written = decoded.after_dead_end.sum(axis=1)
    assert np.array_equal(written, np.where(died < 0, 0, 24 - 4 * died))


def test_argmax_decodes_one_single_sequence_of_a_skewed_problem():
    same, skewed = small_problem(), np.array([[0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])
    law = TableObservations(same.observations.scopes, same.observations.tables[1:])
    posterior = ExactPosterior(LODistribution(skewed, law, same.order))
    likely = decode(posterior, fixed_order(), OneAtATime(), key=KEY, n=50, options=DecodeOptions(argmax=True))
    assert len(np.unique(likely.tokens, axis=0)) == 1
    drawn = decode(posterior, fixed_order(), OneAtATime(), key=KEY, n=50)
    assert len(np.unique(drawn.tokens, axis=0)) > 4


class FixedPosterior:
    """The same marginals whatever the context: what a draw does is then known."""

    def __init__(self, layout, probs):
        self.layout, self.probs = layout, probs

    def marginals(self, tokens):
        return Marginals(
            np.repeat(self.probs[None], len(tokens), axis=0), np.full(len(tokens), np.nan), np.ones(len(tokens), bool)
        )


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.8), (0.5, 16 / 17), (2.0, 2 / 3)])
def test_temperature_sharpens_as_p_to_the_one_over_t(temperature, share):
    layout = nae_sat(3, 3, seed=0).layout
    posterior = FixedPosterior(layout, np.tile([0.2, 0.8], (6, 1)))
    decoded = decode(
        posterior, vanilla(), FixedCount(1), key=KEY, n=5_000, options=DecodeOptions(temperature=temperature)
    )
    accept("temperature", z_test(decoded.tokens.mean(axis=1), share))
    reject("temperature", z_test(decoded.tokens.mean(axis=1), share + 0.02))


def test_ties_are_broken_uniformly_and_near_ties_are_ties():
    layout = nae_sat(3, 3, seed=0).layout
    probs = np.tile([0.5, 0.5], (6, 1))
    probs[:, 0] += np.arange(6) * 1e-15  # rounding, not information
    posterior = FixedPosterior(layout, probs)
    first = (
        decode(posterior, POLICIES["top_probability"](), OneAtATime(), key=KEY, n=6_000).step_revealed == 0
    ).argmax(axis=1)
    accept("ties", chi_square(np.bincount(first, minlength=6), np.full(6, 1 / 6)))
    unequal = decode(
        posterior, TopK("raw", lambda view: view.marginals.probs.max(axis=2) * 1e6), OneAtATime(), key=KEY, n=6_000
    )
    reject("ties", chi_square(np.bincount((unequal.step_revealed == 0).argmax(axis=1), minlength=6), np.full(6, 1 / 6)))
    argmax = decode(posterior, vanilla(), FixedCount(1), key=KEY, n=2_000, options=DecodeOptions(argmax=True))
    accept("ties", z_test(argmax.tokens.mean(axis=1), 0.5))


def test_scores_order_positions_as_they_say():
    layout = nae_sat(3, 3, seed=0, q=3).layout
    probs = np.array(
        [[0.5, 0.5, 0.0], [0.45, 0.2, 0.35], [0.6, 0.39, 0.01], [0.9, 0.1, 0], [0.7, 0.3, 0], [0.5, 0.5, 0]]
    )
    posterior = FixedPosterior(layout, probs)
    order = {}
    for name in ("top_probability", "margin", "entropy"):
        decoded = decode(posterior, POLICIES[name](), OneAtATime(), key=KEY, n=1)
        order[name] = list(np.argsort(decoded.step_revealed[0]))
    assert order["top_probability"][:3] == [3, 4, 2]
    assert order["top_probability"][5] == 1
    assert order["margin"][:4] == [3, 4, 2, 1]
    assert order["entropy"][:2] == [3, 4]
    assert order["entropy"][5] == 1


@pytest.mark.parametrize(("q", "same"), [(2, True), (3, False)])
def test_of_two_values_top_probability_reveals_as_margin_does(q, same):
    problem = nae_sat(6, 12, seed=0, q=q)
    posterior, rules = ExactPosterior(problem), (diffusion.margin(), diffusion.top_probability())
    one, other = (decode(posterior, rule, OneAtATime(), key=Key(1), n=50).tokens for rule in rules)
    assert np.array_equal(one, other) == same


def test_noise_on_the_score_randomises_the_order():
    layout = nae_sat(3, 3, seed=0).layout
    posterior = FixedPosterior(layout, np.stack([np.linspace(0.6, 0.9, 6), 1 - np.linspace(0.6, 0.9, 6)], axis=1))
    still = decode(posterior, margin(), OneAtATime(), key=KEY, n=200).step_revealed
    assert (still == still[0]).all()
    for noise in (Noise(0.5), Noise(0.5, "gaussian"), Noise(0.5, logarithmic=True, annealed=True)):
        moved = decode(
            posterior, margin(), OneAtATime(), key=KEY, n=200, options=DecodeOptions(noise=noise)
        ).step_revealed
        assert len(np.unique(moved, axis=0)) > 20
        assert np.corrcoef(moved.mean(axis=0), still[0])[0, 1] > 0.5, "noise does not erase the score"


def test_oracle_noise_has_its_law():
    """Both laws, and neighbours in position and in row independent; each is no sample of the other."""
    drawn = {}
    for law, gaussian in (("gumbel_r", False), ("norm", True)):
        out = np.empty((2_000, 10))
        kernels.fill_noise(out, 5, *KEY.fold(law).words(), gaussian)
        drawn[law] = out
        accept("oracle noise", stats.kstest(out.ravel(), law).pvalue)
        beside = stats.spearmanr(out[:, :-1].ravel(), out[:, 1:].ravel()).pvalue
        below = stats.spearmanr(out[:-1].ravel(), out[1:].ravel()).pvalue
        accept("oracle noise", min(1.0, 2 * min(beside, below)))
    reject("oracle noise", stats.kstest(drawn["norm"].ravel(), "gumbel_r").pvalue)
    again = np.empty((100, 10))
    kernels.fill_noise(again, 305, *KEY.fold("norm").words(), True)
    assert (again == drawn["norm"][300:400]).all(), "a row's noise depends on its address only"


def test_fixed_count_takes_exactly_its_steps():
    posterior = ExactPosterior(nae_sat(5, 12, seed=2))
    for steps in (1, 2, 5, 16, 17, 40):
        revealed = decode(posterior, vanilla(), FixedCount(steps), key=KEY, n=3).step_revealed
        sizes = np.bincount(revealed[0])
        assert len(sizes) == min(steps, 17)
        assert sizes.max() - sizes.min() <= 1


def test_binomial_rule_reveals_each_position_independently():
    posterior = FixedPosterior(nae_sat(3, 3, seed=0).layout, np.tile([0.5, 0.5], (6, 1)))
    revealed = decode(posterior, vanilla(), BinomialRule(4), key=KEY, n=4_000).step_revealed
    accept("binomial rule", chi_square(np.bincount(revealed.ravel(), minlength=4), np.full(4, 0.25)))
    pairs = 4 * revealed[:, 0].astype(int) + revealed[:, 5]
    accept("binomial rule", chi_square(np.bincount(pairs, minlength=16), np.full(16, 1 / 16)))
    fixed = decode(posterior, vanilla(), FixedCount(4), key=KEY, n=4_000).step_revealed
    reject(
        "binomial rule",
        chi_square(np.bincount(4 * fixed[:, 0].astype(int) + fixed[:, 5], minlength=16), np.full(16, 1 / 16)),
    )


def test_reveal_highest_against_a_slow_twin():
    generator = np.random.default_rng(0)
    masked, scores = generator.random((50, 9)) < 0.6, generator.integers(0, 3, (50, 9)) / 4
    budget = generator.integers(0, 6, 50)
    result = masked.copy()
    key0, key1 = KEY.words()
    kernels.reveal_highest(result, scores, budget, 7, key0, key1)
    for row in range(50):
        words = np.empty(9, np.uint64)
        fill_words(words, 7 + row, key0, key1)
        hidden = sorted(np.flatnonzero(masked[row]), key=lambda i: (scores[row, i], int(words[i])), reverse=True)
        assert set(np.flatnonzero(result[row])) == set(hidden[budget[row] :])


class Remask:
    """Reveals everything, then hides position 0 again once: what a remasking policy does."""

    name = "remask"
    remasks = True

    def plan(self, view, budget):
        after = np.zeros_like(view.masked)
        after[:, 0] = view.step == 0
        return after


class HideAgain:
    """Reveals everything at once, and hides position 0 at step 1."""

    name = "hide_again"
    remasks = True

    def plan(self, view, budget):
        after = np.zeros_like(view.masked)
        after[:, 0] = view.step == 1
        return after


class Always:
    """One position a step, whatever is hidden."""

    name = "always"

    def steps(self, hidden):
        return 4

    def budget(self, step, masked, key, start):
        return np.ones(len(masked), np.int64)


@pytest.mark.parametrize("given", [False, True])
def test_a_position_that_is_hidden_again_names_the_last_step_that_revealed_it(given):
    posterior = BruteForcePosterior(nae_sat(3, 2, seed=0))
    tokens = np.full((40, posterior.layout.length), -1, np.int8)
    tokens[:, 0] = 0 if given else -1
    decoded = decode(posterior, HideAgain(), Always(), key=KEY, n=40, given=tokens)
    assert (decoded.step_revealed[:, 0] == 2).all()
    assert (decoded.step_revealed[:, 1:] == 0).all()
    assert 0 < decoded.tokens[:, 0].sum() < 40  # drawn anew, also where 0 was given


def test_a_policy_may_hide_a_revealed_position_again():
    posterior = BruteForcePosterior(nae_sat(3, 2, seed=0))
    decoded = decode(posterior, Remask(), BinomialRule(2), key=KEY, n=10)
    assert (decoded.tokens >= 0).all()
    assert (decoded.step_revealed[:, 0] == 1).all()


def test_every_rule_that_has_a_name_is_exported():
    assert all(getattr(diffusion, name) is make for name, make in POLICIES.items())
    assert set(POLICIES) <= set(diffusion.__all__)


def noisy_order(posterior, policy):
    options = DecodeOptions(noise=Noise(0.1, logarithmic=True))
    return decode(posterior, policy, OneAtATime(), key=KEY, n=2, options=options)


class Idle:
    name = "idle"

    def plan(self, view, budget):
        return view.masked.copy()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: decode(p, vanilla(), OneAtATime(), key=KEY, n=0), "n = 0"),
        (lambda p: decode(p, vanilla(), OneAtATime(), key=KEY, n=2, given=np.zeros((3, 5), int)), "3 sequences"),
        (lambda p: decode(p, vanilla(), OneAtATime(), key=KEY, n=1, given=np.full((1, 5), 2)), "outside"),
        (lambda p: decode(p, vanilla(), FixedCount(0), key=KEY, n=1), "at least one step"),
        (lambda p: decode(p, Idle(), OneAtATime(), key=KEY, n=1), "left 5 positions hidden"),
        (lambda p: decode(p, fixed_order([0, 1]), OneAtATime(), key=KEY, n=1), "permutation"),
        (lambda p: DecodeOptions(temperature=0), "argmax"),
        (lambda p: DecodeOptions(chunk=0), "chunk"),
        (lambda p: Noise(-1), "not negative"),
        (lambda p: Noise(1, "cauchy"), "gaussian"),
        (lambda p: noisy_order(p, entropy()), "not negative"),
        (lambda p: noisy_order(p, fixed_order()), "not negative"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(ExactPosterior(nae_sat(3, 2, seed=0)))


def test_an_observer_sees_every_step_and_changes_nothing() -> None:
    problem = nae_sat(5, 10, seed=0)
    posterior, schedule = ExactPosterior(problem), FixedCount(4)
    plain = decode(posterior, margin(), schedule, key=Key(3), n=7, options=DecodeOptions(chunk=4))
    seen: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def watch(view: View, next_masked: np.ndarray) -> None:
        seen[view.start, view.step] = view.tokens.copy(), view.masked.copy(), next_masked.copy()

    for threads in (1, 2):
        seen.clear()
        options = DecodeOptions(chunk=4, threads=threads, observer=watch)
        watched = decode(posterior, margin(), schedule, key=Key(3), n=7, options=options)
        np.testing.assert_array_equal(watched.tokens, plain.tokens)
        np.testing.assert_array_equal(watched.step_revealed, plain.step_revealed)
        assert sorted(seen) == [(start, step) for start in (0, 4) for step in range(4)]
        for (start, step), (tokens, masked, next_masked) in seen.items():
            rows = slice(start, start + len(tokens))
            np.testing.assert_array_equal(masked, plain.step_revealed[rows] >= step)
            np.testing.assert_array_equal(next_masked, plain.step_revealed[rows] > step)
            np.testing.assert_array_equal(tokens, np.where(masked, MASK, plain.tokens[rows]))
