"""Which messages of belief propagation may be zero: propagation of supports, without numbers.

Arithmetic can turn a small number into zero. What is zero for want of any state of positive weight is found here, so
that the two can be distinguished.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lo_theory.posterior import _bp_closing_kernels
from lo_theory.posterior.bp_forms import Form
from lo_theory.posterior.factor_graph import FactorGraph

__all__ = ["Support", "find_support"]


class Support(NamedTuple):
    """Values that messages can have at all, from iteration ``settled`` on."""

    to_factor: NDArray[np.uint8]  # [F, k, q]: zero where a message may be zero
    to_variable: NDArray[np.uint8]  # [F, k, q]
    settled: int
    known: bool = True  # false: no zero is known to be exact


def _leaves_all(tables: NDArray[np.float64], q: int, k: int) -> bool:
    """Whether every table gives every value of every argument a state of positive weight."""
    allowed = (tables > 0.0).reshape(-1, *(q,) * k)
    return all(allowed.any(axis=tuple(b + 1 for b in range(k) if b != a)).all() for a in range(k))


def find_support(graph: FactorGraph, form: Form, start: NDArray[np.float64]) -> Support:
    """Supports of the messages that positive ``start`` [F k, q] leads to: the largest that propagation keeps.

    A value is dropped from a message to a variable if no state of positive weight has it, and from a message to a
    factor if the field or another factor drops it. If a message loses all values, the graph has no state of positive
    weight, and all supports returned are empty. A start with zeros is followed as it grows; if it does not (the start
    contradicts the graph), supports may come and go, and are not known. ``form`` is that of the tables with 1 for
    every positive weight.
    Cost: nothing to speak of where no value can be dropped, else an iteration of flooding a round until nothing
    changes.
    """
    shape = (graph.n_factors, graph.k, graph.q)
    whole = bool((start > 0.0).all())
    if whole and (graph.field > 0.0).all() and _leaves_all(graph.tables, graph.q, graph.k):
        return Support(np.ones(shape, np.uint8), np.ones(shape, np.uint8), 0)
    positions = (np.arange(graph.n_factors * graph.k) * graph.q).astype(np.uint32).reshape(shape[:2])
    variables = graph.scopes.ravel()
    inside = (graph.field > 0.0)[variables]
    support, rounds = start > 0.0, 0
    while True:
        work = support.ravel().astype(np.float64)
        _bp_closing_kernels.pass_once(form, work, positions, graph.groups)
        reached = work.reshape(-1, graph.q) > 0.0
        dropped = np.stack([np.bincount(variables, ~column, graph.n_variables) for column in reached.T], axis=1)
        fresh = inside & (dropped[variables] == ~reached)
        if not fresh.any(axis=1).all() or not (whole or (fresh >= support).all()):
            full = np.full(shape, not whole, np.uint8)
            return Support(full, full, 0, known=whole)
        if (fresh == support).all():
            break
        support, rounds = fresh, rounds + 1
    kept, come = support.astype(np.uint8).reshape(shape), reached.astype(np.uint8).reshape(shape)
    return Support(kept, come, 0 if whole else rounds + 1)
