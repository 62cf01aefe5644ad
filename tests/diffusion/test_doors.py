"""What enters from outside is looked at: answers of posteriors, policies, schedules and mask laws, and wrong types."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import (
    LAWS,
    POLICIES,
    AlongOrder,
    BinomialRule,
    DecodeOptions,
    FixedCount,
    Noise,
    OneAtATime,
    Pattern,
    Rotation,
    TwoRates,
    Uniform,
    View,
    conditional_accuracy,
    decode,
    diversity,
    fixed_order,
    generated_accuracies,
    infill_accuracies,
    losses,
    margin,
    order_losses,
    pattern_losses,
    reading_order,
    vanilla,
)
from lo_theory.diffusion.evaluate import find_dead_ends
from lo_theory.diffusion.masks import draw_masks
from lo_theory.diffusion.uncertainty import uncertainty
from lo_theory.posterior import ExactPosterior, Marginals
from lo_theory.posterior.protocol import ask
from lo_theory.problem import nae_sat
from lo_theory.problem.layout import MASK
from lo_theory.rng import Key

KEY = Key(17)
PROBLEM = nae_sat(4, 8, seed=1, noise=0.1)
EXACT = ExactPosterior(PROBLEM)
L, V = 12, 2


@dataclass
class Spoiled:
    """The exact posterior with one part of its answer changed."""

    change: Callable[[Marginals, np.ndarray], Marginals]
    layout: Any = PROBLEM.layout

    def marginals(self, tokens):
        return self.change(EXACT.marginals(tokens), tokens)

    def estimate_cost(self, tokens):
        return EXACT.estimate_cost(tokens)


def at_hidden(value):
    """Put ``value`` at the first hidden position of the last row."""

    def change(answer, tokens):
        probs = answer.probs.copy()
        rows, positions = np.nonzero(tokens == MASK)
        probs[rows[-1], positions[-1]] = value
        return replace(answer, probs=probs)

    return change


def of_probs(function):
    return lambda answer, tokens: replace(answer, probs=function(answer.probs))


WRONG = {
    "axes": (of_probs(lambda p: p.transpose(0, 2, 1)), r"shape \(\d+, 2, 12\).*\[B, L, V\]"),
    "one row": (of_probs(lambda p: p[:1]), r"shape \(1, 12, 2\)"),
    "too few values": (of_probs(lambda p: p[..., :1]), r"shape \(\d+, 12, 1\)"),
    "too many values": (of_probs(lambda p: np.concatenate([p, 0 * p], axis=2)), r"shape \(\d+, 12, 4\)"),
    "nan": (at_hidden([np.nan, 0.5]), "position .* nan for value 0"),
    "nan last": (at_hidden([0.5, np.nan]), "position .* nan for value 1"),
    "inf": (at_hidden([0.5, np.inf]), "position .* inf for value 1"),
    "negative": (at_hidden([1.25, -0.25]), r"position .* -0\.25 for value 1"),
    "not one": (at_hidden([0.7, 0.2]), r"position .* sums to 0\.9"),
    "twice": (of_probs(lambda p: 2 * p), "position .* sums to 2"),
    "logits": (of_probs(lambda p: np.log(p + 0.01)), "position .* softmax"),
    "integers": (of_probs(lambda p: np.round(p).astype(int)), "floating-point"),
    "evidence": (lambda a, t: replace(a, log_evidence=np.zeros(len(t) + 1)), "log_evidence of shape"),
    "evidence inf": (lambda a, t: replace(a, log_evidence=np.full(len(t), np.inf)), "log_evidence inf"),
    "converged": (lambda a, t: replace(a, converged=np.ones((1, len(t)), bool)), "converged of shape"),
    "converged float": (lambda a, t: replace(a, converged=np.ones(len(t))), "kind 'b'"),
    "tuple": (lambda a, t: (a.probs, a.log_evidence), "Marginals.*got tuple"),
}

ASKED = {
    "decode": lambda p: decode(p, vanilla(), FixedCount(3), key=KEY, n=7),
    "losses": lambda p: losses(p, EXACT, PROBLEM, Uniform(), key=KEY, n=7),
    "losses exact": lambda p: losses(EXACT, p, PROBLEM, Uniform(), key=KEY, n=7),
    "infill": lambda p: infill_accuracies(p, PROBLEM, TwoRates(0.5, 0.9), KEY, 7),
    "conditional": lambda p: conditional_accuracy(p, PROBLEM, KEY, 7),
    "pattern losses": lambda p: pattern_losses({"it": p}, EXACT, PROBLEM, Uniform(), key=KEY, n=7),
    "pattern losses exact": lambda p: pattern_losses({"it": EXACT}, p, PROBLEM, Uniform(), key=KEY, n=7),
    "dead ends": lambda p: find_dead_ends(p, decode(EXACT, margin(), FixedCount(3), key=KEY, n=7)),
    "uncertainty": lambda p: uncertainty({"it": p}, EXACT, PROBLEM, Uniform(), key=KEY, n=7),
    "uncertainty exact": lambda p: uncertainty({}, p, PROBLEM, Uniform(), key=KEY, n=7),
    "orders": lambda p: AlongOrder(p, tuple(range(L))).conditionals(PROBLEM.sample(KEY, 7)),
}


@pytest.mark.parametrize("wrong", list(WRONG))
@pytest.mark.parametrize("asked", list(ASKED))
def test_an_answer_that_is_no_posterior_is_refused_wherever_one_is_asked(asked, wrong):
    change, words = WRONG[wrong]
    with pytest.raises(ValueError, match=words):
        ASKED[asked](Spoiled(change))


@pytest.mark.parametrize("asked", list(ASKED))
def test_the_same_answer_unspoiled_and_in_other_forms_is_taken(asked):
    ASKED[asked](Spoiled(lambda answer, tokens: answer))
    ASKED[asked](Spoiled(of_probs(np.asfortranarray)))
    ASKED[asked](Spoiled(lambda answer, tokens: (tokens.fill(0), answer)[1]))  # the tokens are a posterior's own copy
    if "exact" not in asked:
        ASKED[asked](Spoiled(of_probs(lambda p: p.astype(np.float32))))


def test_the_refusal_names_row_position_and_values():
    context = PROBLEM.sample(KEY, 3)
    context[2, 5] = MASK
    with pytest.raises(ValueError, match=r"Spoiled gives row 42 at position 5 no probabilities: \[0\.7 0\.2\] sums"):
        ask(Spoiled(at_hidden([0.7, 0.2])), context, PROBLEM.layout, rows=range(40, 43))


def test_a_softmax_in_single_precision_over_127_values_is_a_law():
    layout = nae_sat(3, 2, seed=0).layout
    wide = replace(layout, q=127, r=127)
    logits = 20 * np.random.default_rng(0).standard_normal((200, 5, 127)).astype(np.float32)
    probs = np.exp(logits - logits.max(axis=2, keepdims=True))
    probs /= probs.sum(axis=2, keepdims=True)

    class Network:
        layout = wide

        def marginals(self, tokens):
            return Marginals(probs, np.full(200, np.nan), np.ones(200, bool))

    assert ask(Network(), np.full((200, 5), -1, np.int8), wide).probs.dtype == np.float32


def test_weight_on_values_of_the_other_role_is_dropped_unless_it_is_all():
    problem = nae_sat(3, 4, seed=0, q=3)
    n = problem.layout.n_latents

    def answer(last):
        def change(tokens):
            probs = np.tile([0.5, 0.3, 0.2], (len(tokens), 7, 1))
            probs[:, n:] = last
            return Marginals(probs, np.full(len(tokens), np.nan), np.ones(len(tokens), bool))

        return change

    class Network:
        layout = problem.layout

        def __init__(self, last):
            self.marginals = answer(last)

    drawn = decode(Network([0.1, 0.1, 0.8]), vanilla(), FixedCount(2), key=KEY, n=50).tokens
    assert set(np.unique(drawn[:, n:])) == {0, 1}
    with pytest.raises(ValueError, match=r"position 3 .* lies on values that the token does not take, 0\.\.1"):
        decode(Network([0.0, 0.0, 1.0]), vanilla(), FixedCount(2), key=KEY, n=50)


def test_a_posterior_of_another_problem_is_refused():
    same_size = nae_sat(3, 9, seed=0)
    with pytest.raises(ValueError, match=r"another problem: its layout has \(N, P, q, r\) = \(3, 9, 2, 2\)"):
        losses(ExactPosterior(same_size), EXACT, PROBLEM, Uniform(), key=KEY, n=3)
    turned = replace(PROBLEM, order=np.arange(L)[::-1])
    with pytest.raises(ValueError, match="in another order"):
        conditional_accuracy(ExactPosterior(turned), PROBLEM, KEY, 3)


def test_dead_ends_need_a_posterior_that_knows_its_evidence():
    unknown = Spoiled(lambda answer, tokens: replace(answer, log_evidence=np.full(len(tokens), np.nan)))
    with pytest.raises(ValueError, match="does not know the evidence"):
        find_dead_ends(unknown, decode(EXACT, margin(), FixedCount(3), key=KEY, n=4))


@pytest.mark.parametrize("name", ["margin", "top_probability", "entropy"])
@pytest.mark.parametrize("wrong", list(WRONG)[:11])
def test_policies_called_directly_refuse_it_too(name, wrong):
    tokens = np.full((3, L), MASK, np.int8)
    marginals = WRONG[wrong][0](EXACT.marginals(tokens), tokens)

    def plan():
        view = View(tokens, tokens == MASK, marginals, PROBLEM.layout, 0, 4, KEY)
        POLICIES[name]().plan(view, np.ones(3, np.int64))

    with pytest.raises(ValueError, match=r"shape|no probabilities"):
        plan()


# --- laws by time ---------------------------------------------------------------------------------------------------------------


@dataclass
class Learner:
    reading: tuple[int, ...]
    answer: Any

    def conditionals(self, tokens):
        return self.answer


def test_laws_along_an_order_are_looked_at():
    tokens, reading = PROBLEM.sample(KEY, 5), tuple(range(L))
    right = AlongOrder(EXACT, reading).conditionals(tokens)
    order_losses(Learner(reading, right), right, tokens)
    for wrong, words in (
        (2 * right, "sums to 2"),
        (right.transpose(0, 2, 1), "shape"),
        (right[:1], "shape"),
        (right[..., :1], "shape"),
        (np.log(right + 0.1), "softmax"),
    ):
        with pytest.raises(ValueError, match=words):
            order_losses(Learner(reading, wrong), right, tokens)
        with pytest.raises(ValueError, match=f"{words}|exact conditionals have"):
            order_losses(Learner(reading, right), wrong, tokens)
    hidden = tokens.copy()
    hidden[2, 3] = MASK
    with pytest.raises(ValueError, match="without MASK"):
        order_losses(Learner(reading, right), right, hidden)


# --- plans and budgets ----------------------------------------------------------------------------------------------------------


@dataclass
class Plans:
    change: Callable[[np.ndarray], Any]
    name: str = "mine"

    def plan(self, view, budget):
        return self.change(vanilla().plan(view, budget))


@pytest.mark.parametrize(
    "change",
    [lambda m: m[:1], lambda m: m.T, lambda m: m.astype(int), lambda m: m[:, :-1], lambda m: None, lambda m: m.all()],
)
def test_a_plan_of_another_form_is_refused(change):
    with pytest.raises(ValueError, match=r"mine must plan .* bool\[6, 12\]"):
        decode(EXACT, Plans(change), FixedCount(3), key=KEY, n=6)


def test_what_a_policy_does_with_its_own_array_changes_nothing():
    class Keeps(Plans):
        def plan(self, view, budget):
            if not hasattr(self, "kept"):
                self.kept = view.masked.copy()
            self.kept[:] = vanilla().plan(view, budget)
            return self.kept

    plain = decode(EXACT, vanilla(), FixedCount(3), key=KEY, n=6)
    assert np.array_equal(decode(EXACT, Keeps(None), FixedCount(3), key=KEY, n=6).tokens, plain.tokens)

    class Writes(Plans):
        def plan(self, view, budget):
            view.masked[:] = False
            return view.masked

    with pytest.raises(ValueError, match="read-only"):
        decode(EXACT, Writes(None), FixedCount(3), key=KEY, n=6)

    class Answers(Plans):
        def plan(self, view, budget):
            view.marginals.probs.sort(axis=2)
            return vanilla().plan(view, budget)

    with pytest.raises(ValueError, match="read-only"):
        decode(EXACT, Answers(None), FixedCount(3), key=KEY, n=6)


@dataclass
class Budgets:
    answer: Callable[[np.ndarray], Any]
    count: Any = 3
    name: str = "mine"

    def steps(self, hidden):
        return self.count

    def budget(self, step, masked, key, start):
        return self.answer(masked.sum(axis=1))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda left: left[:1], r"int64\[6\]; got int64\[1\]"),
        (lambda left: left[:, None], "budget"),
        (lambda left: left / 2, "float64"),
        (lambda left: 4, "budget"),
        (lambda left: left - 20, "-8 positions for row 0"),
        (lambda left: np.full(6, 2**64 - 1, np.uint64), "18446744073709551615 positions for row 0"),
    ],
)
def test_a_budget_of_another_form_is_refused(answer, words):
    with pytest.raises(ValueError, match=words):
        decode(EXACT, vanilla(), Budgets(answer), key=KEY, n=6)


@pytest.mark.parametrize("count", [-1, 2.0, None, 2**31, True])
def test_steps_are_a_whole_number(count):
    with pytest.raises(ValueError, match="whole number of steps"):
        decode(EXACT, vanilla(), Budgets(lambda left: left, count), key=KEY, n=6)


def test_steps_beyond_sixteen_bits_are_counted():
    schedule = BinomialRule(70_000)
    given = np.full((1, L), MASK, np.int8)
    decoded = decode(EXACT, vanilla(), schedule, key=KEY, n=1, given=given)
    assert (decoded.step_revealed >= 0).all()
    assert decoded.step_revealed.max() > 2**15
    assert (decoded.alive_steps == 1).all()


# --- mask laws ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bent:
    change: Callable[[np.ndarray, np.ndarray], Any]
    name: str = "bent"

    def sample(self, key, tokens, layout, *, start=0):
        return self.change(*Uniform().sample(key, tokens, layout, start=start))


def put(weight, value, where=0):
    weight = weight.copy()
    weight[0, 1, where] = value
    return weight


BENT = {
    "one mask": (lambda m, w: (m[0], w[0]), "masked bool"),
    "one row": (lambda m, w: (m[:, :1], w[:, :1]), "masked bool"),
    "no masks": (lambda m, w: (m[:0], w[:0]), "masked bool"),
    "weights of one row": (lambda m, w: (m, w[:, :1]), "masked bool"),
    "integers": (lambda m, w: (m.astype(int), w), "int64"),
    "integer weights": (lambda m, w: (m, m.astype(int)), "int64"),
    "nan": (lambda m, w: (m, put(w, np.nan)), r"row 1 at position 0 the weight nan"),
    "inf": (lambda m, w: (m, put(w, np.inf)), "the weight inf"),
    "negative": (lambda m, w: (m, put(w, -0.1)), r"the weight -0\.1"),
    "on what is seen": (lambda m, w: (m, np.where(m, w, np.float32(0.1))), "zero where a token is not hidden"),
    "twice": (lambda m, w: (m, 2 * w), "sum to 2 a row over all rows"),
    "half": (lambda m, w: (m, w / 2), r"sum to 0\.5 a row over rows that hide"),
    "masks alone": (lambda m, w: m, "a pair"),
}

MASKED = {
    "losses": lambda law: losses(EXACT, None, PROBLEM, law, key=KEY, n=100),
    "infill": lambda law: infill_accuracies(EXACT, PROBLEM, law, KEY, 100),
    "pattern losses": lambda law: pattern_losses({"it": EXACT}, EXACT, PROBLEM, law, key=KEY, n=100),
    "uncertainty": lambda law: uncertainty({}, EXACT, PROBLEM, law, key=KEY, n=100),
    "rotation": lambda law: losses(EXACT, None, PROBLEM, Rotation((Uniform(), law)), key=KEY, n=100),
}


@pytest.mark.parametrize("n", [8, 32, 63])
def test_weights_that_all_sum_to_two_are_refused_in_a_small_batch(n):
    tokens = PROBLEM.sample(KEY, n)
    with pytest.raises(ValueError, match="sum to 2 a row"):
        draw_masks(Bent(BENT["twice"][0]), KEY, tokens, PROBLEM.layout)
    draw_masks(Uniform(), KEY, tokens, PROBLEM.layout)


@pytest.mark.parametrize("bent", list(BENT))
@pytest.mark.parametrize("asked", list(MASKED))
def test_masks_and_weights_that_are_none_are_refused(asked, bent):
    change, words = BENT[bent]
    with pytest.raises(ValueError, match=words):
        MASKED[asked](Bent(change))


@pytest.mark.parametrize(
    "law",
    [
        *(
            LAWS[name](*numbers)
            for name, numbers in (("uniform", ()), ("bernoulli", ()), ("pattern", (2,)), ("suffix", ()))
        ),
        *(LAWS["bernoulli"](alpha) for alpha in (1e-4, 0.01, 0.3, 1.0)),
        *(TwoRates(a, b) for a, b in ((0.0, 0.01), (0.5, 0.5), (1.0, 0.0), (0.0, 0.0))),
        Rotation((Uniform(), Pattern(1), LAWS["bernoulli"]())),
    ],
    ids=lambda law: law.name,
)
def test_the_laws_of_the_package_keep_their_normalisation(law):
    for n in (0, 1, 3, 64, 200, 1024):
        tokens = PROBLEM.sample(KEY, n)
        for seed in range(40):
            draw_masks(law, Key(seed), tokens, PROBLEM.layout)


# --- wrong types ----------------------------------------------------------------------------------------------------------------

SEQUENCES = PROBLEM.sample(KEY, 3)

TYPES = {
    "policy by name": (lambda: decode(EXACT, "margin", OneAtATime(), key=KEY, n=2), r"policy.*such as margin\(\)"),
    "policy not called": (lambda: decode(EXACT, margin, OneAtATime(), key=KEY, n=2), r"write margin\(\.\.\.\)"),
    "schedule as number": (lambda: decode(EXACT, margin(), 4, key=KEY, n=2), r"schedule.*FixedCount\(4\)"),
    "schedule class": (lambda: decode(EXACT, margin(), OneAtATime, key=KEY, n=2), r"write OneAtATime\(\.\.\.\)"),
    "swapped": (lambda: decode(EXACT, OneAtATime(), margin(), key=KEY, n=2), "policy must be a policy"),
    "key as number": (lambda: decode(EXACT, margin(), OneAtATime(), key=0, n=2), r"such as Key\(0\); got 0"),
    "options": (lambda: decode(EXACT, margin(), OneAtATime(), key=KEY, n=2, options=0.5), "DecodeOptions"),
    "noise": (lambda: DecodeOptions(noise=0.5), r"noise must be Noise\(\.\.\.\) or None; got 0\.5"),
    "posterior class": (
        lambda: decode(ExactPosterior, margin(), OneAtATime(), key=KEY, n=2),
        r"ExactPosterior\(\.\.\.\)",
    ),
    "posterior by name": (
        lambda: losses("exact", None, PROBLEM, Uniform(), key=KEY, n=2),
        r"ExactPosterior\(problem\)",
    ),
    "law by name": (lambda: losses(EXACT, None, PROBLEM, "uniform", key=KEY, n=2), r"mask law, such as Uniform\(\)"),
    "law class": (lambda: losses(EXACT, None, PROBLEM, Uniform, key=KEY, n=2), r"write Uniform\(\.\.\.\)"),
    "problem by name": (lambda: losses(EXACT, None, "nae", Uniform(), key=KEY, n=2), r"problem, such as nae_sat"),
    "losses key": (lambda: losses(EXACT, None, PROBLEM, Uniform(), key=3, n=2), r"Key\(3\)"),
    "infill law": (lambda: infill_accuracies(EXACT, PROBLEM, "uniform", KEY, 2), "mask law"),
    "infill key": (lambda: infill_accuracies(EXACT, PROBLEM, Uniform(), 0, 2), r"Key\(0\)"),
    "conditional key": (lambda: conditional_accuracy(EXACT, PROBLEM, 0, 2), r"Key\(0\)"),
    "generated key": (lambda: generated_accuracies(PROBLEM, SEQUENCES, 0), r"Key\(0\)"),
    "pattern losses": (lambda: pattern_losses(EXACT, EXACT, PROBLEM, Uniform(), key=KEY, n=2), "mapping of names"),
    "pattern losses law": (lambda: pattern_losses({}, EXACT, PROBLEM, "uniform", key=KEY, n=2), "mask law"),
    "pattern losses key": (lambda: pattern_losses({}, EXACT, PROBLEM, Uniform(), key=0, n=2), r"Key\(0\)"),
    "uncertainty exact": (lambda: uncertainty({}, PROBLEM, PROBLEM, Uniform(), key=KEY, n=2), "exact posterior"),
    "uncertainty key": (lambda: uncertainty({}, EXACT, PROBLEM, Uniform(), key=0, n=2), r"Key\(0\)"),
    "dead ends": (lambda: find_dead_ends(EXACT, None), "a Decoded"),
    "along order": (lambda: AlongOrder("exact", (0, 1)), "posterior"),
    "order losses": (lambda: order_losses(EXACT, None, SEQUENCES), "learner along an order"),
    "order key": (lambda: reading_order("random", PROBLEM.layout, 0), r"Key\(0\)"),
    "rotation": (lambda: Rotation(("uniform",)), "mask law"),
    "sample key": (lambda: PROBLEM.sample(0, 2), r"Key\(0\)"),
    "number of sequences": (
        lambda: decode(EXACT, margin(), OneAtATime(), key=KEY, n=4.0),
        r"n must be a whole number; got 4\.0",
    ),
    "number as text": (
        lambda: losses(EXACT, None, PROBLEM, Uniform(), key=KEY, n="4"),
        "n must be a whole number; got '4'",
    ),
    "diversity key": (lambda: diversity(PROBLEM, SEQUENCES, 0), r"Key\(0\)"),
    "steps": (lambda: FixedCount(4.0), "count must be a whole number"),
    "threads": (lambda: DecodeOptions(threads=10**9), "1 to 1024"),
}


@pytest.mark.parametrize("name", list(TYPES))
def test_a_wrong_type_says_what_was_expected_and_how_to_write_it(name):
    call, words = TYPES[name]
    with pytest.raises(ValueError, match=words):
        call()


# --- pickles --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_policies_schedules_and_laws_come_back_equal_from_a_pickle(again):
    everything = [make() for make in POLICIES.values()] + [fixed_order(np.arange(L)[::-1]), fixed_order(range(L))]
    everything += [OneAtATime(), FixedCount(3), BinomialRule(4), Noise(0.5), DecodeOptions(noise=Noise(1.0))]
    everything += [
        Uniform(),
        LAWS["bernoulli"](0.5),
        Pattern(2),
        TwoRates(0.5, 1),
        LAWS["suffix"]((1, 0)),
        KEY.fold("a"),
    ]
    for value in everything:
        assert again(value) == value
    for name in POLICIES:
        one, two = (
            decode(EXACT, policy, FixedCount(3), key=KEY, n=5) for policy in (POLICIES[name](), again(POLICIES[name]()))
        )
        assert np.array_equal(one.step_revealed, two.step_revealed)
