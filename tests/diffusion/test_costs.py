"""The cost of a decode against enumeration: of sequences, of orders, and of everything a decoder can write."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from lo_theory.diffusion import (
    POLICIES,
    BinomialRule,
    Counts,
    DecodeCost,
    DecodeOptions,
    FixedCount,
    Noise,
    OneAtATime,
    TopK,
    View,
    binomial_cost,
    counts_cost,
    decode,
    decode_cost,
    fixed_order,
    log_likelihood,
    margin,
    true_margin,
    vanilla,
)
from lo_theory.posterior import ExactPosterior, Marginals, Posterior
from lo_theory.posterior.weak import MarginalsOnly, Mixed, Sharpened
from lo_theory.problem import LODistribution, nae, nae_sat
from lo_theory.problem.families import predicate_observations
from lo_theory.problem.layout import MASK
from lo_theory.rng import Key
from lo_theory.testing import BruteForcePosterior, joint_law, z_test
from tests.budget import accept, reject
from tests.diffusion.test_decode import ONLY_REVEAL, OTHER_CALLS, make, small_problem
from tests.diffusion.test_information import COSTS, KNOWN, enumerated, problem

KEY = Key(19)
TRIPLE, CHAIN, ALL = (problem(scopes) for scopes in KNOWN)
QUARTER = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))  # entropy of the observation of one triple
UNTIED = TopK("untied margin", lambda view: margin().score(view) - 1e-6 * np.arange(view.layout.length))


class Listed(LODistribution):
    """A problem whose sequences are equally likely, and whose sample is all of them, one after the other."""

    def sample(self, key, n, *, start=0, **_):
        rows, weights = joint_law(self)
        assert np.allclose(weights, weights[0], rtol=1e-12)
        return rows[start : start + n]


def cost_of_all(posterior: Posterior, policy, schedule, distribution: LODistribution, **options) -> DecodeCost:
    """The expectation: over all sequences, each of them once."""
    listed = Listed(distribution.prior, distribution.observations, distribution.order)
    n = len(joint_law(distribution)[0])
    return decode_cost(posterior, policy, schedule, listed, key=KEY, n=n, **options)


@pytest.mark.parametrize("name", sorted(set(POLICIES) - set(ONLY_REVEAL)))
def test_rules_that_hide_again_have_no_such_cost(name):
    distribution = nae_sat(5, 10, seed=1)
    with pytest.raises(ValueError, match="costs are those of rules that only reveal"):
        decode_cost(ExactPosterior(distribution), POLICIES[name](0.5), BinomialRule(9), distribution, key=KEY, n=64)


@pytest.mark.parametrize("name", ONLY_REVEAL)
def test_the_exact_posterior_one_at_a_time_loses_nothing_under_any_policy(name):
    distribution = nae_sat(5, 10, seed=1)
    posterior = ExactPosterior(distribution)
    one, several = (
        decode_cost(posterior, make(name), schedule, distribution, key=KEY, n=64)
        for schedule in (OneAtATime(), FixedCount(3))
    )
    for sums in (one.total, one.dependence, *(step.dependence for step in one.steps)):
        assert abs(sums.mean) < 1e-12
        assert sums.deviations < 64 * 1e-24  # in every sequence
    for cost in (one, several):
        assert (cost.model.total, cost.model.deviations, cost.infinite.total) == (0, 0, 0)
    assert one.infinite.n == 64
    if name not in OTHER_CALLS:
        assert (one.calls.mean, several.calls.mean) == (15, 3)
    if name != "entropy_bounded":
        assert [step.revealed.mean for step in several.steps] == [5, 5, 5]
    if name in ("fixed_order", "position_calibrated"):  # latents first, then observations that they decide
        assert several.total.mean == pytest.approx(0, abs=1e-12)
    else:
        assert several.total.mean > 0.1


def test_all_at_once_costs_the_total_correlation():
    posterior = ExactPosterior(TRIPLE)
    for policy in (vanilla(), margin(), fixed_order()):
        cost = cost_of_all(posterior, policy, FixedCount(1), TRIPLE)
        assert cost.total.mean == pytest.approx(QUARTER, abs=1e-12)
        assert cost.total.mean == pytest.approx(COSTS[0, (4,)] * np.log(2), abs=1e-9)
        assert len(cost.steps) == cost.calls.mean == 1


def test_the_order_that_reads_the_answer_is_no_bound():
    n = 4000
    truth = TRIPLE.sample(KEY.fold("data"), n)
    oracle, rule = (
        decode_cost(ExactPosterior(TRIPLE), policy, FixedCount(2), TRIPLE, key=KEY, n=n).total.mean
        for policy in (true_margin(truth), margin())
    )
    assert (round(oracle, 1), round(rule, 1)) == (0.3, 0.1)


def partitions(positions: tuple[int, ...], counts: tuple[int, ...]):
    """Reading orders, one for each way to divide ``positions`` into steps of ``counts``."""
    if not counts:
        yield ()
        return
    for first in itertools.combinations(positions, counts[0]):
        for rest in partitions(tuple(set(positions) - set(first)), counts[1:]):
            yield (*first, *rest)


@pytest.mark.parametrize(
    ("which", "counts"),
    [(1, (3, 3)), (1, (4, 2)), (1, (2, 2, 2)), (1, (3, 1, 2)), (2, (3, 3, 2)), (2, (3, 2, 3))],
    ids=str,
)
def test_the_mean_over_all_orders_is_the_known_cost_of_random_order(which, counts):
    distribution = (TRIPLE, CHAIN, ALL)[which]
    orders = partitions(tuple(range(distribution.layout.length)), counts)
    posterior = ExactPosterior(distribution)
    costs = [cost_of_all(posterior, fixed_order(o), Counts(counts), distribution).total.mean for o in orders]
    assert np.mean(costs) == pytest.approx(COSTS[which, counts] * np.log(2), abs=1e-9)
    assert np.mean(costs) == pytest.approx(counts_cost(enumerated(distribution), counts), abs=1e-12)
    assert max(costs) > min(costs) + 0.1  # one order alone has another cost


def test_random_order_by_simulation_agrees_with_the_information_curve():
    curve, posterior = enumerated(CHAIN), ExactPosterior(CHAIN)
    for schedule, known, wrong in (
        (FixedCount(2), counts_cost(curve, [3, 3]), counts_cost(curve, [4, 2])),
        (FixedCount(3), counts_cost(curve, [2, 2, 2]), counts_cost(curve, [3, 1, 2])),
        (BinomialRule(3), binomial_cost(curve, 3), counts_cost(curve, [2, 2, 2])),
    ):
        total = decode_cost(posterior, vanilla(), schedule, CHAIN, key=KEY, n=16_000).total
        values = total.mean + np.sqrt(total.deviations / total.n) * np.resize([-1.0, 1.0], total.n)
        accept("decode cost", z_test(values, known))
        reject("decode cost", z_test(values, wrong))


def written(posterior: Posterior, policy, schedule) -> dict[bytes, float]:
    """The law of what a decoder of deterministic choices writes, by following all that it can draw at each step."""
    layout = posterior.layout
    law = {np.full(layout.length, MASK, np.int8).tobytes(): 1.0}
    steps = schedule.steps(layout.length)
    for step in range(steps):
        after: dict[bytes, float] = {}
        for context, chance in law.items():
            row = np.frombuffer(context, np.int8)[None]
            masked, answer = row == MASK, posterior.marginals(row)
            budget = schedule.budget(step, masked, KEY, 0)
            left = policy.plan(View(row, masked, answer, layout, step, steps, KEY), budget)
            shown = np.flatnonzero(masked[0] & ~left[0])
            for values in itertools.product(*(range(layout.values[i]) for i in shown)):
                drawn = row[0].copy()
                drawn[shown] = values
                p = np.prod(answer.probs[0, shown, list(values)]) if len(shown) else 1.0
                after[drawn.tobytes()] = after.get(drawn.tobytes(), 0.0) + chance * float(p)
        law = after
    return law


@pytest.mark.parametrize("schedule", [OneAtATime(), FixedCount(2), FixedCount(3)], ids=lambda s: s.name)
@pytest.mark.parametrize("policy", [UNTIED, fixed_order((3, 4, 5, 1, 0, 2))], ids=lambda p: p.name)
@pytest.mark.parametrize("weakness", ["exact", "mixed", "sharpened"])
def test_the_cost_of_deterministic_choices_is_the_divergence_of_the_sampler(weakness, policy, schedule):
    for distribution in (CHAIN, small_problem()):
        exact = ExactPosterior(distribution)
        posterior = {
            "exact": exact,
            "mixed": Mixed(exact, MarginalsOnly(distribution), 0.3),
            "sharpened": Sharpened(exact, -0.4),
        }[weakness]
        law = written(posterior, policy, schedule)
        strings = np.array([np.frombuffer(string, np.int8) for string in law])
        likelihood = np.exp(log_likelihood(posterior, policy, schedule, strings, key=KEY))
        assert len(strings) == 64
        assert likelihood.sum() == pytest.approx(1, abs=1e-12)
        assert likelihood == pytest.approx(list(law.values()), abs=1e-14)
        rows, p = joint_law(distribution)
        divergence = sum(p * np.log(p / [law[row.tobytes()] for row in rows]))
        if np.allclose(p, p[0]):
            cost = cost_of_all(posterior, policy, schedule, distribution, exact=exact)
            assert cost.kl == cost.total.mean == pytest.approx(divergence, abs=1e-12)
            assert cost.total.mean == pytest.approx(cost.dependence.mean + cost.model.mean, abs=1e-12)
        if weakness == "exact" and schedule == OneAtATime():
            assert divergence == pytest.approx(0, abs=1e-12)  # the likelihood is the law of the data
        else:
            assert divergence > 1e-4


def test_choices_at_random_have_no_likelihood_of_their_own():
    """Each row has its own order, so the sum over all strings is one of no single sampler."""
    strings = np.array(list(itertools.product((0, 1), repeat=6)), np.int8)
    posterior = ExactPosterior(CHAIN)
    total = np.exp(log_likelihood(posterior, vanilla(), FixedCount(2), strings, key=KEY)).sum()
    assert abs(total - 1) > 1e-3


def by_hand(rows, reading, counts):
    """float64[T, n]: dependence of each step, from the joint law of TRIPLE's sequences and nothing else."""
    n, found, known = len(rows), [], 0

    def share(positions):
        return np.array([(rows[:, positions] == row[positions]).all(axis=1).mean() for row in rows])

    for count in counts:
        before, shown = list(reading[:known]), list(reading[known : known + count])
        together = share(before + shown) / share(before)
        alone = np.prod([share([*before, i]) / share(before) for i in shown], axis=0)
        found.append(np.log(together / alone))
        known += count
    return np.array(found).reshape(len(counts), n)


class Late(BruteForcePosterior):
    """A wrong implementation: the evidence is that of the context with its last token hidden."""

    def marginals(self, tokens):
        earlier = tokens.copy()
        for row in earlier:
            row[np.flatnonzero(row != MASK)[-1:]] = MASK
        return replace(super().marginals(tokens), log_evidence=super().marginals(earlier).log_evidence)


@pytest.mark.parametrize(
    ("reading", "counts"), [((0, 1, 3, 2), (2, 2)), ((3, 1, 0, 2), (1, 3)), ((2, 0, 1, 3), (3, 1))]
)
def test_every_step_has_the_dependence_of_the_joint_law(reading, counts):
    steps = by_hand(joint_law(TRIPLE)[0], reading, counts)

    def agrees(posterior):
        cost = cost_of_all(posterior, fixed_order(reading), Counts(counts), TRIPLE, exact=posterior)
        assert [step.revealed.mean for step in cost.steps] == list(counts)
        assert cost.total.mean == pytest.approx(steps.sum(axis=0).mean(), abs=1e-12)
        return [step.dependence.mean for step in cost.steps] == pytest.approx(steps.mean(axis=1), abs=1e-12)

    assert agrees(ExactPosterior(TRIPLE))
    assert agrees(BruteForcePosterior(TRIPLE))
    assert not agrees(Late(TRIPLE)), "the total is right, its division is not"


@pytest.mark.parametrize("schedule", [OneAtATime(), FixedCount(2), FixedCount(1)], ids=lambda s: s.name)
def test_marginals_only_cost_the_total_correlation_however_they_are_decoded(schedule):
    exact, model = ExactPosterior(TRIPLE), MarginalsOnly(TRIPLE)
    cost = cost_of_all(model, fixed_order(), schedule, TRIPLE, exact=exact)
    assert cost.total.mean == pytest.approx(QUARTER, abs=1e-12)
    # In two steps: the third bit and the observation say each other where the first two bits are equal.
    dependence = {"one_at_a_time": 0, "fixed_count(2)": np.log(2) / 2, "fixed_count(1)": QUARTER}[schedule.name]
    assert cost.dependence.mean == pytest.approx(dependence, abs=1e-12)
    assert cost.model.mean == pytest.approx(QUARTER - dependence, abs=1e-12)


def test_a_mixture_costs_what_its_marginals_lack():
    """Bits first: their laws agree. The observation is then certain, and the mixture gives it 7/8 or 5/8."""
    exact = ExactPosterior(TRIPLE)
    cost = cost_of_all(Mixed(exact, MarginalsOnly(TRIPLE), 0.5), fixed_order(), OneAtATime(), TRIPLE, exact=exact)
    lacks = -(0.75 * np.log(7 / 8) + 0.25 * np.log(5 / 8))
    assert [step.model.mean for step in cost.steps] == pytest.approx([0, 0, 0, lacks], abs=1e-12)
    assert [cost.model.mean, cost.kl] == pytest.approx([lacks, lacks], abs=1e-12)
    assert cost.dependence.mean == pytest.approx(0, abs=1e-12)


class AlwaysOne(ExactPosterior):
    """Collapsed: certain that every observation is 1."""

    def marginals(self, tokens):
        answer, at = super().marginals(tokens), self.layout.observation_positions
        answer.probs[:, at] = np.where((tokens[:, at] == MASK)[..., None], [0.0, 1.0], answer.probs[:, at])
        return answer


@pytest.mark.parametrize(("reading", "step", "finite"), [((3, 0, 1, 2), 0, np.log(0.75)), ((0, 1, 2, 3), 3, 0.0)])
def test_sequences_of_infinite_cost_are_counted_and_the_others_averaged(reading, step, finite):
    cost = cost_of_all(AlwaysOne(TRIPLE), fixed_order(reading), OneAtATime(), TRIPLE, exact=ExactPosterior(TRIPLE))
    assert cost.infinite.mean == 0.25
    assert [each.infinite.mean for each in cost.steps] == [0.25 * (i == step) for i in range(4)]
    assert (cost.infinite.n, cost.total.n, cost.steps[0].model.n, cost.calls.n) == (8, 6, 6, 8)
    assert cost.total.mean == pytest.approx(finite, abs=1e-12)
    assert cost.steps[step].model.mean == pytest.approx(finite, abs=1e-12)
    assert cost.kl == np.inf


def test_nothing_finite_is_no_number_and_not_zero():
    rows = np.array([[0, 0, 0, 0]], np.int8)
    assert log_likelihood(AlwaysOne(TRIPLE), vanilla(), OneAtATime(), rows, key=KEY) == -np.inf
    always = Listed(TRIPLE.prior, TRIPLE.observations, TRIPLE.order)
    assert (joint_law(TRIPLE)[0][0] == 0).all()
    cost = decode_cost(AlwaysOne(TRIPLE), vanilla(), OneAtATime(), always, key=KEY, n=1)
    assert (cost.total.n, cost.infinite.mean, cost.kl) == (0, 1, np.inf)


def test_the_path_is_that_of_the_decoder():
    """What a decode has written is revealed again at the same steps: ties, noise and budgets have the same addresses."""
    distribution = nae_sat(5, 10, seed=2)
    posterior = ExactPosterior(distribution)
    for policy, schedule, noise in (
        (vanilla(), BinomialRule(4), None),
        (margin(), FixedCount(4), Noise(0.5, annealed=True)),
        (margin(), OneAtATime(), None),
    ):
        seen: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        first, again = (
            DecodeOptions(noise=noise, chunk=40, observer=lambda view, left, into=into: into.append(left.copy()))
            for into in seen
        )
        decoded = decode(posterior, policy, schedule, key=KEY, n=40, options=first)
        log_likelihood(posterior, policy, schedule, decoded.tokens, key=KEY, options=again)
        assert np.array_equal(*seen)
        other = decode(posterior, policy, schedule, key=Key(20), n=40)
        assert not np.array_equal(other.step_revealed, decoded.step_revealed)


@pytest.mark.parametrize("schedule", [BinomialRule(4), FixedCount(3)], ids=lambda s: s.name)
def test_neither_chunks_nor_threads_change_a_cost(schedule):
    distribution = nae_sat(5, 10, seed=2)
    exact = ExactPosterior(distribution)
    model = Mixed(exact, MarginalsOnly(distribution), 0.2)
    options = DecodeOptions(noise=Noise(0.5))
    whole = decode_cost(model, margin(), schedule, distribution, key=KEY, n=50, exact=exact, options=options)
    for chunk, threads in ((7, 1), (16, 3), (1, 2)):
        split = replace(options, chunk=chunk, threads=threads)
        assert decode_cost(model, margin(), schedule, distribution, key=KEY, n=50, exact=exact, options=split) == whole
    assert whole.steps[0].revealed.n == 50
    assert sum(step.revealed.mean for step in whole.steps) == pytest.approx(15)
    assert sum(step.dependence.mean for step in whole.steps) == pytest.approx(whole.dependence.mean, abs=1e-12)
    assert sum(step.model.mean for step in whole.steps) == pytest.approx(whole.model.mean, abs=1e-12)
    calls = whole.calls.mean
    assert calls == 3 if schedule == FixedCount(3) else 2 < calls < 4  # a step of the other may reveal nothing


def test_without_the_exact_posterior_the_total_is_known():
    distribution = nae_sat(5, 10, seed=2)
    model, exact = MarginalsOnly(distribution), ExactPosterior(distribution)
    alone, both = (
        decode_cost(model, margin(), FixedCount(3), distribution, key=KEY, n=50, exact=each) for each in (None, exact)
    )
    assert alone.total.mean == pytest.approx(both.total.mean, abs=1e-12)
    assert alone.total.n == 50
    assert (alone.dependence.n, alone.model.n, alone.steps[1].dependence.n) == (0, 0, 0)
    assert alone.steps[1].revealed == both.steps[1].revealed


def test_the_exact_posterior_is_asked_once():
    class Counted(BruteForcePosterior):
        calls = 0

        def marginals(self, tokens):
            self.calls += 1
            return super().marginals(tokens)

    for same in (True, False):
        exact = Counted(TRIPLE)
        model = exact if same else MarginalsOnly(TRIPLE)
        decode_cost(model, vanilla(), FixedCount(2), TRIPLE, key=KEY, n=5, exact=exact)
        assert exact.calls == 2


def test_the_law_is_the_one_that_tokens_are_drawn_from():
    """A temperature of 1/2 makes 3/4 of an observation 9/10; values that a token does not take are no part of its law."""
    rows, _ = joint_law(TRIPLE)
    cold = DecodeOptions(temperature=0.5)
    logs = log_likelihood(MarginalsOnly(TRIPLE), vanilla(), FixedCount(2), rows, key=KEY, options=cold)
    assert logs == pytest.approx(np.log(np.where(rows[:, 3] == 1, 0.9, 0.1) / 8), abs=1e-12)
    exact = ExactPosterior(TRIPLE)
    cost = cost_of_all(exact, fixed_order((3, 0, 1, 2)), OneAtATime(), TRIPLE, options=cold)
    assert cost.steps[0].model.mean == pytest.approx(0.75 * np.log(0.75 / 0.9) + 0.25 * np.log(0.25 / 0.1), abs=1e-12)

    class Wide:
        """Some of every law on a value that observations of three-valued latents do not take, in single precision."""

        def __init__(self, distribution):
            self.layout = distribution.layout

        def marginals(self, tokens):
            probs = np.full((*tokens.shape, 3), [0.5, 0.25, 0.25], np.float32)
            return Marginals(probs, np.full(len(tokens), np.nan), np.ones(len(tokens), bool))

    scope = predicate_observations(nae(3, 3), np.array([[0, 1, 2]], np.int32))
    wide = LODistribution(np.full((3, 3), 1 / 3), scope)
    row = np.array([[0, 1, 2, 0]], np.int8)
    chances = np.exp(log_likelihood(Wide(wide), vanilla(), FixedCount(2), row, key=KEY))
    assert chances == pytest.approx(1 / 2 * 1 / 4 * 1 / 4 * 2 / 3, rel=1e-12)


@dataclass(frozen=True)
class Remask:
    """Hides the first position again at the second step."""

    name: str = "remask"
    remasks: bool = True

    def plan(self, view, budget):
        left = fixed_order().plan(view, budget)
        left[:, 0] |= view.step == 1
        return left


def test_bad_input_is_refused_by_name():
    exact, other = ExactPosterior(TRIPLE), ExactPosterior(CHAIN)

    def cost(posterior=exact, policy=None, schedule=None, n=3, **rest):
        policy = vanilla() if policy is None else policy
        return decode_cost(posterior, policy, schedule or FixedCount(2), TRIPLE, key=KEY, n=n, **rest)

    with pytest.raises(ValueError, match="remask hides position 0 of row 0 again at step 1: costs are"):
        cost(policy=Remask())
    with pytest.raises(ValueError, match="argmax"):
        cost(options=DecodeOptions(argmax=True))
    with pytest.raises(ValueError, match="at least one sequence, got n = 0"):
        cost(n=0)
    with pytest.raises(ValueError, match=r"ExactPosterior is bound to another problem: its layout has"):
        cost(posterior=other)
    with pytest.raises(ValueError, match=r"the exact posterior is bound to another problem"):
        cost(exact=other)
    with pytest.raises(ValueError, match=r"MarginalsOnly as the exact posterior does not know the evidence \(nan\)"):
        cost(exact=MarginalsOnly(TRIPLE))
    with pytest.raises(ValueError, match="exact must be a posterior, such as"):
        cost(exact=3)
    with pytest.raises(ValueError, match="policy must be a policy"):
        cost(policy=margin)
    latents = LODistribution(np.array([[1.0, 0.0]] * 3), TRIPLE.observations)
    with pytest.raises(ValueError, match="finds impossible, though it is drawn from the problem, row"):
        cost(exact=ExactPosterior(latents), n=20)
    with pytest.raises(ValueError, match=r"-1"):
        log_likelihood(exact, vanilla(), OneAtATime(), [[0, 1, -1, 1]], key=KEY)
    assert log_likelihood(exact, vanilla(), OneAtATime(), np.empty((0, 4), np.int8), key=KEY).shape == (0,)


def test_the_page_shows_what_its_example_prints(capsys):
    page = (Path(__file__).parents[2] / "docs" / "concepts.md").read_text()
    code, shown = re.search(
        r"## What a decode costs.*?```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL
    ).groups()
    exec(code, {})
    assert capsys.readouterr().out == shown
