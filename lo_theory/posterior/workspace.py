"""The memory a kernel of the exact posterior works in: named tuples of arrays, owned by one call of one kernel.

Latents that determine each other are one *class*: its members share the index into their domains, and its root
represents it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lo_theory.jit import packed
from lo_theory.posterior.graph import TableGraph

__all__ = [
    "Axes",
    "Carried",
    "Cliques",
    "Domains",
    "Placement",
    "Rule",
    "Search",
    "Terms",
    "Walk",
    "Workspace",
    "workspace",
]

LARGEST_CLIQUE = 64
"""Axes of a table: with at least two values each, more states than can be addressed."""

BLOCK = 256
"""States of a table that are walked without a carry."""


@packed
class Rule(NamedTuple):
    """What a row may take and how components are solved."""

    limit: float  # states of an enumeration, and numbers of tables and laws
    room: float  # numbers allowed whatever the limit
    few: float  # states of a component that are enumerated without looking for an order
    node: float  # operations of elimination that one state of an enumeration is taken to cost


@packed
class Domains(NamedTuple):
    """Values each latent can still take, classes of latents, and the observed factors that still matter."""

    size: NDArray[np.int32]  # [N]
    values: NDArray[np.int32]  # [N, q], the first size[i] entries, by the index that the members of a class share
    root: NDArray[np.int32]  # [N]: the latent that represents the class
    follow: NDArray[np.int32]  # [N]: next member of the class, in a ring
    offset: NDArray[np.int64]  # [P]: where the factor of a revealed observation begins in the tables, -1 if masked
    watched: NDArray[np.bool_]  # [P]: revealed and able to exclude a state
    active: NDArray[np.bool_]  # [P]: revealed and not constant on the remaining domains
    level: NDArray[np.float64]  # [P]: the constant of a revealed factor that is not active
    queue: NDArray[np.int32]  # [P]
    queued: NDArray[np.bool_]  # [P]
    at: NDArray[np.int32]  # [k]: free classes of the scope being scanned
    shift: NDArray[np.int64]  # [k, q]: steps in the tables from index 0 of a free class
    counter: NDArray[np.int32]  # [k]
    support: NDArray[np.bool_]  # [k, q]
    pairs: NDArray[np.bool_]  # [k, k, q, q]: joint support of two free classes


@packed
class Placement(NamedTuple):
    """Connected components of the undetermined classes, each in the order in which it is enumerated (eliminated from
    the end).
    """

    placed: NDArray[np.int32]  # [N]: component c is placed[starts[c]:starts[c + 1]], roots only
    starts: NDArray[np.int32]  # [N + 1]
    rank: NDArray[np.int32]  # [N]: place of a root, -1 if determined
    component: NDArray[np.int32]  # [N]
    score: NDArray[np.int32]  # [N]
    frontier: NDArray[np.int32]  # [N]
    open: NDArray[np.int32]  # [P]: latents of an active factor not yet placed
    eliminated: NDArray[np.bool_]  # [N]: component c is solved by elimination
    joint: NDArray[np.int64]  # [N]: then, first number after its tables
    largest: NDArray[np.int64]  # [N]: then, states of its largest clique


@packed
class Terms(NamedTuple):
    """Functions of a few classes of one component, chained to the root that is placed last; that root comes last in a
    term.

    A factor multiplies the weight. A part of a masked observation collects mass in ``cells``: by observed value where
    ``base`` >= 0 (an enumerated component that holds all free latents of the scope), else by joint state of the classes
    it holds.
    """

    head: NDArray[np.int32]  # [N]
    next: NDArray[np.int32]
    base: NDArray[np.int64]  # where the tables are read with all free classes at index 0
    arity: NDArray[np.int32]
    at: NDArray[np.int32]  # [terms, k]
    shift: NDArray[np.int64]  # [terms, k, q]: steps in the tables, by index into the domain
    step: NDArray[np.int64]  # [terms, k]: steps in the cells, by index into the domain
    cells: NDArray[np.int64]  # first cell
    width: NDArray[np.int64]  # number of cells


@packed
class Walk(NamedTuple):
    """State of the depth-first enumeration; weights are mantissas with an exponent in units of 2**256."""

    prior: NDArray[np.float64]  # [N, q]: weight of a class by index, at its root
    prior_exponent: NDArray[np.int64]  # [N, q]
    weight: NDArray[np.float64]  # [N, q]: weight of each child of the node open at a place
    exponent: NDArray[np.int64]  # [N, q]
    total: NDArray[np.float64]  # [N, q]: mass below each child, in units of the component's exponent
    cursor: NDArray[np.int32]  # [N]
    choice: NDArray[np.int32]  # [N]: index of the value in the domain
    mass: NDArray[np.float64]  # [N, q]: marginals of the classes, by index into the domain


@packed
class Search(NamedTuple):
    """State of the search for an elimination order; a component's roots are numbered from 0."""

    adjacency: NDArray[np.uint64]  # [N, words]
    touched: NDArray[np.uint64]  # [words]
    alive: NDArray[np.bool_]  # [N]
    bits: NDArray[np.float64]  # [N]: log2 of the size of a domain
    clique: NDArray[np.float64]  # [N]: log2 of the states of the clique that eliminating a root now would make
    key: NDArray[np.float64]  # [N]
    sequence: NDArray[np.int32]  # [N]
    best: NDArray[np.int32]  # [N]
    latent: NDArray[np.int32]  # [N]


@packed
class Cliques(NamedTuple):
    """Tables of elimination, by rank: the root itself and its separator, the roots still there when it goes."""

    members: NDArray[np.int32]  # [N, LARGEST_CLIQUE]: ranks, increasing, its own last
    arity: NDArray[np.int32]  # [N]
    states: NDArray[np.int64]  # [N]
    table: NDArray[np.int64]  # [N]: first number of P(root | separator), its own axis fastest
    message: NDArray[np.int64]  # [N]: first number of the message to the separator, then of the law of the separator
    least: NDArray[np.float64]  # [N]: smallest positive number of the message
    child: NDArray[np.int32]  # [N]: a rank whose separator has this rank last, -1 if none
    sibling: NDArray[np.int32]  # [N]


@packed
class Axes(NamedTuple):
    """One walk over a table beside another that lacks some of its axes."""

    extent: NDArray[np.int64]  # [LARGEST_CLIQUE]
    stride: NDArray[np.int64]  # [LARGEST_CLIQUE]: steps in the other table
    counter: NDArray[np.int64]  # [LARGEST_CLIQUE]
    block: NDArray[np.int64]  # [BLOCK]


@packed
class Carried(NamedTuple):
    """Functions P(carried classes | separator) on the way to the clique where the parts of a scope meet."""

    rank: NDArray[np.int32]  # [k + 1]: whose separator
    holds: NDArray[np.bool_]  # [k + 1, k]: classes of the part that are carried
    at: NDArray[np.int64]  # [k + 1]: first number
    used: NDArray[np.bool_]  # [k + 1]
    done: NDArray[np.bool_]  # [k]
    digit: NDArray[np.int64]  # [k]


@packed
class Workspace(NamedTuple):
    """All memory of one kernel call but the tables."""

    domains: Domains
    placement: Placement
    factors: Terms
    parts: Terms
    first_part: NDArray[np.int32]  # [P + 1]
    walk: Walk
    law: NDArray[np.float64]  # [r]
    search: Search
    cliques: Cliques
    axes: Axes
    carried: Carried


def _terms(n: int, count: int, k: int, q: int) -> Terms:
    return Terms(
        head=np.empty(n, np.int32),
        next=np.empty(count, np.int32),
        base=np.empty(count, np.int64),
        arity=np.empty(count, np.int32),
        at=np.empty((count, k), np.int32),
        shift=np.empty((count, k, q), np.int64),
        step=np.empty((count, k), np.int64),
        cells=np.empty(count, np.int64),
        width=np.empty(count, np.int64),
    )


def _domains(n: int, p: int, k: int, q: int) -> Domains:
    return Domains(
        size=np.empty(n, np.int32),
        values=np.empty((n, q), np.int32),
        root=np.empty(n, np.int32),
        follow=np.empty(n, np.int32),
        offset=np.empty(p, np.int64),
        watched=np.empty(p, np.bool_),
        active=np.empty(p, np.bool_),
        level=np.empty(p),
        queue=np.empty(p, np.int32),
        queued=np.empty(p, np.bool_),
        at=np.empty(k, np.int32),
        shift=np.empty((k, q), np.int64),
        counter=np.empty(k, np.int32),
        support=np.empty((k, q), np.bool_),
        pairs=np.empty((k, k, q, q), np.bool_),
    )


def _placement(n: int, p: int) -> Placement:
    return Placement(
        placed=np.empty(n, np.int32),
        starts=np.empty(n + 1, np.int32),
        rank=np.empty(n, np.int32),
        component=np.empty(n, np.int32),
        score=np.empty(n, np.int32),
        frontier=np.empty(n, np.int32),
        open=np.empty(p, np.int32),
        eliminated=np.empty(n, np.bool_),
        joint=np.empty(n, np.int64),
        largest=np.empty(n, np.int64),
    )


def _walk(n: int, q: int) -> Walk:
    return Walk(
        prior=np.empty((n, q)),
        prior_exponent=np.empty((n, q), np.int64),
        weight=np.empty((n, q)),
        exponent=np.empty((n, q), np.int64),
        total=np.empty((n, q)),
        cursor=np.empty(n, np.int32),
        choice=np.empty(n, np.int32),
        mass=np.empty((n, q)),
    )


def _search(n: int) -> Search:
    words = (n + 63) // 64
    return Search(
        adjacency=np.empty((n, words), np.uint64),
        touched=np.empty(words, np.uint64),
        alive=np.empty(n, np.bool_),
        bits=np.empty(n),
        clique=np.empty(n),
        key=np.empty(n),
        sequence=np.empty(n, np.int32),
        best=np.empty(n, np.int32),
        latent=np.empty(n, np.int32),
    )


def _cliques(n: int) -> Cliques:
    return Cliques(
        members=np.empty((n, LARGEST_CLIQUE), np.int32),
        arity=np.empty(n, np.int32),
        states=np.empty(n, np.int64),
        table=np.empty(n, np.int64),
        message=np.empty(n, np.int64),
        least=np.empty(n),
        child=np.empty(n, np.int32),
        sibling=np.empty(n, np.int32),
    )


def workspace(graph: TableGraph) -> Workspace:
    """Allocate the memory of one kernel call: some 100 k bytes an observation and N/8 + 400 a latent, whatever the
    number of rows.
    """
    (n, q), (p, k) = graph.prior.shape, graph.scopes.shape
    return Workspace(
        domains=_domains(n, p, k, q),
        placement=_placement(n, p),
        factors=_terms(n, p, k, q),
        parts=_terms(n, p * k, k, q),
        first_part=np.empty(p + 1, np.int32),
        walk=_walk(n, q),
        law=np.empty(graph.r),
        search=_search(n),
        cliques=_cliques(n),
        axes=Axes(
            extent=np.empty(LARGEST_CLIQUE, np.int64),
            stride=np.empty(LARGEST_CLIQUE, np.int64),
            counter=np.empty(LARGEST_CLIQUE, np.int64),
            block=np.empty(BLOCK, np.int64),
        ),
        carried=Carried(
            rank=np.empty(k + 1, np.int32),
            holds=np.empty((k + 1, k), np.bool_),
            at=np.empty(k + 1, np.int64),
            used=np.empty(k + 1, np.bool_),
            done=np.empty(k, np.bool_),
            digit=np.empty(k, np.int64),
        ),
    )
