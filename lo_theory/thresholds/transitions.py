"""Dynamic and condensation thresholds of a planted ensemble, from the curve c(overlap) of its population dynamics.

The fixed points of population dynamics form a curve c(overlap). It starts at the Kesten-Stigum degree at overlap 0.
Where it bends back to smaller degrees, a planted state exists below Kesten-Stigum: its lowest degree is the *dynamic*
threshold, and where the free entropy of its upper branch crosses that of the paramagnet is *condensation*. Where it
never goes below Kesten-Stigum, all three coincide and the transition is continuous. Holding the overlap makes this a
question about a smooth curve, with error bars, instead of a search for the last degree at which a population happened
to survive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from lo_theory.problem.seams import checked
from lo_theory.rng import Key
from lo_theory.thresholds.ensemble import PlantedEnsemble
from lo_theory.thresholds.kesten_stigum import kesten_stigum
from lo_theory.thresholds.population import Dynamics, check_population
from lo_theory.thresholds.runs import run_at_degree, run_at_overlap
from lo_theory.thresholds.units import Threshold

__all__ = ["Curve", "Effort", "Transition", "find_transition", "overlap_curve"]

_SIGNIFICANT = 4.0  # standard errors by which a curve must fall below Kesten-Stigum to count as bending back
_WEAK_OVERLAPS = (0.02, 0.04, 0.06, 0.09, 0.12, 0.16, 0.2)
_REPLICAS = 8  # independent populations at the condensation threshold
_POINTS = 9  # of the curve around its minimum
_MORE = 4.0  # times the factor messages for a second look at a minimum that the first does not tell from Kesten-Stigum
_DECIDED = 0.02  # a dip of this share of Kesten-Stigum that is not excluded leaves the kind of transition open


@checked
@dataclass(frozen=True)
class Effort:
    """How much to compute: population ``size``, and factor messages spent on each of the three stages.

    The cost is about 60 ns a factor message on one core. Errors fall as the square root of the messages; the bias of a
    finite population falls as 1/size.
    """

    size: int = 10_000
    scan: float = 1e8
    dynamic: float = 3e8
    condensation: float = 4e8
    threads: int = 1

    def __post_init__(self) -> None:
        check_population(self.size)
        for name, spent in (("scan", self.scan), ("dynamic", self.dynamic), ("condensation", self.condensation)):
            if not spent > 0:
                raise ValueError(f"the factor messages spent on {name} must be positive, got {spent}")

    @classmethod
    @checked
    def of(cls, messages: float, *, most: int = 2**63, threads: int = 1) -> Effort:
        """Spread ``messages`` factor messages over the stages, with a population of 1,000 to ``most`` that fits them.

        ``Effort()`` is ``Effort.of(8e8)``, about a minute; ``Effort.of(2e7)`` takes seconds, with errors near 1 %.
        """
        if not 0 < messages < math.inf:
            raise ValueError(f"messages must be a number above 0, got {messages}")
        size = min(max(round(10_000 * math.sqrt(messages / 8e8)), 1000), most)
        return cls(size, 0.125 * messages, 0.375 * messages, 0.5 * messages, threads)

    def sweeps(self, spent: float, runs: int, c: float, fewest: int = 12) -> int:
        """Sweeps a run may take where ``runs`` runs at degree c share ``spent`` factor messages."""
        return max(fewest, round(spent / (runs * self.size * max(1.0, c))))


@dataclass(frozen=True, eq=False)
class Curve:
    """Fixed points by overlap (ascending): c, its standard error, excess free entropy, and its slope in c."""

    overlap: NDArray[np.float64]
    c: NDArray[np.float64]
    error: NDArray[np.float64]
    excess: NDArray[np.float64]
    slope: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Transition:
    """The three thresholds of an ensemble, how the overlap sets in, and the curve they were read from.

    ``continuous``: dynamic = condensation = Kesten-Stigum. ``resolution`` is then the largest relative dip of the curve
    below Kesten-Stigum that the errors (95 %) do not exclude. ``overlap`` is the overlap at the dynamic threshold (0 if
    continuous).
    """

    name: str
    kesten_stigum: Threshold
    dynamic: Threshold
    condensation: Threshold
    continuous: bool
    overlap: float
    resolution: float
    curve: Curve

    @property
    def decided(self) -> bool:
        """Whether "continuous" means more than that nothing was resolved: dips of over 2 % of c are excluded."""
        return not self.continuous or self.resolution <= _DECIDED

    @property
    def statement(self) -> str:
        """The result in words."""
        if not self.decided:
            return (
                f"{self.name}: not decided at this effort: no planted state below Kesten-Stigum ({self.kesten_stigum}) "
                f"is resolved, and one up to {100 * self.resolution:.1f} % below is not excluded"
            )
        if self.continuous:
            return (
                f"{self.name}: continuous transition, dynamic = condensation = KS: {self.kesten_stigum} "
                f"(a planted state more than {100 * self.resolution:.2f} % below KS is excluded)"
            )
        return (
            f"{self.name}: dynamic {self.dynamic}; condensation {self.condensation}; Kesten-Stigum {self.kesten_stigum}"
        )


def _standard_error(values: NDArray[np.float64], blocks: int = 8) -> float:
    """Standard error of the mean of a correlated series, from the scatter of block means."""
    means = np.array([block.mean() for block in np.array_split(values, min(blocks, len(values)))])
    return float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.inf


@checked
def overlap_curve(
    dynamics: Dynamics, overlaps: NDArray[np.float64], c: float, key: Key, *, sweeps: int, discard: int
) -> Curve:
    """Follow the fixed points through the given overlaps, in the order given, starting near degree c.

    Each point starts from the messages of the one before. Without side information the curve is left where its degree
    has risen to 1.6 times its minimum, on the way down (parities: c goes to infinity as the overlap vanishes); with it
    the curve turns back and is followed to its end.
    """
    messages = dynamics.planted(float(overlaps[0]))
    rows: list[tuple[float, float, float, float, float]] = []
    may_end = dynamics.rate == 0 and len(overlaps) > 1 and overlaps[-1] < overlaps[0]
    for overlap in overlaps:
        here = key.fold(f"{overlap:.12g}")
        first = discard if rows else 3 * discard
        series = run_at_overlap(dynamics, float(overlap), c, messages, here, sweeps=sweeps, discard=first)
        messages, c = series.messages, float(series.c.mean())
        averages = float(series.excess.mean()), float(series.slope.mean())
        rows.append((float(overlap), c, _standard_error(series.c), *averages))
        lowest = min(range(len(rows)), key=lambda row: rows[row][1])
        if may_end and lowest < len(rows) - 2 and c > 1.6 * rows[lowest][1]:
            break
    ordered = np.array(sorted(rows))
    return Curve(*ordered.T)


def _scan_grid() -> NDArray[np.float64]:
    return np.concatenate([[0.98, 0.96, 0.93], np.arange(0.90, 0.12, -0.05), [0.1, 0.06, 0.03]])


def _minimum(curve: Curve, degree: int) -> tuple[float, float, float]:
    """Minimum of a polynomial in -ln(1 - overlap) fitted to c: (c, its standard error, overlap).

    In that variable the divergence of c at overlap 1 is a straight line.
    """
    depth = -np.log1p(-curve.overlap)
    centre, width = depth.mean(), np.ptp(depth) / 2
    x = (depth - centre) / width
    # One relative error for all points: that of each, from a few blocks, is too uncertain for a weight.
    errors = curve.c * math.sqrt(float(np.mean((curve.error / curve.c) ** 2)))
    design = np.vander(x, degree + 1, increasing=True) / errors[:, None]
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ design.T @ (curve.c / errors)
    freedom = len(x) - degree - 1
    misfit = float(((design @ coefficients - curve.c / errors) ** 2).sum()) / freedom if freedom > 0 else 1.0
    fine = np.linspace(x.min(), x.max(), 2001)
    powers = np.vander(fine, degree + 1, increasing=True)
    lowest = int(np.argmin(powers @ coefficients))
    variance = float(powers[lowest] @ inverse @ powers[lowest]) * max(1.0, misfit)
    return float(powers[lowest] @ coefficients), math.sqrt(variance), float(-np.expm1(-centre - width * fine[lowest]))


def _refine_minimum(dynamics: Dynamics, curve: Curve, effort: Effort, key: Key) -> tuple[Threshold, float]:
    """The dynamic threshold and the overlap there: minimum of a quartic fitted around that of a scanned curve."""
    overlap, c = float(curve.overlap[int(np.argmin(curve.c))]), float(curve.c.min())
    error = math.inf
    for stage, share in enumerate((0.25, 0.75)):
        width = min(0.11, 0.5 * (1 - overlap), 0.5 * overlap)
        grid = overlap + width * np.linspace(1, -1, _POINTS)
        sweeps = effort.sweeps(effort.dynamic * share, _POINTS, c)
        refined = overlap_curve(dynamics, grid, c, key.fold(stage), sweeps=sweeps, discard=max(20, sweeps // 10))
        c, error, overlap = _minimum(refined, 4)
    return Threshold(c, dynamics.ensemble.k, 2 * error), overlap


def _newton(dynamics: Dynamics, c: float, overlap: float, key: Key, sweeps: int) -> tuple[float, float]:
    """One step towards excess = 0 from a planted population at degree c: (new degree, overlap there)."""
    held = run_at_overlap(dynamics, overlap, c, dynamics.planted(overlap), key.fold("start"), sweeps=1, discard=30)
    series = run_at_degree(dynamics, c, held.messages, key.fold("run"), sweeps=sweeps, discard=40)
    return c - float(series.excess.mean() / series.slope.mean()), float(series.overlap.mean())


def _condensation(dynamics: Dynamics, curve: Curve, dynamic: float, effort: Effort, key: Key) -> Threshold:
    """The degree at which the excess free entropy of the planted state crosses zero.

    A straight line through zero whose slope is the exact derivative E ln Z_a / k, from independent replicas close to
    the crossing (so close that its curvature does not matter); the error is their scatter.
    """
    upper = curve.overlap > curve.overlap[int(np.argmin(curve.c))]
    if not upper.any():
        raise ValueError(
            f"{dynamics.ensemble.name}: the curve c(overlap) still falls at overlap {curve.overlap[-1]:.2f}, the "
            "highest that is scanned: the planted state lies beyond, and its condensation cannot be resolved"
        )
    c = float(np.interp(0.0, curve.excess[upper], curve.c[upper]))
    overlap = float(np.interp(c, curve.c[upper], curve.overlap[upper]))
    for stage in range(2):
        sweeps = effort.sweeps(effort.condensation * 0.1, 1, c)
        step, overlap = _newton(dynamics, c, overlap, key.fold("approach").fold(stage), sweeps)
        c = max(step, dynamic + 0.25 * (c - dynamic))
    spread = min(0.002 * c, 0.2 * (c - dynamic))
    sweeps = effort.sweeps(effort.condensation * 0.8, _REPLICAS, c)
    offsets = np.tile([-1.0, 1.0], _REPLICAS // 2) * spread
    replicas = [key.fold("replica").fold(r) for r in range(_REPLICAS)]
    crossings = np.array(
        [_newton(dynamics, c + o, overlap, k, sweeps)[0] for o, k in zip(offsets, replicas, strict=True)]
    )
    half_width = float(student.ppf(0.975, _REPLICAS - 1) * crossings.std(ddof=1) / math.sqrt(_REPLICAS))
    return Threshold(float(crossings.mean()), dynamics.ensemble.k, half_width)


def _first_degree(ensemble: PlantedEnsemble, critical: Threshold) -> float:
    """A degree at which the planted state surely exists; from a lower one the scan would run away from it for noise."""
    if math.isinf(critical.value):
        return max(2.0 * ensemble.k, 1.5 * ensemble.first_moment)
    return min(1.5 * critical.value, max(2.0 * ensemble.k, 4 * ensemble.first_moment))


@checked
def find_transition(
    ensemble: PlantedEnsemble,
    key: Key,
    effort: Effort | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> Transition:
    """Find the Kesten-Stigum, dynamic and condensation thresholds of a planted ensemble.

    The curve c(overlap) is scanned, refined at its minimum, and compared with Kesten-Stigum; a dip of at least four
    standard errors makes the transition discontinuous, and one that is smaller is looked at again with four times the
    messages. ``progress`` is called with a line when a stage begins. Cost: the factor messages of ``effort``, some 60
    ns each (``Effort.of(2e7)`` for a first look). The same key gives the same numbers for any number of threads.
    Not promised: a planted state whose overlap stays below 0.02 is not seen; ValueError for one whose overlap stays
    above 0.98.
    """
    effort, say = effort or Effort(), progress or (lambda text: None)
    say(f"{ensemble.name}: scan of the curve c(overlap), {effort.scan:.3g} factor messages")
    dynamics = Dynamics(ensemble, effort.size, threads=effort.threads)
    scanner = Dynamics(ensemble, max(2_000, effort.size // 4), threads=effort.threads)
    critical = kesten_stigum(ensemble)
    start = _first_degree(ensemble, critical)
    grid = _scan_grid()
    sweeps = 4 * effort.sweeps(effort.scan, 2 * len(grid), start, fewest=5)
    curve = overlap_curve(scanner, grid, start, key.fold("scan"), sweeps=sweeps, discard=max(16, sweeps // 2))
    lowest = int(np.argmin(curve.c))
    if math.isfinite(critical.value) and curve.overlap[lowest] <= max(_WEAK_OVERLAPS):
        strong = curve.overlap > max(_WEAK_OVERLAPS)
        least = float((curve.c - 2 * curve.error)[strong].min(initial=math.inf))
        say(f"{ensemble.name}: long runs at weak overlaps, {effort.dynamic:.3g} factor messages")
        return _weak_transition(dynamics, curve, critical, effort, key, least)
    for name, times in (("dynamic", 1.0), ("dynamic again", _MORE)):
        spent = replace(effort, dynamic=times * effort.dynamic)
        say(f"{ensemble.name}: {name} threshold, {spent.dynamic:.3g} factor messages")
        dynamic, overlap = _refine_minimum(dynamics, curve, spent, key.fold(name))
        if dynamic.value + 0.5 * _SIGNIFICANT * dynamic.error < critical.value:
            say(f"{ensemble.name}: condensation, {effort.condensation:.3g} factor messages")
            condensation = _condensation(dynamics, curve, dynamic.value, effort, key.fold("condensation"))
            return Transition(ensemble.name, critical, dynamic, condensation, False, overlap, 0.0, curve)
        if dynamic.value >= critical.value:
            break
    say(f"{ensemble.name}: long runs at weak overlaps, {effort.dynamic:.3g} factor messages")
    return _weak_transition(dynamics, curve, critical, effort, key, dynamic.value - dynamic.error)


def _weak_minimum(curve: Curve, critical: float) -> tuple[float, float, float]:
    """Minimum of c = c_KS + a m + b m**2 + d m**3 fitted at weak overlaps m: (c, its standard error, overlap)."""
    errors = curve.c * math.sqrt(float(np.mean((curve.error / curve.c) ** 2)))
    design = np.stack([curve.overlap, curve.overlap**2, curve.overlap**3], axis=1)
    inverse = np.linalg.inv((design / errors[:, None] ** 2).T @ design)
    coefficients = inverse @ (design / errors[:, None] ** 2).T @ (curve.c - critical)
    fine = np.linspace(0, curve.overlap.max(), 2001)
    powers = np.stack([fine, fine**2, fine**3], axis=1)
    lowest = int(np.argmin(powers @ coefficients))
    variance = float(powers[lowest] @ inverse @ powers[lowest])
    return critical + float(powers[lowest] @ coefficients), math.sqrt(variance), float(fine[lowest])


def _weak_transition(
    dynamics: Dynamics, curve: Curve, critical: Threshold, effort: Effort, key: Key, least: float
) -> Transition:
    """Decide between a continuous transition and a dip at small overlap, from long runs at weak overlaps.

    ``least``: the lowest degree that the errors leave to a planted state at larger overlaps.
    """
    grid, name, k = np.array(_WEAK_OVERLAPS)[::-1], dynamics.ensemble.name, critical.k
    # Weak messages feel the size of the population most.
    large = Dynamics(dynamics.ensemble, 4 * effort.size, threads=effort.threads)
    sweeps = max(12, effort.sweeps(effort.dynamic, len(grid), critical.value) // 4)
    weak = overlap_curve(large, grid, critical.value, key.fold("weak"), sweeps=sweeps, discard=30)
    depth, error = (critical.value - weak.c) / critical.value, weak.error / critical.value
    c, spread, overlap = _weak_minimum(weak, critical.value)
    if c + _SIGNIFICANT * spread < critical.value and (depth > 2 * error).any():
        # With c = c_KS - a m + b m**2 and E ln Z_a ~ m**2, equal areas put the crossing a ninth of the way up.
        rise = (critical.value - c) / 9
        dynamic, condensation = Threshold(c, k, 2 * spread), Threshold(c + rise, k, 2 * spread + rise)
        return Transition(name, critical, dynamic, condensation, False, overlap, 0.0, weak)
    deepest = max(float((depth + 2 * error).max()), (critical.value - min(c - 2 * spread, least)) / critical.value)
    resolution = max(0.0, deepest)
    return Transition(name, critical, critical, critical, True, 0.0, resolution, curve)
