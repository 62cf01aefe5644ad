"""Public decoding rules: what each promises, its limits, and the likelihood that a choice must have."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lo_theory.diffusion import (
    POLICIES,
    BinomialRule,
    DecodeOptions,
    FixedCount,
    Noise,
    OneAtATime,
    Prefix,
    TopK,
    View,
    decode,
    decode_cost,
    entropy,
    entropy_bounded,
    factor,
    fixed_order,
    frechet,
    information_gain,
    log_likelihood,
    lookahead,
    margin,
    position_calibrated,
    stable,
    threshold,
    top_probability,
    true_margin,
    vanilla,
)
from lo_theory.posterior import ExactPosterior, Marginals
from lo_theory.posterior.weak import Sharpened
from lo_theory.problem import LODistribution, TableObservations, nae_sat
from lo_theory.problem.layout import MASK
from lo_theory.rng import Key
from lo_theory.testing import Claims, check, joint_law
from tests.diffusion.test_costs import CHAIN, cost_of_all, written

KEY = Key(1905)
FLAT = (0.5, 0.5)


def without_ties() -> LODistribution:
    """Three latents and three noisy observations with numbers at random: no two scores are equal, no string impossible."""
    draw = np.random.default_rng(3)
    prior, tables = draw.dirichlet((2, 2), 3), draw.dirichlet((0.6, 0.6), (3, 4))
    scopes = np.array([[0, 1], [1, 2], [2, 0]])
    return LODistribution(prior, TableObservations(scopes, tables, np.arange(3)), np.array([4, 1, 0, 5, 3, 2]))


SMALL = without_ties()
EXACT = ExactPosterior(SMALL)
WEAK = Sharpened(EXACT, 0.7)
STRINGS = np.array(list(itertools.product((0, 1), repeat=6)), np.int8)
LEAST = [threshold(0.7), factor(0.9), frechet(0.1), entropy_bounded(0.4), stable(0.05, 0.6)]  # several at once
ONE = [
    *(information_gain(3), lookahead(), position_calibrated(), position_calibrated(0.1, 0.4, (0.3, 0.7))),
    *(threshold(2), factor(0), frechet(1), stable(0.0)),
]


def named(policy) -> str:
    return policy.name


# --- the likelihood of a rule ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Neighbours:
    """Broken: follows what the denoiser says of the row before."""

    policy: TopK
    name: str = "neighbours"

    def plan(self, view, budget):
        answer = view.marginals
        return self.policy.plan(
            replace(view, marginals=replace(answer, probs=np.roll(answer.probs, 1, axis=0))), budget
        )


@pytest.mark.parametrize("policy", LEAST + ONE, ids=named)
def test_the_likelihoods_of_all_strings_sum_to_one(policy):
    """With a weak denoiser, for which the order matters, and for rules that reveal several at once too."""
    logs = log_likelihood(WEAK, policy, OneAtATime(), STRINGS, key=KEY)
    assert np.exp(logs).sum() == pytest.approx(1, abs=1e-12)
    in_turn = log_likelihood(WEAK, fixed_order(), OneAtATime(), STRINGS, key=KEY)
    assert np.abs(logs - in_turn).max() > 1e-3  # the order does matter


@pytest.mark.parametrize("policy", ONE, ids=named)
def test_one_at_a_time_with_the_exact_posterior_the_likelihood_is_that_of_the_data(policy):
    logs = log_likelihood(EXACT, policy, OneAtATime(), STRINGS, key=KEY)
    assert logs == pytest.approx(SMALL.log_prob(STRINGS), abs=1e-12)


def test_choices_that_read_more_than_what_is_revealed_do_not_sum_to_one():
    for broken in (true_margin(STRINGS), Neighbours(top_probability()), Neighbours(information_gain(3))):
        total = np.exp(log_likelihood(WEAK, broken, OneAtATime(), STRINGS, key=KEY)).sum()
        assert abs(total - 1) > 1e-3, broken.name


@pytest.mark.parametrize("policy", LEAST[:4], ids=named)
@pytest.mark.parametrize("posterior", [EXACT, WEAK], ids=["exact", "weak"])
def test_the_likelihood_of_several_at_once_is_the_law_of_what_is_written(policy, posterior):
    law = written(posterior, policy, OneAtATime())
    strings = np.array([np.frombuffer(string, np.int8) for string in law])
    assert np.exp(log_likelihood(posterior, policy, OneAtATime(), strings, key=KEY)) == pytest.approx(
        list(law.values())
    )
    away = np.abs(np.array(list(law.values())) - np.exp(SMALL.log_prob(strings))).max()
    assert away > 1e-3  # several at once is another law than the data's


@pytest.mark.parametrize("policy", [p for p in ONE if "position" not in p.name] + [position_calibrated()], ids=named)
def test_every_check_passes_where_certain_tokens_alone_come_together(policy):
    for rule in (policy, entropy_bounded(0)):
        report = check((EXACT, rule, OneAtATime()), SMALL, n=1_000, claims=Claims(budget="least"))
        assert report.ok, report
    assert report["likelihood of all strings sums to 1"].ok


def test_check_finds_what_several_at_once_cost():
    for policy in LEAST:
        failed = check((EXACT, policy, OneAtATime()), SMALL, n=4_000, claims=Claims(budget="least")).failed
        assert all(name.startswith("law of the data") for name in failed)
        assert failed or policy.name.startswith("stable")


# --- chunks ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forgetful:
    """Broken: counts steps at which a row was not asked about."""

    policy: object
    name: str = "forgetful"

    def plan(self, view, budget):
        return self.policy.plan(replace(view, active=None), budget)


@pytest.mark.parametrize("policy", [*LEAST, *ONE, stable(0.5, 0.5)], ids=named)
@pytest.mark.parametrize("schedule", [OneAtATime(), BinomialRule(9)], ids=named)
def test_chunks_do_not_matter(policy, schedule):
    posterior = ExactPosterior(nae_sat(4, 6, seed=1, noise=0.1))
    whole, *parts = (
        decode(posterior, policy, schedule, key=KEY, n=30, options=DecodeOptions(chunk=chunk)) for chunk in (1000, 1, 7)
    )
    for part in parts:
        assert np.array_equal(part.tokens, whole.tokens)
        assert np.array_equal(part.step_revealed, whole.step_revealed)
        assert part.forwards == whole.forwards


def test_a_memory_of_steps_that_a_row_does_not_take_depends_on_chunks():
    posterior, rule = ExactPosterior(nae_sat(4, 6, seed=1, noise=0.1)), Forgetful(stable(0.5, 0.5))
    whole, alone = (
        decode(posterior, rule, BinomialRule(9), key=KEY, n=30, options=DecodeOptions(chunk=chunk)) for chunk in (30, 1)
    )
    assert not np.array_equal(whole.step_revealed, alone.step_revealed)


# --- limits ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "away"),
    [
        (threshold(1.5), threshold(0.9)),
        (factor(0), factor(1)),
        (frechet(1), frechet(0)),
        (stable(0), stable(0.1)),
        (information_gain(1), information_gain(4)),
        (position_calibrated(0, 1, FLAT), position_calibrated(0.25, 1, FLAT)),
    ],
    ids=lambda policy: policy.name,
)
@pytest.mark.parametrize("noise", [None, Noise(0.3)], ids=["plain", "noisy"])
def test_at_its_limit_a_rule_is_top_probability(limit, away, noise):
    """The same tokens at the same steps, ties included, one at a time and several."""
    posterior, options = ExactPosterior(nae_sat(5, 10, seed=2)), DecodeOptions(noise=noise)
    scaled = noise is not None and limit.name.startswith(("position", "information"))  # noise on another score
    for schedule in (OneAtATime(), FixedCount(4)):
        ours, other, plain = (
            decode(posterior, policy, schedule, key=KEY, n=60, options=options)
            for policy in (limit, away, top_probability())
        )
        assert scaled or np.array_equal(ours.step_revealed, plain.step_revealed)
        assert scaled or np.array_equal(ours.tokens, plain.tokens)
        assert schedule != OneAtATime() or not np.array_equal(other.step_revealed, plain.step_revealed)


def view_of(probs, **more) -> View:
    """A view with everything hidden and these marginals [B, 6 or 32, 2]."""
    layout = nae_sat(3, 3, seed=0).layout if probs.shape[1] == 6 else nae_sat(8, 24, seed=0).layout
    tokens, known = np.full(probs.shape[:2], MASK, np.int8), np.ones(len(probs))
    return View(tokens, tokens == MASK, Marginals(probs, known, known > 0), layout, 0, 9, KEY, **more)


def shown(policy, view, least=1):
    return view.masked & ~policy.plan(view, np.full(len(view.tokens), least))


def test_factor_reveals_its_number_of_equal_confidences():
    for one, bound in itertools.product((2, 5, 10, 16, 40, 100, 250), (1, 2, 3)):
        eps = Fraction(1, one)
        probs = np.tile([float(1 - eps), float(eps)], (50, 32, 1))
        number = min(32, max(1, math.ceil(Fraction(bound) / eps) - 2))
        revealed = shown(factor(bound), view_of(probs))
        assert (revealed.sum(axis=1) == number).all()
        if number < 32:
            assert len(np.unique(revealed, axis=0)) > 1  # ties are drawn, no position is favoured
        almost = Fraction(bound) + Fraction(1, 10**6)  # beyond the boundary one more
        more = min(32, max(1, math.ceil(almost / eps) - 2))
        assert (shown(factor(float(almost)), view_of(probs)).sum(axis=1) == more).all()
        assert more == min(32, number + (number > 1 or bound * one >= 3))


@pytest.mark.parametrize(
    ("policy", "run"),
    [
        (threshold(0.8), lambda c, h: (c >= 0.8).sum()),
        (factor(0.7), lambda c, h: max(n for n in range(7) if n == 0 or (n + 1) * (1 - c[n - 1]) < 0.7)),
        (
            frechet(-0.1),
            lambda c, h: max(n for n in range(7) if n == 0 or max(0, sum(c[:n]) - (n - 1)) - (1 - c[n - 1]) > -0.1),
        ),
        (entropy_bounded(0.9), lambda c, h: max(n for n in range(1, 7) if sum(h[:n]) - max(h[:n]) <= 0.9)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_how_many_is_the_formula_and_at_least_the_budget(policy, run):
    draw = np.random.default_rng(0)
    p = np.where(draw.random((200, 6)) < 0.4, 0.5, draw.beta(0.3, 0.3, (200, 6)))
    view = view_of(np.stack([p, 1 - p], axis=2))
    for least in (0, 1, 3):
        revealed = shown(policy, view, least)
        for row, values in zip(revealed, p, strict=True):
            c = np.sort(np.maximum(values, 1 - values))[::-1]
            h = np.sort([-sum(x * math.log(x) for x in (v, 1 - v) if x > 0) for v in values])
            number = max(run(c, h), least)
            assert row.sum() == number
            assert np.sort(np.maximum(values, 1 - values)[row])[::-1] == pytest.approx(c[:number])


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99), st.sampled_from([0.05, 0.3, 1.0]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_frechet_certifies_is_the_most_likely_string(seed, peak, spread):
    joint = np.random.default_rng(seed).dirichlet(np.full(64, spread))
    joint[joint.argmax()] += peak / (1 - peak)
    assert certified_right(frechet(), joint / joint.sum())


def certified_right(policy, joint) -> bool:
    """Whether the most likely values of what is revealed, if anything, are the most likely string of those positions."""
    ones = STRINGS.T @ joint
    revealed = shown(policy, view_of(np.stack([1 - ones, ones], axis=1)[None]), 0)[0]
    if not revealed.any():
        return True
    strings, which = np.unique(STRINGS[:, revealed], axis=0, return_inverse=True)
    likely = np.bincount(which.ravel(), joint)
    return np.array_equal(strings[likely.argmax()], ones[revealed] > 0.5)


def test_a_looser_bound_than_frechet_certifies_a_wrong_string():
    """Each of two tokens is 1 with probability 0.6, and never both: L = 0.2, U = 0.4."""
    joint = np.zeros(64)
    for string, p in (((1, 0), 0.4), ((0, 1), 0.4), ((1, 1), 0.2)):
        joint[([*string, 0, 0, 0, 0] == STRINGS).all(axis=1)] = p
    assert certified_right(frechet(), joint)
    assert not certified_right(frechet(-0.5), joint)


def test_the_dependence_error_of_a_step_is_within_the_entropy_bound():
    posterior = ExactPosterior(CHAIN)
    for gamma in (0.0, 0.2, 0.6, 1.0, 2.5):
        cost = cost_of_all(posterior, entropy_bounded(gamma), OneAtATime(), CHAIN)
        assert max(step.dependence.mean for step in cost.steps) <= gamma + 1e-12
        assert (cost.dependence.mean > 0.1) == (gamma >= 1)
    none = cost_of_all(posterior, entropy_bounded(0), OneAtATime(), CHAIN)
    for step in none.steps:
        assert step.dependence.deviations + step.dependence.mean**2 < 1e-24  # in every sequence
    assert none.calls.mean < CHAIN.layout.length  # and yet certain tokens came together


@pytest.mark.parametrize("policy", ONE, ids=named)
def test_one_at_a_time_with_the_exact_posterior_costs_nothing(policy):
    cost = decode_cost(EXACT, policy, OneAtATime(), SMALL, key=KEY, n=200)
    assert max(step.dependence.deviations + step.dependence.mean**2 for step in cost.steps) < 1e-24


# --- the formulas of rules that ask ------------------------------------------------------------------------------------------------


def entropy_of(weights) -> float:
    p = np.asarray(weights, float)
    p = p[p > 0] / p.sum()
    return float(-(p * np.log(p)).sum())


def total_correlation(rows, p) -> float:
    """Of all columns of ``rows`` under the law ``p``, by enumeration."""
    singles = [np.bincount(column, p, minlength=2) for column in rows.T]
    joint = np.bincount(np.unique(rows, axis=0, return_inverse=True)[1].ravel(), p)
    return sum(map(entropy_of, singles)) - entropy_of(joint)


CONTEXTS = np.where(np.random.default_rng(5).random((40, 6)) < 0.6, MASK, SMALL.sample(KEY, 40)).astype(np.int8)


def asked(posterior=EXACT, tokens=CONTEXTS, **more) -> View:
    answer = posterior.marginals(tokens)
    return View(
        tokens,
        tokens == MASK,
        answer,
        SMALL.layout,
        0,
        6,
        KEY,
        **{"denoiser": lambda t, rows: posterior.marginals(t), **more},
    )


def test_lookahead_is_the_reduction_of_the_total_correlation():
    """E TC(rest | C, x_i) = TC(all hidden | C) - score_i, by the joint law."""
    rows, p = joint_law(SMALL)
    scores = lookahead().score(asked())
    for context, score in zip(CONTEXTS, scores, strict=True):
        hidden = np.flatnonzero(context == MASK)
        fits = ((rows == context) | (context == MASK)).all(axis=1)
        left, weight = rows[fits][:, hidden], p[fits] / p[fits].sum()
        for at, position in enumerate(hidden):
            rest = np.delete(left, at, axis=1)
            after = 0.0
            for value in (0, 1):
                part = left[:, at] == value
                after += weight[part].sum() * total_correlation(rest[part], weight[part] / weight[part].sum())
            assert score[position] == pytest.approx(total_correlation(left, weight) - after, abs=1e-12)
        assert (score[context != MASK] == 0).all()


@pytest.mark.parametrize("posterior", [EXACT, WEAK], ids=["exact", "weak"])
def test_information_gain_is_its_formula(posterior):
    view = asked(posterior)
    for candidates in (1, 2, 6):
        scores, revealed = information_gain(candidates).score(view), shown(information_gain(candidates), view)
        for context, probs, score, choice in zip(CONTEXTS, view.marginals.probs, scores, revealed, strict=True):
            hidden = [i for i in range(6) if context[i] == MASK]
            if not hidden:
                continue
            surest = sorted(hidden, key=lambda i: -probs[i].max())[:candidates]
            expected = {}
            for i in surest:
                others = [j for j in hidden if j != i]
                after = 0.0
                for value in (0, 1):
                    asked_about = context.copy()
                    asked_about[i] = value
                    answer = posterior.marginals(asked_about[None]).probs[0]
                    after += probs[i, value] * sum(entropy_of(answer[j]) for j in others)
                expected[i] = -entropy_of(probs[i]) - after / max(1, len(others))
            assert [score[i] for i in surest] == pytest.approx(list(expected.values()), abs=1e-12)
            assert max(score[i] for i in hidden) == max(score[i] for i in surest)
            assert expected[np.flatnonzero(choice).item()] == pytest.approx(max(expected.values()), abs=1e-12)


def test_what_looking_ahead_costs_is_counted():
    """Up to two contexts a candidate, and none for a value of probability 0."""
    one, two = (
        decode(EXACT, policy, OneAtATime(), key=KEY, n=10).forwards
        for policy in (information_gain(1), information_gain(2))
    )
    assert (one, two) == (10 * (6 + 2 * 6), 10 * (6 + 2 * 6 + 2 * 5))
    assert decode(EXACT, lookahead(), OneAtATime(), key=KEY, n=10).forwards == 10 * (6 + 2 * 21)
    assert decode(EXACT, position_calibrated(), OneAtATime(), key=KEY, n=10).forwards == 10 * 7
    certain = ExactPosterior(CHAIN)
    assert decode(certain, lookahead(), OneAtATime(), key=KEY, n=10).forwards < 10 * (6 + 2 * 21)
    with pytest.raises(ValueError, match="no denoiser to ask"):
        shown(lookahead(), replace(asked(), denoiser=None))


def test_position_calibrated_is_its_formula():
    view, nothing = asked(WEAK), WEAK.marginals(np.full((1, 6), MASK, np.int8)).probs[0].mean(axis=0)
    for decay, cap, prior in ((0.25, 10.0, None), (0.0, 0.3, None), (1.0, 0.5, (0.2, 0.8)), (0.25, 10.0, (0.0, 1.0))):
        scores = position_calibrated(decay, cap, prior).score(replace(view, memory={}))
        frequencies = nothing if prior is None else np.array(prior)
        for i, j in np.argwhere(view.masked):
            p = view.marginals.probs[i, j]
            with np.errstate(divide="ignore"):
                score = min(-p.max() * np.log(frequencies[p.argmax()]), cap) * np.exp(
                    decay * view.masked[i].argmax() - decay * j
                )
            assert scores[i, j] == pytest.approx(score, abs=1e-12)


def test_position_calibrated_tells_far_positions_apart():
    """The discount of position 200 alone is 2e-22, a tie with all that follow; what the rule compares is their ratio."""
    layout = nae_sat(25, 275, seed=0).layout
    tokens = np.where(np.arange(300) < 200, 0, MASK).astype(np.int8)[None]
    answer = Marginals(np.full((1, 300, 2), 0.5), np.zeros(1), np.ones(1, bool))
    view = View(tokens, tokens == MASK, answer, layout, 0, 100, KEY)
    assert np.flatnonzero(shown(position_calibrated(prior=FLAT), view, 7)[0]).tolist() == list(range(200, 207))


def test_stable_reveals_what_was_stable_twice_and_is_sure():
    posterior, seen = ExactPosterior(nae_sat(4, 6, seed=1, noise=0.1)), []
    together = 0
    for kappa, tau in ((0.05, 0.6), (0.5, 0.5), (0.002, 0.0)):
        seen.clear()
        keep = DecodeOptions(observer=lambda view, left: seen.append((view.marginals.probs, view.masked.copy(), left)))
        decode(posterior, stable(kappa, tau), OneAtATime(), key=KEY, n=20, options=keep)
        moved = []
        for step, (probs, masked, left) in enumerate(seen):
            if step:
                moved.append(
                    (probs * np.log(np.maximum(probs, 1e-300) / np.maximum(seen[step - 1][0], 1e-300))).sum(axis=2)
                )
            revealed, sure = masked & ~left, masked & (probs.max(axis=2) > tau)
            ready = sure & (moved[-1] < kappa) & (moved[-2] < kappa) if step >= 2 else np.zeros_like(masked)
            for row in range(20):
                if ready[row].any():
                    assert np.array_equal(revealed[row], ready[row])
                else:
                    assert revealed[row].sum() == min(1, masked[row].sum())
                together += ready[row].sum() > 1
    assert together > 20


def test_true_margin_reads_the_answer_and_loses_less_here():
    view = asked(WEAK)
    truth = np.where(CONTEXTS == MASK, 1, CONTEXTS)
    scores = true_margin(truth).score(view)
    for i, j in np.argwhere(view.masked):
        assert scores[i, j] == pytest.approx(view.marginals.probs[i, j, 1] - view.marginals.probs[i, j, 0])
    assert np.array_equal(true_margin(truth).score(replace(asked(WEAK, CONTEXTS[7:]), start=7)), scores[7:])
    truth = SMALL.sample(KEY.fold("data"), 400)
    costs = [
        decode_cost(WEAK, policy, OneAtATime(), SMALL, key=KEY, n=400, exact=EXACT).total.mean
        for policy in (true_margin(truth), margin(), top_probability(), vanilla())
    ]
    assert costs[0] < min(costs[1:])
    assert "true_margin" not in POLICIES


# --- names and refusals -------------------------------------------------------------------------------------------------------------


def test_names_say_their_numbers():
    made = [threshold(), factor(2), frechet(), entropy_bounded(0.05), information_gain(), lookahead()]
    made += [position_calibrated(0, 3), stable()]
    assert [policy.name for policy in made] == [
        *("threshold(0.9)", "factor(2)", "frechet(0)", "entropy_bounded(0.05)", "information_gain(8)", "lookahead"),
        *("position_calibrated(0,3)", "stable(0.01,0.9)"),
    ]
    assert isinstance(made[0], Prefix)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: threshold(-0.1), r"above 1 for one at a time; got -0\.1"),
        (lambda: threshold(float("nan")), "got nan"),
        (lambda: factor(-1), r"not negative \(0: one at a time\); got -1"),
        (lambda: frechet(1.5), r"in \[-1, 1\]; got 1\.5: 0 certifies"),
        (lambda: entropy_bounded(-1), "got -1: 0 reveals certain tokens only"),
        (lambda: information_gain(0), "at least one candidate is scored, got 0"),
        (lambda: information_gain(1.5), "candidates must be a whole number"),
        (lambda: position_calibrated(-1), "got -1: 0 makes all positions equal"),
        (lambda: position_calibrated(0, 0), "cap is a positive number of nats, got 0"),
        (lambda: position_calibrated(0, 1, (0.5, 0.6)), r"of sum 1; got \[0\.5, 0\.6\]"),
        (
            lambda: shown(position_calibrated(0, 1, (0.2, 0.3, 0.5)), asked()),
            "has 3 values, the tokens of this problem 2",
        ),
        (lambda: stable(-1), "kappa is a finite number of nats, not negative; got -1"),
        (lambda: stable(1, -1), "tau is a probability, not negative; got -1"),
        (lambda: true_margin([0, 1]), r"complete sequences, int8\[n, L\]; got int64 of shape \(2,\)"),
        (lambda: shown(true_margin(STRINGS[:3]), asked()), "bound to 3 sequences and asked about row 39"),
        (lambda: shown(true_margin(CONTEXTS), asked()), "-1"),
        (lambda: shown(Prefix("none", entropy().score, lambda o, b: o > b, 0.0), asked(), -1), "budgets -1 positions"),
    ],
)
def test_bad_numbers_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
