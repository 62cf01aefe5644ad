"""Order and sizes by policy gradient: against enumerated gradients, known best plans, and copies with a mistake."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from lo_theory.diffusion import (
    FixedCount,
    LearnedSizes,
    OneAtATime,
    PositionHead,
    TopK,
    decode,
    decode_cost,
    fixed_order,
    margin,
    optimise_plan,
    plan_gradient,
    vanilla,
)
from lo_theory.diffusion import policy_gradient as room
from lo_theory.diffusion.policies import View
from lo_theory.posterior import ExactPosterior
from lo_theory.posterior.weak import MarginalsOnly, Mixed
from lo_theory.problem import LODistribution, nae_sat
from lo_theory.rng import Key
from lo_theory.testing import chi_square, joint_law, z_test
from tests.budget import accept, reject
from tests.diffusion.test_information import KNOWN, problem

KEY = Key(23)
BIASED = LODistribution(np.array([[0.5, 0.5], [0.65, 0.35], [0.4, 0.6]]), nae_sat(3, 1, seed=0).observations)
EXACT = ExactPosterior(BIASED)
HEAD, SIZES = PositionHead((0.5, -0.5, -0.5)), LearnedSizes(((-0.8, 0.9),))


def expected_reward(weights: np.ndarray, numbers: np.ndarray | None) -> float:
    """E ln q(x | path) of two steps, over all sequences, sizes and orders of the first step; size 2 without numbers."""
    head = PositionHead(tuple(weights))
    hidden = np.full((1, 4), -1, np.int8)
    view = View(hidden, hidden < 0, EXACT.marginals(hidden), BIASED.layout, 0, 2, KEY)
    chances = np.exp(head.scores(view)[0])
    sizes = {2: 1.0}
    if numbers is not None:
        sizes = dict(enumerate(LearnedSizes(((numbers[0], numbers[1]),)).laws(0, np.array([4]))[0][0], start=1))
    total = 0.0
    for x, p in zip(*joint_law(BIASED), strict=True):
        for size, of_size in sizes.items():
            for first in itertools.permutations(range(4), size):
                left = [chances.sum() - chances[list(first[:m])].sum() for m in range(size)]
                context = np.where(np.isin(np.arange(4), first), x, -1)[None].astype(np.int8)
                reward = 0.0
                for shown, places in ((hidden, first), (context, set(range(4)) - set(first))):
                    probs = EXACT.marginals(shown).probs[0]
                    reward += sum(np.log(probs[i, x[i]]) for i in places)
                total += p * of_size * np.prod(chances[list(first)] / left) * reward
    return float(total)


def slope(of: Callable[[np.ndarray], float], at: tuple[float, ...], step: float = 1e-4) -> np.ndarray:
    unit = step * np.eye(len(at))
    return np.array([(of(np.array(at) + u) - of(np.array(at) - u)) / (2 * step) for u in unit])


def with_replacement(head: PositionHead, view: View, revealed: np.ndarray) -> np.ndarray:
    """As if every position of a step were drawn from all that are hidden."""
    features, scores = head.features(view), np.where(view.masked, head.scores(view), -np.inf)
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    mean = np.einsum("bl,blf->bf", chances / chances.sum(axis=1, keepdims=True), features)
    return np.asarray(np.where(revealed[..., None], features - mean[:, None], 0.0).sum(axis=1))


def test_the_gradient_in_the_order_is_the_enumerated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = BIASED.sample(KEY, 24000)
    expected = slope(lambda weights: expected_reward(weights, None), HEAD.weights)

    def p_values(mean: np.ndarray = expected) -> list[float]:
        found = plan_gradient(EXACT, HEAD, FixedCount(2), rows, key=KEY, group=2)
        return [z_test(found.order[:, i], mean[i]) for i in range(3)]

    accept("policy gradient", p_values())
    reject("policy gradient", p_values(np.zeros(3)))
    with monkeypatch.context() as patch:
        patch.setattr(room, "_order_scores", with_replacement)
        reject("policy gradient", p_values())
    with monkeypatch.context() as patch:  # the baseline holds the path's own reward
        patch.setattr(room, "advantages", lambda rewards, *, scaled: rewards - rewards.mean(axis=1, keepdims=True))
        reject("policy gradient", p_values())


def test_the_gradient_in_the_sizes_is_the_enumerated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = BIASED.sample(KEY, 12000)
    expected = slope(lambda numbers: expected_reward(np.array(HEAD.weights), numbers), SIZES.numbers[0])

    def p_values(mean: np.ndarray = expected) -> list[float]:
        found = plan_gradient(EXACT, HEAD, SIZES, rows, key=KEY, group=2)
        return [z_test(found.sizes[:, 0, i], mean[i]) for i in range(2)]

    accept("policy gradient", p_values())
    reject("policy gradient", p_values(np.zeros(2)))
    with monkeypatch.context() as patch:  # rewards of a group leak into the next one
        right = room.advantages
        patch.setattr(room, "advantages", lambda rewards, *, scaled: right(np.roll(rewards, 1), scaled=scaled))
        reject("policy gradient", p_values())


def test_equal_rewards_weigh_nothing_also_where_rounding_makes_them_differ() -> None:
    rewards = np.full((3, 5), -7.25)
    rewards[1] += 1e-13 * np.arange(5)
    rewards[2, 0] = -3.0
    for scaled in (True, False):
        found = room.advantages(rewards, scaled=scaled)
        assert (found[:2] == 0).all()
        assert found[2].sum() == pytest.approx(0)
    others = (rewards[2].sum() - rewards[2]) / 4
    np.testing.assert_allclose(room.advantages(rewards, scaled=False)[2], rewards[2] - others)
    one, other = (room.advantages(scale * rewards[2:] + 1, scaled=True) for scale in (1, 9))
    np.testing.assert_allclose(one, other)
    assert one.std() == pytest.approx(1)


def test_the_exact_posterior_one_at_a_time_has_nothing_to_gain() -> None:
    rows = BIASED.sample(KEY, 50)
    found = plan_gradient(EXACT, HEAD, OneAtATime(), rows, key=KEY, scaled=True)
    np.testing.assert_allclose(found.rewards, np.repeat(BIASED.log_prob(rows)[:, None], 8, axis=1), atol=1e-9)
    assert (found.order == 0).all()
    weak = Mixed(EXACT, MarginalsOnly(BIASED), 0.5)
    assert (plan_gradient(weak, HEAD, OneAtATime(), rows, key=KEY, scaled=True).order != 0).any()


def test_several_at_once_it_finds_that_latents_come_first() -> None:
    distribution = nae_sat(4, 8, seed=3)
    exact, schedule = ExactPosterior(distribution), FixedCount(3)  # the four latents, then independent observations
    learned = optimise_plan(exact, distribution, PositionHead(), schedule, key=Key(1), iterations=100)
    assert learned.schedule is schedule

    def cost(policy: object) -> float:
        return decode_cost(exact, policy, schedule, distribution, key=Key(3), n=300).total.mean  # type: ignore[arg-type]

    best = TopK("best", learned.policy.scores)  # type: ignore[attr-defined]
    assert cost(fixed_order()) == pytest.approx(0, abs=1e-9)
    assert cost(best) == pytest.approx(0, abs=1e-9)
    assert cost(learned.policy) < 0.05 < 0.5 < cost(vanilla()) < cost(margin())
    assert learned.costs[-20:].mean() < 0.1 < 0.3 < learned.costs[:5].mean()
    written = decode(exact, best, schedule, key=KEY, n=50)
    assert (written.step_revealed[:, distribution.layout.is_latent] == 0).all()


def test_in_random_order_it_finds_the_best_sizes() -> None:
    chain = problem(list(KNOWN)[1])
    start = LearnedSizes(((0.0, 0.0),))
    learned = optimise_plan(ExactPosterior(chain), chain, vanilla(), start, key=Key(1))
    assert learned.policy.name == "vanilla"
    first = learned.schedule.laws(0, np.array([6]))[0][0]  # type: ignore[attr-defined]
    assert first.argmax() + 1 == 4  # best in two steps: 4 and 2
    assert first[2:4].sum() > 0.8
    assert learned.costs[-50:].mean() < 0.5 < learned.costs[:10].mean()


def test_sizes_are_drawn_by_their_law_and_positions_by_their_chances() -> None:
    masked = np.ones((4000, 4), np.bool_)
    sizes = SIZES.budget(0, masked, KEY, 0)
    law = SIZES.laws(0, np.array([4]))[0][0]
    assert law[3] == 0
    accept("learned plan", chi_square(np.bincount(sizes, minlength=4)[1:4], law[:3]))
    reject("learned plan", chi_square(np.bincount(sizes, minlength=4)[1:4], np.full(3, 1 / 3)))
    np.testing.assert_array_equal(SIZES.budget(0, masked[7:], KEY, 7), sizes[7:])
    assert (SIZES.budget(1, masked, KEY, 0) == 4).all()
    assert SIZES.steps(1) == 1
    drawn = decode(EXACT, HEAD, OneAtATime(), key=KEY, n=4000).step_revealed.argmin(axis=1)
    hidden = np.full((1, 4), -1, np.int8)
    chances = np.exp(HEAD.scores(View(hidden, hidden < 0, EXACT.marginals(hidden), BIASED.layout, 0, 4, KEY))[0])
    accept("learned plan", chi_square(np.bincount(drawn, minlength=4), chances / chances.sum()))


def test_what_cannot_be_learned_is_said() -> None:
    rows = BIASED.sample(KEY, 2)
    with pytest.raises(ValueError, match="groups of at least 2, got 1"):
        plan_gradient(EXACT, HEAD, OneAtATime(), rows, key=KEY, group=1)
    with pytest.raises(ValueError, match="vanilla and fixed_count\\(2\\) have no numbers to learn"):
        optimise_plan(EXACT, BIASED, vanilla(), FixedCount(2), key=KEY)
    with pytest.raises(ValueError, match="one for each of entropy, top_probability, latent"):
        PositionHead((1.0,))
    with pytest.raises(ValueError, match="two finite numbers a step"):
        LearnedSizes(())
    certain = ExactPosterior(nae_sat(3, 1, seed=0))
    with pytest.raises(ValueError, match="excludes a true token of sequence 1, which makes the reward -inf"):
        plan_gradient(certain, HEAD, OneAtATime(), [[0, 1, 1, 1], [0, 0, 0, 1]], key=KEY)
