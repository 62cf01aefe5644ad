"""How far one step of a corrector moves the law of the data: against loops over strings, and against what it draws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lo_theory.diffusion import Gibbs, Rehide, gibbs_sweep, moved_law
from lo_theory.posterior import ExactPosterior
from lo_theory.posterior.weak import Sharpened
from lo_theory.problem import MASK, LODistribution, nae_sat
from lo_theory.rng import Key
from lo_theory.testing import chi_square, joint_law
from tests.budget import accept, reject
from tests.diffusion.test_decode import frequencies, small_problem
from tests.diffusion.test_information import problem

KEY = Key(61)
TRIPLE = problem(((0, 1, 2),))
NOISY = nae_sat(3, 1, seed=0, noise=0.1)
ALL = [TRIPLE, NOISY, nae_sat(4, 4, seed=0, noise=0.1), nae_sat(5, 4, seed=1), small_problem()]


def by_loops(distribution: LODistribution, choose) -> tuple[dict, dict]:
    """The law of the data and what it becomes, string by string; ``choose(x, table)`` gives the chance of each subset."""
    rows, weights = joint_law(distribution)
    table = {tuple(map(int, row)): float(weight) for row, weight in zip(rows, weights, strict=True)}
    length, after = rows.shape[1], {}
    for x, p in table.items():
        for subset, chance in choose(x, table).items():
            fits = {y: q for y, q in table.items() if all(y[i] == x[i] for i in range(length) if i not in subset)}
            total, laws = sum(fits.values()), []
            for i in subset:
                law: dict[int, float] = {}
                for y, q in fits.items():
                    law[y[i]] = law.get(y[i], 0.0) + q / total
                laws.append(law.items())
            for drawn in itertools.product(*laws):
                y = list(x)
                for i, (value, _) in zip(subset, drawn, strict=True):
                    y[i] = value
                mass = p * chance * float(np.prod([q for _, q in drawn]))
                after[tuple(y)] = after.get(tuple(y), 0.0) + mass
    return table, after


def at_random(size: int):
    def choose(x, table):
        subsets = list(itertools.combinations(range(len(x)), size))
        return dict.fromkeys(subsets, 1 / len(subsets))

    return choose


def least_confident(x, table):
    alone = []
    for i in range(len(x)):
        same = [q for y, q in table.items() if all(y[j] == x[j] for j in range(len(x)) if j != i)]
        alone.append(round(table[x] / sum(same), 9))
    least = [i for i, one in enumerate(alone) if one == min(alone)]
    return {(i,): 1 / len(least) for i in least}


def hidden(sigma: float):
    def choose(x, table):
        every = (s for size in range(len(x) + 1) for s in itertools.combinations(range(len(x)), size))
        return {s: sigma ** len(s) * (1 - sigma) ** (len(x) - len(s)) for s in every}

    return choose


CASES = [
    (Gibbs(), at_random(1)),
    (Gibbs("random", 2), at_random(2)),
    (Gibbs("random", 3), at_random(3)),
    (Gibbs("least_confident"), least_confident),
    (Rehide(0.3), hidden(0.3)),
]


@pytest.mark.parametrize("distribution", [TRIPLE, NOISY], ids=["certain", "noisy"])
def test_the_law_moves_as_loops_over_all_strings_say(distribution) -> None:
    found = moved_law(distribution, [corrector for corrector, _ in CASES])
    for law, (_, choose) in zip(found, CASES, strict=True):
        before, after = by_loops(distribution, choose)
        for x in np.ndindex(*law.before.shape):
            assert law.before[x] == pytest.approx(before.get(x, 0.0), abs=1e-12)
            assert law.after[x] == pytest.approx(after.get(x, 0.0), abs=1e-12)
        distance = sum(abs(before.get(x, 0) - after.get(x, 0)) for x in {*before, *after}) / 2
        assert law.total_variation == pytest.approx(distance, abs=1e-12)
        kl = sum(p * np.log(p / after[x]) for x, p in before.items() if p)
        assert law.kl == pytest.approx(kl, abs=1e-12)


def test_known_distances_of_one_triple() -> None:
    """Eight strings; two of one triple at once: 2/3 of pairs have dependent values of the last observation."""
    one, two, three, whole = moved_law(TRIPLE, [Gibbs(), Gibbs("random", 2), Gibbs("random", 3), Rehide(1.0)])
    assert one.total_variation < 1e-12
    assert two.total_variation == pytest.approx(1 / 6, abs=1e-12)
    assert three.total_variation == pytest.approx(3 / 8, abs=1e-12)
    assert whole.total_variation == pytest.approx(3 / 8, abs=1e-12)
    assert whole.kl == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), abs=1e-12)  # total correlation


@pytest.mark.parametrize("distribution", ALL, ids=range(len(ALL)))
def test_only_one_at_a_time_at_random_keeps_the_law(distribution) -> None:
    sigmas = [Rehide(sigma) for sigma in (0.05, 0.2, 0.5, 1.0)]
    kept, *moved = moved_law(distribution, [Gibbs(), Gibbs("random", 2), Gibbs("random", 3), *sigmas])
    assert kept.total_variation < 1e-12
    assert kept.kl < 1e-12
    assert min(law.total_variation for law in moved) > 1e-3
    assert moved[0].total_variation < moved[1].total_variation  # more at once moves it more, and so does sigma
    assert (np.diff([law.total_variation for law in moved[2:]]) > 0).all()
    nothing, wrong = (
        moved_law(distribution, [Rehide(0.0)])[0],
        moved_law(distribution, [Gibbs()], posterior=Sharpened(ExactPosterior(distribution), 2.0))[0],
    )
    assert nothing.total_variation == 0
    noisy = distribution not in (ALL[0], ALL[3])
    assert (wrong.total_variation > 1e-3) == noisy  # a sharpened law of even odds and certainties is the same law


def test_the_least_confident_first_moves_the_law() -> None:
    """One triple without noise is an exception: each string has as many undecided positions as its neighbours."""
    assert moved_law(TRIPLE, [Gibbs("least_confident")])[0].total_variation < 1e-12
    for distribution, known in ((NOISY, 0.0675), (ALL[3], 0.03125)):
        assert moved_law(distribution, [Gibbs("least_confident")])[0].total_variation == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize(("positions", "at_once"), [("random", 1), ("random", 2), ("least_confident", 1)])
def test_what_a_sweep_draws_has_the_law(positions: str, at_once: int) -> None:
    strings = np.array(list(np.ndindex(2, 2, 2, 2)), np.int8)
    start = NOISY.sample(KEY, 40_000)
    drawn = gibbs_sweep(ExactPosterior(NOISY), start, positions=positions, at_once=at_once, key=KEY)
    others = [Gibbs(), Gibbs("random", 2), Gibbs("least_confident")]
    laws = {law.name: law.after.ravel() for law in moved_law(NOISY, others)}
    own, counts = laws.pop(Gibbs(positions, at_once).name), frequencies(strings, drawn)[0]
    accept("correctors", chi_square(counts, own))
    for wrong in laws.values():
        reject("correctors", chi_square(counts, wrong))
    assert ((start != drawn).sum(axis=1) <= at_once).all()


def test_hidden_positions_stay_hidden_and_short_rows_are_redrawn_whole() -> None:
    start = NOISY.sample(KEY, 400)
    start[:, :2] = MASK
    start[:200, 2] = MASK
    drawn = gibbs_sweep(ExactPosterior(NOISY), start, at_once=2, key=KEY)
    assert ((drawn == MASK) == (start == MASK)).all()
    again = gibbs_sweep(ExactPosterior(NOISY), start, at_once=2, key=KEY)
    assert np.array_equal(drawn, again)
    accept("correctors", chi_square(np.bincount(drawn[:200, 3]), NOISY.token_marginals[3]))


def test_bad_input_is_refused() -> None:
    class Half:
        name = "half"

        def chances(self, subsets, confidence):
            return np.full((len(confidence), len(subsets)), 0.5 / len(subsets))

    for call, words in (
        (lambda: Gibbs("confident"), "random or least_confident, got 'confident'"),
        (lambda: Gibbs("random", 0), "at least one position at once, got 0"),
        (lambda: Rehide(1.2), "sigma is a probability, got 1.2"),
        (lambda: moved_law(nae_sat(8, 12, seed=0), [Gibbs()]), "at most 2\\*\\*24"),
        (lambda: moved_law(TRIPLE, [Half()]), "half must give chances"),
        (lambda: moved_law(TRIPLE, ["gibbs"]), "a corrector must be a corrector, such as Gibbs"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
