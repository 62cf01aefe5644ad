"""A causal network along its order: conditionals, the cache against whole passes, sampling against the joint law."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lo_theory.diffusion import DecodeOptions, Noise, OneAtATime, decode, fixed_order
from lo_theory.diffusion.orders import order_losses, reading_order
from lo_theory.neural import Causal, Transformer
from lo_theory.neural.causal import CausalLearner
from lo_theory.posterior import Marginals
from lo_theory.problem import LODistribution, TableObservations, nae_sat
from lo_theory.problem.layout import MASK
from lo_theory.testing import chi_square_of_rows
from tests.budget import accept, reject
from tests.neural.small import CAUSAL, KEY, LENGTH, NETWORK, PROBLEM

READING = reading_order("random", PROBLEM.layout, KEY)


def network(**changes: Any) -> Transformer:
    model = Transformer(replace(CAUSAL, **changes), seed=4)
    with torch.no_grad():
        model.head.weight *= 15  # far from uniform, or a wrong pass would hardly show
    return model


def slow_conditionals(model: Transformer, tokens: NDArray[np.int8], reading: tuple[int, ...]) -> NDArray[np.float64]:
    """One sequence, one time after another: a pass over what has been read, nonsense behind it."""
    answer = np.empty((*tokens.shape, model.config.n_values))
    for row, t in np.ndindex(tokens.shape):
        read = [MASK, *(int(tokens[row, place]) for place in reading[:t])]
        with torch.no_grad():
            logits = model(torch.tensor([read + [1] * (len(reading) - len(read))]))[0, t].double().numpy()
        answer[row, t] = np.exp(logits) / np.exp(logits).sum()
    return answer


def test_conditionals_are_those_of_one_pass_after_another_and_give_the_loss_of_the_objective() -> None:
    model, rows = network(), PROBLEM.sample(KEY, 7)
    learner = CausalLearner(model, PROBLEM.layout, READING, batch=3)
    answer = learner.conditionals(rows)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, slow_conditionals(model, rows, READING), rtol=2e-5)
    objective = Causal(PROBLEM, READING)
    batch = {name: torch.from_numpy(values.copy()) for name, values in objective.draw(KEY, 3, (0, 9)).items()}
    loss, _ = objective.loss(model, batch, {})
    same = PROBLEM.sample(KEY.fold("data").fold(3), 9)
    assert order_losses(learner, None, same).model.mean() == pytest.approx(float(loss.detach()), rel=1e-5)


class Prefix:
    """A causal network as a posterior of beginnings of its order, by whole passes: what ``decode`` can drive."""

    def __init__(self, learner: CausalLearner) -> None:
        self.learner, self.layout = learner, learner.layout

    def marginals(self, tokens: NDArray[np.int8]) -> Marginals:
        time = int((tokens[0] != MASK).sum())
        probs = np.full((*tokens.shape, self.layout.n_values), 1 / self.layout.n_values, np.float32)
        filled = np.where(tokens == MASK, np.int8(0), tokens)
        probs[:, self.learner.places[time]] = self.learner.conditionals(filled)[:, time]
        return Marginals(probs, np.zeros(len(tokens)), np.ones(len(tokens), bool))


@pytest.mark.parametrize("form", [{}, {"positions": "rope"}, {"positions": "both"}, {"pad_to": 17}], ids=str)
@pytest.mark.parametrize(
    "options", [DecodeOptions(chunk=20), DecodeOptions(temperature=0.7), DecodeOptions(argmax=True)]
)
def test_sampling_with_a_cache_is_decoding_with_whole_passes(form: dict[str, Any], options: DecodeOptions) -> None:
    learner = CausalLearner(network(**form), PROBLEM.layout, READING)
    found = learner.generate(key=KEY, n=48, options=options)
    whole = decode(Prefix(learner), fixed_order(READING), OneAtATime(), key=KEY, n=48, options=options)
    np.testing.assert_array_equal(found.tokens, whole.tokens)
    np.testing.assert_array_equal(found.step_revealed, whole.step_revealed)
    assert not found.impossible.any()
    assert found.forwards == 48 * LENGTH
    assert found.seconds > 0
    if not options.argmax:
        assert len(np.unique(found.tokens, axis=0)) > 12


def test_chunks_change_no_draw() -> None:
    learner = CausalLearner(network(), PROBLEM.layout, READING)
    whole = learner.generate(key=KEY, n=50)
    parts = learner.generate(key=KEY, n=50, options=DecodeOptions(chunk=7))
    np.testing.assert_array_equal(whole.tokens, parts.tokens)
    assert not np.array_equal(whole.tokens, learner.generate(key=KEY.fold(1), n=50).tokens)


def test_a_beginning_that_is_given_stays_and_the_rest_follows_it() -> None:
    learner = CausalLearner(network(), PROBLEM.layout, READING)
    given = np.full((30, LENGTH), MASK, np.int8)
    given[:, list(READING[:5])] = PROBLEM.sample(KEY, 30)[:, list(READING[:5])]
    found = learner.generate(key=KEY, n=30, given=given)
    np.testing.assert_array_equal(found.tokens[:, list(READING[:5])], given[:, list(READING[:5])])
    np.testing.assert_array_equal(found.step_revealed[:, list(READING)], [[-1] * 5 + list(range(LENGTH - 5))] * 30)
    whole = decode(Prefix(learner), fixed_order(READING), OneAtATime(), key=KEY, n=30, given=given)
    np.testing.assert_array_equal(found.tokens, whole.tokens)
    full = learner.generate(key=KEY, n=30, given=found.tokens)
    np.testing.assert_array_equal(full.tokens, found.tokens)
    given[3, READING[7]] = 1
    with pytest.raises(ValueError, match="row 3 has others"):
        learner.generate(key=KEY, n=30, given=given)


def test_samples_have_the_networks_joint_law() -> None:
    """Chi-square over all sequences; a sampler that forgets what it drew (marginals only) must be rejected."""
    problem = nae_sat(3, 2, seed=0)
    model = Transformer(replace(CAUSAL, length=5), seed=9)
    with torch.no_grad():
        model.head.weight *= 40
    learner = CausalLearner(model, problem.layout, (3, 0, 4, 2, 1))
    every = np.array(list(itertools.product(range(2), repeat=5)), np.int8)
    along = np.take_along_axis(
        learner.conditionals(every).astype(np.float64), every[:, learner.places].astype(np.intp)[..., None], 2
    )
    law = along[..., 0].prod(axis=1)
    assert law.sum() == pytest.approx(1, abs=1e-5)
    law /= law.sum()
    drawn = learner.generate(key=KEY, n=20_000).tokens
    accept("causal samples", chi_square_of_rows(drawn, every, law))
    mixed = np.stack([np.roll(drawn[:, i], i) for i in range(5)], axis=1)
    reject("causal samples", chi_square_of_rows(mixed, every, law))


def test_values_that_a_role_cannot_take_are_never_drawn() -> None:
    scopes = np.array([[0, 1], [1, 2]], np.int32)
    problem = LODistribution(
        np.full((3, 2), 0.5), TableObservations(scopes, np.full((1, 4, 3), 1 / 3), np.zeros(2, int))
    )
    model = Transformer(replace(CAUSAL, length=5, n_values=3), seed=0)
    learner = CausalLearner(model, problem.layout)
    drawn = learner.generate(key=KEY, n=300).tokens
    assert drawn[:, :3].max() == 1
    assert drawn[:, 3:].max() == 2
    assert drawn.min() == 0


def test_bfloat16_is_close_and_its_cache_too() -> None:
    rows = PROBLEM.sample(KEY, 40)
    fine, rough = (
        CausalLearner(network(), PROBLEM.layout, READING, precision=name) for name in ("float32", "bfloat16")
    )
    difference = np.abs(fine.conditionals(rows) - rough.conditionals(rows)).max()
    assert 0 < difference < 0.2
    first, second = (learner.generate(key=KEY, n=200).tokens for learner in (fine, rough))
    assert (first == second).all(axis=1).mean() > 0.5


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="sees both sides"):
        CausalLearner(Transformer(NETWORK, seed=0), PROBLEM.layout)
    with pytest.raises(ValueError, match="length 13"):
        CausalLearner(Transformer(replace(CAUSAL, length=13), seed=0), PROBLEM.layout)
    with pytest.raises(ValueError, match="permutation"):
        CausalLearner(network(), PROBLEM.layout, [0] * LENGTH)
    with pytest.raises(ValueError, match="batch"):
        CausalLearner(network(), PROBLEM.layout, batch=0)
    learner = CausalLearner(network(), PROBLEM.layout)
    with pytest.raises(ValueError, match="at least one"):
        learner.generate(key=KEY, n=0)
    with pytest.raises(ValueError, match="noise"):
        learner.generate(key=KEY, n=2, options=DecodeOptions(noise=Noise(0.5)))
    with pytest.raises(ValueError, match="n is 3"):
        learner.generate(key=KEY, n=3, given=np.full((2, LENGTH), MASK))
    with pytest.raises(ValueError, match="complete"):
        learner.conditionals(np.full((2, LENGTH), MASK))
