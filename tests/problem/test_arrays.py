"""Arrays at the doors of the problem room: nothing is narrowed, wrapped or unmasked silently, and copies stay read-only."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest

from lo_theory.diffusion.leaks import evidence
from lo_theory.posterior import ExactPosterior, FactorGraph, condition
from lo_theory.posterior.bp import BPOptions, run
from lo_theory.posterior.overlap import overlap
from lo_theory.problem import (
    MASK,
    Layout,
    LODistribution,
    Predicate,
    SlabObservations,
    TableObservations,
    nae_sat,
    random_slab,
)
from lo_theory.problem.planted import planted
from lo_theory.problem.predicates import from_array, nae, pair_channels
from lo_theory.rng import Key
from lo_theory.thresholds import PlantedEnsemble, planted_ensemble

TABLE = np.full((1, 4, 2), 0.5)
NAE = nae_sat(4, 6, seed=0)
SLAB = random_slab(3, 4, 1.0, seed=0)


@pytest.mark.parametrize("latent", [2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**40])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_scopes_are_looked_at_before_they_are_narrowed(latent, dtype):
    with pytest.raises(ValueError, match=f"found {latent}"):
        TableObservations(np.array([[0, latent]], dtype), TABLE)


def test_a_file_with_such_scopes_is_refused(tmp_path):
    arrays = {"prior": np.full((2, 2), 0.5), "order": np.arange(3), "index": np.zeros(1, int), "tables": TABLE}
    np.savez(tmp_path / "problem.npz", **arrays, scopes=np.array([[0, 2**32 + 1]]))
    with pytest.raises(ValueError, match="found 4294967297"):
        LODistribution.load(tmp_path / "problem.npz")


@pytest.mark.parametrize("value", [3, -2, -5, 127, 128, 255, 256, -129, 2**32])
def test_join_takes_the_values_of_each_role_and_nothing_wraps(value):
    layout = Layout(1, 2, 2, 3)
    with pytest.raises(ValueError, match=rf"latents are 0\.\.1, or MASK = -1 where hidden, found {value}"):
        layout.join([value], [0, 1])
    with pytest.raises(ValueError, match=rf"observations are 0\.\.2, or MASK = -1 where hidden, found {value}"):
        layout.join([0], [0, value])
    with pytest.raises(ValueError, match="found 2"):
        layout.join([2], [0, 2])
    assert layout.join([1], [2, MASK]).tolist() == [1, 2, MASK]
    with pytest.raises(ValueError, match="dtype float64"):
        layout.join([0.7], [0, 1])


@pytest.mark.parametrize("law", [NAE.observations, SLAB.observations], ids=["table", "slab"])
@pytest.mark.parametrize("value", [MASK, 2, -2, 256])
def test_observations_depend_on_values_only(law, value):
    latents = np.zeros((3, law.least_latents), int)
    latents[1, -1] = value
    calls = [law.probabilities, law.states if isinstance(law, TableObservations) else law.values]
    for call in calls:
        with pytest.raises(ValueError, match=rf"of row 1 is {value}, outside 0\.\.1"):
            call(latents)
        with pytest.raises(ValueError, match="integers"):
            call(latents.astype(float))
        with pytest.raises(ValueError, match="shape"):
            call(latents[:, :-1])


def masked(values):
    """``values`` with the first one masked."""
    mask = np.zeros(np.shape(values), bool)
    mask.flat[0] = True
    return np.ma.array(values, mask=mask)


UNIFORM = np.full((4, 2), 0.5)
GRAPH = condition(NAE, [MASK] * 4 + [1] * 6)
ENSEMBLE = planted_ensemble(nae(2, 3))
DOORS = {
    "tokens": lambda: NAE.layout.check_tokens(masked(NAE.sample(Key(0), 2))),
    "posterior": lambda: ExactPosterior(NAE).marginals(masked(NAE.sample(Key(0), 2))),
    "log_prob": lambda: NAE.log_prob(masked(NAE.sample(Key(0), 2))),
    "latents": lambda: NAE.layout.join(masked([0, 0, 0, 0]), np.zeros(6, int)),
    "observations": lambda: NAE.layout.join([0, 0, 0, 0], masked(np.zeros(6, int))),
    "states": lambda: NAE.observations.probabilities(masked(np.zeros((1, 4), int))),
    "values": lambda: SLAB.observations.values(masked(np.zeros((1, 3), int))),
    "order": lambda: Layout(1, 2, 2, 2, masked([0, 1, 2])),
    "reading": lambda: NAE.layout.reading(masked(np.arange(10))),
    "prior": lambda: LODistribution(masked(UNIFORM), NAE.observations),
    "scopes": lambda: TableObservations(masked([[0, 1]]), TABLE),
    "tables": lambda: TableObservations([[0, 1]], masked(TABLE)),
    "index": lambda: TableObservations([[0, 1]], TABLE, masked([0])),
    "vectors": lambda: SlabObservations(masked(np.ones((2, 2))), 1.0),
    "predicate": lambda: Predicate("p", masked([[0, 1], [1, 0]])),
    "from_array": lambda: from_array(masked([[0, 1], [1, 0]])),
    "channel": lambda: nae(2, 2).emission(masked(np.eye(2))),
    "likelihood": lambda: pair_channels(masked(np.ones((2, 2)))),
    "planted": lambda: run(GRAPH, key=Key(0), options=BPOptions(start="planted"), planted=masked(np.zeros(4, int))),
    "overlap": lambda: overlap(np.full((4, 2), 0.5), masked(np.zeros(4, int))),
    "beliefs": lambda: overlap(masked(np.full((4, 2), 0.5)), np.zeros(4, int)),
    "ratios": lambda: evidence(masked(np.ones(3))),
    "shares": lambda: PlantedEnsemble("nae", ENSEMBLE.likelihoods, masked(ENSEMBLE.shares), ENSEMBLE.revealed),
    "given": lambda: condition(NAE, masked(NAE.sample(Key(0), 1)[0])),
    "a list of arrays": lambda: NAE.log_prob(list(map(masked, NAE.sample(Key(0), 2)))),
    "lists of lists": lambda: NAE.layout.join([[masked([0, 0])[0], 0, 0, 0]], np.zeros((1, 6), int)),
    "a tuple": lambda: LODistribution((UNIFORM[0], *map(masked, UNIFORM[1:])), NAE.observations),
}


@pytest.mark.parametrize("door", list(DOORS))
def test_a_masked_array_does_not_lose_its_mask(door):
    with pytest.raises(ValueError, match=r"masked entries: say what to put there, as \.filled"):
        DOORS[door]()


def test_a_masked_array_with_nothing_masked_is_an_array():
    tokens = NAE.sample(Key(0), 2)
    assert (NAE.layout.check_tokens(np.ma.array(tokens)) == tokens).all()
    assert (NAE.layout.check_tokens([np.ma.array(row) for row in tokens]) == tokens).all()


# --- copies ---------------------------------------------------------------------------------------------------------------------

INSTANCE = planted(nae(2, 3), 30, 4.0, key=Key(0))
RECORDS = {
    "nae": NAE,
    "slab": SLAB,
    "layout": NAE.layout,
    "tables": NAE.observations,
    "predicate": nae(3, 3),
    "planted": INSTANCE,
    "graph": condition(INSTANCE.distribution, INSTANCE.tokens),
}


def arrays_of(value):
    """Every array of a record, those of its parts too."""
    for part in (getattr(value, field.name) for field in dataclasses.fields(value)):
        if isinstance(part, np.ndarray):
            yield part
        elif dataclasses.is_dataclass(part):
            yield from arrays_of(part)


@pytest.mark.parametrize("name", list(RECORDS))
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_has_equal_arrays_that_cannot_be_written(name, again):
    one = RECORDS[name]
    ours, theirs = list(arrays_of(one)), list(arrays_of(again(one)))
    assert len(theirs) == len(ours) > 0
    assert not any(array.flags.writeable for array in theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_copied_problem_compiles_nothing_new():
    for problem in (NAE, SLAB):
        sampler = problem._sampler
        problem.sample(Key(0), 3)
        before = len(sampler.kernel.signatures)
        again = pickle.loads(pickle.dumps(problem))
        assert (again.sample(Key(0), 3) == problem.sample(Key(0), 3)).all()
        assert (copy.deepcopy(problem).sample(Key(0), 3) == problem.sample(Key(0), 3)).all()
        assert len(sampler.kernel.signatures) == before


@pytest.mark.parametrize("name", list(RECORDS))
def test_a_record_is_shown_in_one_short_line_by_its_shapes(name):
    shown = repr(RECORDS[name])
    assert "\n" not in shown
    assert len(shown) < 400
    assert shown.startswith(type(RECORDS[name]).__name__)
    assert repr(nae_sat(25, 275, seed=0)) == (
        "LODistribution(prior=float64[25, 2], observations=TableObservations(scopes=int32[275, 3], "
        "tables=float64[1, 8, 2], index=int32[275]), order=int32[300])"
    )


# --- numbers --------------------------------------------------------------------------------------------------------------------


def test_numpy_integers_are_plain_ones_where_they_are_kept():
    key = Key(np.int64(7)).fold(np.int32(3)).fold("a").fold(np.uint8(2))
    assert key == Key(7).fold(3).fold("a").fold(2)
    assert json.loads(json.dumps([key.seed, key.path])) == [7, [3, "a", 2]]
    assert key.words() == Key(7).fold(3).fold("a").fold(2).words()
    layout = Layout(np.int64(2), np.int32(3), np.int8(2), np.uint8(2))
    assert json.dumps([layout.n_latents, layout.n_observations, layout.q, layout.r]) == "[2, 3, 2, 2]"
    assert type(SlabObservations(np.ones((2, 2)), np.float32(0.5)).width) is float
    with pytest.raises(ValueError, match="whole number"):
        Layout(2.0, 3, 2, 2)
    for part in (1.5, None, True, np.float64(1)):
        with pytest.raises(ValueError, match="strings and integers"):
            Key(0).fold(part)
        with pytest.raises(ValueError, match="strings and integers"):
            Key(0, ("a", part))


# --- factor graphs --------------------------------------------------------------------------------------------------------------


def test_factors_out_of_the_order_of_their_tables_are_refused_and_sorted_ones_are_right():
    """Swapped, the two tables would be read by the other factors: another free entropy."""
    rng = np.random.default_rng(0)
    tables = rng.random((2, 4)) + 0.1
    field, scopes, table = rng.random((3, 2)), np.array([[0, 1], [1, 2]]), np.array([1, 0])
    with pytest.raises(ValueError, match="argsort"):
        FactorGraph(field, scopes, table, tables, np.arange(2), 3)
    by_table = np.argsort(table, kind="stable")
    graph = FactorGraph(field, scopes[by_table], table[by_table], tables, np.arange(2)[by_table], 3)
    states = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    weights = np.prod(field[np.arange(3), states], axis=1)
    for scope, t in zip(scopes, table, strict=True):
        weights = weights * tables[t, 2 * states[:, scope[0]] + states[:, scope[1]]]
    found = run(graph, key=Key(0), options=BPOptions("sequential", noise=0.0))
    assert found.free_entropy == pytest.approx(np.log(weights.sum()), abs=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scopes": [[0, 3], [1, 2]]}, r"scopes must lie in 0\.\.2, found 0\.\.3"),
        ({"scopes": [[0, -1], [1, 2]]}, "found -1"),
        ({"scopes": [[0, 2**32], [1, 2]]}, "found 0..4294967296"),
        ({"scopes": [[0.0, 1.0], [1.0, 2.0]]}, "float64"),
        ({"table": [0, 2]}, r"table must lie in 0\.\.1"),
        ({"table": [0]}, "one row a factor"),
        ({"observation": [0, -1]}, "observation must lie"),
        ({"tables": [[1.0, 1.0, 1.0]] * 2}, r"tables \[T, q\*\*k\]"),
        ({"tables": [[1.0, 1.0, 1.0, -1.0]] * 2}, "tables must hold finite weights"),
        ({"field": [[1.0, np.nan]] * 3}, "field must hold finite weights"),
        ({"field": np.ma.array(np.ones((3, 2)), mask=True)}, "masked entries"),
        ({"field": np.ones((3, 1)), "tables": np.ones((2, 1))}, r"two values or more, got field of shape \(3, 1\)"),
        ({"field": np.ones((0, 2)), "scopes": np.zeros((0, 2), int)}, r"shape \(0, 2\)"),
        ({"n_latents": 0}, r"n_latents must lie in 1\.\.3"),
        ({"n_latents": -1}, "got -1"),
        ({"n_latents": 4}, "got 4"),
    ],
)
def test_a_factor_graph_that_is_none_is_refused(change, words):
    parts = {
        "field": np.ones((3, 2)),
        "scopes": [[0, 1], [1, 2]],
        "table": [0, 1],
        "tables": np.ones((2, 4)),
        "observation": [0, 1],
        "n_latents": 3,
    }
    with pytest.raises(ValueError, match=words):
        FactorGraph(**{**parts, **change})
