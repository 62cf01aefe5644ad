"""Planted constraint satisfaction problems (Definition B.9) and the null model (Definition B.12).

An instance is an L&O distribution with the tokens of a sequence in which every latent is masked, so that every
posterior applies to it unchanged. All integers come from Philox words by integer code, the same for every version of
numpy.
"""

from __future__ import annotations

import decimal
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lo_theory.problem import _planted_kernels
from lo_theory.problem.distribution import LODistribution
from lo_theory.problem.layout import MASK, Record, frozen
from lo_theory.problem.observations import TableObservations
from lo_theory.problem.predicates import Predicate
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["PlantedInstance", "check_request", "null_model", "planted"]

_LARGEST_CONSTRAINTS = 50_000_000
_ATTEMPTS = 100_000  # draws of one constraint before it counts as impossible
_OBSERVED = ("satisfied", "all")
_SIZES = ("poisson", "fixed")


@checked
@dataclass(frozen=True, eq=False, repr=False)
class PlantedInstance(Record):
    """A constraint satisfaction problem as a distribution and a context.

    ``tokens`` int8[L]: latents masked, observations the values revealed; ``assignment`` int8[N] is what was planted,
    None in the null model. The distribution's prior is uniform.
    """

    distribution: LODistribution
    tokens: NDArray[np.int8]
    assignment: NDArray[np.int8] | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", frozen(self.tokens, np.int8))
        if self.assignment is not None:
            object.__setattr__(self, "assignment", frozen(self.assignment, np.int8))

    @property
    def n_constraints(self) -> int:
        """M."""
        return self.distribution.layout.n_observations

    @property
    def density(self) -> float:
        """M/N."""
        return self.n_constraints / self.distribution.layout.n_latents

    @property
    def degree(self) -> float:
        """c = kM/N, the degree this instance has."""
        return self.distribution.observations.k * self.density  # type: ignore[attr-defined]

    @property
    def neighbours(self) -> float:
        """(k - 1)c."""
        return (self.distribution.observations.k - 1) * self.degree  # type: ignore[attr-defined]


def _poisson_thresholds(mean: float) -> NDArray[np.uint64]:
    """Cumulative probabilities x 2**64 of a Poisson law, in 60-digit decimals: the same integers on every machine."""
    with decimal.localcontext(prec=60):
        rate = decimal.Decimal(mean)
        term = total = (-rate).exp()
        levels, number = [], 0
        while (level := int(total * 2**64)) < 2**64 - 1 and number < 10 * mean + 100:
            levels.append(level)
            number += 1
            term *= rate / number
            total += term
    return np.array(levels, np.uint64)


def check_request(predicate: Predicate, N: int, degree: float, observed: str, size: str) -> int:
    """Return the expected number of constraints of an instance, or raise ValueError for one that cannot be drawn."""
    if max(predicate.k, 1) > N:
        raise ValueError(f"{predicate.name} needs N >= k = {predicate.k} variables, got N = {N}")
    if not (math.isfinite(degree) and degree > 0):
        raise ValueError(f"the degree c = kM/N must be positive, got {degree}")
    for name, value, known in (("observed", observed, _OBSERVED), ("size", size, _SIZES)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if observed == "satisfied" and not predicate.table.any():
        raise ValueError(f"{predicate.name} is never 1: there is nothing to satisfy; use observed='all'")
    count = degree * N / predicate.k
    share = predicate.gamma if observed == "satisfied" else 1.0
    if count / share > _LARGEST_CONSTRAINTS:
        raise ValueError(
            f"{count / share:.3g} candidates are over the limit of {_LARGEST_CONSTRAINTS}: lower N or the degree"
        )
    if count >= share * math.perm(N, predicate.k):
        raise ValueError(
            f"degree {degree} asks for {count:.4g} constraints and N = {N} variables have "
            f"{share * math.perm(N, predicate.k):.4g}: raise N"
        )
    return max(round(count), 1)


def _draw(
    predicate: Predicate, N: int, degree: float, observed: str, size: str, assignment: NDArray[np.int8], key: Key
) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """Scopes int32[M, k] and values int8[M]; an empty ``assignment`` means a fresh local one for every scope."""
    count = check_request(predicate, N, degree, observed, size)
    problem = (frozen(predicate.table.ravel(), np.int8), assignment, predicate.q, N)
    words, k = key.words(), predicate.k
    satisfied = observed == "satisfied"
    if size == "fixed":
        scopes, values = np.empty((count, k), np.int32), np.empty(count, np.int8)
        slots = np.full(2 ** (2 * count).bit_length(), -1, np.int32)
        failed = _planted_kernels.fixed_constraints(scopes, values, slots, satisfied, _ATTEMPTS, problem, *words)
        if failed >= 0:
            raise ValueError(
                f"constraint {failed} of {count} found no place in {_ATTEMPTS} draws: too few scopes have the value 1; "
                "raise N or lower the degree"
            )
        return scopes, values
    # Every ordered scope is in with probability p, which is whether a Poisson number of rate -ln(1 - p) is positive.
    share = predicate.gamma if satisfied else 1.0
    p = degree * N / (k * share * math.perm(N, k))
    mean = -math.log1p(-p) * math.perm(N - 1, k - 1)
    capacity = math.ceil(N * mean + 12 * math.sqrt(N * mean) + 100)
    scopes, values = np.empty((capacity, k), np.int32), np.empty(capacity, np.int8)
    levels = _poisson_thresholds(mean)
    slots = np.empty(2 ** (2 * len(levels)).bit_length(), np.int32)
    found = _planted_kernels.poisson_candidates(scopes, values, slots, levels, problem, *words)
    if found < 0:
        raise RuntimeError(f"more than {capacity} candidates, twelve standard deviations above the mean")
    kept = np.flatnonzero((values[:found] == 1) | (not satisfied))
    if len(kept) == 0:
        raise ValueError(f"no constraint was drawn at degree {degree} on N = {N}: raise either, or use size='fixed'")
    return scopes[kept], values[kept]


def _instance(
    predicate: Predicate, N: int, drawn: tuple[NDArray[np.int32], NDArray[np.int8]]
) -> tuple[LODistribution, NDArray[np.int8]]:
    scopes, values = drawn
    law = TableObservations(scopes, predicate.emission()[None])
    distribution = LODistribution(np.full((N, predicate.q), 1 / predicate.q), law)
    return distribution, np.concatenate([np.full(N, np.int8(MASK)), values])


@checked
def planted(
    predicate: Predicate, N: int, degree: float, *, key: Key, observed: str = "satisfied", size: str = "poisson"
) -> PlantedInstance:
    """Draw from the planted ensemble (Definition B.9) at mean degree c = kM/N.

    sigma is uniform on {0..q-1}^N. ``size`` "poisson": each ordered scope of distinct variables is in with the same
    probability phi/N**(k-1), independently, and ``observed`` "satisfied" keeps those with g(sigma_S) = 1, "all" keeps
    every one with its value; phi is such that E M = cN/k exactly. ``size`` "fixed": the same law given M = round(cN/k).
    Constraints come in order of their first variable ("poisson"). Cost: 0.2 to 0.3 us of processor time a constraint of
    nae(2, 3), at N = 10**4 and c = 6 as at N = 1000 and c = 3000 ("fixed" up to 0.4 there); 1/gamma candidates a
    satisfied constraint. Errors: ValueError for a degree that N cannot hold, and where no constraint was drawn.
    """
    check_request(predicate, N, degree, observed, size)
    assignment = np.empty(N, np.int8)
    _planted_kernels.uniform_values(assignment, predicate.q, *key.fold("assignment").words())
    assignment.setflags(write=False)
    drawn = _draw(predicate, N, degree, observed, size, assignment, key.fold("constraints"))
    return PlantedInstance(*_instance(predicate, N, drawn), assignment)


@checked
def null_model(
    predicate: Predicate, N: int, degree: float, *, key: Key, observed: str = "satisfied", size: str = "poisson"
) -> PlantedInstance:
    """Draw from the null model (Definition B.12): as ``planted``, but every scope has its own uniform local assignment.

    With ``observed`` "satisfied" that is a uniform set of scopes; with "all" each value is 1 with probability gamma,
    whatever the others.
    """
    empty = frozen(np.empty(0, np.int8), np.int8)
    drawn = _draw(predicate, N, degree, observed, size, empty, key.fold("constraints"))
    return PlantedInstance(*_instance(predicate, N, drawn), None)
