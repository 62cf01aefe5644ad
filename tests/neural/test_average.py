from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lo_theory.neural import Observer, Transformer, load, load_model, train
from tests.neural.small import KEY, NETWORK, OBJECTIVE, TRAINING

Weights = dict[str, torch.Tensor]


def weights_of(model: Transformer) -> Weights:
    return {name: value.detach().double().clone() for name, value in model.state_dict().items()}


def slow_average(history: list[Weights], decay: float, ramp: bool = True) -> Weights:
    """The formula, one step after another, in float64; history[0] is the initial network."""
    average = dict(history[0])
    for t, weights in enumerate(history[1:]):
        d = min(decay, (1 + t) / (10 + t)) if ramp else decay
        average = {name: d * average[name] + (1 - d) * weights[name] for name in average}
    return average


def distance(first: Weights, second: Weights) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.parametrize(
    ("decay", "wrong"),
    # Within the ramp the decay itself does not show, after it the ramp no longer does.
    [(0.3, {"decay": 0.27}), (0.999, {"decay": 0.999, "ramp": False})],
)
def test_the_network_that_is_returned_is_the_average_of_the_weights_of_all_steps(
    decay: float, wrong: dict[str, Any], tmp_path: Path
) -> None:
    history = [weights_of(Transformer(NETWORK, seed=KEY.fold("initialisation").torch_seed()))]
    observer = Observer(evaluate=lambda step, model: history.append(weights_of(model)) or {}, evaluate_every=1)
    plain = train(NETWORK, TRAINING, OBJECTIVE, KEY, on_log=observer)
    path = tmp_path / "averaged"
    averaged = train(NETWORK, replace(TRAINING, ema=decay), OBJECTIVE, KEY, checkpoint=path)
    found = weights_of(averaged.model)
    assert distance(found, slow_average(history, decay)) < 1e-6
    assert distance(found, slow_average(history, **wrong)) > 1e-5
    assert distance(found, history[-1]) > 1e-4
    # Averaging changes nothing of the training itself, and the file holds both.
    stored = load(path).tensors
    for name, value in plain.model.state_dict().items():
        assert torch.equal(stored[f"model/{name}"], value)
        assert torch.equal(stored[f"ema/{name}"], averaged.model.state_dict()[name])
    loaded = load_model(path)
    assert all(torch.equal(value, averaged.model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_an_evaluation_sees_the_network_that_would_be_returned() -> None:
    seen: list[Weights] = []
    observer = Observer(evaluate=lambda step, model: seen.append(weights_of(model)) or {}, evaluate_every=12)
    trained = train(NETWORK, replace(TRAINING, ema=0.9), OBJECTIVE, KEY, on_log=observer)
    assert len(seen) == 1
    assert distance(seen[0], weights_of(trained.model)) == 0
    assert not trained.model.training
