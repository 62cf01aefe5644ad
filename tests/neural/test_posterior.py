from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lo_theory.neural import TrainedPosterior, Transformer, TransformerConfig
from lo_theory.neural.posterior import resolve_precision
from lo_theory.problem import LODistribution, TableObservations
from lo_theory.problem.layout import MASK
from tests.neural.small import CAUSAL, KEY, LENGTH, NETWORK, PROBLEM


def contexts(problem: LODistribution, rows: int) -> np.ndarray:
    hidden = KEY.fold("hidden").generator().random((rows, problem.layout.length)) < 0.6
    return np.where(hidden, MASK, problem.sample(KEY, rows)).astype(np.int8)


def test_probabilities_are_the_softmax_where_hidden_and_one_hot_where_revealed() -> None:
    model, tokens = Transformer(NETWORK, seed=1), contexts(PROBLEM, 13)
    answer = TrainedPosterior(model, PROBLEM.layout, batch=5).marginals(tokens)
    assert answer.probs.shape == (13, LENGTH, 2)
    assert answer.probs.dtype == np.float32
    assert np.isnan(answer.log_evidence).all()
    assert answer.converged.all()
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens).long()).double().numpy()
    for row, position in np.ndindex(tokens.shape):
        found = answer.probs[row, position]
        if tokens[row, position] == MASK:
            weights = np.exp(logits[row, position])
            np.testing.assert_allclose(found, weights / weights.sum(), rtol=1e-5)
        else:
            np.testing.assert_array_equal(found, np.eye(2)[tokens[row, position]])


def test_alphabets_of_different_size_get_one_softmax_over_all_values() -> None:
    scopes = np.array([[0, 1], [1, 2]], np.int32)
    tables = np.full((1, 4, 3), 1 / 3)
    problem = LODistribution(np.full((3, 2), 0.5), TableObservations(scopes, tables, np.zeros(2, np.int32)))
    config = TransformerConfig(layers=1, heads=1, width=8, n_values=3, length=5)
    tokens = contexts(problem, 4)
    probs = TrainedPosterior(Transformer(config, seed=0), problem.layout).marginals(tokens).probs
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-6)
    assert (probs[tokens == MASK] > 0.1).all()


def test_bfloat16_answers_are_close_and_say_the_same() -> None:
    model, tokens = Transformer(NETWORK, seed=1), contexts(PROBLEM, 8)
    exact = TrainedPosterior(model, PROBLEM.layout).marginals(tokens).probs
    rough = TrainedPosterior(model, PROBLEM.layout, precision="bfloat16").marginals(tokens).probs
    assert 0 < np.abs(exact - rough).max() < 0.01
    assert resolve_precision("auto", "cpu") in ("float32", "bfloat16")


@pytest.mark.soak
def test_the_compiled_network_answers_the_same_whatever_the_number_of_rows() -> None:
    model, tokens = Transformer(NETWORK, seed=1), contexts(PROBLEM, 7)
    plain = TrainedPosterior(model, PROBLEM.layout, batch=5).marginals(tokens)
    compiled = TrainedPosterior(model, PROBLEM.layout, batch=5, compiled=True)
    np.testing.assert_allclose(compiled.marginals(tokens).probs, plain.probs, atol=1e-5)
    np.testing.assert_allclose(compiled.marginals(tokens[:1]).probs, plain.probs[:1], atol=1e-5)


def test_one_sequence_and_no_sequence_are_batches_too() -> None:
    posterior = TrainedPosterior(Transformer(NETWORK, seed=1), PROBLEM.layout)
    assert posterior.marginals(contexts(PROBLEM, 1)[0]).probs.shape == (1, LENGTH, 2)
    assert posterior.marginals(np.empty((0, LENGTH), np.int8)).probs.shape == (0, LENGTH, 2)


def test_what_does_not_fit_is_named() -> None:
    layout = PROBLEM.layout
    with pytest.raises(ValueError, match="length 13"):
        TrainedPosterior(Transformer(replace(NETWORK, length=13), seed=0), layout)
    with pytest.raises(ValueError, match="causal"):
        TrainedPosterior(Transformer(CAUSAL, seed=0), layout)
    with pytest.raises(ValueError, match="batch"):
        TrainedPosterior(Transformer(NETWORK, seed=0), layout, batch=0)
    with pytest.raises(ValueError, match="float16"):
        TrainedPosterior(Transformer(NETWORK, seed=0), layout, precision="float16")
    with pytest.raises(ValueError, match="token 2"):
        TrainedPosterior(Transformer(NETWORK, seed=0), layout).marginals(np.full((1, LENGTH), 2))
