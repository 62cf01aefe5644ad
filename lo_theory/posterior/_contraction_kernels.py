"""Numba kernels that make one class of latents that determine each other.

Where the states a revealed factor allows pair the values of two classes one to one (not-all-equal with value 0; with
value 1 and one latent known; a parity of two free latents), the second class takes the numbering of the first and
disappears.
"""

from __future__ import annotations

from lo_theory.posterior._compile import kernel
from lo_theory.posterior._propagation_kernels import gather, next_state, propagate
from lo_theory.posterior.graph import TableGraph
from lo_theory.posterior.workspace import Domains

__all__ = ["contract"]


@kernel
def _pairs_off(domains: Domains, a: int, b: int) -> bool:
    """Say whether the joint support of free classes a and b is one to one."""
    size = domains.size[domains.at[a]]
    if domains.size[domains.at[b]] != size:
        return False
    for c in range(size):
        partners, back = 0, 0
        for e in range(size):
            partners += domains.pairs[a, b, c, e]
            back += domains.pairs[a, b, e, c]
        if partners != 1 or back != 1:
            return False
    return True


@kernel
def _merge(domains: Domains, a: int, b: int) -> None:
    """Renumber free class b as its pairs with class a say, and join it to class a."""
    kept, gone = domains.at[a], domains.at[b]
    size = domains.size[kept]
    i, first = gone, True
    while first or i != gone:
        first = False
        for c in range(size):
            for e in range(size):
                if domains.pairs[a, b, c, e]:
                    domains.shift[a, c] = domains.values[i, e]
        for c in range(size):
            domains.values[i, c] = domains.shift[a, c]
        domains.root[i] = kept
        i = domains.follow[i]
    domains.follow[kept], domains.follow[gone] = domains.follow[gone], domains.follow[kept]


@kernel
def _join(graph: TableGraph, domains: Domains, j: int) -> bool:
    """Merge two classes that factor j pairs off; False if there are none."""
    free, state = gather(graph, domains, j, domains.offset[j])
    if free < 2:
        return False
    domains.pairs[:free, :free] = False
    going = True
    while going:
        if graph.tables[state] > 0.0:
            for a in range(free):
                for b in range(a + 1, free):
                    domains.pairs[a, b, domains.counter[a], domains.counter[b]] = True
        going, state = next_state(domains, free, state)
    for a in range(free):
        for b in range(a + 1, free):
            if _pairs_off(domains, a, b):
                _merge(domains, a, b)
                return True
    return False


@kernel
def contract(graph: TableGraph, domains: Domains) -> bool:
    """After ``propagate``: merge classes and propagate again until nothing changes. False on a contradiction."""
    while True:
        merged = False
        for j in range(graph.table.shape[0]):
            if domains.watched[j] and domains.active[j]:
                while _join(graph, domains, j):
                    merged = True
        if not merged:
            return True
        if not propagate(graph, domains):
            return False
