"""Windows of mask rates: the propositions' formulas, and empty ones in words."""

from __future__ import annotations

import math

import pytest

from lo_theory.problem import colouring, nae
from lo_theory.thresholds import (
    Threshold,
    all_subsets_window,
    kesten_stigum,
    observations_window,
    parity_window,
    planted_ensemble,
    slab_capacity,
    slab_window,
)


def window(q, condensation, n):
    ensemble = planted_ensemble(colouring(q))
    return all_subsets_window(
        ensemble, n, condensation=Threshold(condensation, 2), kesten_stigum=kesten_stigum(ensemble)
    )


@pytest.mark.parametrize(("q", "condensation", "critical"), [(4, 8.46, 9), (5, 13.23, 16)])
def test_known_colouring_windows(q, condensation, critical):
    n, gamma = 1000, 1 - 1 / q
    found = window(q, condensation, n)
    assert not found.empty
    for alpha, degree in ((found.lowest, critical), (found.highest, condensation)):
        revealed = (1 - alpha) * gamma * n * (n - 1)
        assert 2 * revealed / n == pytest.approx(degree, rel=1e-12)
    assert found.all_latents_masked[0] == pytest.approx(math.exp(-critical / (2 * gamma)), rel=0.1)


def test_finite_size_differs_from_the_power_by_ten_percent():
    ensemble = planted_ensemble(nae(3, 3))
    found = all_subsets_window(ensemble, 30, condensation=Threshold(26.22, 3), kesten_stigum=kesten_stigum(ensemble))
    printed = 1 - 32 / (ensemble.revealed * 3 * 30**2)
    assert (1 - found.lowest) / (1 - printed) == pytest.approx(900 / (29 * 28), rel=1e-9)


@pytest.mark.parametrize("rounding", [-1e-13, 0.0, 1e-13])
def test_three_colouring_is_empty_in_words(rounding):
    found = window(3, 4.0 + rounding, 100)
    assert found.empty
    assert "coincide at c = 4" in found.statement
    assert math.isnan(found.all_latents_masked[0])


def test_too_few_observations_are_said():
    ensemble = planted_ensemble(nae(3, 3))
    thresholds = {"condensation": Threshold(26.22, 3), "kesten_stigum": kesten_stigum(ensemble)}
    few = observations_window(ensemble, 100, 500, **thresholds)
    assert few.empty
    assert "impossible at every rate" in few.statement
    some = observations_window(ensemble, 100, 1100, **thresholds)
    assert some.lowest == 0.0
    assert 0 < some.highest < 1
    assert "hard for mask rates" in some.statement
    for n, p in ((2, 500), (0, 500), (-100, 500), (100, 0), (100, -1)):
        with pytest.raises(ValueError, match=rf"N >= k = 3 .* P >= 1 .*got {n} and {p}"):
            observations_window(ensemble, n, p, **thresholds)
    with pytest.raises(ValueError, match="need N >= 3 latents, got 0"):
        all_subsets_window(ensemble, 0, **thresholds)
    with pytest.raises(ValueError, match="k = 2"):
        observations_window(ensemble, 10, 10, condensation=Threshold(1, 2), kesten_stigum=Threshold(2, 2))


def test_parity_window_and_its_regime():
    n = 100
    found = parity_window(n, 10**6, 7)
    assert (found.lowest, found.highest) == (1 - 1 / n, 1 - 1 / (2 * n))
    assert "conjectural" in found.statement
    assert found.all_latents_masked[0] == pytest.approx(math.exp(-1), rel=0.01)
    assert parity_window(n, 1000, 7).empty
    assert "take k of at least 5" in parity_window(n, 10**5, 3).statement
    for n, p, k in ((1, 10, 3), (0, 10, 3), (10, 0, 3), (10, 10, 1)):
        with pytest.raises(ValueError, match=rf"N >= 2.*got N={n}, P={p}, k={k}"):
            parity_window(n, p, k)


def test_slab_window_and_its_conditions():
    found = slab_window(100, 20_000, c_beta=1.5, c=0.5)
    assert (found.lowest, found.highest) == pytest.approx((1 - 1.5 * 100 / 40_000, 1 - 0.5 * 100 / 20_000))
    assert "conjectural" in found.ground
    assert "above c_beta/2" in slab_window(100, 20_000, c_beta=1.5, c=1.0).reason
    assert "not above c_beta N^2" in slab_window(100, 10_000, c_beta=1.5, c=0.5).reason
    with pytest.raises(ValueError, match="0 < c < c_beta"):
        slab_window(100, 20_000, c_beta=1.0, c=2.0)
    assert slab_capacity(1.0) == pytest.approx(-math.log(2) / math.log(0.6826894921), rel=1e-9)
    for n, p in ((0, 20_000), (100, 0)):
        with pytest.raises(ValueError, match=f"N >= 1 and P >= 1, got N={n}, P={p}"):
            slab_window(n, p, c_beta=1.5, c=0.5)
    for width in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"positive, got {width}"):
            slab_capacity(width)
