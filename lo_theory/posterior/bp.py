"""Belief propagation on a factor graph (Definition B.10): options, runs, results.

A message to a factor is the product of the field and the other factors' messages, normalised; a message to a variable
is the weight of the factor summed over its other variables. ``run`` answers one graph, ``run_batch`` many, in threads.

A run is made in plain floating point first, with a floor under every number that is no exact zero (``bp_support`` says
which zeros are). If a number has met the floor, the run is made again with a higher one; if that changes nothing and no
weight is tiny itself, this is the answer. Else, and where a whole message falls low, it is made again, from the same
start and in the same order, with an exponent of its own for every number (``_bp_deep_kernels``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.posterior import _bp_closing_kernels, _bp_deep_kernels, _bp_kernels
from lo_theory.posterior._bp_form_kernels import LOW
from lo_theory.posterior.bp_forms import AllEqual, Form, Parity, Table, fields_to_one, find_form, tables_to_one
from lo_theory.posterior.bp_plan import FloodPlan, SweepPlan, flood_plan, sweep_plan
from lo_theory.posterior.bp_support import Support, find_support
from lo_theory.posterior.factor_graph import FactorGraph, check_size
from lo_theory.problem.layout import plain
from lo_theory.problem.seams import check_threads, checked
from lo_theory.rng import Key

__all__ = ["BPOptions", "BPResult", "run", "run_batch"]


@checked
@dataclass(frozen=True)
class BPOptions:
    """How to iterate.

    ``schedule``: "flooding" renews all messages at once; "sequential" goes through the variables one by one, in a new
    random order each sweep. ``damping`` d in [0, 1) keeps d of the old message (flooding: of messages to variables,
    sequential: to factors), exact zeros excepted. ``start``: "noise" (uniform, each entry times 1 + ``noise`` u, u
    uniform in [-1, 1]), "random" (entries uniform in (0, 1]) or "planted" (certain of a given assignment). At most
    ``iterations``; converged when no message changed by more than ``tolerance`` over one and over two iterations
    (absolute: damped messages smaller than it may still fall), so never in fewer than three.
    ``messages`` keeps them in the result; ``closed_forms`` false uses the general kernel for every table.

    Flooding on satisfied NAE or colouring constraints multiplies the value imbalance by -(k - 1) c |lambda| an
    iteration: damp by more than (x - 1)/(x + 1), x = (k - 1) c |lambda|, or use the sequential schedule.
    """

    schedule: str = "flooding"
    damping: float = 0.0
    start: str = "noise"
    noise: float = 0.02
    iterations: int = 1000
    tolerance: float = 1e-8
    messages: bool = False
    closed_forms: bool = True

    def __post_init__(self) -> None:
        for name, known in (("schedule", _SCHEDULES), ("start", _STARTS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not 0.0 <= self.damping < 1.0:
            raise ValueError(f"damping lies in [0, 1), got {self.damping}")
        if not 0.0 <= self.noise < 1.0:
            raise ValueError(f"noise lies in [0, 1), got {self.noise}: beyond, messages would be negative")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")
        if not (self.tolerance > 0.0 and math.isfinite(self.tolerance)):
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")


@dataclass(frozen=True, eq=False)
class BPResult:
    """What a run ended with; exact on trees once converged without damping, an approximation elsewhere.

    ``marginals`` float64[N, q]; ``free_entropy`` the Bethe free entropy in nats (ln of the partition function on trees;
    -inf if contradictory; where numbers underflow held within ``FactorGraph.log_weight_bounds``, since messages that
    vanish sweep by sweep would take it anywhere); ``iterations`` done; ``residual`` and ``residual_two`` the
    largest change of a message over one and over two iterations, when last compared: at the end, in a run of a few
    iterations perhaps just before it;
    ``converged`` both at most the tolerance. ``contradictory``: every value of a message or a belief was excluded by
    exact zeros; the message was set to uniform and the run continued. Small numbers are never taken for zero, though
    those below 1e-150 are shown as zero. From a
    "noise" or "random" start, whose entries are all positive, this proves that no state has positive weight: the
    values of such a state stay positive in every message. From a "planted" start it may be the start that contradicts.
    Without it nothing is proven. ``to_factor``, ``to_variable`` float64[F, k, q], normalised, if asked for.
    """

    marginals: NDArray[np.float64]
    free_entropy: float
    iterations: int
    residual: float
    residual_two: float
    converged: bool
    contradictory: bool
    to_factor: NDArray[np.float64] | None = None
    to_variable: NDArray[np.float64] | None = None

    @property
    def free_entropy_per_variable(self) -> float:
        """Bethe free entropy over N, nats."""
        return self.free_entropy / len(self.marginals)

    @property
    def oscillating(self) -> bool:
        """Whether the run ended in an oscillation of period two: large change over one iteration, hardly any over
        two.
        """
        return not self.converged and self.residual_two <= 1e-3 * self.residual


_Start = Callable[[FactorGraph, Key, BPOptions, "NDArray[np.int64] | None"], NDArray[np.float64]]


def _random_start(graph: FactorGraph, key: Key, noise: float) -> NDArray[np.float64]:
    messages = np.empty((graph.n_factors * graph.k, graph.q))
    _bp_closing_kernels.random_messages(messages, noise, *key.fold("start").words())
    return messages


def _planted_start(graph: FactorGraph, assignment: NDArray[np.int64] | None) -> NDArray[np.float64]:
    if assignment is None:
        raise ValueError("start 'planted' needs the planted assignment: pass planted=")
    fixed = np.zeros(graph.n_variables - graph.n_latents, np.int64)
    return np.eye(graph.q)[np.concatenate([assignment, fixed])[graph.scopes.ravel()]]


_STARTS: dict[str, _Start] = {
    "noise": lambda graph, key, options, planted: _random_start(graph, key, options.noise),
    "random": lambda graph, key, options, planted: _random_start(graph, key, 1.0),
    "planted": lambda graph, key, options, planted: _planted_start(graph, planted),
}

_Floors = tuple[float, float]  # as ``flood`` takes them
_FLOORS = (LOW, 1e20 * LOW)
_MILD = 1e-50  # where weights or fields are smaller, numbers near the floor may matter
_APART = 1e-9  # the most by which runs above two floors may differ

_Run = tuple[int, float, float, int, bool]
"""Iterations, change over one and over two, vanished, converged."""


class _Read(NamedTuple):
    """What is read off the last messages."""

    belief: NDArray[np.float64]  # [n, q]
    free_entropy: float
    vanished: int
    to_factor: NDArray[np.float64]  # [F, k, q], as what follows
    to_variable: NDArray[np.float64]
    order: NDArray[np.int64]  # [F]: factor of the graph
    deep: bool  # whether numbers had exponents of their own


@dataclass(frozen=True, eq=False)
class _Task:
    """A run to be done: the graph with tables of largest entry about one, where it starts and what it may lose."""

    graph: FactorGraph
    start: NDArray[np.float64]  # [F k, q]
    words: Any  # of the order of the sweeps
    options: BPOptions

    @property
    def limits(self) -> tuple[float, int, float]:
        return self.options.damping, self.options.iterations, self.options.tolerance

    def form(self, *, scaled: bool) -> Form:
        graph = self.graph
        return find_form(graph.tables, graph.q, graph.k, scaled=scaled, closed=self.options.closed_forms)


def _flood(task: _Task, support: Support, floors: _Floors) -> tuple[Any, NDArray[np.float64], FloodPlan]:
    graph = task.graph
    plan, blocks = flood_plan(graph, damped=task.options.damping > 0.0)
    work = np.ones(len(blocks.mark))
    messages = np.ascontiguousarray(task.start.reshape(*graph.scopes.shape, graph.q)[plan.order])
    _bp_closing_kernels.scatter(messages.ravel(), plan.positions, work, graph.q)
    places = np.zeros(len(work), np.uint8)
    _bp_closing_kernels.scatter(support.to_factor[plan.order].ravel(), plan.positions, places, graph.q)
    form = task.form(scaled=True)
    ran = _bp_kernels.flood(form, work, plan, blocks, graph.q, task.limits, places, support.settled, floors)
    return ran, work, plan


def _sweep(task: _Task, support: Support, floors: _Floors) -> tuple[Any, NDArray[np.float64], SweepPlan]:
    graph, plan = task.graph, sweep_plan(task.graph)
    work, places = np.empty(task.start.size), np.empty(task.start.size, np.uint8)
    _bp_closing_kernels.scatter(task.start.ravel(), plan.positions, work, graph.q)
    _bp_closing_kernels.scatter(support.to_factor.ravel(), plan.positions, places, graph.q)
    form = task.form(scaled=True)
    ran = _bp_kernels.sweep(form, work, plan, graph.field, task.words, task.limits, places, support.settled, floors)
    return ran, work, plan


_SCHEDULES: dict[str, Callable[[_Task, Support, _Floors], tuple[Any, NDArray[np.float64], FloodPlan | SweepPlan]]] = {
    "flooding": _flood,
    "sequential": _sweep,
}


def _read_floats(
    task: _Task, support: Support, work: NDArray[np.float64], plan: FloodPlan | SweepPlan
) -> tuple[_Read, bool]:
    """Read everything off the messages in ``work``; also whether a number was lost on the way."""
    graph, kernels = task.graph, _bp_closing_kernels
    to_factor, to_variable = np.empty((2, graph.n_factors, graph.k, graph.q))
    vanished = kernels.take_normalised(to_factor.ravel(), plan.positions, work, graph.q)
    lost = kernels.pass_once(task.form(scaled=False), work, plan.positions, plan.groups)[1]
    kernels.gather(to_variable.ravel(), plan.positions, work, graph.q)
    belief, scopes, reached = np.array(graph.field), graph.scopes[plan.order], support.to_variable[plan.order]
    entropy, empty, gone = kernels.close(to_factor, to_variable, scopes, belief, np.zeros_like(belief), reached)
    return _Read(belief, entropy, vanished + empty, to_factor, to_variable, plan.order, deep=False), gone or lost


def _run_floats(task: _Task) -> tuple[_Run, _Read] | None:
    """Run in plain floating point; None if a number was lost by underflow and the answer may depend on it."""
    graph = task.graph
    closed = not isinstance(task.form(scaled=False), Table)
    allowed = find_form(np.where(graph.tables > 0.0, 1.0, 0.0), graph.q, graph.k, scaled=False, closed=closed)
    support, answers = find_support(graph, allowed, task.start), []
    least = min(float(numbers[numbers > 0.0].min(initial=1.0)) for numbers in (graph.tables, graph.field))
    if not support.known:
        return None
    early = (LOW / least) ** (1 / max(1, graph.k - 1))  # so that no message to a variable falls below LOW
    for floor in _FLOORS:
        (*ran, held), work, plan = _SCHEDULES[task.options.schedule](task, support, (floor, early))
        read, lost = _read_floats(task, support, work, plan)
        vanished = ran[3] + read.vanished
        if held >= _bp_kernels.GONE or (held and least < _MILD) or (vanished > 0 and support.settled > 0):
            return None
        if held or lost:
            read = _run_deep(task, read)[1]
        answers.append((tuple(ran), read))
        if not held:
            return answers[0]
    one, other = answers[0][1], answers[-1][1]
    names = ("belief", "to_factor", "to_variable")
    apart = max(np.abs(getattr(one, name) - getattr(other, name)).max(initial=0.0) for name in names)
    if apart > _APART or not math.isclose(one.free_entropy, other.free_entropy, rel_tol=_APART, abs_tol=_APART):
        return None
    return answers[0]


_NUMBERS: dict[type, Callable[[Any], tuple[int, NDArray[np.float64]]]] = {
    AllEqual: lambda form: (_bp_deep_kernels.ALL_EQUAL, np.column_stack([form.unequal, form.equal])),
    Parity: lambda form: (_bp_deep_kernels.PARITY, np.column_stack([form.even, form.odd])),
    Table: lambda form: (_bp_deep_kernels.TABLE, form.tables),
}
"""What ``deep_run`` takes for the tables."""


def _run_deep(task: _Task, held: _Read | None = None) -> tuple[_Run, _Read]:
    """Run the same with an exponent of its own for every number; or only read the messages ``held`` off again."""
    graph, plan = task.graph, sweep_plan(task.graph)
    start, (damping, iterations, tolerance) = np.empty(task.start.size), task.limits
    if held is None:
        _bp_closing_kernels.scatter(task.start.ravel(), plan.positions, start, graph.q)
    else:
        _bp_closing_kernels.scatter(held.to_factor.ravel(), plan.positions[held.order], start, graph.q)
    form = task.form(scaled=True)
    scaled = getattr(form, "scaled", np.zeros(len(graph.tables), np.bool_))
    kind, tables = _NUMBERS[type(form)](form)
    limits = damping, iterations if held is None else 0, tolerance
    flooding = task.options.schedule == "flooding"
    *ran, mantissas, exponents = _bp_deep_kernels.deep_run(
        tables, kind, scaled, plan, graph.field, task.words, limits, start, flooding
    )
    belief = np.array(graph.field)
    to_factor, to_variable = np.empty((2, start.size // graph.q, graph.q))
    entropy, empty = _bp_deep_kernels.deep_close(
        tables, kind, plan, mantissas, exponents, to_factor, to_variable, belief
    )
    places = plan.positions // graph.q
    read = _Read(belief, entropy, empty, to_factor[places], to_variable[places], plan.order, deep=True)
    return tuple(ran), read  # type: ignore[return-value]


def _check_planted(graph: FactorGraph, planted: ArrayLike | None) -> NDArray[np.int64] | None:
    if planted is None:
        return None
    assignment = plain(planted, "planted")
    if assignment.shape != (graph.n_latents,) or assignment.dtype.kind not in "iub":
        raise ValueError(
            f"planted must be {graph.n_latents} integers, got shape {assignment.shape}, dtype {assignment.dtype}"
        )
    if assignment.size and not (assignment.min() >= 0 and assignment.max() < graph.q):
        raise ValueError(f"planted holds values 0..{graph.q - 1}, found {assignment.min()}..{assignment.max()}")
    return assignment.astype(np.int64)


@checked
def run(
    graph: FactorGraph, *, key: Key, options: BPOptions | None = None, planted: ArrayLike | None = None
) -> BPResult:
    """Run belief propagation on one graph (see ``BPOptions`` and ``BPResult``).

    ``key`` addresses the start and the order of the sweeps: the same numbers for any number of threads. ``planted``
    int[N] is for start "planted". Cost an iteration: 2 F k messages, of q**k operations an edge for general tables and
    k q for all-equal and parity tables; memory 8 F k q bytes, twice while change is measured, and once more with
    damping in flooding. A run in which numbers underflow (hard constraints that freeze variables) is made twice in
    plain numbers, and if these are not enough a third time, an iteration up to some 20 times slower. Errors:
    ValueError for a graph over 2**31 numbers and for an assignment that does not fit. Neither contradiction nor lack
    of convergence is an error.
    """
    options = options or BPOptions()
    check_size(graph)
    start = _STARTS[options.start](graph, key, options, _check_planted(graph, planted))
    tables, shift = tables_to_one(graph.tables)
    field, raised = fields_to_one(graph.field)
    task = _Task(replace(graph, tables=tables, field=field), start, key.fold("order").words(), options)
    (iterations, one, two, vanished, converged), read = _run_floats(task) or _run_deep(task)
    least, most = graph.log_weight_bounds if read.deep else (-math.inf, math.inf)
    contradictory = vanished + read.vanished > 0
    back = np.argsort(read.order) if options.messages else None
    entropy = float(read.free_entropy) + math.log(2.0) * (shift[graph.table].sum() + raised)
    return BPResult(
        marginals=read.belief[: graph.n_latents],
        free_entropy=-math.inf if contradictory else min(max(entropy, least), most),
        iterations=int(iterations),
        residual=float(one),
        residual_two=float(two),
        converged=bool(converged),
        contradictory=bool(contradictory),
        to_factor=None if back is None else read.to_factor[back],
        to_variable=None if back is None else read.to_variable[back],
    )


@checked
def run_batch(
    graphs: Sequence[FactorGraph],
    *,
    key: Key,
    options: BPOptions | None = None,
    planted: Sequence[ArrayLike] | None = None,
    threads: int = 1,
) -> list[BPResult]:
    """Run belief propagation on each graph, graph b under ``key.fold(b)``; the same bits for any number of threads."""
    check_threads(threads)
    if isinstance(graphs, FactorGraph):
        raise ValueError("graphs must be a sequence of factor graphs, got one: use run, or [graph]")
    if planted is not None and len(planted) != len(graphs):
        raise ValueError(f"planted must hold one assignment a graph: {len(graphs)} graphs, {len(planted)} assignments")

    def one(b: int) -> BPResult:
        return run(graphs[b], key=key.fold(b), options=options, planted=None if planted is None else planted[b])

    if threads == 1:
        return [one(b) for b in range(len(graphs))]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(len(graphs))))
