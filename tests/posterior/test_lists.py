"""Laws that are lists, and L&O problems whose observations are given: against L&O problems and slow twins."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest

from lo_theory.diffusion import OneAtATime, Uniform, decode, decode_cost, generated_accuracies, losses, margin
from lo_theory.diffusion.losses import gap_closed
from lo_theory.posterior import (
    BPPosterior,
    Completed,
    Conditioned,
    EnumeratedPosterior,
    ExactPosterior,
    MarginalsOnly,
    PropagationOnly,
    exact_posterior,
)
from lo_theory.problem import (
    MASK,
    Enumerated,
    Layout,
    LODistribution,
    _list_kernels,
    colouring,
    nae_sat,
    predicate_observations,
)
from lo_theory.rng import Key, philox, unit
from lo_theory.testing import joint_law

NOISY = nae_sat(4, 4, seed=0, noise=0.1)
STRINGS, CHANCES = joint_law(NOISY)
LIST = Enumerated(STRINGS[CHANCES > 0], CHANCES[CHANCES > 0], NOISY.layout)
THREE = Enumerated([[0, 1, 2], [2, 1, 0], [2, 2, 2]], [0.5, 0.25, 0.25])
EDGES = [(0, 1), (1, 2), (2, 3), (3, 0)]
RING = LODistribution(np.full((4, 3), 1 / 3), predicate_observations(colouring(3), np.array(EDGES, np.int32)))
COLOURED = Conditioned(RING, [1, 1, 1, 1])
COLOURINGS = [x for x in itertools.product(range(3), repeat=4) if all(x[a] != x[b] for a, b in EDGES)]


def contexts(length: int, values: int) -> np.ndarray:
    return np.array(list(itertools.product(range(-1, values), repeat=length)), np.int8)


def test_a_list_of_all_sequences_is_the_problem_that_they_are_of() -> None:
    assert LIST.entropy() == pytest.approx(NOISY.entropy(), abs=1e-12)
    assert LIST.marginal_entropy() == pytest.approx(NOISY.marginal_entropy(), abs=1e-12)
    assert np.allclose(LIST.token_marginals, NOISY.token_marginals, rtol=0, atol=1e-12)
    assert np.allclose(LIST.log_prob(STRINGS), NOISY.log_prob(STRINGS), rtol=0, atol=1e-12)
    rows = contexts(8, 2)
    ours, theirs = EnumeratedPosterior(LIST).marginals(rows), ExactPosterior(NOISY).marginals(rows)
    assert np.allclose(ours.probs, theirs.probs, rtol=0, atol=1e-12)
    assert np.allclose(ours.log_evidence, theirs.log_evidence, rtol=0, atol=1e-12)
    assert ours.converged.all()


def test_an_impossible_context_is_flagged_and_a_certain_value_is_certain() -> None:
    answer = EnumeratedPosterior(THREE).marginals([[0, 2, MASK], [MASK, MASK, 2], [MASK, 1, MASK], [2, 2, 2]])
    assert np.isneginf(answer.log_evidence).tolist() == [True, False, False, False]
    assert answer.probs[0, 2].tolist() == [1 / 3] * 3
    assert answer.probs[0, 1].tolist() == [0, 0, 1]
    assert answer.log_evidence[1] == pytest.approx(math.log(0.75))
    assert answer.probs[1, 0] == pytest.approx([2 / 3, 0, 1 / 3])
    assert answer.probs[2].tolist() == [[2 / 3, 0, 1 / 3], [0, 1, 0], [1 / 3, 0, 2 / 3]]
    assert answer.log_evidence[3] == pytest.approx(math.log(0.25))


def test_the_kernel_of_matching_is_its_slow_twin() -> None:
    rows = contexts(3, 3)
    answer = EnumeratedPosterior(THREE).marginals(rows)
    for row, probs, evidence in zip(rows, answer.probs, answer.log_evidence, strict=True):
        fits = [s for s, x in enumerate(THREE.sequences) if all(a in (MASK, b) for a, b in zip(row, x, strict=True))]
        weights = THREE.probabilities[fits]
        assert evidence == (pytest.approx(math.log(weights.sum())) if fits else -np.inf)
        for i, v in itertools.product(range(3), range(3)):
            share = weights @ (THREE.sequences[fits, i] == v) / weights.sum() if fits else 1 / 3
            assert probs[i, v] == pytest.approx(float(share if row[i] == MASK else row[i] == v))


def test_rows_are_addressed_and_follow_the_slow_twin() -> None:
    key, bounds = Key(3).fold("rows"), np.cumsum(THREE.probabilities)
    rows = THREE.sample(key, 500)
    assert (THREE.sample(key, 200, start=137) == rows[137:337]).all()
    numbers = [int(philox(np.uint64(0), np.uint64(row), *key.words())[0]) / 2**64 for row in range(500)]
    assert (rows == THREE.sequences[np.searchsorted(bounds, numbers, side="right")]).all()


def test_values_of_laws_follow_the_slow_twin() -> None:
    laws = np.array([[0.0, 0.3, 0.0, 0.7], [1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])[np.arange(600) % 3]
    drawn = np.empty(600, np.int8)
    _list_kernels.draw_values(drawn, 5, 40, *Key(1).words(), laws)
    numbers = np.array(
        [unit(np.uint64(philox(np.uint64(5), np.uint64(40 + row), *Key(1).words())[0])) for row in range(600)]
    )
    assert (
        drawn == [np.searchsorted(np.cumsum(law), u, side="right") for law, u in zip(laws, numbers, strict=True)]
    ).all()


def test_a_list_keeps_its_name_and_its_numbers_as_a_copy() -> None:
    for other in (copy.copy(LIST), pickle.loads(pickle.dumps(LIST))):
        assert other.fingerprint() == LIST.fingerprint()
        assert (other.sample(Key(0), 20) == LIST.sample(Key(0), 20)).all()
    names = {each.fingerprint() for each in (LIST, THREE, Enumerated(THREE.sequences), COLOURED)}
    assert len(names) == 4
    with pytest.raises(ValueError, match="read-only"):
        LIST.sequences[0] = 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Enumerated([0, 1]), r"shape \[S, L\] with S >= 1 and L >= 1, got \(2,\)"),
        (lambda: Enumerated(np.zeros((0, 3), np.int8)), r"S >= 1"),
        (lambda: Enumerated([[0, MASK]]), "must be complete, without MASK"),
        (lambda: Enumerated([[0, 1], [1, 1], [0, 1]]), "sequence 2 is there twice, first as 0"),
        (lambda: Enumerated([[0, 1], [1, 1]], [0.5]), r"probabilities must be float64\[2\].*got shape \(1,\)"),
        (lambda: Enumerated([[0, 1], [1, 1]], [0.5, 0.6]), "must sum to one"),
        (lambda: Enumerated([[0, 1], [1, 1]], [1.5, -0.5]), "must hold probabilities, found -0.5"),
        (lambda: Enumerated([[0, 1], [1, 1]], [1.0, 0.0]), "sequence 1 has probability 0: leave it out"),
        (lambda: Enumerated([[0, 3]], layout=Layout(2, 0, 3, 3)), "token 3 in row 0 at position 1"),
        (lambda: Enumerated([[0, 3]], layout=4), r"layout must be Layout\(\.\.\.\)"),
        (lambda: THREE.sample(Key(0), -1), "n >= 0"),
        (lambda: THREE.log_prob([[0, MASK, 1]]), "must be complete"),
        (lambda: EnumeratedPosterior(NOISY), "distribution must be Enumerated"),
        (lambda: Conditioned(THREE, [1]), "problem must be a problem, such as nae_sat.* no observations of latents"),
        (lambda: Conditioned(RING, [1, 1, 1]), r"observations \[..., 4\]"),
        (lambda: Conditioned(RING, [1, 1, 2, 1]), "found 2"),
        (lambda: COLOURED.sample(Key(0), -1), "n >= 0"),
        (lambda: Conditioned(nae_sat(17, 1, seed=0), [MASK]).entropy(), "more than 65,536 sequences"),
        (lambda: Completed(ExactPosterior(NOISY), COLOURED), "bound to another problem"),
        (lambda: ExactPosterior(THREE), "an L&O problem|no observations of latents"),
        (lambda: generated_accuracies(THREE, THREE.sequences, Key(0)), "sequences and their law but no observations"),
        (lambda: exact_posterior(object()), "distribution must be a problem, such as nae_sat.*no 'layout'"),
    ],
)
def test_bad_input_is_named(make, words) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_observations_that_exclude_each_other_are_no_law() -> None:
    triangle = predicate_observations(colouring(2), np.array([(0, 1), (1, 2), (2, 0)], np.int32))
    with pytest.raises(ValueError, match="exclude each other"):
        Conditioned(LODistribution(np.full((3, 2), 0.5), triangle), [1, 1, 1])


def test_a_coloured_ring_is_the_list_of_its_colourings() -> None:
    assert len(COLOURINGS) == 18
    listed = COLOURED.enumerated
    assert sorted(map(tuple, listed.sequences.tolist())) == COLOURINGS
    assert listed.probabilities == pytest.approx(1 / 18)
    assert COLOURED.entropy() == pytest.approx(math.log(18))
    assert COLOURED.token_marginals == pytest.approx(np.full((4, 3), 1 / 3))
    assert COLOURED.marginal_entropy() == pytest.approx(4 * math.log(3))
    assert np.exp(COLOURED.log_prob(COLOURINGS)) == pytest.approx(1 / 18)
    assert np.isneginf(COLOURED.log_prob([[0, 0, 1, 2]])).all()
    rows = contexts(4, 3)
    ours, theirs = COLOURED.posterior.marginals(rows), EnumeratedPosterior(listed).marginals(rows)
    assert np.allclose(ours.probs, theirs.probs, rtol=0, atol=1e-12)
    possible = np.isfinite(theirs.log_evidence)
    assert (np.isfinite(ours.log_evidence) == possible).all()
    assert np.allclose(ours.log_evidence[possible], theirs.log_evidence[possible], rtol=0, atol=1e-12)


def test_latents_are_drawn_by_address_and_from_the_law() -> None:
    rows = COLOURED.sample(Key(5), 300)
    assert (COLOURED.sample(Key(5), 100, start=150) == rows[150:250]).all()
    assert set(map(tuple, rows.tolist())) == set(COLOURINGS)


def test_what_is_not_given_is_summed_over() -> None:
    partly = Conditioned(NOISY, [1, 0, MASK, 1])
    kept = (STRINGS[:, 4] == 1) & (STRINGS[:, 5] == 0) & (STRINGS[:, 7] == 1)
    expected = {}
    for string, chance in zip(STRINGS[kept], CHANCES[kept], strict=True):
        expected[tuple(string[:4])] = expected.get(tuple(string[:4]), 0.0) + chance / CHANCES[kept].sum()
    rows = np.array(list(expected), np.int8)
    assert np.exp(partly.log_prob(rows)) == pytest.approx(list(expected.values()))


def test_any_posterior_of_the_whole_problem_can_be_completed() -> None:
    context = np.array([[0, MASK, 1, MASK], [0, 0, MASK, MASK]], np.int8)
    exact = COLOURED.posterior.marginals(context)
    for posterior in (PropagationOnly(RING), BPPosterior(RING)):
        answer = Completed(posterior, COLOURED).marginals(context)
        assert answer.probs[0] == pytest.approx(exact.probs[0], abs=1e-6)
        assert np.isneginf(answer.log_evidence[1])


@pytest.mark.parametrize("problem", [THREE, LIST, COLOURED], ids=["three", "list", "coloured"])
def test_decoding_and_losses_take_any_law_with_a_posterior(problem) -> None:
    exact, key = exact_posterior(problem), Key(2)
    decoded = decode(exact, margin(), OneAtATime(), key=key, n=50)
    assert np.isfinite(problem.log_prob(decoded.tokens)).all()
    cost = decode_cost(exact, margin(), OneAtATime(), problem, key=key, n=50, exact=exact)
    assert cost.total.mean == pytest.approx(0, abs=1e-9)
    found = losses(MarginalsOnly(problem), exact, problem, Uniform(), key=key, n=200)
    assert found.kl.mean > 0
    assert gap_closed(0.0, problem) == 1.0
