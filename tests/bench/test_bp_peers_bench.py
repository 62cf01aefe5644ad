"""Flooding belief propagation beside that of quimb (HV1BP) and PGMax, packages of other authors: one core, after
warm-up, in turns; million message updates/s = edges x 2 x iterations / s / 1e6.

Both are skipped where they are not installed; nothing here installs them. First their marginals must agree with ours
after the same iterations from the same messages. Time is CPU time of the process, all of its threads, on one core.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory.posterior.bp import BPOptions, BPResult, run
from lo_theory.posterior.factor_graph import FactorGraph, condition
from lo_theory.problem import nae
from lo_theory.problem.planted import planted
from lo_theory.rng import Key

ROUNDS, ITERATIONS = 9, 40
REPEATS = 10  # of ours a round: 40 iterations are a few milliseconds
BEFORE = 3  # iterations of ours that make the messages all contestants begin from
CHECKED = (1, 2, 20)  # iterations after them at which marginals are compared: the instability grows, then saturates


@dataclass(frozen=True)
class Contestant:
    """``marginals`` n iterations after the common messages, float[N, q]; ``seconds`` an iteration, measured once."""

    marginals: Callable[[int], np.ndarray]
    seconds: Callable[[], float]
    tolerance: float


@pytest.fixture
def one_core() -> Iterator[None]:
    """Pin to one core what starts from here on: XLA takes the number of its threads from it when first imported."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot pin a process to one core")
    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(allowed)})
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    os.sched_setaffinity(0, allowed)


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def per_iteration(contestant: Callable[[int], object]) -> float:
    """A long less a short run, which leaves out what does not grow with the iterations."""
    return (seconds(lambda: contestant(ITERATIONS + 3)) - seconds(lambda: contestant(3))) / ITERATIONS


def ours(graph: FactorGraph, iterations: int) -> BPResult:
    return run(graph, key=Key(0), options=BPOptions(iterations=iterations, tolerance=1e-300, messages=True))


def flooding(graph: FactorGraph) -> Contestant:
    def several(iterations: int) -> None:
        for _ in range(REPEATS):
            run(graph, key=Key(0), options=BPOptions(iterations=iterations, tolerance=1e-300))

    return Contestant(
        marginals=lambda n: ours(graph, BEFORE + n).marginals,
        seconds=lambda: per_iteration(several) / REPEATS,
        tolerance=0.0,
    )


def quimb(graph: FactorGraph, array: Callable[[np.ndarray], Any], norm: str, tolerance: float) -> Contestant:
    """``array`` turns numpy's into the arrays it is to work with; ``norm`` is that of its normalisation."""
    tensors = pytest.importorskip("quimb.tensor", reason="quimb is not installed")
    from quimb.tensor.belief_propagation.bp_common import compute_all_index_marginals_from_messages
    from quimb.tensor.belief_propagation.hv1bp import HV1BP

    table, names = array(graph.tables[0].reshape((graph.q,) * graph.k)), [f"x{i}" for i in range(graph.n_variables)]
    scopes = [[names[i] for i in scope] for scope in graph.scopes]
    network = tensors.TensorNetwork([tensors.Tensor(table, scope) for scope in scopes], virtual=True)
    to_factor, messages = array(ours(graph, BEFORE).to_factor), {}
    for tensor, scope, factor in zip(network.tensor_map, scopes, to_factor, strict=True):
        for name, message in zip(scope, factor, strict=True):
            # Of the two directions it reads this one first; the other is overwritten before it is read.
            messages[name, tensor] = messages[tensor, name] = message

    def fresh() -> Any:
        return HV1BP(network, messages=messages, normalize=norm, distance=norm)

    def marginals(n: int) -> np.ndarray:
        propagation = fresh()
        for _ in range(n + 1):  # its last messages to variables are one iteration older than ours
            propagation.iterate()
        found = compute_all_index_marginals_from_messages(network, propagation.get_messages_dense())
        return np.array([np.asarray(found[name]) for name in names])

    state = fresh()
    return Contestant(
        marginals=marginals,
        seconds=lambda: seconds(lambda: [state.iterate() for _ in range(ITERATIONS)]) / ITERATIONS,
        tolerance=tolerance,
    )


def quimb_double(graph: FactorGraph) -> Contestant:
    """As it comes: numpy, 64 bits."""
    return quimb(graph, np.asarray, "L2", 1e-9)


def quimb_single(graph: FactorGraph) -> Contestant:
    """The fastest of its settings found: torch, 32 bits, largest entry one."""
    return quimb(graph, lambda values: torch.tensor(values, dtype=torch.float32), "Linf", 1e-4)


def pgmax(graph: FactorGraph) -> Contestant:
    """As it comes: 32 bits, logarithms; no damping, compiled whole, which it leaves to its user."""
    jax = pytest.importorskip("jax", reason="PGMax is not installed: it needs jax")
    pytest.importorskip("pgmax", reason="PGMax is not installed")
    try:
        jax.lib.xla_bridge.get_backend()
    except AttributeError:
        pytest.skip(f"PGMax 0.6.1 calls jax.lib.xla_bridge, which jax {jax.__version__} has not: use jax 0.7.2")
    from pgmax import fgraph, fgroup, infer, vgroup

    variables = vgroup.NDVarArray(num_states=graph.q, shape=(graph.n_variables,))
    names = [variables[i] for i in range(graph.n_variables)]
    states = itertools.product(range(graph.q), repeat=graph.k)
    allowed = np.array([state for state, weight in zip(states, graph.tables[0], strict=True) if weight > 0])
    factors = fgroup.EnumFactorGroup(
        variables_for_factors=[[names[i] for i in scope] for scope in graph.scopes], factor_configs=allowed
    )
    whole = fgraph.FactorGraph(variables)
    whole.add_factors(factors)
    propagation = infer.BP(whole.bp_state, temperature=1.0)
    to_variable = jax.numpy.log(jax.numpy.asarray(ours(graph, BEFORE).to_variable, dtype="float32"))
    start = dataclasses.replace(propagation.init(), ftov_msgs=to_variable.ravel())
    compiled = jax.jit(propagation.run, static_argnames=("num_iters", "damping", "temperature"))

    def after(n: int) -> Any:
        return jax.block_until_ready(compiled(start, num_iters=n, damping=0.0, temperature=1.0))

    return Contestant(
        marginals=lambda n: np.asarray(infer.get_marginals(propagation.get_beliefs(after(n)))[variables]),
        seconds=lambda: per_iteration(after),
        tolerance=1e-4,
    )


PEERS = {"quimb, numpy, float64": quimb_double, "quimb, torch, float32": quimb_single, "PGMax, float32": pgmax}


def check_agreement(mine: Contestant, peer: Contestant) -> float:
    """Largest difference of the marginals; fails if it is over the tolerance, or if one iteration more makes none."""
    worst = 0.0
    for n in CHECKED:
        theirs = peer.marginals(n)
        same, later = (float(np.abs(mine.marginals(m) - theirs).max()) for m in (n, n + 1))
        assert same <= peer.tolerance, f"not the same iteration: marginals differ by {same} after {n} iterations"
        assert later > 10 * peer.tolerance, f"{n} and {n + 1} iterations cannot be told apart: {later}"
        worst = max(worst, same)
    return worst


@pytest.mark.filterwarnings("ignore:jax.lib.xla_bridge:DeprecationWarning")
@pytest.mark.parametrize("N", [2000, 10_000])
@pytest.mark.parametrize("name", list(PEERS))
def test_nae_against_packages(benchmark: Any, one_core: None, name: str, N: int) -> None:
    """3-NAE, q = 3, c = 28, flooding without damping. Goal: 20 times the package in the median round."""
    instance = planted(nae(3, 3), N, 28.0, key=Key(2))  # without two constraints on one scope, which PGMax refuses
    graph = condition(instance.distribution, instance.tokens)
    mine, peer = flooding(graph), PEERS[name](graph)
    gap = check_agreement(mine, peer)
    contestants = (mine, peer)
    for contestant in contestants:
        contestant.seconds()
    times = np.array([[contestant.seconds() for contestant in contestants] for _ in range(ROUNDS)])
    benchmark.pedantic(mine.seconds, rounds=1)
    rates = 2 * graph.scopes.size / times / 1e6
    spread = {"flooding": rates[:, 0], name: rates[:, 1], "times": rates[:, 0] / rates[:, 1]}
    print(f"\nN = {N}, {name}, load {os.getloadavg()[0]:.1f}, marginals within {gap:.0e} of ours")
    for row, values in spread.items():
        low, median, high = np.min(values), np.median(values), np.max(values)
        print(f"  {row}: {median:.1f} (least {low:.1f}, most {high:.1f} of {ROUNDS} rounds)")
        benchmark.extra_info[row] = [low, median, high]
