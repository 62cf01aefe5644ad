"""Kesten-Stigum: the known values, the Jacobian, and what must be refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lo_theory.problem import TableObservations, colouring, flip, from_array, nae, pair_channels, sat, xor
from lo_theory.thresholds import (
    PlantedEnsemble,
    Threshold,
    factor_jacobian,
    kesten_stigum,
    kesten_stigum_from_jacobian,
    planted_ensemble,
)

KNOWN = [(nae(q, k), (q ** (k - 1) - 1) ** 2 / (k - 1)) for q, k in ((2, 3), (2, 4), (2, 5), (3, 3))]
KNOWN += [(colouring(q), (q - 1.0) ** 2) for q in (3, 4, 5, 6)]
KNOWN += [(xor(k), math.inf) for k in (3, 4, 5)] + [(xor(2), 1.0)]


def random_ensemble(seed: int, q: int, k: int, kinds: int) -> PlantedEnsemble:
    """Tables without symmetry that satisfy Assumption B.11, by repeated division by their one-argument means."""
    generator = np.random.default_rng(seed)
    likelihoods = generator.random((kinds, *(q,) * k)) + 0.05
    for _ in range(3000):
        for a in range(k):
            axes = tuple(1 + b for b in range(k) if b != a)
            likelihoods /= 2 * likelihoods.mean(axis=axes, keepdims=True)
    shares = generator.random(kinds) + 0.1
    return PlantedEnsemble("random", likelihoods, shares / shares.sum(), 1.0)


@pytest.mark.parametrize(("predicate", "expected"), KNOWN, ids=lambda value: getattr(value, "name", ""))
def test_closed_form_matches_the_table(predicate, expected):
    ensemble = planted_ensemble(predicate)
    for found in (kesten_stigum(ensemble), kesten_stigum_from_jacobian(ensemble)):
        assert found.value == pytest.approx(expected, rel=1e-12)
        assert found.density == pytest.approx(expected / predicate.k, rel=1e-12)
        assert found.neighbours == pytest.approx((predicate.k - 1) * expected, rel=1e-12)


@pytest.mark.parametrize("predicate", [predicate for predicate, _ in KNOWN], ids=lambda predicate: predicate.name)
def test_revealing_all_values_multiplies_by_the_odds(predicate):
    satisfied, everything = (kesten_stigum(planted_ensemble(predicate, observed=o)) for o in ("satisfied", "all"))
    odds = (1 - predicate.gamma) / predicate.gamma
    assert everything.value == pytest.approx(satisfied.value * odds, rel=1e-12)


@pytest.mark.parametrize(("q", "k", "kinds"), [(3, 2, 1), (4, 2, 2), (2, 3, 3), (3, 3, 2)])
def test_closed_form_and_jacobian_agree_without_symmetry(q, k, kinds):
    ensemble = random_ensemble(7 * q + k, q, k, kinds)
    closed, numerical = kesten_stigum(ensemble), kesten_stigum_from_jacobian(ensemble)
    assert numerical.value == pytest.approx(closed.value, rel=1e-11)
    # The global value-imbalance mode is another number: a version that counts it must not pass.
    basis = np.linalg.svd(np.ones((1, q)))[2][1:].T
    channels = [pair_channels(likelihood) for likelihood in ensemble.likelihoods]
    pairs = [(a, b) for a in range(k) for b in range(k) if a != b]
    mean = sum(
        s * basis.T @ t[a, b] @ basis / len(pairs)
        for s, t in zip(ensemble.shares, channels, strict=True)
        for a, b in pairs
    )
    literal = 1 / ((k - 1) * np.abs(np.linalg.eigvals(mean)).max())
    assert abs(literal / closed.value - 1) > 0.05


def test_jacobian_agrees_with_central_differences():
    likelihood = random_ensemble(3, 3, 3, 1).likelihoods[0]
    jacobian, step = factor_jacobian(likelihood), 1e-6

    def update(messages):
        out = np.einsum("xyz,y,z->x", likelihood, messages[0], messages[1])
        return out / out.sum()

    direction = np.array([1.0, -1.0, 0.0])
    for b in (1, 2):
        messages = [np.full(3, 1 / 3) for _ in range(2)]
        ends = []
        for sign in (1, -1):
            moved = [m + (sign * step * direction if b == j + 1 else 0) for j, m in enumerate(messages)]
            ends.append(update(moved))
        assert np.allclose((ends[0] - ends[1]) / (2 * step), jacobian[0, b] @ direction, atol=1e-9)


def test_noise_weakens_a_parity_of_two_as_its_square():
    for rate in (0.05, 0.2):
        ensemble = planted_ensemble(xor(2), observed="all", channel=flip(rate))
        assert kesten_stigum(ensemble).value == pytest.approx((1 - 2 * rate) ** -2, rel=1e-12)


def test_tables_of_observations_count_by_use():
    scopes, tables = np.array([[0, 1], [1, 2], [2, 3]]), np.stack([xor(2).emission(), xor(2).emission(flip(0.5))])
    mixed = planted_ensemble(TableObservations(scopes, tables, np.array([0, 1, 1])), observed="all")
    assert kesten_stigum(mixed).value == pytest.approx(3.0, rel=1e-12)


def test_assumption_b11_is_named_when_broken():
    broken = {"SAT k=3": sat(3), "cover": from_array([[1, 1], [1, 0]], name="cover")}
    for name, predicate in broken.items():
        for observed in ("satisfied", "all"):
            with pytest.raises(ValueError, match=rf"^{name} breaks Assumption B\.11.*argument \d is \d.*balance"):
                planted_ensemble(predicate, observed=observed)
    with pytest.raises(ValueError, match=r"^tilted breaks Assumption B\.11: revealed kind 1 .*argument 0 is 0"):
        PlantedEnsemble("tilted", np.array([[[1.0, 1], [1, 1]], [[1, 1], [1, 2]]]), np.full(2, 0.5), 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observed": "none"}, "observed is"),
        ({"observed": (0, 2)}, "different values of 0..1"),
        ({"observed": ()}, "different values"),
    ],
)
def test_bad_observed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        planted_ensemble(nae(), **arguments)


def test_bad_ensembles_and_thresholds_are_refused():
    with pytest.raises(ValueError, match="sum to one"):
        PlantedEnsemble("x", np.ones((2, 2, 2)), np.array([0.5, 0.6]), 1.0)
    with pytest.raises(ValueError, match=r"\[K, q"):
        PlantedEnsemble("x", np.ones((1, 2)), np.ones(1), 1.0)
    with pytest.raises(ValueError, match="is ever revealed"):
        planted_ensemble(from_array(np.zeros((2, 2))))
    with pytest.raises(ValueError, match="positive"):
        Threshold(-1.0, 3)
    with pytest.raises(ValueError, match="at least 2"):
        Threshold(1.0, 1)


def test_thresholds_speak_three_units():
    text = str(Threshold(26.223, 3, 0.018))
    assert text == "c = 26.223 +- 0.018, density = 8.741 +- 0.006, neighbours = 52.446 +- 0.036"
    assert "infinite" in str(Threshold(math.inf, 3))
