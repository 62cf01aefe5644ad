"""Rules that hide again: their limits, the share that they leave revealed, and what they remember and ask."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lo_theory.diffusion import (
    P2,
    POLICIES,
    BinomialRule,
    DecodeOptions,
    FixedCount,
    OneAtATime,
    ReMDM,
    View,
    decode,
    remasking,
    top_probability,
    vanilla,
)
from lo_theory.diffusion.policies import hides_again
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK, nae_sat
from lo_theory.rng import Key
from lo_theory.testing import BruteForcePosterior, chi_square, z_test
from tests.budget import accept, reject
from tests.diffusion.test_decode import frequencies
from tests.diffusion.test_information import problem

KEY = Key(53)
TRIPLE = problem(((0, 1, 2),))
EXACT = ExactPosterior(TRIPLE)
PROBLEM = nae_sat(4, 8, seed=2)
RULES = [name for name in POLICIES if hides_again(POLICIES[name]())]
FORMS = ("cap", "rescale", "confidence", "loop")


def ancestral_law(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """All strings of one triple, and their law where every position is revealed at a uniform step of its own."""
    strings = np.array(list(itertools.product((0, 1), repeat=4)), np.int8)
    law = np.zeros(len(strings))
    for when in itertools.product(range(steps), repeat=4):
        chance = np.full(len(strings), steps**-4.0)
        for step in range(steps):
            context = np.where(np.array(when) < step, strings, np.int8(MASK))
            probs = BruteForcePosterior(TRIPLE).marginals(context).probs
            for position in np.flatnonzero(np.array(when) == step):
                chance *= probs[np.arange(len(strings)), position, strings[:, position]]
        law += chance
    return strings, law


def test_without_remasking_it_is_ancestral_sampling() -> None:
    strings, law = ancestral_law(3)
    assert law.sum() == pytest.approx(1, abs=1e-12)
    for policy in (vanilla(), ReMDM(0.0, "cap"), ReMDM(0.0, "confidence")):
        drawn = decode(EXACT, policy, BinomialRule(3), key=KEY, n=40_000).tokens
        accept("remasking", chi_square(frequencies(strings, drawn)[0], law))
    drawn = decode(EXACT, ReMDM(1.0), BinomialRule(3), key=KEY, n=40_000).tokens
    reject("remasking", chi_square(frequencies(strings, drawn)[0], law))


def shares(policy, steps: int = 6, n: int = 6000) -> np.ndarray:
    """float64[n, steps]: the share of each row that is revealed after each step."""
    found: list[np.ndarray] = []
    options = DecodeOptions(chunk=n, observer=lambda view, after: found.append((~after).mean(axis=1)))
    decode(ExactPosterior(PROBLEM), policy, BinomialRule(steps), key=KEY, n=n, options=options)
    return np.array(found).T


LOOP = np.array([0.9 * 1 / 2.7, 0.9 * 2 / 2.7, 0.9, 0.9, 0.9, 1.0])  # of on = 0.55, off = 0.05 after sixths


@pytest.mark.parametrize(
    ("policy", "meant"),
    [
        (ReMDM(0.3, "cap"), np.arange(1, 7) / 6),
        (ReMDM(0.5, "rescale"), np.arange(1, 7) / 6),
        (ReMDM(0.1, "loop"), np.where(np.arange(1, 7) == 5, 0.9, LOOP)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_mean_share_revealed_is_on_the_schedule(policy, meant, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shares(policy)
    assert (found[:, -1] == 1).all()
    for step in (1, 3, 4):
        accept("remasking", z_test(found[:, step], meant[step]))
    right = remasking._FORMS[policy.form]
    monkeypatch.setitem(remasking._FORMS, policy.form, lambda *args: (right(*args)[0], 0 * right(*args)[1]))
    reject("remasking", z_test(shares(policy)[:, 4], meant[4]))  # hidden ones revealed as if sigma were 0


def test_with_confidence_as_released_the_share_falls_behind() -> None:
    """A revealed token is hidden with sigma_max in all a row, and nothing is revealed for it."""
    found, steps, length = shares(ReMDM(1.0, "confidence")), 6, PROBLEM.layout.length
    before = found[:, :-1]
    now, after = np.arange(1, steps) / steps, np.arange(2, steps + 1) / steps
    most = np.minimum(1, (1 - after) / now)
    expected = before - most / length * (before > 0) + (1 - before) * (after - now) / (1 - now)
    accept("remasking", z_test((found[:, 1:] - expected)[:, 3], 0.0))
    reject("remasking", z_test(found[:, 3], 4 / 6))
    lag = now - before.mean(axis=0)
    assert lag[2] == pytest.approx(0.133, abs=0.01)  # 37 % and not 50 % after half of the steps, at L = 12
    assert (found[:, -1] == 1).all()


def test_confidence_hides_what_was_drawn_with_little_probability() -> None:
    n, drawn = 20_000, np.array([0.2, 0.5, 0.9, 1.0])
    tokens = np.zeros((n, 4), np.int8)
    memory = {"free": np.ones((n, 4), bool), "drawn": np.tile(drawn, (n, 1))}
    masked = np.zeros((n, 4), bool)
    rule = ReMDM(1.0, "confidence")
    view = View(tokens, masked, EXACT.marginals(tokens), TRIPLE.layout, 3, 6, KEY, memory={rule.name: memory})
    hidden = rule.plan(view, np.ones(n, np.int64))
    weights = np.exp(-drawn)
    sigma = 2 / 3 * weights / weights.sum()
    accept("remasking", z_test(hidden[:, 0], sigma[0]))
    reject("remasking", z_test(hidden[:, 0], 2 / 3 * (1 / weights / (1 / weights).sum())[0]))


def test_the_probability_remembered_is_that_of_the_step_that_drew() -> None:
    seen: list[tuple] = []

    def look(view: View, after: np.ndarray) -> None:
        memory = view.memory[rule.name]["drawn"].copy()
        seen.append((view.tokens.copy(), view.masked.copy(), view.marginals.probs.copy(), memory))

    options, rule = DecodeOptions(observer=look), ReMDM(1.0, "confidence")
    decode(EXACT, rule, BinomialRule(6), key=KEY, n=50, options=options)
    again = 0
    for (_, hidden, probs, _), (tokens, masked, _, memory) in itertools.pairwise(seen):
        new = hidden & ~masked
        at = np.take_along_axis(probs, np.maximum(tokens, 0)[..., None].astype(int), axis=2)[..., 0]
        assert np.array_equal(memory[new], at[new])
        again += int((~hidden & masked).sum())
    assert again > 20


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("schedule", [OneAtATime(), FixedCount(3), BinomialRule(7)], ids=lambda s: s.name)
def test_every_rule_reveals_everything_keeps_what_is_given_and_does_not_see_chunks(name, schedule) -> None:
    exact, given = ExactPosterior(PROBLEM), PROBLEM.sample(KEY, 30)
    given[:10, 3:] = MASK
    given[10:20] = MASK
    given[20:, ::2] = MASK
    rule = POLICIES[name](0.5)
    whole = decode(exact, rule, schedule, key=KEY, n=30, given=given)
    parts = decode(exact, rule, schedule, key=KEY, n=30, given=given, options=DecodeOptions(chunk=7))
    assert (whole.tokens >= 0).all()
    assert np.array_equal(whole.tokens, parts.tokens)
    assert (whole.step_revealed == parts.step_revealed).all()
    assert (whole.tokens[given != MASK] == given[given != MASK]).all()
    assert (whole.step_revealed[given != MASK] == -1).all()
    assert (whole.forwards, whole.after_dead_end.sum()) == (parts.forwards, parts.after_dead_end.sum())


@pytest.mark.parametrize("schedule", [OneAtATime(), FixedCount(3), BinomialRule(4)], ids=lambda s: s.name)
def test_path_planning_that_never_hides_is_top_probability(schedule) -> None:
    exact = ExactPosterior(PROBLEM)
    plain, planned, hiding = (
        decode(exact, policy, schedule, key=KEY, n=200) for policy in (top_probability(), P2(0.0), P2(1.0))
    )
    assert np.array_equal(plain.step_revealed, planned.step_revealed)
    assert np.array_equal(plain.tokens, planned.tokens)
    assert not np.array_equal(plain.step_revealed, hiding.step_revealed)
    assert planned.forwards <= 200 * schedule.steps(12) < hiding.forwards


def test_path_planning_keeps_the_highest_scores_of_all_positions() -> None:
    """Against a loop over rows and positions, with an enumerated posterior."""
    brute, steps = BruteForcePosterior(PROBLEM), 4
    counted: list[int] = []

    def look(view: View, after: np.ndarray) -> None:
        counted.append(int((~after).sum()))
        for tokens, masked, next_masked in zip(view.tokens, view.masked, after, strict=True):
            scores = np.empty(len(tokens))
            for i in range(len(tokens)):
                context = tokens.copy()
                context[i] = MASK
                law = brute.marginals(context[None]).probs[0, i]
                with np.errstate(divide="ignore"):
                    scores[i] = np.log(law.max()) if masked[i] else 2 * np.log(law[tokens[i]])
            assert scores[~next_masked].min() >= scores[next_masked].max(initial=-np.inf) - 1e-9

    options = DecodeOptions(observer=look, chunk=20)
    decode(ExactPosterior(PROBLEM), P2(2.0), FixedCount(steps), key=KEY, n=20, options=options)
    assert counted == [20 * 3, 20 * 6, 20 * 9, 20 * 12]


def test_bad_numbers_are_refused() -> None:
    for make, words in (
        (lambda: ReMDM(0.1, "reset"), "one of cap, rescale, confidence, loop, got 'reset'"),
        (lambda: ReMDM(1.5), "a share of one, got 1.5"),
        (lambda: POLICIES["remdm_loop"](0.1, 0.2, 0.4), "0 <= off < on <= 1"),
        (lambda: P2(-1.0), "not negative, got -1"),
        (lambda: P2(np.inf), "not negative, got inf"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
