"""Revealed latents beside the revealed observations: does a hard phase survive?

With a share ``rate`` of latents revealed the paramagnet is no fixed point any more: an uninformed start always learns
something. The hard phase is then a range of degrees at which two stable fixed points coexist, the one reached from an
uninformed start and the one reached from the planted state, that is, a fold of the curve c(overlap). Above a critical
rate the curve is monotone and belief propagation reaches the best overlap at every degree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lo_theory.problem.seams import checked
from lo_theory.rng import Key
from lo_theory.thresholds.ensemble import PlantedEnsemble
from lo_theory.thresholds.population import Dynamics
from lo_theory.thresholds.runs import run_at_degree
from lo_theory.thresholds.transitions import Curve, Effort, overlap_curve
from lo_theory.thresholds.units import Threshold

__all__ = ["Fold", "Starts", "compare_starts", "find_fold"]

_SIGNIFICANT = 4.0
_WEAK_OVERLAPS = (0.06, 0.05, 0.04, 0.03, 0.02, 0.015, 0.01)  # where the folds of nearly continuous transitions lie


@dataclass(frozen=True)
class Starts:
    """What population dynamics reaches at one degree from the two starts, averages over the measured sweeps.

    ``planted`` and ``uninformed`` are overlaps of the latents that are not revealed, ``advantage`` the free entropy of
    the planted state minus that of the uninformed one (positive: it is the one that dominates), each with its standard
    error.
    """

    planted: tuple[float, float]
    uninformed: tuple[float, float]
    advantage: tuple[float, float]

    @property
    def coexist(self) -> bool:
        """Whether the two starts end in different states, by more than five standard errors and 0.02."""
        gap = self.planted[0] - self.uninformed[0]
        return gap > 0.02 and gap > 5 * math.hypot(self.planted[1], self.uninformed[1])


def _mean(values: np.ndarray) -> tuple[float, float]:
    blocks = np.array([block.mean() for block in np.array_split(values, min(8, len(values)))])
    return float(values.mean()), float(blocks.std(ddof=1) / math.sqrt(len(blocks))) if len(blocks) > 1 else math.inf


@checked
def compare_starts(
    ensemble: PlantedEnsemble,
    c: float,
    key: Key,
    *,
    rate: float = 0.0,
    size: int = 10_000,
    sweeps: int = 100,
    discard: int = 200,
) -> Starts:
    """Run population dynamics at degree c from the planted and from the uninformed start.

    A share ``rate`` of the latents is revealed. Without any the uninformed start gets a weak signal (overlap near 1e-3)
    in place of none. Near a fold the relaxation takes hundreds of sweeps: what is still moving after ``discard`` sweeps
    is reported at its present place.
    """
    dynamics = Dynamics(ensemble, size, rate=rate)
    weak = dynamics.uniform() if rate > 0 else dynamics.planted(1e-3)
    runs = [
        run_at_degree(dynamics, c, messages, key.fold(name), sweeps=sweeps, discard=discard)
        for name, messages in (("planted", dynamics.planted()), ("uninformed", weak))
    ]
    return Starts(_mean(runs[0].overlap), _mean(runs[1].overlap), _mean(runs[0].excess - runs[1].excess))


@dataclass(frozen=True, eq=False)
class Fold:
    """The hard phase at a rate of revealed latents: the fold of the curve c(overlap), if there is one.

    Between ``dynamic`` and ``spinodal`` two states coexist; from ``crossing`` on the planted one dominates, so recovery
    is possible but hard between ``crossing`` and ``spinodal``; both are None where the curve still rises at overlap
    0.01, the weakest that is followed. All three are None where the curve is monotone within its errors; ``resolution``
    is then the largest relative fold that the errors (95 %) do not exclude.
    """

    rate: float
    survives: bool
    dynamic: Threshold | None
    crossing: Threshold | None
    spinodal: Threshold | None
    resolution: float
    curve: Curve


def _equal_area(curve: Curve, top: int, bottom: int) -> float:
    """Degree at which the two stable branches have equal free entropy, from its derivative in c along the curve."""
    steps = 0.5 * (curve.slope[1:] + curve.slope[:-1]) * np.diff(curve.c)
    free = np.concatenate([[0.0], np.cumsum(steps)])
    trial = np.linspace(curve.c[bottom], curve.c[top], 400)
    lower = np.interp(trial, np.maximum.accumulate(curve.c[: top + 1]), free[: top + 1])
    upper = np.interp(trial, np.maximum.accumulate(curve.c[bottom:]), free[bottom:])
    return float(trial[int(np.argmin(np.abs(upper - lower)))])


@checked
def find_fold(ensemble: PlantedEnsemble, rate: float, key: Key, effort: Effort | None = None) -> Fold:
    """Follow c(overlap) of the unrevealed latents at a rate in (0, 1) of revealed ones and report its fold.

    A local maximum (the spinodal of the uninformed state) followed by a lower minimum (the dynamic threshold of the
    planted one) by more than four standard errors is a hard phase. The errors of the thresholds include half the
    spacing of the curve's points (0.03 in overlap, 0.02 below 0.3, finer below 0.06, none below 0.01); a fold between
    two neighbouring points is not seen. Cost: ``effort.dynamic`` factor messages.
    """
    if not 0 < rate < 1:
        raise ValueError(f"the rate of revealed latents lies in (0, 1), got {rate}; without any, use find_transition")
    effort = effort or Effort()
    dynamics = Dynamics(ensemble, effort.size, rate=rate, threads=effort.threads)
    grid = np.concatenate([np.arange(0.96, 0.3, -0.03), np.arange(0.3, 0.06, -0.02), _WEAK_OVERLAPS])
    c = 2.0 * ensemble.k
    sweeps = effort.sweeps(effort.dynamic, len(grid), 2 * c)
    curve = overlap_curve(dynamics, grid, c, key, sweeps=sweeps, discard=max(30, sweeps // 4))
    # How far the curve falls from each point to each later one.
    fall = np.where(np.triu(np.ones((len(curve.c),) * 2), 1) > 0, curve.c[:, None] - curve.c[None, :], -np.inf)
    error = np.hypot(curve.error[:, None], curve.error[None, :])
    top, bottom = (int(at) for at in np.unravel_index(int(np.argmax(fall - _SIGNIFICANT * error)), fall.shape))
    if fall[top, bottom] <= _SIGNIFICANT * error[top, bottom]:
        resolution = float(max(0.0, ((fall + 2 * error) / curve.c[:, None]).max()))
        return Fold(rate, False, None, None, None, resolution, curve)

    open_ended = top == 0  # the curve still rises at its weakest overlap: the uninformed state lives on

    def threshold(value: float, at: int) -> Threshold:
        neighbours = curve.c[max(0, at - 1) : at + 2]
        return Threshold(value, ensemble.k, 2 * float(curve.error[at]) + 0.5 * float(np.ptp(neighbours)))

    dynamic = threshold(float(curve.c[bottom]), bottom)
    if open_ended:
        return Fold(rate, True, dynamic, None, None, 0.0, curve)
    crossing = threshold(_equal_area(curve, top, bottom), bottom)
    return Fold(rate, True, dynamic, crossing, threshold(float(curve.c[top]), top), 0.0, curve)
