"""A first stage before any objective: whose step it is, what waits meanwhile, resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lo_theory.diffusion import MirrorUniform, TwoRates, Uniform
from lo_theory.neural import LearnedOrder, Masked, OrderedTransformer, ProSeCo, Puma, Stage, Staged, Transformer, train
from lo_theory.neural.objectives import count_passes, most_passes
from lo_theory.problem import nae_sat
from tests.neural.small import KEY, NETWORK, PROBLEM, TRAINING
from tests.neural.test_train import Stopped, stop_at

FIRST = Masked(PROBLEM, Uniform(), (Stage(2, TwoRates(0.1, 0.9), (0.2, 0.8)), Stage(3, MirrorUniform())))
STAGED = Staged(FIRST, Puma(PROBLEM, 3))


def loss_of(objective: Masked | Staged | Puma, step: int) -> tuple[float, dict[str, torch.Tensor]]:
    model = Transformer(NETWORK, seed=1)
    batch = {
        name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in objective.draw(KEY, step, (0, 6)).items()
    }
    loss, state = objective.loss(model, batch, objective.initial_state())
    return float(loss.detach()), state


@pytest.mark.parametrize("step", range(7))
def test_a_step_is_that_of_the_stage_or_of_the_objective(step: int) -> None:
    own, other = (FIRST, STAGED.objective) if step < 5 else (STAGED.objective, FIRST)
    assert STAGED.label(step) == own.label(step)
    loss, state = loss_of(STAGED, step)
    assert loss == loss_of(own, step)[0] != loss_of(other, step)[0]  # type: ignore[arg-type]
    assert (len(state["tokens"]) > 0) == (step >= 5), "the pool waits until the stage is over"


def test_passes_are_those_of_the_stages_and_of_the_objective() -> None:
    assert [count_passes(STAGED, steps) for steps in range(8)] == [0, 1, 2, 4, 6, 8, 9, 10]
    assert [most_passes(STAGED, steps) for steps in range(8)] == [1, 1, 1, 2, 2, 2, 2, 2]
    for objective, passes in ((ProSeCo(PROBLEM), 2), (LearnedOrder(PROBLEM), 3)):
        staged = Staged(FIRST, objective)
        assert count_passes(staged, 7) == 8 + 2 * passes
        assert [most_passes(staged, steps) for steps in (2, 5, 6)] == [1, 2, passes]


def test_the_network_is_the_one_that_the_objective_needs() -> None:
    config = replace(TRAINING, steps=6)
    ordered = train(NETWORK, config, Staged(FIRST, LearnedOrder(PROBLEM)), KEY).model
    plain = train(NETWORK, config, STAGED, KEY).model
    assert (type(ordered), type(plain)) == (OrderedTransformer, Transformer)


def test_logged_operations_are_those_of_the_passes() -> None:
    def flops(objective: Masked | Staged) -> float:
        logged: list[float] = []
        config = replace(TRAINING, steps=6, log_every=6)
        train(NETWORK, config, objective, KEY, on_log=lambda step, values: logged.append(values.get("flops", 0.0)))
        return max(logged)

    plain = flops(Masked(PROBLEM, Uniform()))
    for objective in (STAGED, Staged(FIRST, ProSeCo(PROBLEM)), Staged(FIRST, LearnedOrder(PROBLEM))):
        assert flops(objective) == plain / 6 * count_passes(objective, 6)


@pytest.mark.parametrize("at", [3, 7])
def test_a_training_that_is_stopped_in_or_after_the_stage_ends_the_same(at: int, tmp_path: Path) -> None:
    config, (whole, broken) = replace(TRAINING, log_every=1), (tmp_path / "whole", tmp_path / "broken")
    train(NETWORK, config, STAGED, KEY, checkpoint=whole)
    with pytest.raises(Stopped):
        train(NETWORK, config, STAGED, KEY, checkpoint=broken, checkpoint_seconds=0, on_log=stop_at(at))
    assert train(NETWORK, config, STAGED, KEY, checkpoint=broken).resumed_from in (at - 1, at)
    assert whole.read_bytes() == broken.read_bytes()


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="stages are of the objective's own problem"):
        Staged(FIRST, Puma(nae_sat(4, 8, seed=4), 3))
    other = Staged(replace(FIRST, stages=FIRST.stages[:1]), STAGED.objective)
    assert STAGED.describe() != other.describe(), "a checkpoint of other stages is refused"
