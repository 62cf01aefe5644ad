"""The information curve against enumeration and published values, and the cost of several tokens at once in random order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lo_theory.diffusion import (
    best_counts,
    binomial_cost,
    certificates,
    certified_counts,
    correlations,
    counts_cost,
    information_curve,
)
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK, LODistribution, nae
from lo_theory.problem.distribution import entropies
from lo_theory.problem.families import predicate_observations
from lo_theory.rng import Key
from lo_theory.testing import BruteForcePosterior, joint_law, z_test
from tests.budget import accept, reject

KNOWN = {  # scopes: mask sizes 1, 2, ... in units of ln 2, from the entropies of the numbers of assignments left
    ((0, 1, 2),): [0.375, 0.719361, 0.952820, 0.952820],
    ((0, 1, 2), (1, 2, 3)): [0.25, 0.431454, 0.615404, 0.833874, 0.932175, 0.937093],
    tuple(itertools.combinations(range(4), 3)): [
        *(0, 0.160714, 0.276960, 0.404114),
        *(0.570597, 0.792142, 0.889833, 0.905639),
    ],
}
COSTS = {  # scopes by number, counts: units of ln 2. Sum over steps of s (H_{j+1} - H_j), less H_L
    (0, (4,)): 0.811278124459,  # the entropy of a coin of 1/4: 2 - 3/4 log2 3
    (1, (3, 3)): 0.657489910258,
    (1, (4, 2)): 0.611278124459,
    (1, (2, 2, 2)): 0.404841567591,
    (1, (3, 1, 2)): 0.289589344906,
    (2, (3, 3, 2)): 0.750136794176,
    (2, (3, 2, 3)): 0.688992014531,
    (2, (2, 2, 2, 2)): 0.525219304871,
    (2, (3, 2, 2, 1)): 0.412031746597,
}


def problem(scopes: tuple[tuple[int, ...], ...]) -> LODistribution:
    n = 1 + max(itertools.chain(*scopes))
    return LODistribution(np.full((n, 2), 0.5), predicate_observations(nae(2, 3), np.array(scopes, np.int32)))


def subset_entropies(distribution: LODistribution) -> np.ndarray:
    """float64[L + 1]: H_k, the mean entropy of k tokens, by counting strings, which are equally likely."""
    rows, weights = joint_law(distribution)
    assert np.allclose(weights, weights[0], rtol=1e-12)
    mean = np.zeros(rows.shape[1] + 1)
    for size in range(1, len(mean)):
        chosen = list(itertools.combinations(range(rows.shape[1]), size))
        for positions in chosen:
            shares = np.unique(rows[:, positions], axis=0, return_counts=True)[1] / len(rows)
            mean[size] -= shares @ np.log(shares) / len(chosen)
    return mean


def enumerated(distribution: LODistribution) -> np.ndarray:
    """float64[L]: the curve, over all sequences and all sets of revealed tokens."""
    rows, weights = joint_law(distribution)
    length, posterior = rows.shape[1], BruteForcePosterior(distribution)
    curve = np.zeros(length)
    for known in range(length):
        for revealed in itertools.combinations(range(length), known):
            hidden = np.setdiff1d(np.arange(length), revealed)
            tokens = rows.copy()
            tokens[:, hidden] = MASK
            left = entropies(posterior.marginals(tokens).probs)[:, hidden].mean(axis=1)
            curve[known] += weights @ left
        curve[known] /= len(list(itertools.combinations(range(length), known)))
    return curve


@pytest.mark.parametrize("scopes", list(KNOWN)[:2])
def test_enumeration_gives_the_known_values(scopes: tuple[tuple[int, ...], ...]) -> None:
    assert enumerated(problem(scopes))[::-1] / np.log(2) == pytest.approx(KNOWN[scopes], abs=1e-6)


def test_the_measured_curve_is_the_known_one() -> None:
    scopes = tuple(itertools.combinations(range(4), 3))
    distribution, known = problem(scopes), np.array(KNOWN[scopes][::-1]) * np.log(2)
    curve = information_curve(ExactPosterior(distribution), distribution, key=Key(4), n=3000)
    assert curve.hidden[0].mean == pytest.approx(known[0], abs=1e-6)  # nothing is revealed: the same in every row
    assert curve.hidden[7].mean == pytest.approx(0, abs=1e-12)
    for revealed in (2, 5):
        accept("information curve", _p(curve.hidden[revealed], known[revealed]))
    accept("information curve", _p(curve.entropy, distribution.entropy()))
    reject("information curve", _p(curve.hidden[2], known[3]))  # one token more revealed than meant
    assert curve.entropy.mean == pytest.approx(curve.nats.sum(), rel=1e-12)


def _p(sums, mean: float) -> float:
    spread = np.sqrt(sums.deviations / sums.n)
    return z_test(sums.mean + spread * np.resize([-1.0, 1.0], sums.n), mean)


def test_rows_are_addressed_and_orders_are_nested() -> None:
    distribution = problem(((0, 1, 2), (1, 2, 3)))
    first, again = (
        information_curve(ExactPosterior(distribution), distribution, key=Key(5), n=n).hidden[3] for n in (40, 40)
    )
    assert first == again
    asked: list[np.ndarray] = []

    class Watched:
        layout = distribution.layout

        def marginals(self, tokens):
            asked.append(tokens)
            return ExactPosterior(distribution).marginals(tokens)

    information_curve(Watched(), distribution, key=Key(5), n=40)
    hidden = np.array(asked) == MASK
    assert (hidden.sum(axis=2) == np.arange(6, 0, -1)[:, None]).all()
    assert (hidden[1:] <= hidden[:-1]).all()


@pytest.mark.parametrize("scopes", list(KNOWN))
def test_the_known_values_are_differences_of_subset_entropies(scopes: tuple[tuple[int, ...], ...]) -> None:
    """h_j = H_{j+1} - H_j, with no posterior at all."""
    curve = np.diff(subset_entropies(problem(scopes)))
    assert curve[::-1] / np.log(2) == pytest.approx(KNOWN[scopes], abs=1e-6)
    assert curve == pytest.approx(enumerated(problem(scopes)), abs=1e-12)


@pytest.mark.parametrize(("which", "counts"), COSTS)
def test_the_known_costs_are_those_of_the_curve(which: int, counts: tuple[int, ...]) -> None:
    scopes = list(KNOWN)[which]
    mean, known = subset_entropies(problem(scopes)), COSTS[which, counts] * np.log(2)
    before = np.cumsum((0, *counts[:-1]))
    assert np.array(counts) @ (mean[before + 1] - mean[before]) - mean[-1] == pytest.approx(known, abs=1e-9)
    assert counts_cost(enumerated(problem(scopes)), counts) == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize(("which", "best"), [(0, (4,)), (1, (4, 2)), (1, (3, 1, 2)), (2, (3, 2, 3)), (2, (3, 2, 2, 1))])
def test_the_best_counts_are_the_known_ones(which: int, best: tuple[int, ...]) -> None:
    curve = enumerated(problem(list(KNOWN)[which]))
    assert tuple(best_counts(curve, len(best))) == best
    assert all(
        COSTS[which, best] <= cost
        for (other, counts), cost in COSTS.items()
        if (other, len(counts)) == (which, len(best))
    )


def test_the_best_counts_are_best_of_all() -> None:
    curve = np.sort(np.random.default_rng(0).random(9))[::-1]
    for steps in range(1, 10):
        cuts = itertools.combinations(range(1, 9), steps - 1)
        every = [counts_cost(curve, np.diff([0, *cut, 9]).tolist()) for cut in cuts]
        assert counts_cost(curve, best_counts(curve, steps)) == pytest.approx(min(every), abs=1e-12)
    assert counts_cost(curve, [1] * 9) == pytest.approx(0, abs=1e-12)
    assert counts_cost(np.full(9, 0.3), [5, 4]) == pytest.approx(0, abs=1e-12)  # independent tokens


@pytest.mark.parametrize("counts", [(4,), (2, 2), (1, 3), (1, 1, 1, 1)])
def test_the_cost_is_the_divergence_of_the_sampler_given_its_order(counts: tuple[int, ...]) -> None:
    distribution = problem(((0, 1, 2),))
    rows, weights = joint_law(distribution)
    posterior, orders, total = BruteForcePosterior(distribution), list(itertools.permutations(range(4))), 0.0
    for order in orders:
        log_q, known = np.zeros(len(rows)), 0
        for count in counts:
            tokens = rows.copy()
            tokens[:, list(order[known:])] = MASK
            probs = posterior.marginals(tokens).probs
            for position in order[known : known + count]:
                log_q += np.log(probs[np.arange(len(rows)), position, rows[:, position]])
            known += count
        total += weights @ (np.log(weights) - log_q) / len(orders)
    assert counts_cost(enumerated(distribution), counts) == pytest.approx(total, abs=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_the_binomial_rule_costs_the_mean_over_its_counts(steps: int) -> None:
    curve, total = np.array([0.9, 0.7, 0.4, 0.1]), 0.0
    for counts in itertools.product(range(5), repeat=steps):
        if sum(counts) == 4:
            left = [4 - sum(counts[:i]) for i in range(steps)]
            p = np.prod(
                [binom.pmf(count, n, 1 / (steps - i)) for i, (count, n) in enumerate(zip(counts, left, strict=True))]
            )
            total += p * counts_cost(curve, [count for count in counts if count])
    assert binomial_cost(curve, steps) == pytest.approx(total, abs=1e-12)
    assert binomial_cost(curve, 1) == pytest.approx(counts_cost(curve, [4]))


def test_a_measured_cost_has_the_error_of_its_sequences() -> None:
    distribution = problem(((0, 1, 2), (1, 2, 3)))
    curve = information_curve(ExactPosterior(distribution), distribution, key=Key(6), n=50)
    sums = curve.cost([4, 2])
    assert sums.mean == pytest.approx(counts_cost(curve.nats, [4, 2]))
    assert sums.standard_error == pytest.approx(
        np.std([counts_cost(h, [4, 2]) for h in curve.values], ddof=1) / 50**0.5
    )


CURVES = [enumerated(problem(scopes)) for scopes in list(KNOWN)[:2]]
CURVES += [np.array(list(KNOWN.values())[2][::-1]) * np.log(2)]
CURVES += [np.repeat([1.0, 0.0], [1, 6]), np.repeat([1.0, 0.0], [6, 1]), np.full(5, 0.7)]  # copies, a parity, no order


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CURVES) | st.lists(st.floats(0, 1), min_size=1, max_size=12), st.data())
def test_no_cost_is_above_a_certificate(curve, data) -> None:
    h = np.sort(np.asarray(curve, float))[::-1] if isinstance(curve, list) else curve
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(h) - 1)))) if len(h) > 1 else [])
    counts = np.diff([0, *cuts, len(h)]).tolist()
    cost, bounds = counts_cost(h, counts), certificates(h, counts)
    assert cost <= min(bounds.values()) + 1e-9
    assert cost <= correlations(h)["TC"] + 1e-9  # one step


@pytest.mark.parametrize(
    ("length", "counts"), [(7, [7]), (7, [3, 4]), (8, [1, 2, 5]), (9, [4, 3, 1, 1]), (6, [2, 2, 2])]
)
def test_certificates_are_reached_by_some_curve_so_that_a_smaller_one_is_wrong(length: int, counts: list[int]) -> None:
    """Curves of one jump, after 1, 2, ... tokens, are the extreme ones of all that fall."""
    jumps = [np.repeat([1.0, 0.0], [m, length - m]) for m in range(1, length)]
    for name in ("TC", "DTC", "MI"):
        shares = [counts_cost(h, counts) / bound for h in jumps if (bound := certificates(h, counts)[name]) > 0]
        assert max(shares) == pytest.approx(1, abs=1e-12)
        assert max(shares) > 0.99  # a bound of 99 % of this one would be below a cost


def test_known_correlations() -> None:
    copies, parity = np.repeat([1.0, 0.0], [1, 6]), np.repeat([1.0, 0.0], [6, 1])
    assert correlations(copies) == {"TC": 6, "DTC": 1, "MI": 7}
    assert correlations(parity) == {"TC": 1, "DTC": 6, "MI": 7}
    for h in CURVES:
        assert correlations(h)["TC"] == pytest.approx(counts_cost(h, [len(h)]), abs=1e-12)
    assert certificates(parity, [4, 3])["MI, 2505.21400"] == certificates(parity, [4, 3])["MI"] == 3
    assert certificates(parity, [5, 2])["MI, 2505.21400"] == 7 > certificates(parity, [5, 2])["MI"] == 4


@pytest.mark.parametrize("known", ["TC", "DTC"])
def test_certified_counts_have_the_least_certificate(known: str) -> None:
    falling = np.linspace(1, 0, 8)
    for steps in range(1, 9):
        counts = certified_counts(8, steps, known)
        every = [np.diff([0, *cut, 8]).tolist() for n in range(steps) for cut in itertools.combinations(range(1, 8), n)]
        least = min(certificates(falling, one)[known] for one in every)
        assert sum(counts) == 8
        assert len(counts) <= steps
        assert certificates(falling, counts)[known] == pytest.approx(least, abs=1e-12)
    assert certified_counts(32, 4, "TC") == [21, 7, 3, 1]
    assert certified_counts(32, 4, "DTC") == [2, 4, 8, 18]
    with pytest.raises(ValueError, match="by TC or DTC, got 'MI'"):
        certified_counts(8, 2, "MI")
    with pytest.raises(ValueError, match="1 to 8 steps, got 9"):
        certified_counts(8, 9)


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"counts are positive and sum to L = 3, whole numbers; got \[1, 1\]"):
        counts_cost([1.0, 0.5, 0.2], [1, 1])
    with pytest.raises(ValueError, match=r"sum to L = 3, whole numbers; got \[1\.5, 1\.5\]"):
        counts_cost([1.0, 0.5, 0.2], [1.5, 1.5])
    with pytest.raises(ValueError, match="in 1 to 3 steps, got 4"):
        best_counts([1.0, 0.5, 0.2], 4)
    with pytest.raises(ValueError, match="a curve is float"):
        best_counts([1.0, np.nan], 1)
