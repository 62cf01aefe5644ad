"""Planted ensembles in the limit of many latents: which observations are revealed, how often, and with what likelihood.

A planted assignment is uniform; each latent sees a Poisson number (mean c) of revealed observations, at a uniform
argument place. All that a threshold depends on is the list of *kinds* of revealed observation, a kind being an emission
table and a value. Imports ``problem`` only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem import Predicate, TableObservations
from lo_theory.problem.layout import frozen, plain
from lo_theory.problem.seams import checked

__all__ = ["PlantedEnsemble", "planted_ensemble"]

_TOLERANCE = 1e-12  # relative; tables are built from a few additions
_LARGEST_FULL_GROUP = 6  # values up to which all permutations are listed; a cyclic group serves above


@checked
@dataclass(frozen=True, eq=False)
class PlantedEnsemble:
    """Kinds of revealed observation: likelihood P(value | scope state) and share among the revealed.

    ``likelihoods`` float64[K, q, ..., q] (k axes after the first), ``shares`` float64[K] summing to one, ``revealed``
    the probability that an observation is revealed (gamma for observed = "satisfied" without noise, 1 for "all"). Every
    kind must satisfy Assumption B.11, else the uniform message is no fixed point of belief propagation and no threshold
    below is defined: ValueError.
    """

    name: str
    likelihoods: NDArray[np.float64]
    shares: NDArray[np.float64]
    revealed: float

    def __post_init__(self) -> None:
        likelihoods = plain(self.likelihoods, "likelihoods", np.float64)
        shares = plain(self.shares, "shares", np.float64)
        if likelihoods.ndim < 3 or len(set(likelihoods.shape[1:])) != 1 or likelihoods.shape[1] < 2:
            raise ValueError(f"likelihoods have shape [K, q, ..., q] with k >= 2 and q >= 2, got {likelihoods.shape}")
        if not np.isfinite(likelihoods).all() or (likelihoods < 0).any():
            raise ValueError("likelihoods must be finite and not negative")
        if shares.shape != likelihoods.shape[:1] or (shares <= 0).any() or abs(shares.sum() - 1) > 1e-9:
            raise ValueError(f"shares must be {len(likelihoods)} positive numbers that sum to one, got {shares}")
        for kind, likelihood in enumerate(likelihoods):
            _check_assumption_b11(self.name, kind, likelihood)
        object.__setattr__(self, "likelihoods", frozen(likelihoods, np.float64))
        object.__setattr__(self, "shares", frozen(shares, np.float64))

    @property
    def q(self) -> int:
        """Values of a latent."""
        return int(self.likelihoods.shape[1])

    @property
    def k(self) -> int:
        """Arity."""
        return int(self.likelihoods.ndim - 1)

    @property
    def n_kinds(self) -> int:
        """K."""
        return len(self.likelihoods)

    @property
    def gammas(self) -> NDArray[np.float64]:
        """float64[K]: mean likelihood of a kind under a uniform assignment."""
        return self.likelihoods.reshape(self.n_kinds, -1).mean(axis=1)

    def paramagnet(self, c: float) -> float:
        """Free entropy of the uniform messages, ln q + (c/k) sum_kinds share ln gamma, nats per latent."""
        return math.log(self.q) + c / self.k * float(self.shares @ np.log(self.gammas))

    @property
    def first_moment(self) -> float:
        """Degree at which the revealed observations carry as much information as the latents hold, c = k ln q / I.

        I is the mean information of a revealed observation on its scope, nats. Condensation is not above it; infinite
        where an observation says nothing.
        """
        relative = self.likelihoods.reshape(self.n_kinds, -1) / self.gammas[:, None]
        logarithms = np.log(np.where(relative > 0, relative, 1.0))
        information = float(self.shares @ (relative * logarithms).mean(axis=1))
        return self.k * math.log(self.q) / information if information > 1e-12 else math.inf

    def views(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Likelihoods over gamma, receiving argument first, float64[W, q, q**(k-1)], and the share of each view.

        One view for a kind whose arguments are exchangeable, else k.
        """
        views, shares = [], []
        for likelihood, share, gamma in zip(self.likelihoods, self.shares, self.gammas, strict=True):
            turned = [np.moveaxis(likelihood, a, 0) / gamma for a in range(self.k)]
            same = all(np.array_equal(turned[0], view) for view in turned)
            kept = turned[:1] if same else turned
            views += [view.reshape(self.q, -1) for view in kept]
            shares += [share / len(kept)] * len(kept)
        return np.stack(views), np.array(shares)

    def value_symmetry(self) -> NDArray[np.int64] | None:
        """int64[q, G, q]: for each value x the permutations p of a symmetry group that bring value 0 to x, or None.

        ``message[p]`` turns a message drawn for planted value 0 into one for planted value x. The group is that of all
        permutations, else the cyclic one. It is a symmetry when, for every kind and argument, a permutation of that
        argument's values can be undone by permutations of the others' values (all by the same, as for NAE, or of one
        other argument, as for parities).
        """
        candidates = [_cyclic_group(self.q)]
        if self.q <= _LARGEST_FULL_GROUP:
            candidates.insert(0, [np.array(p) for p in itertools.permutations(range(self.q))])
        for group in candidates:
            cases = ((likelihood, a, p) for likelihood in self.likelihoods for a in range(self.k) for p in group)
            if all(_undone(*case, group) for case in cases):
                return np.array([[p for p in group if p[x] == 0] for x in range(self.q)], np.int64)
        return None


def _check_assumption_b11(name: str, kind: int, likelihood: NDArray[np.float64]) -> None:
    k = likelihood.ndim
    marginals = np.stack([likelihood.mean(axis=tuple(b for b in range(k) if b != a)) for a in range(k)])
    worst = np.unravel_index(np.argmax(np.abs(marginals - marginals.mean())), marginals.shape)
    if marginals.mean() <= 0:
        raise ValueError(f"{name}: revealed kind {kind} has probability zero")
    if abs(marginals[worst] / marginals.mean() - 1) > 1e-9:
        argument, value = (int(at) for at in worst)
        raise ValueError(
            f"{name} breaks Assumption B.11: revealed kind {kind} has mean likelihood {marginals[worst]:.6g} when "
            f"argument {argument} is {value}, against {marginals.mean():.6g} on average, so the uniform message is no "
            "fixed point of belief propagation and no Kesten-Stigum, dynamic or condensation threshold is defined; "
            "balance the table over the values of each argument"
        )


def _cyclic_group(q: int) -> list[NDArray[np.int64]]:
    return [(np.arange(q) + shift) % q for shift in range(q)]


def _undone(likelihood: NDArray[np.float64], a: int, p: NDArray[np.int64], group: list[NDArray[np.int64]]) -> bool:
    k = likelihood.ndim
    turned = likelihood.take(p, axis=a)

    def agrees(other: NDArray[np.float64]) -> bool:
        return bool(np.allclose(other, likelihood, rtol=_TOLERANCE, atol=0))

    together = turned
    for b in range(k):
        if b != a:
            together = together.take(p, axis=b)
    return agrees(together) or any(agrees(turned.take(other, axis=b)) for b in range(k) if b != a for other in group)


def _revealed_values(observed: str | Sequence[int], r: int) -> tuple[int, ...]:
    named: dict[str, tuple[int, ...]] = {"satisfied": (1,), "all": tuple(range(r))}
    if isinstance(observed, str):
        if observed not in named:
            raise ValueError(f"observed is 'satisfied', 'all' or a list of values, got {observed!r}")
        return named[observed]
    values = tuple(int(value) for value in observed)
    if not values or len(set(values)) != len(values) or min(values) < 0 or max(values) >= r:
        raise ValueError(f"observed must list different values of 0..{r - 1}, got {values}")
    return values


@checked
def planted_ensemble(
    law: Predicate | TableObservations,
    *,
    observed: str | Sequence[int] = "satisfied",
    channel: ArrayLike | None = None,
    name: str | None = None,
) -> PlantedEnsemble:
    """Make the planted ensemble of an observation law.

    ``law`` is a predicate, whose value passes through the noise ``channel`` float64[2, r] when one is given, or any
    table of observations, of which each table counts by the share of observations that use it (scopes are not looked
    at: the ensemble has its own random ones). ``observed``: "satisfied" reveals value 1 only (Definition B.9), "all"
    every value (Example 3.2), a list the values it names. The degree c counts revealed observations.
    """
    if isinstance(law, Predicate):
        tables, weights, k = law.emission(channel)[None], np.ones(1), law.k
    else:
        if channel is not None:
            raise ValueError("tables of observations already contain their noise: leave channel out")
        tables, k = law.tables, law.k
        weights = np.bincount(law.index, minlength=len(tables)) / law.n_observations
    title = name if name is not None else (law.name if isinstance(law, Predicate) else f"table q={law.q} k={k}")
    q = law.q
    kinds, shares = [], []
    for table, weight in zip(tables, weights, strict=True):
        for value in _revealed_values(observed, tables.shape[2]):
            share = weight * table[:, value].mean()
            if share > 0:
                kinds.append(table[:, value].reshape((q,) * k))
                shares.append(share)
    if not kinds:
        raise ValueError(f"{title}: no observation is ever revealed with observed = {observed!r}")
    total = math.fsum(shares)
    return PlantedEnsemble(title, np.stack(kinds), np.array(shares) / total, total)
