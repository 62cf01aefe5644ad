"""The variance of a batch's gradient against its value by enumeration of sequences, orders and masks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lo_theory.diffusion import MirrorUniform, Uniform
from lo_theory.neural import Masked, Transformer, TransformerConfig, gradient_variance
from lo_theory.problem import nae_sat
from lo_theory.rng import Key
from lo_theory.testing import joint_law
from tests.budget import accept, reject

PROBLEM = nae_sat(3, 1, seed=0)
LENGTH = PROBLEM.layout.length
NETWORK = TransformerConfig(layers=1, heads=1, width=4, inner=4, n_values=2, length=LENGTH)
PAIRS = 200
KEY = Key(2).fold("gradients")
ORDERS = list(itertools.permutations(range(LENGTH)))


@pytest.fixture(scope="module")
def model() -> Transformer:
    made = Transformer(NETWORK, seed=1)
    with torch.no_grad():
        for value in made.parameters():
            value += 0.5 * torch.from_numpy(np.random.default_rng(len(value)).normal(size=value.shape)).float()
    return made


def gradient(model: Transformer, tokens: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Of the loss of one sequence and one mask, weight 1/size."""
    batch = {"tokens": tokens[None], "masked": hidden[None, None], "weight": hidden[None, None] / hidden.sum()}
    loss, _ = Masked(PROBLEM, Uniform()).loss(model, {k: torch.from_numpy(v) for k, v in batch.items()}, {})
    parts = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    return np.concatenate([part.double().numpy().ravel() for part in parts])


@pytest.fixture(scope="module")
def truth(model: Transformer) -> dict[str, tuple[float, float]]:
    """tr Cov and |mean|**2 of the gradient of one sequence, with one mask and with its mirror too."""
    found: dict[str, list[np.ndarray]] = {"one": [], "mirrored": []}
    rows, p = joint_law(PROBLEM)
    for row in rows:
        of = {}
        for mask in range(1, 2**LENGTH):
            of[mask] = gradient(model, row, ((mask >> np.arange(LENGTH)) & 1).astype(bool))
        bits = [[sum(1 << i for i in part) for part in (o[:n], o[-n:])] for o in ORDERS for n in range(1, LENGTH + 1)]
        one, other = (np.array([of[pair[end]] for pair in bits]) for end in range(2))
        found["one"].append(one)
        found["mirrored"].append((one + other) / 2)
    result = {}
    for name in ("one", "mirrored"):
        each = np.array(found[name])
        mean = np.einsum("s,smd->d", p, each) / each.shape[1]
        result[name] = float(p @ np.square(each).sum(axis=2).mean(axis=1) - mean @ mean), float(mean @ mean)
    return result


def p_value(sums, expected: float) -> float:  # type: ignore[no-untyped-def]
    return math.erfc(abs(sums.mean - expected) / sums.standard_error / math.sqrt(2))


@pytest.mark.parametrize(("law", "name"), [(Uniform(), "one"), (MirrorUniform(), "mirrored")])
def test_noise_and_signal_are_those_of_enumeration(model, truth, law, name) -> None:  # type: ignore[no-untyped-def]
    found = gradient_variance(model, PROBLEM, law, key=KEY, passes=4, pairs=PAIRS)
    assert found.sequences * found.copies == 4
    noise, signal = truth[name]
    accept("gradient variance", [p_value(found.noise, noise / found.sequences), p_value(found.signal, signal)])
    reject("gradient variance", p_value(found.noise, noise))


def test_two_masks_have_the_noise_of_two_and_not_of_one(model, truth) -> None:  # type: ignore[no-untyped-def]
    found = gradient_variance(model, PROBLEM, MirrorUniform(), key=KEY, passes=4, pairs=PAIRS)
    reject("gradient variance", p_value(found.noise, truth["one"][0] / found.sequences))


def test_a_law_sees_the_same_sequences_whatever_its_masks() -> None:
    one, two = (Masked(PROBLEM, law).draw(KEY, 3, (0, 8)) for law in (Uniform(), MirrorUniform()))
    np.testing.assert_array_equal(one["tokens"], two["tokens"])


def test_gradients_of_the_network_are_left_alone(model: Transformer) -> None:
    assert all(value.grad is None for value in model.parameters())
    gradient_variance(model, PROBLEM, Uniform(), key=KEY, passes=2, pairs=1)
    assert all(value.grad is None for value in model.parameters())


def test_bad_input_is_named(model: Transformer) -> None:
    with pytest.raises(ValueError, match="that 2 divides, at least 2, got 3"):
        gradient_variance(model, PROBLEM, MirrorUniform(), key=KEY, passes=3, pairs=1)
    with pytest.raises(ValueError, match="at least one pair of batches, got n = 0"):
        gradient_variance(model, PROBLEM, Uniform(), key=KEY, passes=4, pairs=0)
    with pytest.raises(ValueError, match="length 4"):
        gradient_variance(model, nae_sat(3, 4, seed=0), Uniform(), key=KEY, passes=4, pairs=1)
