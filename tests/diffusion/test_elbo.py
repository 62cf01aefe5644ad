"""Bounds of sequences against ln p, their variance against all draws, and drawn ones against what is predicted."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from lo_theory.diffusion import elbo, elbo_variance
from lo_theory.posterior import ExactPosterior, Marginals, Posterior
from lo_theory.posterior.weak import MarginalsOnly, Mixed, Sharpened
from lo_theory.problem import MASK, nae_sat, sparse_parity
from lo_theory.rng import Key
from lo_theory.testing import z_test
from tests.budget import accept, reject

KEY = Key(5)
PROBLEM = sparse_parity(4, 4, 2, 0.2, seed=1)
EXACT = ExactPosterior(PROBLEM)
MODEL, REFERENCE = Mixed(EXACT, MarginalsOnly(PROBLEM), 0.3), Sharpened(EXACT, 0.7)
ROWS = PROBLEM.sample(KEY, 6)


def test_the_exact_posterior_has_the_likelihood_as_its_bound() -> None:
    found = elbo_variance(EXACT, MODEL, ROWS)
    np.testing.assert_allclose(found.bounds[0], PROBLEM.log_prob(ROWS), atol=1e-9)
    assert (found.difference > 1e-3).all()  # a bound of one that is not exact is lower


def every_draw(posterior: Posterior, row: np.ndarray, masks: int) -> tuple[np.ndarray, np.ndarray]:
    """All values of one rate with so many masks, and their probabilities: one mask after another."""
    length, values, chances = len(row), [], []
    for size in range(1, length + 1):
        of_size = []
        for hidden in itertools.combinations(range(length), size):
            context = row.copy()
            context[list(hidden)] = -1
            probs = posterior.marginals(context[None]).probs[0]
            of_size.append(length / size * sum(np.log(probs[i, row[i]]) for i in hidden))
        for drawn in itertools.product(of_size, repeat=masks):
            values.append(np.mean(drawn))
            chances.append(1 / length / len(of_size) ** masks)
    return np.array(values), np.array(chances)


@pytest.mark.parametrize("masks", [1, 2])
def test_variances_are_those_of_all_draws(masks: int) -> None:
    small = nae_sat(3, 2, seed=0)
    model, reference = (Mixed(ExactPosterior(small), MarginalsOnly(small), share) for share in (0.2, 0.6))
    row = small.sample(KEY, 1)
    found = elbo_variance(model, reference, row)
    (one, chances), (other, _) = (every_draw(posterior, row[0], masks) for posterior in (model, reference))

    def variance(values: np.ndarray) -> float:
        return float(chances @ (values - chances @ values) ** 2)

    assert found.difference[0] == pytest.approx(chances @ (one - other), rel=1e-9)
    shared, apart = variance(one - other), variance(one) + variance(other)
    for rates in (1, 3):
        assert found.variance(rates, masks, shared=True)[0] == pytest.approx(shared / rates, rel=1e-9)
        assert found.variance(rates, masks, shared=False)[0] == pytest.approx(apart / rates, rel=1e-9)
    assert 0 < shared < apart


def test_a_model_that_is_its_reference_differs_by_exactly_zero_with_shared_draws() -> None:
    found = elbo_variance(MODEL, MODEL, ROWS)
    assert (found.variance(1, 1, shared=True) == 0).all()
    assert (found.variance(1, 1, shared=False) > 0.01).all()
    one, same, other = (elbo(MODEL, ROWS, key=key, rates=2, masks=2) for key in (KEY, KEY, KEY.fold(1)))
    assert (one - same == 0).all()
    assert (one != other).all()


def test_the_table_has_every_allocation_and_one_mask_a_rate_is_best() -> None:
    table = elbo_variance(MODEL, REFERENCE, ROWS).table(6)
    assert [(line.rates, line.masks, line.shared) for line in table] == [
        (6 // masks, masks, shared) for shared in (True, False) for masks in (1, 2, 3, 6)
    ]
    for half in (table[:4], table[4:]):
        assert all(a.variance < b.variance for a, b in itertools.pairwise(half))
    assert all(a.variance < b.variance for a, b in zip(table[:4], table[4:], strict=True))


ALLOCATIONS = [(1, 1, True), (4, 1, True), (1, 4, True), (1, 4, False)]


def squares(rates: int, masks: int, shared: bool, mean: float, *, n: int = 3000) -> np.ndarray:
    """Squared distance of drawn differences of one sequence from the exact one."""
    rows = np.repeat(ROWS[2:3], n, axis=0)
    keys = (KEY, KEY if shared else KEY.fold("reference"))
    one, other = (elbo(p, rows, key=k, rates=rates, masks=masks) for p, k in zip((MODEL, REFERENCE), keys, strict=True))
    return np.asarray((one - other - mean) ** 2)


def test_drawn_bounds_have_the_variance_that_is_predicted() -> None:
    found = elbo_variance(MODEL, REFERENCE, ROWS[2:3])
    drawn = {way: squares(*way, found.difference[0]) for way in ALLOCATIONS}
    for (rates, masks, shared), values in drawn.items():
        accept("preference bounds", z_test(values, found.variance(rates, masks, shared=shared)[0]))
    for (rates, masks, shared), values in drawn.items():  # as if sharing changed nothing
        reject("preference bounds", z_test(values, found.variance(rates, masks, shared=not shared)[0]))
    reject("preference bounds", z_test(drawn[1, 4, True], found.variance(4, 1, shared=True)[0]))  # masks for rates


def test_rows_have_addresses_of_their_own() -> None:
    whole = elbo(MODEL, ROWS, key=KEY, rates=2, masks=3)
    np.testing.assert_array_equal(whole[2:], elbo(MODEL, ROWS[2:], key=KEY, rates=2, masks=3, start=2))
    parts = [elbo(MODEL, ROWS[i : i + 1], key=KEY, rates=2, masks=3, start=i) for i in range(len(ROWS))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert (whole[2:] != elbo(MODEL, ROWS[2:], key=KEY, rates=2, masks=3)).any()


class Wrong:
    """Probabilities that add up to two wherever the first token is shown."""

    layout = PROBLEM.layout

    def marginals(self, tokens: np.ndarray) -> Marginals:
        answer = MODEL.marginals(tokens)
        return replace(answer, probs=np.where(tokens[:, :1, None] != MASK, 2 * answer.probs, answer.probs))


def test_a_wrong_answer_is_named_by_the_number_of_its_sequence() -> None:
    """Whatever part of the sequences is asked about, and however many masks each of them has."""
    with pytest.raises(ValueError, match="row") as error:
        elbo(Wrong(), ROWS, key=KEY)
    (number,) = re.findall(r"row (\d+)", str(error.value))
    assert int(number) > 0
    with pytest.raises(ValueError, match=rf"row {number}\b"):
        elbo(Wrong(), ROWS[int(number) :], key=KEY, start=int(number))
    with pytest.raises(ValueError, match=r"row 0\b"):  # by the second of its masks
        elbo_variance(MODEL, Wrong(), ROWS)


def test_what_cannot_be_answered_is_said() -> None:
    with pytest.raises(ValueError, match="at least one rate and one mask a rate, got 0 and 1"):
        elbo(MODEL, ROWS, key=KEY, rates=0)
    longer = ExactPosterior(nae_sat(5, 10, seed=0))
    with pytest.raises(ValueError, match="got L = 15: draw bounds with elbo"):
        elbo_variance(longer, longer, np.zeros((1, 15), np.int8))
    certain = nae_sat(3, 2, seed=0)
    with pytest.raises(ValueError, match="excludes a token of sequence 0"):
        elbo_variance(ExactPosterior(certain), ExactPosterior(certain), [[0, 0, 0, 1, 1]])
