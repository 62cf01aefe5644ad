"""What a decode asks its posterior: equal contexts once, nothing for rows that have nothing to reveal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lo_theory.diffusion import (
    BinomialRule,
    DecodeOptions,
    FixedCount,
    OneAtATime,
    Policy,
    View,
    _kernels,
    decode,
    decode_cost,
    fixed_order,
    information_gain,
    lookahead,
    lookahead_rules,
    margin,
    remdm_confidence,
    stable,
    vanilla,
)
from lo_theory.diffusion.asking import Denoiser
from lo_theory.diffusion.contexts import BATCH
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK, nae_sat
from lo_theory.rng import Key

KEY = Key(41)
PROBLEM = nae_sat(5, 10, seed=0)
EXACT = ExactPosterior(PROBLEM)
LENGTH = PROBLEM.layout.length


class Recorder(ExactPosterior):
    """Keeps every batch that it is given."""

    def __init__(self) -> None:
        super().__init__(PROBLEM)
        self.batches: list[np.ndarray] = []

    def marginals(self, tokens, **more):
        self.batches.append(np.array(tokens))
        return super().marginals(tokens, **more)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 2), min_size=3, max_size=3), max_size=40))
def test_first_equal_finds_the_first_of_equal_rows(rows) -> None:
    tokens = np.array(rows, np.int8).reshape(len(rows), 3)
    first = np.empty(len(rows), np.int64)
    _kernels.first_equal(first, tokens)
    assert first.tolist() == [rows.index(row) for row in rows]


@pytest.mark.parametrize("policy", [vanilla(), margin(), fixed_order()], ids=lambda p: p.name)
def test_each_distinct_context_is_asked_once(policy) -> None:
    recorder = Recorder()
    found = decode(recorder, policy, OneAtATime(), key=KEY, n=60)
    assert len(recorder.batches) == LENGTH
    for batch in recorder.batches:
        assert len(np.unique(batch, axis=0)) == len(batch)
    assert found.distinct == sum(map(len, recorder.batches)) < found.forwards == 60 * LENGTH


def test_finished_rows_are_not_asked() -> None:
    recorder = Recorder()
    tokens = PROBLEM.sample(KEY, 20)
    tokens[:10, 0] = MASK
    tokens[10:, :5] = MASK
    found = decode(recorder, fixed_order(), OneAtATime(), key=KEY, n=20, given=tokens)
    assert found.forwards == 10 + 10 * 5
    assert all((batch == MASK).any(axis=1).all() for batch in recorder.batches)
    whole = decode(EXACT, fixed_order(), OneAtATime(), key=KEY, n=20, given=tokens, options=DecodeOptions(chunk=1))
    assert np.array_equal(found.tokens, whole.tokens)


@dataclass
class TwoMore:
    """Reveals two positions more than its budget, and keeps what it saw of the rows."""

    name: str = "two_more"
    seen: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def plan(self, view: View, budget: np.ndarray) -> np.ndarray:
        assert view.active is not None
        self.seen.append((view.active.copy(), view.marginals.log_evidence.copy()))
        return vanilla().plan(view, budget + 2)


def test_a_row_without_budget_stays_as_it_is_in_every_chunk() -> None:
    """Were its plan followed, it would depend on whether another row of its chunk has something to reveal."""
    watched = TwoMore()
    whole = decode(EXACT, watched, BinomialRule(6), key=KEY, n=30)
    alone = decode(EXACT, TwoMore(), BinomialRule(6), key=KEY, n=30, options=DecodeOptions(chunk=1))
    assert np.array_equal(whole.step_revealed, alone.step_revealed)
    assert np.array_equal(whole.tokens, alone.tokens)
    assert whole.forwards == alone.forwards == alone.distinct
    assert any(not active.all() for active, _ in watched.seen)
    for active, evidence in watched.seen:
        assert np.array_equal(np.isnan(evidence), ~active)


@dataclass(frozen=True)
class Curious:
    """Asks one more context a row, the row itself with position 0 hidden."""

    name: str = "curious"

    def plan(self, view: View, budget: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(view.active)
        further = view.tokens[rows].copy()
        further[:, 0] = MASK
        answer = view.ask(further, rows)
        assert np.allclose(answer.probs, EXACT.marginals(further).probs)
        view.memory["steps"] = view.memory.get("steps", 0) + 1
        assert view.memory["steps"] == view.step + 1
        return vanilla().plan(view, budget)


def test_what_a_policy_asks_counts_as_forwards_and_memory_is_kept() -> None:
    found = decode(EXACT, Curious(), FixedCount(4), key=KEY, n=30, options=DecodeOptions(chunk=11))
    assert found.forwards == 2 * 4 * 30
    cost = decode_cost(EXACT, Curious(), FixedCount(4), PROBLEM, key=KEY, n=30)
    assert cost.calls.mean == 8


def test_a_view_outside_a_decode_has_nothing_to_ask() -> None:
    tokens = np.full((1, LENGTH), MASK, np.int8)
    view = View(tokens, tokens == MASK, EXACT.marginals(tokens), PROBLEM.layout, 0, 1, KEY)
    with pytest.raises(ValueError, match="no denoiser to ask"):
        view.ask(tokens, np.zeros(1, np.intp))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([99], r"one of the 3 rows of the view, 0 to 2; got row 99"),
        ([-1], "got row -1"),
        ([0, 1], r"for which row each of 1 contexts is asked, int64\[1\]; got int64\[2\]"),
        ([0.5], r"got float64\[1\]"),
    ],
)
def test_rows_that_are_none_of_the_view_are_refused(rows, words) -> None:
    tokens = np.full((3, LENGTH), MASK, np.int8)
    view = View(tokens, tokens == MASK, EXACT.marginals(tokens), PROBLEM.layout, 0, 1, KEY, denoiser=Denoiser(EXACT, 3))
    with pytest.raises(ValueError, match=words):
        view.ask(tokens[:1], np.array(rows))


@dataclass
class Both:
    """Reveals what two rules both would, and keeps what the first planned; ``apart``: the second has its own memory."""

    rules: tuple[Policy, Policy]
    apart: bool
    name: str = "both"
    remasks: bool = True
    plans: list[np.ndarray] = field(default_factory=list)
    other: dict[str, Any] = field(default_factory=dict)

    def plan(self, view: View, budget: np.ndarray) -> np.ndarray:
        self.plans.append(self.rules[0].plan(view, budget))
        second = replace(view, memory=self.other) if self.apart else view
        return self.plans[-1] & self.rules[1].plan(second, budget)


@pytest.mark.parametrize("second", [stable(0.5, 0.5), stable(0.05, 0.6)], ids=["another rule", "the same rule"])
def test_two_rules_in_one_policy_do_not_mix_what_they_remember(second) -> None:
    posterior = ExactPosterior(nae_sat(4, 6, seed=1, noise=0.1))
    policies = [Both((stable(0.05, 0.6), second), apart) for apart in (False, True)]
    for policy in policies:
        decode(posterior, policy, BinomialRule(8), key=KEY, n=30)
    together, apart = (policy.plans for policy in policies)
    assert len(together) == 8
    assert all(map(np.array_equal, together, apart))


@dataclass
class Stage:
    """Two rules one after the other: the second sees what the first has hidden or revealed."""

    first: Policy
    second: Policy
    apart: bool
    name: str = "stages"
    remasks: bool = True
    plans: list[np.ndarray] = field(default_factory=list)
    other: dict[str, Any] = field(default_factory=dict)

    def plan(self, view: View, budget: np.ndarray) -> np.ndarray:
        memory = self.other if self.apart else view.memory
        tokens = np.maximum(view.tokens, 0)  # some value at what is revealed only in between
        between = replace(view, masked=self.first.plan(view, budget), tokens=tokens, memory=memory)
        self.plans.append(self.second.plan(between, budget))
        return self.plans[-1]


def test_rules_that_hide_again_do_not_share_what_was_drawn() -> None:
    plans = []
    for apart in (False, True):
        policy = Stage(remdm_confidence(1.0), remdm_confidence(0.9), apart)
        decode(EXACT, policy, BinomialRule(8), key=KEY, n=30)
        plans.append(policy.plans)
    assert all(map(np.array_equal, *plans))


@pytest.mark.parametrize("rule", [lookahead(), information_gain(4)], ids=lambda rule: rule.name)
def test_rules_that_look_ahead_ask_in_batches(rule, monkeypatch) -> None:
    tokens = np.where(np.arange(LENGTH) < 4, PROBLEM.sample(KEY, 400), MASK).astype(np.int8)
    asked: list[int] = []

    def ask(contexts, rows):
        asked.append(len(contexts))
        return EXACT.marginals(contexts)

    view = View(tokens, tokens == MASK, EXACT.marginals(tokens), PROBLEM.layout, 0, 1, KEY, denoiser=ask)
    scores = rule.score(view)
    assert len(asked) > 1
    assert max(asked) <= BATCH
    for batch in (7, 10**6):
        monkeypatch.setattr(lookahead_rules, "BATCH", batch)
        assert np.array_equal(rule.score(view), scores)


class Again:
    name = "again"

    def plan(self, view, budget):
        after = np.zeros_like(view.masked)
        after[:, 2] = view.step == 1
        return after if view.step else vanilla().plan(view, budget)


def test_who_hides_again_says_so() -> None:
    with pytest.raises(ValueError, match=r"again hides position 2 of row . again at step 1: .* remasks = True"):
        decode(EXACT, Again(), FixedCount(3), key=KEY, n=3, options=DecodeOptions(chunk=2))


def test_errors_of_a_posterior_name_the_row_of_the_decode() -> None:
    class Wrong(ExactPosterior):
        def marginals(self, tokens, **more):
            answer = super().marginals(tokens, **more)
            if len(tokens) == 3:
                answer.probs[-1, 0] = np.nan
            return answer

    tokens = np.unique(PROBLEM.sample(KEY, 200), axis=0)[:8].repeat(2, axis=0)  # equal ones are asked once
    tokens[:, 0] = MASK
    options = DecodeOptions(chunk=10)
    with pytest.raises(ValueError, match="gives row 14 at position 0"):
        decode(Wrong(PROBLEM), fixed_order(), OneAtATime(), key=KEY, n=16, given=tokens, options=options)


def test_the_denoiser_fills_in_rows_that_are_not_asked() -> None:
    tokens = PROBLEM.sample(KEY, 3)
    tokens[:, 0] = MASK
    answer = Denoiser(EXACT, 3).at(tokens, np.array([True, False, True]))
    alone = EXACT.marginals(tokens)
    assert np.array_equal(answer.probs[[0, 2]], alone.probs[[0, 2]])
    assert answer.probs[1, 0].tolist() == [0.5, 0.5]
    assert np.array_equal(answer.probs[1, 1:], alone.probs[1, 1:])
    assert np.isnan(answer.log_evidence).tolist() == [False, True, False]
