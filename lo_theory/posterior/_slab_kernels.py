"""Numba kernels of the exact posterior with random slabs: a walk over all latents in order, summing as
``SlabObservations`` does.

An observed slab reads every latent, so nothing splits; the walk adds one latent at a time in their order, which makes
every sum the same double as in the sampler, and leaves a prefix whose sums can no longer agree with an observed slab.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lo_theory.jit import packed
from lo_theory.posterior._compile import kernel
from lo_theory.posterior._enumeration_kernels import scaled_product
from lo_theory.posterior._kernels import write_impossible

__all__ = ["SlabProblem", "SlabWorkspace", "marginals_of_rows", "slab_workspace"]

_TINY = 2.0**-256
_LN_UNIT = 256.0 * math.log(2.0)
_SLACK = 1e-9  # relative room for rounding in the test that leaves a prefix; the test at the leaves is exact


@packed
class SlabProblem(NamedTuple):
    """Binary latents and slabs |sum_i (2 x_i - 1) columns[i, j]| <= bound."""

    order: NDArray[np.int32]  # [L]
    prior: NDArray[np.float64]  # [N, 2]
    columns: NDArray[np.float64]  # [N, P]
    bound: float


@packed
class SlabWorkspace(NamedTuple):
    """All memory of one kernel call."""

    slabs: NDArray[np.int64]  # [P]: observed ones first
    inside: NDArray[np.bool_]  # [P]: what is observed
    columns: NDArray[np.float64]  # [N, P], in the order of ``slabs``
    rest: NDArray[np.float64]  # [N + 1, P]: most that the latents still to come can add, with room for rounding
    sums: NDArray[np.float64]  # [N + 1, P]
    weight: NDArray[np.float64]  # [N + 1]
    exponent: NDArray[np.int64]  # [N + 1]
    cursor: NDArray[np.int64]  # [N]
    total: NDArray[np.float64]  # [N + 1, 2]
    mass: NDArray[np.float64]  # [N, 2]
    ones: NDArray[np.float64]  # [P]: mass of the assignments inside, in the order of ``slabs``


def slab_workspace(problem: SlabProblem) -> SlabWorkspace:
    """Allocate the memory of one kernel call, some 32 N P bytes."""
    n, p = problem.columns.shape
    return SlabWorkspace(
        slabs=np.empty(p, np.int64),
        inside=np.empty(p, np.bool_),
        columns=np.empty((n, p)),
        rest=np.empty((n + 1, p)),
        sums=np.empty((n + 1, p)),
        weight=np.empty(n + 1),
        exponent=np.empty(n + 1, np.int64),
        cursor=np.empty(n, np.int64),
        total=np.empty((n + 1, 2)),
        mass=np.empty((n, 2)),
        ones=np.empty(p),
    )


@kernel
def _arrange(problem: SlabProblem, work: SlabWorkspace, tokens: NDArray[np.int8]) -> int:
    """Bring the observed slabs to the front; return their number."""
    n, p = problem.columns.shape
    seen = 0
    for j in range(p):
        token = tokens[problem.order[n + j]]
        if token >= 0:
            work.slabs[seen], work.inside[seen] = j, token == 1
            seen += 1
    hidden = seen
    for j in range(p):
        if tokens[problem.order[n + j]] < 0:
            work.slabs[hidden] = j
            hidden += 1
    for j in range(p):
        reach = 0.0
        for i in range(n - 1, -1, -1):
            work.rest[i + 1, j] = reach
            work.columns[i, j] = problem.columns[i, work.slabs[j]]
            reach += abs(work.columns[i, j])
        work.rest[0, j] = reach
        for i in range(n + 1):
            work.rest[i, j] += _SLACK * (reach + problem.bound)
    work.sums[0] = 0.0
    work.mass[:] = 0.0
    work.ones[:] = 0.0
    return seen


@kernel
def _enter(problem: SlabProblem, work: SlabWorkspace, d: int, value: int, seen: int) -> bool:
    """Give latent d a value: sums and weight of the longer prefix. False if it can be left."""
    work.weight[d + 1], work.exponent[d + 1] = scaled_product(work.weight[d], work.exponent[d], problem.prior[d, value])
    if work.weight[d + 1] == 0.0:
        return False
    sign = 2.0 * value - 1.0
    before, after, column, rest = work.sums[d], work.sums[d + 1], work.columns[d], work.rest[d + 1]
    for j in range(column.shape[0]):
        after[j] = before[j] + sign * column[j]
    complete = d + 1 == work.columns.shape[0]
    for j in range(seen):
        size = abs(after[j])
        if complete:
            wrong = (size <= problem.bound) != work.inside[j]
        elif work.inside[j]:
            wrong = size - rest[j] > problem.bound
        else:
            wrong = size + rest[j] < problem.bound
        if wrong:
            return False
    return True


@kernel
def _leaf(problem: SlabProblem, work: SlabWorkspace, unit: int, seen: int) -> int:
    """Collect a complete assignment in units of 2**(256 ``unit``); return the unit, raised if the assignment is above
    it.
    """
    n = work.columns.shape[0]
    mass, lift = work.weight[n], work.exponent[n] - unit
    if lift > 0:
        factor = _TINY if lift == 1 else 0.0
        for i in range(n):
            for value in range(2):
                work.mass[i, value] *= factor
                work.total[i, value] *= factor
        for j in range(seen, work.ones.shape[0]):
            work.ones[j] *= factor
        unit = int(work.exponent[n])
    elif lift < 0:
        mass *= _TINY if lift == -1 else 0.0
    work.total[n - 1, work.cursor[n - 1]] = mass
    for j in range(seen, work.ones.shape[0]):
        if abs(work.sums[n, j]) <= problem.bound:
            work.ones[j] += mass
    return unit


@kernel
def _walk(problem: SlabProblem, work: SlabWorkspace, tokens: NDArray[np.int8], seen: int) -> tuple[float, int]:
    """Enumerate the masked latents; return the probability of the revealed tokens, mantissa and exponent."""
    n = problem.columns.shape[0]
    unit, d = -(1 << 40), 0
    work.weight[0], work.exponent[0], work.cursor[0] = 1.0, 0, -1
    work.total[:] = 0.0
    while True:
        work.cursor[d] += 1
        value = work.cursor[d]
        if value < 2:
            token = tokens[problem.order[d]]
            if (token >= 0 and token != value) or not _enter(problem, work, d, value, seen):
                continue
            if d == n - 1:
                unit = _leaf(problem, work, unit, seen)
            else:
                d += 1
                work.cursor[d] = -1
                work.total[d] = 0.0
            continue
        work.mass[d, 0] += work.total[d, 0]
        work.mass[d, 1] += work.total[d, 1]
        below = work.total[d, 0] + work.total[d, 1]
        if d == 0:
            return below, unit
        d -= 1
        work.total[d, work.cursor[d]] = below


@kernel
def marginals_of_rows(
    problem: SlabProblem,
    work: SlabWorkspace,
    tokens: NDArray[np.int8],
    probabilities: NDArray[np.float64],
    log_evidence: NDArray[np.float64],
) -> None:
    """Answer every row. Cost: P additions a node of the tree of masked latents, times revealed ones after them."""
    n, p = problem.columns.shape
    for row in range(tokens.shape[0]):
        seen = _arrange(problem, work, tokens[row])
        total, unit = _walk(problem, work, tokens[row], seen)
        if total == 0.0:
            log_evidence[row] = -np.inf
            write_impossible(problem.order, (n, 2, 2), tokens[row], probabilities[row])
            continue
        log_evidence[row] = math.log(total) + unit * _LN_UNIT
        out = probabilities[row]
        out[:] = 0.0
        for i in range(n):
            position = problem.order[i]
            for value in range(2):
                out[position, value] = work.mass[i, value] / total
        for j in range(p):
            position = problem.order[n + work.slabs[j]]
            share = min(1.0, work.ones[j] / total)
            if j < seen:
                share = 1.0 if work.inside[j] else 0.0
            out[position, 1] = share
            out[position, 0] = 1.0 - share
