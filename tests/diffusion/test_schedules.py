"""Schedules that follow a curve or given counts: their limits, and that a decode with them reveals everything."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lo_theory.cli import main
from lo_theory.diffusion import (
    BinomialRule,
    Counts,
    FixedCount,
    RandomSizes,
    RevealCurve,
    counts_cost,
    decode,
    first_hitting_times,
    random_sizes_cost,
    random_sizes_factor,
    schedule_counts,
    vanilla,
)
from lo_theory.lab.settings import schedule as named
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import nae_sat
from lo_theory.rng import Key
from lo_theory.testing import chi_square
from tests.budget import accept, reject


@pytest.mark.parametrize("length", [1, 2, 7, 32, 300])
@pytest.mark.parametrize("steps", [1, 2, 5, 32, 400])
@pytest.mark.parametrize(("form", "a", "b"), [("cosine", 1, 1), ("beta", 1, 1), ("beta", 8, 0.125), ("beta", 0.125, 8)])
def test_every_step_reveals_something_and_all_of_them_everything(length, steps, form, a, b) -> None:
    schedule = RevealCurve(steps, form, float(a), float(b))
    counts = schedule_counts(schedule, length, Key(0))
    assert sum(counts) == length
    assert len(counts) == schedule.steps(length) == min(steps, length)
    assert min(counts) >= 1


def test_known_curves() -> None:
    equal = schedule_counts(RevealCurve(10, "beta", 0.5, 0.5), 1000, Key(0))
    assert equal == [100] * 10 == schedule_counts(FixedCount(10), 1000, Key(0))
    squared = np.cumsum(schedule_counts(RevealCurve(10), 1000, Key(0)))
    assert squared == pytest.approx([1000 * math.sin(math.pi / 20 * t) ** 2 for t in range(1, 11)], abs=2)
    cosine = np.cumsum(schedule_counts(RevealCurve(10, "cosine"), 1000, Key(0)))
    assert cosine == pytest.approx([1000 * (1 - math.cos(math.pi / 20 * t)) for t in range(1, 11)], abs=2)
    assert abs(squared - cosine).max() > 50  # the two are told apart


def test_counts_are_what_was_given() -> None:
    schedule = Counts((3, 1, 2))
    assert schedule.name == "counts(3,1,2)"
    assert schedule_counts(schedule, 6, Key(0)) == [3, 1, 2]
    assert schedule_counts(schedule, 9, Key(0)) == [3, 1, 5]
    assert schedule_counts(schedule, 4, Key(0)) == [3, 1]
    assert schedule.steps(4) == 2


@pytest.mark.parametrize("schedule", [Counts((7, 4, 6, 15)), RevealCurve(5), RevealCurve(40, "cosine"), RandomSizes(5)])
def test_a_decode_reveals_everything(schedule) -> None:
    problem = nae_sat(8, 24, seed=0)
    generated = decode(ExactPosterior(problem), vanilla(), schedule, key=Key(1), n=20)
    assert (generated.tokens >= 0).all()


def law_of_counts(length: int, steps: int) -> dict[tuple[int, ...], float]:
    """The law of the counts of random sizes, from linear equations: each h_0 - h_j weighs the same in the mean cost."""
    if steps == 1 or length <= 1:
        return {(length,) if length else (): 1.0}
    rests = [law_of_counts(length - size, steps - 1) for size in range(1, length)]
    weights = np.zeros((length, length - 1))  # of -h_j, by the size of the first step
    for size, rest in enumerate(rests, 1):
        for counts, chance in rest.items():
            every = (size, *counts)
            weights[np.cumsum([0, *every[:-1]]), size - 1] -= chance * np.array(every)
            weights[:, size - 1] += chance
    system = np.zeros((length, length))  # sizes 1 .. length - 1, and the weight that all j > 0 have
    system[:-1, :-1], system[:-1, -1], system[-1, :-1] = weights[1:], -1.0, 1.0
    sizes = np.linalg.lstsq(system, np.append(np.zeros(length - 1), 1.0), rcond=None)[0][:-1]
    law: dict[tuple[int, ...], float] = {}
    for size, (rest, chance) in enumerate(zip(rests, sizes, strict=True), 1):
        for counts, p in rest.items():
            law[size, *counts] = law.get((size, *counts), 0.0) + chance * p
    return law


@pytest.mark.parametrize(("length", "steps"), [(4, 2), (6, 2), (6, 3), (7, 4), (5, 5)])
def test_random_sizes_cost_a_share_of_the_total_correlation_for_every_curve(length: int, steps: int) -> None:
    law = law_of_counts(length, steps)
    assert min(law.values()) > -1e-12
    assert sum(law.values()) == pytest.approx(1, abs=1e-12)
    for seed in range(4):
        curve = np.random.default_rng(seed).random(length)
        mean = sum(chance * counts_cost(curve, counts) for counts, chance in law.items())
        assert random_sizes_cost(curve, steps) == pytest.approx(mean, abs=1e-12)
        assert mean == pytest.approx(random_sizes_factor(length, steps) * (curve[0] - curve).sum(), abs=1e-12)


def test_random_sizes_have_that_law() -> None:
    n, length, steps = 60_000, 6, 3
    masked, schedule = np.ones((n, length), bool), RandomSizes(steps)
    found = np.zeros((n, steps), np.int64)
    for step in range(steps):
        found[:, step] = schedule.budget(step, masked, Key(7).fold(step), 0)
        masked = np.arange(length) >= found[:, : step + 1].sum(axis=1)[:, None]
    assert (found.sum(axis=1) == length).all()
    law = {(*counts, *(0,) * (steps - len(counts))): chance for counts, chance in law_of_counts(length, steps).items()}
    law = {counts: chance for counts, chance in law.items() if chance > 1e-9}
    seen = [int((found == counts).all(axis=1).sum()) for counts in law]
    assert sum(seen) == n
    accept("random sizes", chi_square(seen, list(law.values())))
    reject("random sizes", chi_square(seen, np.full(len(law), 1 / len(law))))
    part = schedule.budget(1, np.ones((10, length), bool), Key(7).fold(1), 5)
    assert np.array_equal(part[5:], schedule.budget(1, np.ones((5, length), bool), Key(7).fold(1), 10))


def test_known_factors_of_random_sizes() -> None:
    """Two steps: 1 - 1/(1 + 1/2 + ... + 1/(L-1)); the factor falls as ln L/steps."""
    for length in (3, 8, 100):
        harmonic = sum(1 / k for k in range(1, length))
        assert random_sizes_factor(length, 2) == pytest.approx(1 - 1 / harmonic, abs=1e-12)
        assert random_sizes_factor(length, 1) == 1
        assert random_sizes_factor(length, length) == 0
        for steps in range(1, length):
            assert 0 < random_sizes_factor(length, steps) <= (1 + math.log(length)) / steps


def test_first_hitting_times_in_equal_intervals_are_the_binomial_rule() -> None:
    n, hidden, steps = 40_000, 5, 3
    times = first_hitting_times(Key(8), n, hidden)
    assert (np.diff(times, axis=1) < 0).all()
    assert ((times > 0) & (times <= 1)).all()
    assert np.array_equal(first_hitting_times(Key(8), 4, hidden, start=3), times[3:7])
    first = (times > 2 / 3).sum(axis=1)
    second = (times > 1 / 3).sum(axis=1) - first
    rule, masked, drawn = BinomialRule(steps), np.ones((n, hidden), bool), []
    for step in range(2):
        drawn.append(rule.budget(step, masked, Key(9).fold(step), 0))
        masked = np.arange(hidden) >= sum(drawn)[:, None]
    cells = {(i, j): 0.0 for i in range(hidden + 1) for j in range(hidden + 1 - i)}
    for i, j in cells:
        ways = math.factorial(hidden) / (math.factorial(i) * math.factorial(j) * math.factorial(hidden - i - j))
        cells[i, j] = ways / steps**hidden
    for one, two in ((first, second), drawn):
        accept("first hitting", chi_square([int(((one == i) & (two == j)).sum()) for i, j in cells], [*cells.values()]))
    uniform = np.sort(np.random.default_rng(0).random((n, hidden)) ** 1.1)  # as if one mask were lifted too early
    first = (uniform > 2 / 3).sum(axis=1)
    second = (uniform > 1 / 3).sum(axis=1) - first
    counts = [int(((first == i) & (second == j)).sum()) for i, j in cells]
    reject("first hitting", chi_square(counts, [*cells.values()]))


def test_experiment_files_name_schedules() -> None:
    assert named("random_sizes", 5) == RandomSizes(5)
    assert named("beta(2,1)", 4) == RevealCurve(4, "beta", 2, 1)
    with pytest.raises(ValueError, match="the closest is random_sizes"):
        named("random_size", 5)
    with pytest.raises(ValueError, match="random_sizes takes no numbers"):
        named("random_sizes(2)", 5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomSizes(0), "at least one step, got 0"),
        (lambda: first_hitting_times(Key(0), 1, -1), "not negative, got 1 and -1"),
        (lambda: Counts(()), "counts are positive"),
        (lambda: Counts((2, 0)), r"got \[2, 0\]"),
        (lambda: Counts((1.5,)), r"positive whole numbers of positions, one a step, got \[1\.5\]"),
        (lambda: random_sizes_factor(-3, 2), "at least one token, got length = -3"),
        (lambda: schedule_counts(FixedCount(2), -1, Key(0)), "hidden positions is not negative, got -1"),
        (lambda: RevealCurve(0), "at least one step, got 0"),
        (lambda: RevealCurve(3, "beta", 0.0), "positive numbers, got 0.0"),
        (lambda: RevealCurve(3, "sine"), "beta or cosine|form"),
    ],
)
def test_bad_schedules_are_refused(make, words) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_the_command_prints_the_best_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "nae-sat", "--N", "4", "--P", "6", "--steps", "3", "-n", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()[3:]
    assert lines[0].startswith("best ")
    costs = [float(line.split("±")[0].split()[-1]) for line in lines[:5]]
    assert costs == sorted(costs)
    assert "2.773 in closed form" in lines[-1]
    assert main(["schedule", "nae-sat", "--N", "4", "--P", "6", "--steps", "11"]) == 2
    assert "--steps lies between 1 and L = 10, got 11" in capsys.readouterr().err
