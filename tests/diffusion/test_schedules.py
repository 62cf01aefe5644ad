"""Schedules that follow a curve or given counts: their limits, and that a decode with them reveals everything."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lo_theory.cli import main
from lo_theory.diffusion import Counts, FixedCount, RevealCurve, decode, schedule_counts, vanilla
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import nae_sat
from lo_theory.rng import Key


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


@pytest.mark.parametrize("schedule", [Counts((7, 4, 6, 15)), RevealCurve(5), RevealCurve(40, "cosine")])
def test_a_decode_reveals_everything(schedule) -> None:
    problem = nae_sat(8, 24, seed=0)
    generated = decode(ExactPosterior(problem), vanilla(), schedule, key=Key(1), n=20)
    assert (generated.tokens >= 0).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Counts(()), "counts are positive"),
        (lambda: Counts((2, 0)), r"got \[2, 0\]"),
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
