"""What ``lo-theory thresholds`` was asked, checked before anything is computed, and the computing itself.

Reads the table named, prints nothing. Everything that can be refused is refused in ``make_request``.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lo_theory.cli.threshold_laws import make_ensemble
from lo_theory.problem.seams import check_threads
from lo_theory.rng import Key
from lo_theory.thresholds import (
    Dynamics,
    Effort,
    Fold,
    MaskWindow,
    PlantedEnsemble,
    Threshold,
    Transition,
    all_subsets_window,
    find_fold,
    find_transition,
    kesten_stigum,
    observations_window,
    parity_window,
    poisson_degrees,
    slab_capacity,
    slab_window,
)

__all__ = ["Answer", "Request", "expected_seconds", "find", "make_request", "parity_answer", "slab_answer"]

_LARGEST_COUNT = 10**15  # latents or observations, so that all windows are exact in floating point
_LARGEST_DEGREE = 1e4  # at which population dynamics runs
_LARGEST_POPULATION = 2**26  # numbers in all messages


@dataclass(frozen=True, eq=False)
class Request:
    """A checked question: the ensemble, its Kesten-Stigum threshold, and what to compute and print about it.

    ``messages`` counts those of the stages asked for, ``degree`` is about where condensation will be found, ``rate``
    the share of revealed latents or None, ``n_latents`` and ``n_observations`` what the window is for, or None.
    """

    ensemble: PlantedEnsemble
    kesten_stigum: Threshold
    settings: dict[str, Any]
    effort: Effort
    degree: float
    rate: float | None
    n_latents: int | None
    n_observations: int | None

    @property
    def messages(self) -> float:
        """Factor messages of all stages."""
        transition = self.effort.scan + self.effort.dynamic + self.effort.condensation
        return transition + (0 if self.rate is None else self.effort.dynamic)

    def window(self, condensation: Threshold) -> MaskWindow | None:
        """The window of Proposition 3.3 that was asked for, if any."""
        if self.n_latents is None:
            return None
        thresholds = {"condensation": condensation, "kesten_stigum": self.kesten_stigum}
        if self.n_observations is None:
            return all_subsets_window(self.ensemble, self.n_latents, **thresholds)
        return observations_window(self.ensemble, self.n_latents, self.n_observations, **thresholds)


@dataclass(frozen=True, eq=False)
class Answer:
    """A window that needs no computing, with its settings and remarks."""

    window: MaskWindow
    settings: dict[str, Any]
    notes: tuple[str, ...]


def make_request(options: argparse.Namespace) -> Request:
    """Make a request of parsed options; ValueError names the first of them that cannot be met."""
    _check_options(options)
    ensemble, settings = make_ensemble(options)
    critical, degree = kesten_stigum(ensemble), _first_moment(ensemble)
    degree = min(degree, critical.value)
    most = _LARGEST_POPULATION // (4 * ensemble.q**2)  # one for each value, and four times as many at weak overlaps
    effort = Effort.of(options.messages, most=most, threads=options.threads)
    computed = not options.closed_form
    settings |= {"seed": options.seed, "messages": options.messages if computed else None}
    settings |= {"population": effort.size if computed else None}
    request = Request(ensemble, critical, settings, effort, degree, options.revealed, options.N, options.P)
    request.window(critical)  # with any thresholds: so that N and P are refused now, not in a minute
    if computed:
        _check_reach(request)
        Dynamics(ensemble, effort.size, threads=options.threads)
    return request


def _check_options(options: argparse.Namespace) -> None:
    if not (math.isfinite(options.messages) and 0 < options.messages <= 1e15):
        raise ValueError(f"--messages is a number above 0 and at most 1e15, got {options.messages:g}; 8e8 is usual")
    check_threads(options.threads, "--threads")
    if options.revealed is not None and not 0 < options.revealed < 1:
        raise ValueError(
            f"--revealed is a share of latents between 0 and 1, got {options.revealed}: leave it out for 0"
        )
    if options.P is not None and options.N is None:
        raise ValueError(f"--P {options.P} needs the number of latents: add --N")
    _check_counts(options)
    asked = [name for name in ("N", "revealed") if getattr(options, name) is not None]
    if options.closed_form and asked:
        raise ValueError(f"--{asked[0]} needs population dynamics: leave --closed-form out, or take --quick")


def _check_counts(options: argparse.Namespace) -> None:
    for name in ("N", "P"):
        count = getattr(options, name)
        if count is not None and not 1 <= count <= _LARGEST_COUNT:
            raise ValueError(f"--{name} must lie between 1 and {_LARGEST_COUNT:g}, got {count}")


def _first_moment(ensemble: PlantedEnsemble) -> float:
    """The ensemble's ``first_moment``; ValueError where its observations say nothing."""
    degree = ensemble.first_moment
    if math.isinf(degree):
        raise ValueError(
            f"{ensemble.name}: a revealed observation is as likely whatever the latents are, so nothing can be "
            "known at any degree and there is no threshold: take a noise other than 0.5, --observed all or another "
            "table"
        )
    return degree


def _check_reach(request: Request) -> None:
    """Refuse ensembles whose planted state population dynamics would look for in vain, for hours."""
    critical, name = request.kesten_stigum.value, request.ensemble.name
    highest = 1.5 * (critical if math.isfinite(critical) else request.degree)
    if highest > _LARGEST_DEGREE:
        raise ValueError(
            f"{name}: Kesten-Stigum is at c = {critical:.6g}, condensation not above {request.degree:.6g}; population "
            f"dynamics has to look up to c = {highest:.6g} and ends at {_LARGEST_DEGREE:g}: lower the noise, q or k, "
            "or ask for --closed-form"
        )


def expected_seconds(request: Request) -> float:
    """Time population dynamics will take, from the effort and the speed of one sweep; good to a factor of two.

    The first call on a machine compiles the kernels.
    """
    effort, c = request.effort, request.degree
    dynamics = Dynamics(request.ensemble, 512)
    degrees = poisson_degrees(min(c, _LARGEST_DEGREE), dynamics.size, 0.5)
    messages = dynamics.uniform()
    dynamics.sweep(messages, degrees, Key(0))
    begin = time.perf_counter()
    dynamics.sweep(messages, degrees, Key(1))
    seconds_a_message = (time.perf_counter() - begin) / max(1, int(degrees.sum()))
    # What is spent beside the effort brings each of the many runs to its fixed point.
    total = request.messages + 2000 * effort.size * c
    return seconds_a_message * total / effort.threads


def find(request: Request) -> tuple[Transition, Fold | None]:
    """Run population dynamics: the transition and, at a rate of revealed latents, the fold."""
    ensemble, settings = request.ensemble, request.settings
    # For the predicates without noise the address, and so every number, is that of the experiments.
    label = "{law} q={q} k={k} observed={observed}".format(**settings)
    noise = settings["noise"]
    key = Key(settings["seed"]).fold(label if noise == 0 else f"{label} noise={noise!r}")
    found = _explained(ensemble, lambda: find_transition(ensemble, key, request.effort))
    if request.rate is None:
        return found, None
    rate = request.rate
    return found, _explained(ensemble, lambda: find_fold(ensemble, rate, key, request.effort))


def _explained(ensemble: PlantedEnsemble, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except ValueError as error:
        raise ValueError(
            f"population dynamics cannot follow the planted state of {ensemble.name} ({error}): more --messages may "
            "help; --closed-form prints Kesten-Stigum alone"
        ) from error


def parity_answer(options: argparse.Namespace) -> Answer:
    """Window of Proposition B.2."""
    _check_counts(options)
    if not 2 <= options.k <= options.N:
        raise ValueError(f"--k is the number of latents a parity reads, 2 to N = {options.N}, got {options.k}")
    try:
        window = parity_window(options.N, options.P, options.k)
    except OverflowError as error:
        raise ValueError(
            f"N^(0.49 k) with N = {options.N} and k = {options.k} is beyond floating point: take a smaller --k"
        ) from error
    settings = {"law": "sparse-parity", "N": options.N, "P": options.P, "k": options.k}
    return Answer(window, settings, ())


def slab_answer(options: argparse.Namespace) -> Answer:
    """Window of Proposition B.5, with the upper bound on c_beta in its place where c_beta is not given."""
    _check_counts(options)
    if not 1e-9 <= options.width <= 8:
        raise ValueError(
            f"--width lies between 1e-9 and 8, in units of sqrt(N), got {options.width:g}: beyond, a slab holds all or "
            "nothing to rounding"
        )
    most = slab_capacity(options.width)
    c_beta = most if options.c_beta is None else options.c_beta
    if not 0 < c_beta <= most:
        raise ValueError(
            f"--c-beta is positive and at most {most:.6g}, the capacity of slabs of width {options.width:g}, "
            f"got {c_beta:g}: take a smaller one"
        )
    if not 0 < options.c < c_beta:
        raise ValueError(f"--c lies between 0 and c_beta = {c_beta:.6g}, got {options.c:g}")
    window = slab_window(options.N, options.P, c_beta=c_beta, c=options.c)
    notes = [f"c_beta is at most {most:.6g}, the first-moment capacity of slabs of width {options.width:g}"]
    if options.c_beta is None:
        later = "the true window begins no earlier, and may be empty"
        meaning = "a smaller --c-beta may leave a window" if window.empty else later
        notes.append("c_beta was not given and its upper bound took its place: " + meaning)
    settings = {"law": "slab", "N": options.N, "P": options.P, "width": options.width, "c": options.c}
    return Answer(window, settings | {"c_beta": c_beta, "c_beta_upper_bound": most}, tuple(notes))
