"""Contexts: the same rows whatever the batches are, their addresses, and their classes."""

from __future__ import annotations

import numpy as np
import pytest

from lo_theory.diffusion import Rotation, TwoRates, Uniform
from lo_theory.diffusion.contexts import by_class, draw_contexts, row_means
from lo_theory.problem import MASK, nae_sat
from lo_theory.rng import Key

KEY, PROBLEM = Key(7), nae_sat(5, 12, seed=0)


@pytest.mark.parametrize("size", [1, 7, 30, 1024])
@pytest.mark.parametrize("law", [Uniform(), Rotation((TwoRates(0.2, 0.7), Uniform()))], ids=["uniform", "rotation"])
def test_batches_change_no_row_and_rows_have_their_addresses(law, size) -> None:
    truth = PROBLEM.sample(KEY.fold("data"), 30)
    masked, weight = law.sample(KEY.fold("masks"), truth, PROBLEM.layout)
    batches = [batch for (batch,) in draw_contexts(PROBLEM, law, KEY, 30, size=size)]
    assert [batch.start for batch in batches] == list(range(0, 30, size))
    for name, expected in (("truth", truth), ("masked", masked[0]), ("weight", weight[0])):
        assert np.array_equal(np.concatenate([getattr(batch, name) for batch in batches]), expected)
    tokens = np.concatenate([batch.tokens for batch in batches])
    assert tokens.dtype == np.int8
    assert np.array_equal(tokens, np.where(masked[0], MASK, truth))


def test_two_rates_of_0_and_1_hide_the_observations_and_nothing_else() -> None:
    ((batch,),) = draw_contexts(PROBLEM, TwoRates(0, 1), KEY, 500)
    assert np.array_equal(batch.masked, np.broadcast_to(~PROBLEM.layout.is_latent, (500, 17)))
    assert list(by_class(batch.classes)) == [(0, 12)]


def test_classes_ascend_and_keep_the_order_of_their_rows() -> None:
    found = by_class(np.array([[2, 0], [1, 5], [2, 0], [1, 3], [1, 5]]))
    assert [(kind, rows.tolist()) for kind, rows in found.items()] == [
        ((1, 3), [3]),
        ((1, 5), [1, 4]),
        ((2, 0), [0, 2]),
    ]


def test_means_are_over_the_positions_named_and_the_default_where_there_are_none() -> None:
    values, at = np.array([[1.0, np.inf, 3.0], [5.0, 6.0, np.nan]]), np.array([[True, False, True], [False] * 3])
    assert row_means(values, at).tolist() == [2.0, 0.0]
    assert row_means(np.stack([values, 2 * values]), at, 9.0).tolist() == [[2.0, 9.0], [4.0, 9.0]]
