"""Positions and roles: split and join undo each other for every permutation, and tokens are checked by position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lo_theory.problem import MASK, Layout
from lo_theory.testing.strategies import layouts


@given(layouts(), st.lists(st.integers(1, 3), max_size=2), st.randoms(use_true_random=False))
def test_split_and_join_undo_each_other(layout, batch, random):
    tokens = np.array([random.randrange(-1, 2) for _ in range(int(np.prod(batch)) * layout.length)], np.int8)
    tokens = tokens.reshape(*batch, layout.length)
    latents, observations = layout.split(tokens)
    assert latents.shape == (*batch, layout.n_latents)
    assert observations.shape == (*batch, layout.n_observations)
    assert (layout.join(latents, observations) == tokens).all()
    again = layout.split(layout.join(latents, observations))
    assert (again[0] == latents).all()
    assert (again[1] == observations).all()


@given(layouts())
def test_order_is_the_position_of_each_role(layout):
    roles = np.arange(layout.length)
    assert (layout.role[layout.order] == roles).all()
    assert (layout.order[layout.role] == roles).all()
    assert np.concatenate(layout.split(np.arange(layout.length))).tolist() == layout.order.tolist()
    for role in range(layout.length):
        position = layout.order[role]
        assert layout.is_latent[position] == (role < layout.n_latents)
        assert layout.values[position] == (layout.q if role < layout.n_latents else layout.r)
    assert (layout.latent_positions == layout.order[: layout.n_latents]).all()
    assert (layout.observation_positions == layout.order[layout.n_latents :]).all()
    assert layout.n_values == max(layout.q, layout.r)


def test_a_layout_may_have_latents_only() -> None:
    layout = Layout(3, 0, 4, 4, [2, 0, 1])
    tokens = np.array([[3, MASK, 0]], np.int8)
    latents, observations = layout.split(tokens)
    assert latents.tolist() == [[0, 3, MASK]]
    assert observations.shape == (1, 0)
    assert (layout.join(latents, observations) == tokens).all()
    assert layout.is_latent.all()
    assert layout.values.tolist() == [4, 4, 4]
    assert layout.observation_positions.shape == (0,)


def test_the_order_is_the_identity_when_left_out():
    layout = Layout(2, 3, 2, 2)
    assert layout.order.tolist() == [0, 1, 2, 3, 4]
    assert layout.order.dtype == np.int32


@given(layouts(), st.data())
def test_check_tokens_allows_exactly_the_values_of_each_role(layout, data):
    row, position = data.draw(st.integers(0, 2)), data.draw(st.integers(0, layout.length - 1))
    value = data.draw(st.integers(-3, 7))
    tokens = np.zeros((3, layout.length), np.int64)
    tokens[row, position] = value
    allowed = -1 <= value < layout.values[position]
    for complete in (False, True):
        if allowed and (value >= 0 or not complete):
            checked = layout.check_tokens(tokens, complete=complete)
            assert checked.dtype == np.int8
            assert checked.flags.c_contiguous
            assert (checked == tokens).all()
        else:
            with pytest.raises(ValueError, match=rf"token {value} in row {row} at position {position} "):
                layout.check_tokens(tokens, complete=complete)


def test_check_tokens_takes_one_sequence_and_strided_arrays():
    layout = Layout(2, 1, 2, 2)
    assert layout.check_tokens([0, 1, MASK]).tolist() == [[0, 1, -1]]
    strided = np.zeros((3, 8), np.int8)[:, ::3]
    assert layout.check_tokens(strided).flags.c_contiguous
    assert layout.check_tokens(np.zeros((0, 3), np.int8)).shape == (0, 3)


def test_values_beyond_int8_are_refused_before_they_wrap():
    with pytest.raises(ValueError, match="token 256"):
        Layout(1, 1, 2, 2).check_tokens([[256, 0]])
    with pytest.raises(ValueError, match="token 255"):
        Layout(1, 1, 2, 2).check_tokens(np.array([[255, 0]], np.uint8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layout(0, 1, 2, 2), "n_latents must be at least 1, got 0"),
        (lambda: Layout(1, -1, 2, 2), "n_observations must be at least 0, got -1"),
        (lambda: Layout(1, 1, 1, 2), "q must be at least 2, got 1"),
        (lambda: Layout(1, 1, 2, 1), "r must be at least 2, got 1"),
        (lambda: Layout(1, 1, 128, 2), "at most 127 values"),
        (lambda: Layout(1, 2, 2, 2, [0, 1]), r"permutation of 0..2 .*shape \(2,\)"),
        (lambda: Layout(1, 2, 2, 2, [0, 1, 1]), "permutation of 0..2"),
        (lambda: Layout(1, 2, 2, 2, [1, 2, 3]), "permutation of 0..2"),
        (lambda: Layout(1, 2, 2, 2).check_tokens([0, 0]), r"shape \[B, 3\].*got \(2,\)"),
        (lambda: Layout(1, 2, 2, 2).check_tokens(np.zeros((2, 4), int)), r"shape \[B, 3\].*got \(2, 4\)"),
        (lambda: Layout(1, 2, 2, 2).check_tokens(np.zeros((1, 1, 3), int)), r"shape \[B, 3\]"),
        (lambda: Layout(1, 2, 2, 2).check_tokens(np.zeros((2, 3))), "integers, got dtype float64"),
        (lambda: Layout(1, 2, 2, 2).check_tokens([["a", "b", "c"]]), "integers, got dtype"),
        (lambda: Layout(1, 2, 2, 2).join([0], [1]), r"observations \[..., 2\], got \(1,\) and \(1,\)"),
        (lambda: Layout(1, 2, 2, 2).join([[0], [0]], [[1, 1]]), r"got \(2, 1\) and \(1, 2\)"),
        (lambda: Layout(1, 2, 2, 2).join(0, [1, 1]), r"got \(\) and \(2,\)"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("positions", [[0, 0, 2], [1, 2, 3], [[0, 1, 2]], [0, 1]])
def test_a_reading_order_names_every_position_once(positions):
    layout = Layout(2, 1, 2, 2)
    assert layout.reading([2, 0, 1]).tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match=r"permutation of the positions 0\.\.2, got one of shape .*: \[+[0-3]"):
        layout.reading(positions)


def test_a_masked_token_in_a_complete_sequence_says_so():
    with pytest.raises(ValueError, match="must be complete, without MASK"):
        Layout(1, 1, 2, 2).check_tokens([0, MASK], complete=True)


def test_arrays_are_read_only():
    layout = Layout(2, 3, 2, 3)
    for array in (layout.order, layout.role, layout.is_latent, layout.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_read_only_tokens_come_back_writable_and_equal() -> None:
    """Numba types read-only arrays apart: every kernel would be compiled a second time for them."""
    layout = Layout(2, 1, q=2, r=2)
    tokens = np.zeros((4, 3), np.int8)
    assert layout.check_tokens(tokens) is tokens
    tokens.setflags(write=False)
    checked = layout.check_tokens(tokens)
    assert checked.flags.writeable
    assert np.array_equal(checked, tokens)
