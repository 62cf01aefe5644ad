"""Belief propagation where numbers fall far below what a float holds: known answers, and the two ways of computing.

What they must reject: the same iterations in plain floating point alone, where small is zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from lo_theory.diffusion import Bernoulli, Pattern, Suffix, TwoRates, Uniform
from lo_theory.posterior import ExactPosterior, bp
from lo_theory.posterior.bp import BPOptions, BPResult, run
from lo_theory.posterior.bp_forms import AllEqual, Parity, Table, find_form
from lo_theory.posterior.bp_posterior import BPPosterior
from lo_theory.posterior.bp_support import Support
from lo_theory.posterior.factor_graph import FactorGraph, condition
from lo_theory.problem import LODistribution, TableObservations, nae, nae_sat, sparse_parity
from lo_theory.problem.planted import planted
from lo_theory.problem.predicates import xor
from lo_theory.rng import Key
from tests.posterior.test_bp import ALL_STEPS, SHAPES, loopy
from tests.posterior.trees import make_forest, random_prior, random_table

SCHEDULES = ("flooding", "sequential")
bp_run_deep = bp._run_deep
FROZEN = (nae_sat(5, 15, seed=3), [-1, 1, -1, -1, -1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])


def deep(graph: FactorGraph, key: Key, options: BPOptions, monkeypatch: pytest.MonkeyPatch) -> BPResult:
    with monkeypatch.context() as patch:
        patch.setattr(bp, "_run_floats", lambda task: None)
        return run(graph, key=key, options=options)


@pytest.mark.parametrize("damping", [0.0, 0.4])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("kind", "q", "k"), SHAPES)
def test_both_ways_agree(
    kind: str, q: int, k: int, schedule: str, damping: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = loopy(kind, q, k)
    options = BPOptions(schedule, damping, noise=0.5, iterations=6, tolerance=ALL_STEPS, messages=True)
    plain, slow = run(graph, key=Key(3), options=options), deep(graph, Key(3), options, monkeypatch)
    for name in ("marginals", "to_factor", "to_variable"):
        np.testing.assert_allclose(getattr(slow, name), getattr(plain, name), rtol=0, atol=1e-12)
    for name in ("free_entropy", "residual", "residual_two"):
        assert getattr(slow, name) == pytest.approx(getattr(plain, name), rel=1e-10, abs=1e-12)
    assert (slow.iterations, slow.contradictory) == (plain.iterations, plain.contradictory)
    fewer = deep(graph, Key(3), dataclasses.replace(options, iterations=5), monkeypatch)
    assert kind == "hard" or k == 1 or np.abs(fewer.to_factor - plain.to_factor).max() > 1e-9


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_frozen_context_keeps_its_answer(schedule: str, closed: bool) -> None:
    """One assignment is left, so ln P = -5 ln 2; messages on the way to it fall below e^-17,000."""
    distribution, tokens = FROZEN
    for noise in (0.0, 0.02):
        options = BPOptions(schedule, noise=noise, closed_forms=closed)
        result = run(condition(distribution, tokens), key=Key(0), options=options)
        assert not result.contradictory
        assert result.free_entropy == pytest.approx(-5 * math.log(2.0), abs=1e-9)
        np.testing.assert_allclose(result.marginals[:, 1], [0, 1, 1, 0, 0], atol=1e-9)
    answer = BPPosterior(distribution).marginals([tokens])
    np.testing.assert_allclose(answer.log_evidence, ExactPosterior(distribution).marginals([tokens]).log_evidence)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("closed", [True, False])
def test_a_star_of_tiny_weights(schedule: str, closed: bool) -> None:
    """Nine observations of probability 3e-41 in every state: ln P = 9 ln 3e-41."""
    tables = np.full((1, 4, 2), [1 - 3e-41, 3e-41])
    law = TableObservations([[0, i] for i in range(1, 10)], tables)
    distribution = LODistribution(np.full((10, 2), 0.5), law)
    graph = condition(distribution, [-1] * 10 + [1] * 9)
    result = run(graph, key=Key(0), options=BPOptions(schedule, closed_forms=closed))
    assert result.free_entropy == pytest.approx(9 * math.log(3e-41), rel=1e-12)
    np.testing.assert_allclose(result.marginals, 0.5, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_evidence_against_a_value_is_weighed_whatever_the_order(schedule: str) -> None:
    """Ten factors of weight 1e-60 against each value of one latent, those against value 0 first, one more for 1."""
    tables = np.array([[1e-60, 1.0], [1.0, 1e-60], [0.4, 0.6]])
    tables = np.stack([tables, 1 - tables], axis=2)
    index = np.repeat([0, 1, 2], [10, 10, 1])
    distribution = LODistribution(np.full((1, 2), 0.5), TableObservations(np.zeros((21, 1), int), tables, index))
    graph = condition(distribution, [-1] + [0] * 21)
    result = run(graph, key=Key(0), options=BPOptions(schedule))
    np.testing.assert_allclose(result.marginals, [[0.4, 0.6]], rtol=1e-9)
    assert result.free_entropy == pytest.approx(10 * math.log(1e-60) + math.log(0.5), rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_numbers_stay_finite_however_long_a_run(schedule: str) -> None:
    """Exponents grow geometrically; after 300 iterations they have met their bound."""
    distribution, tokens = FROZEN
    options = BPOptions(schedule, iterations=300, tolerance=ALL_STEPS, messages=True)
    result = run(condition(distribution, tokens), key=Key(0), options=options)
    assert not result.contradictory
    assert np.isfinite(result.to_factor).all()
    assert result.free_entropy == pytest.approx(-5 * math.log(2.0), abs=1e-9)


def test_satisfied_planted_instances_are_not_contradictory() -> None:
    for seed in range(5):
        instance = planted(nae(2, 3), 200, 6.0, key=Key(seed))
        graph = condition(instance.distribution, instance.tokens)
        for start in ("noise", "random"):
            result = run(graph, key=Key(seed), options=BPOptions(start=start, iterations=100))
            assert not result.contradictory
            assert np.isfinite(result.free_entropy)


def mixed(seed: int) -> LODistribution:
    """Tables with and without zeros, some priors that exclude a value."""
    rng = np.random.default_rng(seed)
    scopes = np.array([rng.choice(6, 3, replace=False) for _ in range(14)])
    tables = np.stack([random_table(kind, 2, 3, 2, rng) for kind in ("hard", "soft", "hard")])
    return LODistribution(random_prior(6, 2, rng), TableObservations(scopes, tables, rng.integers(0, 3, 14)))


FAMILIES: dict[str, Callable[[int], LODistribution]] = {
    "nae": lambda seed: nae_sat(5 + seed % 4, 15 + 5 * (seed % 2), seed=seed),
    "noisy nae": lambda seed: nae_sat(6, 20, seed=seed, noise=0.02),
    "parity": lambda seed: sparse_parity(7, 12, 3, 0.1 * (seed % 2), seed=seed),
    "nae of three values": lambda seed: nae_sat(6, 24, seed=seed, q=3),
    "mixed tables": mixed,
}
LAWS = (Uniform(), Pattern(2), Suffix(), TwoRates(0.75, 0), Bernoulli(0.5))


def wrong_verdicts(family: str, contexts: int, problems: int) -> tuple[int, int]:
    """Contexts called impossible that are possible, and the other way round where all latents are revealed."""
    wrong = possible = 0
    each = contexts // (problems * len(LAWS))
    for seed in range(problems):
        distribution, key = FAMILIES[family](seed), Key(seed).fold(family)
        for law in LAWS:
            drawn = distribution.sample(key.fold(law.name), each)
            masked = np.asarray(law.sample(key.fold("mask"), drawn, distribution.layout)[0]).reshape(drawn.shape)
            tokens = np.where(masked, -1, drawn).astype(np.int8)
            exact = ExactPosterior(distribution).marginals(tokens).log_evidence
            found = BPPosterior(distribution).marginals(tokens).log_evidence
            wrong += int((np.isfinite(exact) & ~np.isfinite(found)).sum())
            possible += int(np.isfinite(exact).sum())
    return wrong, possible


@pytest.mark.parametrize("family", FAMILIES)
def test_no_possible_context_is_called_impossible(family: str) -> None:
    wrong, possible = wrong_verdicts(family, 500, 10)
    assert wrong == 0
    assert possible > 400


@pytest.mark.soak
@pytest.mark.parametrize("family", FAMILIES)
def test_no_possible_context_of_ten_thousand_a_law_is_called_impossible(family: str) -> None:
    wrong, possible = wrong_verdicts(family, 50_000, 100)
    assert wrong == 0
    assert possible > 40_000


def test_plain_numbers_alone_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: where every zero counts as exact, underflow is taken for a contradiction."""
    empty = np.zeros((15, 3, 2), np.uint8)
    monkeypatch.setattr(bp, "find_support", lambda graph, form, start: Support(empty, empty, 0))
    distribution, tokens = FROZEN
    graph = condition(distribution, tokens)
    assert graph.scopes.shape == (15, 3)
    assert run(graph, key=Key(0), options=BPOptions("sequential", noise=0.0)).contradictory


def test_starts_differ_in_spread() -> None:
    """Entries of a start over their mean: within ``noise`` of one from "noise", spread over (0, 2) from "random"."""
    graph = loopy("soft", 2, 1)
    spread = {}
    for start in ("noise", "random"):
        messages = bp._STARTS[start](graph, Key(0), BPOptions(start=start, noise=0.02), None)
        assert (messages > 0.0).all()
        spread[start] = np.abs(2 * messages - 1).max()
    assert spread["noise"] < 0.021
    assert spread["random"] > 0.3


@pytest.mark.parametrize(("one", "two", "expected"), [(1.0, 0.5e-3, True), (1.0, 2e-3, False), (1e-2, 0.9e-5, True)])
def test_an_oscillation_changes_hardly_over_two(one: float, two: float, expected: bool) -> None:
    """A thousandth of the change over one iteration is the most."""
    result = BPResult(np.ones((1, 1)), 0.0, 9, one, two, False, False)
    assert result.oscillating is expected
    assert not dataclasses.replace(result, converged=True).oscillating


def test_where_messages_vanish_evidence_is_that_of_a_possible_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """In some contexts messages vanish ever faster, and the Bethe free entropy with them; elsewhere it is Bethe's."""
    distribution = nae_sat(20, 280, seed=0)
    tokens = distribution.sample(Key(0), 100)
    tokens[np.random.default_rng(0).random(tokens.shape) < 0.87] = -1
    posterior, deep_runs = BPPosterior(distribution), []
    monkeypatch.setattr(bp, "_run_deep", lambda task, *held: deep_runs.append(task.graph) or bp_run_deep(task, *held))
    found, bethe, least = [], [], []
    for row in tokens:
        graph, before = condition(distribution, row), len(deep_runs)
        least.append(graph.log_weight_bounds[0])
        found.append(float(posterior.marginals([row]).log_evidence[0]))
        with monkeypatch.context() as patch:
            patch.setattr(FactorGraph, "log_weight_bounds", property(lambda graph: (-math.inf, math.inf)))
            bethe.append(run(graph, key=posterior.key, options=posterior.options).free_entropy)
        if len(deep_runs) == before:
            assert found[-1] == bethe[-1]
    assert 2 < len(deep_runs) < 100
    assert min(bethe) < -1e9
    assert found == np.where(np.array(bethe) < -1e3, least, bethe).tolist()
    assert (ExactPosterior(distribution).marginals(tokens).log_evidence >= np.array(least) - 1e-9).all()


def test_the_evidence_of_possible_contexts_lies_within_the_bounds() -> None:
    possible = 0
    for seed in range(60):
        distribution, tokens = make_forest(2 + seed % 2, 2 + seed % 3, ("hard", "soft", "nae")[seed % 3], seed)
        evidence = float(ExactPosterior(distribution).marginals(tokens).log_evidence[0])
        least, most = condition(distribution, tokens).log_weight_bounds
        assert evidence == -math.inf or least - 1e-12 <= evidence <= most + 1e-12 < 1e-11
        possible += evidence > -math.inf
    assert possible > 30


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("prior", "likelihood"), [(1e-200, 1e-200), (1e-60, 1e-280), (1e-300, 0.5)])
def test_small_fields_and_small_weights_together(schedule: str, prior: float, likelihood: float) -> None:
    """Value 0 is all but excluded beforehand, and the only one that the observation allows."""
    law = TableObservations([[0]], np.array([[[1 - likelihood, likelihood], [1.0, 0.0]]]))
    distribution = LODistribution(np.array([[prior, 1 - prior]]), law)
    for noise in (0.0, 0.5):
        answer = BPPosterior(distribution, options=BPOptions(schedule, noise=noise)).marginals([[-1, 1]])
        assert answer.log_evidence[0] == pytest.approx(math.log(prior) + math.log(likelihood), rel=1e-12)
        assert answer.probs[0, 0].tolist() == [1.0, 0.0]


def test_weights_of_any_scale() -> None:
    """Fields and tables up to 1e308; a ratio that no number holds is refused."""

    def graph(field: list[list[float]], table: list[float]) -> FactorGraph:
        scopes = [list(range(len(field)))]
        return FactorGraph(field, scopes, [0], [table], [0], len(field))  # type: ignore[arg-type]

    large = run(graph([[1e308, 1e308], [1, 1]], [1, 2, 3, 4]), key=Key(0))
    assert large.free_entropy == pytest.approx(math.log(1e308) + math.log(10), rel=1e-12)
    np.testing.assert_allclose(large.marginals, [[0.3, 0.7], [0.4, 0.6]], atol=1e-12)
    small = run(graph([[1, 1]], [1e-300, 3e-300]), key=Key(0))
    assert small.free_entropy == pytest.approx(math.log(4e-300), rel=1e-12)
    with pytest.raises(ValueError, match=r"4\.94e-324 and 2 of one table or field are too far apart"):
        run(graph([[1, 0]], [5e-324, 2.0]), key=Key(0))


@pytest.mark.parametrize("where", ["close", "pass_once"])
def test_numbers_lost_while_reading_off_are_read_off_again(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, deep_runs = getattr(bp._bp_closing_kernels, where), []
    monkeypatch.setattr(bp, "_run_deep", lambda task, *held: deep_runs.append(task) or bp_run_deep(task, *held))
    graph = loopy("soft", 2, 3)
    run(graph, key=Key(0))
    assert deep_runs == []
    monkeypatch.setattr(bp._bp_closing_kernels, where, lambda *arguments: (*kernel(*arguments)[:-1], True))
    run(graph, key=Key(0))
    assert len(deep_runs) == 1


def contradiction() -> FactorGraph:
    """x0 = x1, x1 = x2 and x0 != x2: no state is left, and every message of the cycle vanishes in time."""
    equal, other = [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]
    field = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    return FactorGraph(field, [[0, 1], [1, 2], [0, 2]], [0, 0, 1], [equal, other], [0, 1, 2], 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("deeply", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_vanishes_during_a_run_or_while_it_is_read_off_is_a_contradiction(
    schedule: str, deeply: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, options = contradiction(), BPOptions(schedule, iterations=20, closed_forms=False)
    if deeply:
        monkeypatch.setattr(bp, "_run_floats", lambda task: None)
    assert run(graph, key=Key(0), options=options).contradictory
    kernels = bp._bp_closing_kernels
    monkeypatch.setattr(kernels, "take_normalised", lambda *arguments: 0)
    monkeypatch.setattr(kernels, "close", lambda *arguments: (0.0, 0, False))
    monkeypatch.setattr(bp._bp_deep_kernels, "deep_close", lambda *arguments: (0.0, 0))
    assert run(graph, key=Key(0), options=options).contradictory  # by what vanished during the run
    possible = loopy("soft", 2, 3)
    assert not run(possible, key=Key(0), options=options).contradictory
    if not deeply:
        monkeypatch.setattr(kernels, "take_normalised", lambda *arguments: 1)
        assert run(possible, key=Key(0), options=options).contradictory


def test_every_closed_form_is_found() -> None:
    for table, kind in ((nae(2, 3), AllEqual), (nae(3, 3), AllEqual), (xor(3), Parity)):
        tables = np.asarray(table.emission(np.eye(2))).T.copy()
        q = table.q
        assert isinstance(find_form(tables, q, 3, scaled=True), kind)
        assert isinstance(find_form(tables, q, 3, scaled=True, closed=False), Table)
    assert isinstance(find_form(np.random.default_rng(0).random((1, 8)), 2, 3, scaled=True), Table)


def test_a_free_entropy_that_explodes_is_held_too(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = loopy("soft", 2, 3)
    least, most = graph.log_weight_bounds
    states = np.stack(np.unravel_index(np.arange(2**graph.n_variables), (2,) * graph.n_variables), axis=1)
    weights = np.prod(graph.field[np.arange(graph.n_variables), states], axis=1)
    for scope, table in zip(graph.scopes, graph.table, strict=True):
        weights *= graph.tables[table].reshape((2,) * graph.k)[tuple(states[:, scope].T)]
    assert least <= math.log(weights[weights > 0].min())
    assert math.log(weights.sum()) <= most
    monkeypatch.setattr(bp, "_run_floats", lambda task: None)
    for entropy, held in ((1e12, most), (-1e12, least), (least / 2 + most / 2, least / 2 + most / 2)):
        monkeypatch.setattr(bp._bp_deep_kernels, "deep_close", lambda *arguments, entropy=entropy: (entropy, 0))
        shift = bp.tables_to_one(graph.tables)[1][graph.table].sum() * math.log(2.0)
        assert run(graph, key=Key(0)).free_entropy == pytest.approx(min(max(entropy + shift, least), most)), held


@pytest.mark.parametrize(("vanished", "settled", "again"), [(1, 1, 1), (0, 1, 0), (1, 0, 0)])
def test_what_vanishes_before_supports_are_known_is_looked_at_again(
    vanished: int, settled: int, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start with zeros: whether a message vanished by underflow cannot be told until its support is known."""
    flood, deep_runs, graph = bp._SCHEDULES["flooding"], [], loopy("soft", 2, 3)
    whole = np.ones((graph.n_factors, graph.k, graph.q), np.uint8)

    def run_once(task: object, support: Support, floors: tuple[float, float]) -> tuple[object, ...]:
        ran, *rest = flood(task, support, floors)  # type: ignore[arg-type]
        return (*ran[:3], vanished, *ran[4:]), *rest

    monkeypatch.setitem(bp._SCHEDULES, "flooding", run_once)
    monkeypatch.setattr(bp, "find_support", lambda graph, form, start: Support(whole, whole, settled))
    monkeypatch.setattr(bp, "_run_deep", lambda task, *held: deep_runs.append(task) or bp_run_deep(task, *held))
    assert run(graph, key=Key(0), options=BPOptions(noise=0.5, iterations=400)).converged
    assert len(deep_runs) == again


def floored(graph: FactorGraph, options: BPOptions, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether two runs above floors are the answer; it is then that of exponents."""
    with_exponents: list[bool] = []
    with monkeypatch.context() as patch:
        patch.setattr(bp, "_run_deep", lambda task, *held: with_exponents.append(not held) or bp_run_deep(task, *held))
        found = run(graph, key=Key(1), options=options)
    if with_exponents != [False, False]:
        return False
    slow = deep(graph, Key(1), options, monkeypatch)
    assert (found.iterations, found.contradictory) == (slow.iterations, slow.contradictory)
    assert found.free_entropy == pytest.approx(slow.free_entropy, rel=1e-12)
    for name in ("marginals", "to_factor", "to_variable"):
        np.testing.assert_allclose(getattr(found, name), getattr(slow, name), rtol=0, atol=1e-12)
    return True


def test_a_floor_under_small_numbers_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most variables freeze, messages vanish at doubly exponential speed, and plain numbers are enough."""
    instance = planted(nae(2, 3), 300, 20.0, key=Key(0))
    graph = condition(instance.distribution, instance.tokens)
    assert floored(graph, BPOptions("sequential", messages=True), monkeypatch)
    graphs = []
    for seed in range(10):
        distribution = FAMILIES["nae"](seed)
        tokens = distribution.sample(Key(0), 40)
        tokens[np.random.default_rng(0).random(tokens.shape) < 0.7] = -1
        graphs += [condition(distribution, row) for row in tokens]
    for schedule in SCHEDULES:
        assert sum(floored(graph, BPOptions(schedule, messages=True), monkeypatch) for graph in graphs) > 5


def test_an_answer_that_depends_on_the_floor_is_computed_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four equal latents, 1e-400 against value 1 of the first, then 1e-97 against value 0 of each of the others."""
    monkeypatch.setattr(bp, "_MILD", 0.0)
    tables = [[1.0, 0.0, 0.0, 1.0], [1.0, 1e-200] * 2, [1e-97, 1.0] * 2]
    scopes = [[0, 1], [1, 2], [2, 3], [4, 0], [5, 0], [6, 1], [7, 2], [8, 3]]
    graph = FactorGraph(np.ones((9, 2)), scopes, [0, 0, 0, 1, 1, 2, 2, 2], tables, range(8), 9)  # type: ignore[arg-type]
    options = BPOptions("sequential")
    result = run(graph, key=Key(0), options=options)
    np.testing.assert_allclose(result.marginals[:4], [[1.0, 0.0]] * 4, atol=1e-9)
    assert result.free_entropy == pytest.approx(3 * math.log(1e-97) + 5 * math.log(2), rel=1e-12)
    monkeypatch.setattr(bp, "_FLOORS", bp._FLOORS[:1])
    assert run(graph, key=Key(0), options=options).marginals[3, 1] > 0.5


PAIR = [[1, 0], [0, 1]]
EXTREME: dict[str, tuple[list[list[float]], list[list[int]], list[list[float]], list[int] | None, BPOptions]] = {
    "a start that contradicts": ([[1, 1]] * 2, PAIR, [[1, 1, 0, 1]], [1, 0], BPOptions(damping=0.9)),
    "the same with a rare value": ([[1e-100, 1], [1, 1]], PAIR, [[1, 0, 1, 1]], [1, 0], BPOptions()),
    "the same in sweeps": ([[1, 1], [1e-250, 1]], PAIR, [[1e-200, 0, 0, 1]], [1, 0], BPOptions("sequential")),
    "lost before supports are known": (
        [[1, 1]] * 2,
        [[0, 1]] * 3,
        [[1e-50, 1, 1, 1e-200]],
        [1, 1],
        BPOptions("sequential", 0.9, iterations=10),
    ),
    "weights near the floor": (
        [[1, 1], [1, 1e-250]],
        PAIR,
        [[1e-150, 0, 1e-50, 1e-150], [1e-250, 1e-100, 1e-50, 1e-200]],
        None,
        BPOptions(damping=0.3, start="random", iterations=400),
    ),
}


@pytest.mark.parametrize("name", EXTREME)
def test_where_a_floor_may_matter_there_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field, scopes, tables, assignment, options = EXTREME[name]
    table = [min(i, len(tables) - 1) for i in range(len(scopes))]
    graph = FactorGraph(np.array(field, float), scopes, table, tables, range(len(scopes)), len(field))  # type: ignore[arg-type]
    if assignment is not None:
        options = dataclasses.replace(options, start="planted")
    found = run(graph, key=Key(6128), options=options, planted=assignment)
    monkeypatch.setattr(bp, "_run_floats", lambda task: None)
    slow = run(graph, key=Key(6128), options=options, planted=assignment)
    assert (found.iterations, found.contradictory) == (slow.iterations, slow.contradictory)
    assert found.free_entropy == pytest.approx(slow.free_entropy, rel=1e-9)
    np.testing.assert_allclose(found.marginals, slow.marginals, atol=1e-9)
