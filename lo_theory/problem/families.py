"""The paper's families of L&O distributions, by name.

Each is a few lines over the public constructors: anything else is built the same way. Random scopes and vectors come
from ``Key(seed)``; scopes from our own integer code, so they are the same for every version of numpy.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from lo_theory.problem import _kernels
from lo_theory.problem.distribution import LODistribution
from lo_theory.problem.observations import SlabObservations, TableObservations, flip
from lo_theory.problem.predicates import Predicate, nae, xor
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["all_k_subsets", "nae_sat", "predicate_observations", "random_scopes", "random_slab", "sparse_parity"]

_LARGEST_P = 10_000_000
_LARGEST_N = 10_000_000
_LARGEST_SCOPES = 2**27  # numbers in the scopes: 512 MiB
_LARGEST_SLAB = 2**28  # numbers in the vectors: 2 GiB


@checked
def random_scopes(
    n_latents: int, n_observations: int, k: int, *, seed: int, repeats: bool = False
) -> NDArray[np.int32]:
    """Draw P independent scopes of k latents: int32[P, k].

    Within a scope the indices are distinct and uniform, or with ``repeats`` independent. Two scopes may be equal either
    way.
    """
    if k < 1 or n_observations < 1:
        raise ValueError(f"scopes need k >= 1 and P >= 1, got k={k}, P={n_observations}")
    if n_observations > _LARGEST_P:
        raise ValueError(f"P = {n_observations} observations are over the limit of {_LARGEST_P}: take a smaller P")
    if n_observations * k > _LARGEST_SCOPES:
        raise ValueError(
            f"P * k = {n_observations * k} numbers in the scopes are over the limit of {_LARGEST_SCOPES}: take a "
            "smaller P or k"
        )
    if n_latents > _LARGEST_N:
        raise ValueError(f"N = {n_latents} latents are over the limit of {_LARGEST_N}: take a smaller N")
    if n_latents < (1 if repeats else k):
        raise ValueError(f"{k} distinct latents cannot be drawn from N = {n_latents}: raise N or allow repeats")
    scopes, items = np.empty((n_observations, k), np.int32), np.arange(n_latents, dtype=np.int32)
    _kernels.draw_scopes(scopes, items, repeats, *Key(seed).fold("scopes").words())
    return scopes


@checked
def predicate_observations(predicate: Predicate, scopes: NDArray[np.int32], noise: float = 0.0) -> TableObservations:
    """Observe one predicate on every scope, each value flipped with probability ``noise``."""
    if scopes.shape[1] != predicate.k:
        raise ValueError(f"{predicate.name} takes {predicate.k} arguments, the scopes have {scopes.shape[1]}")
    return TableObservations(scopes, predicate.emission(flip(noise))[None])


def _uniform(n_latents: int, q: int) -> NDArray[np.float64]:
    return np.full((n_latents, q), 1 / q)


@checked
def nae_sat(
    N: int, P: int, *, seed: int, q: int = 2, k: int = 3, noise: float = 0.0, repeats: bool = False
) -> LODistribution:
    """L&O-NAE-SAT (Section 3.3): uniform latents, P random scopes, o_j = 1 unless its k latents are all equal.

    The paper's is q = 2, k = 3. ``repeats`` lets a scope name a latent twice. Entropy N ln q + P H(noise).
    """
    predicate = nae(q, k)  # first, because it refuses a k that is too large
    scopes = random_scopes(N, P, k, seed=seed, repeats=repeats)
    return LODistribution(_uniform(N, q), predicate_observations(predicate, scopes, noise))


@checked
def all_k_subsets(predicate: Predicate, N: int, *, noise: float = 0.0) -> LODistribution:
    """Example 3.2.

    One observation g(x_S) for each *ordered* k-subset S of the latents, P = N!/(N - k)!, lexicographically.
    """
    if predicate.k > N:
        raise ValueError(f"{predicate.name} needs N >= k = {predicate.k} latents, got N = {N}")
    count = math.perm(N, predicate.k)
    if count > _LARGEST_P:
        raise ValueError(
            f"all ordered {predicate.k}-subsets of N = {N} latents are {count}, over the limit of {_LARGEST_P}: take "
            "a smaller N"
        )
    subsets = itertools.chain.from_iterable(itertools.permutations(range(N), predicate.k))
    scopes = np.fromiter(subsets, np.int32, count * predicate.k).reshape(count, predicate.k)
    return LODistribution(_uniform(N, predicate.q), predicate_observations(predicate, scopes, noise))


@checked
def sparse_parity(N: int, P: int, k: int, noise: float, *, seed: int) -> LODistribution:
    """Noisy sparse parity (Example B.1).

    O_j is the parity of k random latents, flipped with probability ``noise`` (eta).

    The paper's regime is N**2 log N << P <= N**(0.49 k). Entropy N ln 2 + P H(eta).
    """
    predicate = xor(k)  # first, because it refuses a k that is too large
    scopes = random_scopes(N, P, k, seed=seed)
    return LODistribution(_uniform(N, 2), predicate_observations(predicate, scopes, noise))


@checked
def random_slab(N: int, P: int, width: float, *, seed: int) -> LODistribution:
    """Random slab (Example B.4): o_j = 1 if |<z_j, 2x - 1>| <= width sqrt(N), z_j standard normal.

    The paper takes P = gamma N**2.

    The normal vectors come from numpy's generator: equal across numpy versions only as far as numpy keeps its method.
    """
    if N < 1 or P < 1:
        raise ValueError(f"random slabs need N >= 1 and P >= 1, got N={N}, P={P}")
    if N * P > _LARGEST_SLAB:
        raise ValueError(f"N * P = {N * P} numbers in the vectors are over the limit of {_LARGEST_SLAB}: lower N or P")
    vectors = Key(seed).fold("slab vectors").generator().standard_normal((P, N))
    return LODistribution(_uniform(N, 2), SlabObservations(vectors, width))
