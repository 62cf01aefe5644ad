"""A problem with table observations as flat arrays: what the posterior kernels read.

The named tuple holds arrays and scalars only, so numba compiles it to plain fields; it is read-only and shared by
threads. The memory the kernels write to is in ``workspace``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lo_theory.jit import packed
from lo_theory.problem import LODistribution, TableObservations
from lo_theory.problem.layout import frozen

__all__ = ["TableGraph", "table_graph"]


@packed
class TableGraph(NamedTuple):
    """N latents and P table observations. Scopes list distinct latents; a repeated one has the sum of its strides.

    Observation j in state ``sum_a x[scopes[j, a]] strides[j, a]`` takes value v with probability
    ``tables[(table[j] r + v) n_states + state]``.
    """

    order: NDArray[np.int32]  # [L]
    prior: NDArray[np.float64]  # [N, q]
    tables: NDArray[np.float64]  # [E r n_states]
    table: NDArray[np.int32]  # [P]
    scopes: NDArray[np.int32]  # [P, k], the first arity[j] entries
    strides: NDArray[np.int64]  # [P, k]
    arity: NDArray[np.int32]  # [P]
    first: NDArray[np.int32]  # [N + 1]: observations that read latent i are incident[first[i]:first[i + 1]]
    incident: NDArray[np.int32]
    forbids: NDArray[np.bool_]  # [E r]: some scope state excludes this value of this table
    r: int
    n_states: int


def table_graph(distribution: LODistribution) -> TableGraph:
    """Flatten a problem with ``TableObservations``; ValueError for any other law."""
    law = distribution.observations
    if not isinstance(law, TableObservations):
        raise ValueError(f"{type(law).__name__} has no scopes: a factor graph needs TableObservations")
    n, (p, k) = len(distribution.prior), law.scopes.shape
    powers = law.q ** np.arange(k - 1, -1, -1, dtype=np.int64)
    scopes, strides, arity = np.zeros((p, k), np.int32), np.zeros((p, k), np.int64), np.zeros(p, np.int32)
    for a in range(k):
        # A latent seen at an earlier argument adds to the stride it has there.
        earlier = np.arange(k) < arity[:, None]
        same = earlier & (scopes == law.scopes[:, a : a + 1])
        repeated = same.any(axis=1)
        place = np.where(repeated, same.argmax(axis=1), arity)
        rows = np.arange(p)
        scopes[rows, place] = law.scopes[:, a]
        strides[rows, place] += powers[a]
        arity += ~repeated
    used = np.arange(k) < arity[:, None]
    readers, latents = np.nonzero(used)[0], scopes[used]
    first = np.searchsorted(np.sort(latents), np.arange(n + 1))
    by_value = law.tables.transpose(0, 2, 1)
    return TableGraph(
        order=distribution.order,
        prior=distribution.prior,
        tables=frozen(by_value.ravel(), np.float64),
        table=law.index,
        scopes=frozen(scopes, np.int32),
        strides=frozen(strides, np.int64),
        arity=frozen(arity, np.int32),
        first=frozen(first, np.int32),
        incident=frozen(readers[np.argsort(latents, kind="stable")], np.int32),
        forbids=frozen((by_value == 0).any(axis=2).ravel(), np.bool_),
        r=law.r,
        n_states=law.q**k,
    )
