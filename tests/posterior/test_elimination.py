"""Elimination: against brute force and against enumeration, its cost known beforehand, its refusals, and its kernels."""

from __future__ import annotations

import tracemalloc

import networkx as nx
import numpy as np
import pytest

from lo_theory.posterior import ExactPosterior, _kernels, _table_kernels
from lo_theory.posterior._contraction_kernels import contract
from lo_theory.posterior._propagation_kernels import propagate, restrict
from lo_theory.posterior.exact import _METHODS
from lo_theory.posterior.graph import table_graph
from lo_theory.posterior.workspace import Rule, workspace
from lo_theory.problem import LODistribution, TableObservations, nae_sat, sparse_parity
from lo_theory.rng import Key
from lo_theory.testing import assignments, brute_force, emissions
from tests.posterior.reference import FAMILIES, random_contexts, random_problem
from tests.posterior.test_exact import TOLERANCE, largest_error


def compare(kind: str, count: int, seed: int, states: int, most: int) -> float:
    """Largest error of elimination over random problems of a family, six contexts each."""
    rng = np.random.default_rng([seed, FAMILIES.index(kind)])
    worst = 0.0
    for _ in range(count):
        distribution = random_problem(rng, kind, states=states, most=most)
        tokens = random_contexts(rng, distribution, 6)
        answer = ExactPosterior(distribution, method="elimination").marginals(tokens)
        worst = max(worst, largest_error(answer, *brute_force(distribution, tokens)))
    return worst


@pytest.mark.parametrize("kind", FAMILIES)
def test_agrees_with_brute_force(kind: str) -> None:
    small, large = compare(kind, 400, 1, 729, 10), compare(kind, 6, 2, 2**13, 24)
    print(f"{kind}, elimination: largest error of 400 problems {small:.2e}, of 6 up to 2**13 states {large:.2e}")
    assert max(small, large) < TOLERANCE


@pytest.mark.soak
@pytest.mark.parametrize("kind", FAMILIES)
def test_agrees_with_brute_force_at_length(kind: str) -> None:
    small, large = compare(kind, 8000, 3, 729, 10), compare(kind, 60, 4, 2**16, 32)
    print(f"{kind}, elimination: largest error of 8000 problems {small:.2e}, of 60 up to 2**16 states {large:.2e}")
    assert max(small, large) < TOLERANCE


def masked(distribution: LODistribution, rows: int, rate: float, seed: int, latents: float | None = None) -> np.ndarray:
    """Sequences with every token masked at ``rate``, or latents at their own."""
    tokens, rng = distribution.sample(Key(seed), rows), np.random.default_rng(seed)
    rates = np.where(distribution.layout.is_latent, rate if latents is None else latents, rate)
    tokens[rng.random(tokens.shape) < rates] = -1
    return tokens


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("rate", [0.3, 0.6, 0.9])
def test_agrees_with_enumeration_on_the_same_rows(noise: float, rate: float) -> None:
    """Loops, hard and soft: (16, 48), all latents masked, observations masked at a rate."""
    distribution = nae_sat(16, 48, seed=1, noise=noise)
    tokens = masked(distribution, 12, rate, 2, latents=1.0)
    by_tables = ExactPosterior(distribution, method="elimination")
    expected = ExactPosterior(distribution, method="enumeration").marginals(tokens)
    error = largest_error(by_tables.marginals(tokens), expected.probs, expected.log_evidence)
    widest = by_tables.estimate_cost(tokens).width.max()
    print(f"noise {noise}, rate {rate}: widest table {widest}, largest error {error:.2e}")
    assert error < TOLERANCE
    assert widest > 2


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.95, None])
def test_revealing_one_more_token_at_the_size_of_the_paper(rate: float | None) -> None:
    """(100, 200): P(revealed, x_p = v) = P(revealed) P(x_p = v | revealed); rate None masks all latents and nothing
    else.
    """
    distribution, rng = nae_sat(100, 200, seed=3), np.random.default_rng(4)
    tokens = masked(distribution, 6, rate or 0.0, 5, latents=rate or 1.0)
    posterior = ExactPosterior(distribution)
    before = posterior.marginals(tokens)
    assert np.isfinite(before.log_evidence).all()
    for b, row in enumerate(tokens):
        positions = rng.permutation(np.flatnonzero(row < 0))[:20]
        revealed = np.repeat(row[None], 2 * len(positions), axis=0)
        revealed[np.arange(len(revealed)), np.repeat(positions, 2)] = np.tile([0, 1], len(positions))
        after = posterior.marginals(revealed).log_evidence.reshape(-1, 2)
        shares = np.exp(after - before.log_evidence[b])
        assert np.abs(shares - before.probs[b, positions]).max() < 1e-11


def test_scopes_that_span_a_chain() -> None:
    """Masked observations of latents far apart on a noisy chain: no clique holds them, two branches or more meet."""
    links = [[i, i + 1, i + 1] for i in range(11)]
    apart = [[0, 6, 11], [11, 0, 5], [2, 9, 9], [3, 4, 10], [0, 1, 2], [7, 7, 1]]
    pair = np.array([[0.9, 0.1, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6]])
    tables = np.stack([pair, 1 - pair], axis=-1)
    distribution = LODistribution(np.full((12, 2), 0.5), TableObservations(np.array(links + apart), tables))
    tokens = np.concatenate([np.full((1, 12), -1), np.arange(11)[None] % 2, np.full((1, 6), -1)], axis=1)
    for method in ("elimination", "cheapest"):
        posterior = ExactPosterior(distribution, method=method)
        assert posterior.estimate_cost(tokens).width[0] == 2
        assert largest_error(posterior.marginals(tokens), *brute_force(distribution, tokens)) < TOLERANCE


def pair_problem(edges: list[tuple[int, int]], n: int) -> tuple[LODistribution, np.ndarray]:
    """Noisy disagreement observed along the edges of a graph, latents masked."""
    table = np.array([[0.2, 0.7, 0.7, 0.2]])
    law = TableObservations(np.array(edges), np.stack([1 - table, table], axis=-1))
    return LODistribution(np.full((n, 2), 0.5), law), np.array([[-1] * n + [1] * len(edges)])


@pytest.mark.parametrize(
    ("graph", "width"),
    [(nx.path_graph(40), 2), (nx.balanced_tree(3, 3), 2), (nx.cycle_graph(30), 3), (nx.grid_2d_graph(5, 9), 6),
     (nx.complete_graph(9), 9), (nx.grid_2d_graph(2, 60), 3)],
)  # fmt: skip
def test_width_of_known_graphs(graph: nx.Graph, width: int) -> None:
    graph = nx.convert_node_labels_to_integers(graph)
    distribution, tokens = pair_problem(list(graph.edges), len(graph))
    cost = ExactPosterior(distribution, method="elimination").estimate_cost(tokens)
    assert cost.width.tolist() == [width]
    assert cost.states.tolist() == [2**width]
    assert cost.undetermined.tolist() == [len(graph)]


def test_latents_that_determine_each_other_are_one_class() -> None:
    """Noise-free: a ring of parities of two has two states; not-all-equal with value 0 joins three latents."""
    ring = sparse_parity(40, 1, 2, 0.0, seed=0).observations.tables  # type: ignore[union-attr]
    law = TableObservations(np.array([[i, (i + 1) % 40] for i in range(40)]), ring)
    distribution = LODistribution(np.full((40, 2), [0.25, 0.75]), law)
    tokens = np.array([[-1] * 40 + [1, 0] * 20, [-1] * 40 + [1] * 39 + [0]])
    answer = ExactPosterior(distribution).marginals(tokens)
    assert np.isneginf(answer.log_evidence).tolist() == [False, True]
    # Latents 1 and 2, 5 and 6, ... differ from the rest: both states have twenty of each value.
    assert answer.log_evidence[0] == pytest.approx(np.log(2) + 20 * np.log(0.25 * 0.75))
    assert np.abs(answer.probs[0, :40] - 0.5).max() < TOLERANCE
    chain = nae_sat(61, 30, seed=0)
    scopes = np.array([[2 * i, 2 * i + 1, 2 * i + 2] for i in range(30)])
    equal = LODistribution(chain.prior, TableObservations(scopes, chain.observations.tables))  # type: ignore[union-attr]
    tokens = np.array([[-1] * 61 + [0] * 30])
    cost = ExactPosterior(equal).estimate_cost(tokens)
    assert (cost.states[0], cost.undetermined[0]) == (2, 61)
    assert ExactPosterior(equal).marginals(tokens).log_evidence[0] == pytest.approx(-60 * np.log(2))


@pytest.mark.parametrize(("noise", "n_observations"), [(0.1, 280), (1e-3, 3000), (1e-100, 500)])
def test_products_below_the_smallest_double(noise: float, n_observations: int) -> None:
    rng = np.random.default_rng(7)
    distribution = nae_sat(9, n_observations, seed=8, noise=noise)
    tokens = rng.integers(0, 2, (3, 9 + n_observations)).astype(np.int8)
    tokens[:, :9] = -1
    tokens[1, 100:200] = -1
    probs, log_evidence = brute_force(distribution, tokens)
    answer = ExactPosterior(distribution, method="elimination").marginals(tokens)
    assert np.abs(answer.probs - probs).max() < 1e-9
    assert np.allclose(answer.log_evidence, log_evidence, rtol=1e-13, atol=0)


def test_priors_of_any_size() -> None:
    rng = np.random.default_rng(8)
    law = nae_sat(9, 14, seed=1).observations
    rare = 10.0 ** -rng.uniform(20, 150, 9)
    prior = np.stack([rare, 1 - rare], axis=1)
    prior[::2] = prior[::2, ::-1]
    uniform = LODistribution(np.full((9, 2), 0.5), law)
    tokens = masked(uniform, 60, 0.4, 9, latents=1.0)
    distribution = LODistribution(prior, law)
    probs, log_evidence = brute_force(distribution, tokens)
    answer = ExactPosterior(distribution, method="elimination").marginals(tokens)
    assert np.abs(answer.probs - probs).max() < TOLERANCE
    assert np.allclose(answer.log_evidence, log_evidence, rtol=1e-13, atol=1e-13)
    assert log_evidence.min() < -200


def test_the_cost_is_what_is_taken() -> None:
    """A limit of exactly the numbers foretold is enough, one less is not; and not one number more is touched."""
    distribution, rng = nae_sat(40, 70, seed=2, noise=0.05), np.random.default_rng(3)
    graph, checked = table_graph(distribution), 0
    for rate in (0.1, 0.3, 0.5, 0.7):
        tokens = masked(distribution, 6, rate, int(rng.integers(1000)), latents=1.0)
        cost = ExactPosterior(distribution).estimate_cost(tokens)
        assert cost.fits.all()
        assert (cost.bytes == 8 * cost.numbers).all()
        for b, row in enumerate(tokens):
            numbers = int(cost.numbers[b])
            rule = Rule(2.0**26, 0.0, *_METHODS["cheapest"])
            arena = np.full(numbers + 100, np.pi)
            probs, evidence = np.empty((1, *distribution.token_marginals.shape)), np.empty(1)
            rest = (row[None], 0, rule, np.empty((0, 6)), probs, evidence)
            assert _kernels.answer_rows(graph, workspace(graph), arena, *rest) == (1, 0)
            assert (arena[numbers:] == np.pi).all()
            assert _kernels.answer_rows(graph, workspace(graph), arena[: numbers - 1], *rest) == (0, numbers)
            if numbers > 70 * 6 and cost.states[b] < numbers / 2:
                checked += 1
                ExactPosterior(distribution, limit=numbers, method="elimination").marginals(row)
                with pytest.raises(ValueError, match=f"over the limit of {numbers // 2}: use belief propagation"):
                    ExactPosterior(distribution, limit=numbers // 2, method="elimination").marginals(row)
    assert checked > 8


def test_refused_before_memory_is_taken() -> None:
    distribution = nae_sat(100, 200, seed=1, noise=0.1)
    tokens = masked(distribution, 1, 0.0, 1, latents=1.0)
    posterior = ExactPosterior(distribution)
    cost = posterior.estimate_cost(tokens)
    assert not cost.fits[0]
    assert cost.bytes[0] > 2**33
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"row 0: of its 100 undetermined latents \d+ hang together in a table of"):
        posterior.marginals(tokens)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_bits_do_not_depend_on_threads_batches_or_what_was_in_memory() -> None:
    distribution = nae_sat(60, 120, seed=3, noise=0.1)
    tokens = np.concatenate([masked(distribution, 100, rate, 4) for rate in (0.5, 0.7, 0.9)])
    posterior = ExactPosterior(distribution)
    assert (posterior.estimate_cost(tokens).numbers > 120 * 6).any()
    whole = posterior.marginals(tokens)
    for threads in (2, 3):
        answer = posterior.marginals(tokens, threads=threads)
        assert np.array_equal(answer.probs, whole.probs)
        assert np.array_equal(answer.log_evidence, whole.log_evidence)
    backwards = posterior.marginals(tokens[::-1])
    assert np.array_equal(backwards.probs[::-1], whole.probs)
    assert np.array_equal(posterior.marginals(tokens[137]).probs[0], whole.probs[137])


def test_methods_are_named() -> None:
    with pytest.raises(ValueError, match="method must be one of cheapest, enumeration, elimination, got 'fast'"):
        ExactPosterior(nae_sat(4, 4, seed=1), method="fast")


@pytest.mark.parametrize("extents", [(3,), (2, 3, 2), (4, 3, 5, 2), (2,) * 11, (3, 1, 7, 40)])
def test_tables_with_fewer_axes(extents: tuple[int, ...]) -> None:
    """multiply, add, project and smallest_positive against numpy, for every subset of up to 32 of axes."""
    rng, count, axes = np.random.default_rng(1), len(extents), workspace_axes()
    for _ in range(32):
        kept = rng.random(count) < 0.5
        shape = tuple(int(e) if k else 1 for e, k in zip(extents, kept, strict=True))
        table, other = rng.random(extents), rng.random(shape)
        axes.extent[:count] = extents
        axes.stride[:count] = np.where(kept, np.array(other.strides) // 8, 0)
        start = table.size + 3
        expected = {"multiply": table * other, "add": table + other}
        for name, values in expected.items():
            arena = np.concatenate([table.ravel(), [0, 0, 0], other.ravel()])
            getattr(_table_kernels, name)(arena, 0, axes, count, start)
            assert np.array_equal(arena[: table.size], values.ravel())
        arena = np.concatenate([table.ravel(), [0, 0, 0], np.zeros(other.size)])
        _table_kernels.project(arena, 0, axes, count, start)
        gone = tuple(np.flatnonzero(~kept).tolist())
        assert np.allclose(arena[start:], table.sum(axis=gone).ravel(), rtol=1e-14)
        arena[start] = 0
        assert _table_kernels.smallest_positive(arena, start - 3, other.size + 3) == min(
            arena[start + 1 :], default=np.inf
        )


def workspace_axes():  # type: ignore[no-untyped-def]
    return workspace(table_graph(nae_sat(3, 1, seed=0))).axes


def test_classes_agree_in_every_solution() -> None:
    """Members of a class take values of one index in every assignment that the hard part of a context allows."""
    rng, merged, contradictions = np.random.default_rng(11), 0, 0
    for number in range(160):
        hard = [nae_sat(7, 9, seed=number), nae_sat(5, 9, seed=number, q=3), sparse_parity(8, 6, 2, 0.0, seed=number)]
        kinds = [*hard, random_problem(rng, FAMILIES[number % len(FAMILIES)], states=256, most=10)]
        distribution = kinds[number % 4]
        graph, states = table_graph(distribution), assignments(distribution)
        domains = workspace(graph).domains
        allowed = distribution.prior[np.arange(len(domains.size)), states] > 0
        emission, roles = emissions(distribution, states), distribution.order
        contexts = masked(distribution, 3, 0.1, number, latents=0.9)
        for row in np.concatenate([contexts, random_contexts(rng, distribution, 6)]):
            x, o = row[roles[: len(domains.size)]], row[roles[len(domains.size) :]]
            possible = (allowed & ((states == x) | (x < 0))).all(axis=1)
            for j in np.flatnonzero(o >= 0):
                possible &= emission[:, j, o[j]] > 0
            solutions = states[possible]
            if not (restrict(graph, domains, row) and propagate(graph, domains) and contract(graph, domains)):
                assert len(solutions) == 0
                contradictions += 1
                continue
            index = np.full(solutions.shape, -1)
            for i, size in enumerate(domains.size):
                for c in range(size):
                    index[solutions[:, i] == domains.values[i, c], i] = c
            assert (index >= 0).all()
            assert np.array_equal(index, index[:, domains.root])
            merged += int((domains.root[domains.size > 1] != np.flatnonzero(domains.size > 1)).sum())
    print(f"{merged} latents joined to others, {contradictions} contradictions")
    assert merged > 50
    assert contradictions > 50
