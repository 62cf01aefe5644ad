"""What a decode asks its posterior: equal contexts once, nothing for rows that have nothing to reveal."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lo_theory.diffusion import (
    BinomialRule,
    DecodeOptions,
    FixedCount,
    OneAtATime,
    View,
    _kernels,
    decode,
    decode_cost,
    fixed_order,
    margin,
    vanilla,
)
from lo_theory.diffusion.asking import Denoiser
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
