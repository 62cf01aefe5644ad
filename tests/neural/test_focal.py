"""Focal weights against their known minimiser, and the weights over time against enumeration."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lo_theory.diffusion import Timesteps, Uniform
from lo_theory.neural import Batch, Focal, Masked, Stage, Transformer
from lo_theory.rng import Key
from lo_theory.testing import z_test
from tests.budget import accept, reject
from tests.neural.enumerated import MASKS, SIZES, SMALL, L, Table, expected
from tests.neural.small import KEY, NETWORK, PROBLEM
from tests.neural.test_objectives import on_torch


def minimiser(p: float, gamma: float) -> float:
    """The q with p F'(q) = (1 - p) F'(1 - q), F(q) = -(1 - q)^gamma ln q, by bisection to 1e-12."""

    def slope(q: float) -> float:
        return gamma * (1 - q) ** (gamma - 1) * np.log(q) - (1 - q) ** gamma / q

    low, high = 1e-9, 1 - 1e-9
    for _ in range(100):
        middle = (low + high) / 2
        falls = p * slope(middle) - (1 - p) * slope(1 - middle) < 0
        low, high = (middle, high) if falls else (low, middle)
    return low


class Detached(Focal):
    """Takes the weight for a constant."""

    def cost(self, entropies: torch.Tensor) -> torch.Tensor:
        return (-torch.expm1(-entropies.detach())) ** self.gamma * entropies


def slope_at(q: float, p: float, kind: type[Focal]) -> float:
    """The derivative by the logit of q of the loss of a token that is 1 with probability p, gamma 1."""
    logit = torch.tensor(np.log(q / (1 - q)), requires_grad=True)
    entropies = torch.stack([torch.nn.functional.softplus(-logit), torch.nn.functional.softplus(logit)])
    (kind(PROBLEM, Uniform()).cost(entropies) * torch.tensor([p, 1 - p], dtype=torch.float64)).sum().backward()
    return float(logit.grad)  # type: ignore[arg-type]


def learned(p: float, gamma: float) -> float:
    """Where descent on the objective's own loss ends, for one binary token that is 1 with probability p."""
    objective, ones = Focal(PROBLEM, Uniform(), gamma=gamma), round(1000 * p)
    tokens = (np.arange(1000) < ones).astype(np.int8)[:, None]
    hidden = np.ones((1000, 1, 1), bool)
    batch = on_torch({"tokens": tokens, "masked": hidden, "weight": hidden.astype(np.float32)})
    logit = torch.zeros(1, requires_grad=True)

    def network(given: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros(1), logit]).expand(*given.shape, 2)

    optimiser = torch.optim.LBFGS([logit], max_iter=60, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss, _ = objective.loss(network, batch, {})  # type: ignore[arg-type]
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(torch.sigmoid(logit.detach().double()))


def test_the_known_minimiser() -> None:
    assert minimiser(0.75, 1.0) == pytest.approx(0.650, abs=5e-4)
    assert minimiser(0.75, 0.0) == pytest.approx(0.75, abs=1e-9)


def test_the_slope_of_the_loss_is_zero_at_the_minimiser_to_a_millionth() -> None:
    q = minimiser(0.75, 1.0)
    assert slope_at(q - 1e-6, 0.75, Focal) < 0 < slope_at(q + 1e-6, 0.75, Focal)
    assert abs(slope_at(q, 0.75, Detached)) > 0.01  # a weight without a gradient has another minimum


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("p", [0.25, 0.75, 0.95])
def test_descent_on_the_loss_ends_at_the_minimiser_and_not_at_the_marginal(p: float, gamma: float) -> None:
    found = learned(p, gamma)
    assert found == pytest.approx(minimiser(p, gamma), abs=2e-4)
    assert (abs(found - p) > 0.02) == (gamma > 0)


def test_orders_by_probability_survive() -> None:
    p = np.linspace(0.02, 0.98, 25)
    for gamma in (0.5, 1.0, 2.0, 5.0):
        q = np.array([minimiser(each, gamma) for each in p])
        assert (np.diff(q) > 0).all()
        assert ((q > 0.5) == (p > 0.5)).all()
        assert (np.abs(q - 0.5) <= np.abs(p - 0.5) + 1e-9).all()  # never surer than the marginal


def gradients(objective: Masked) -> tuple[float, dict[str, torch.Tensor]]:
    model = Transformer(NETWORK, seed=4)
    with torch.no_grad():
        model.head.weight *= 60
    loss, _ = objective.loss(model, on_torch(objective.draw(KEY, 0, (0, 9))), {})
    loss.backward()
    return float(loss.detach()), {name: value.grad for name, value in model.named_parameters()}  # type: ignore[misc]


def test_gamma_zero_is_the_plain_loss_to_the_bit() -> None:
    plain, zero = gradients(Masked(PROBLEM, Uniform())), gradients(Focal(PROBLEM, Uniform(), gamma=0.0))
    assert plain[0] == zero[0]
    assert all(torch.equal(zero[1][name], value) for name, value in plain[1].items())
    assert gradients(Focal(PROBLEM, Uniform(), gamma=1.0))[0] < 0.95 * plain[0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_certain_tokens_cost_nothing_and_have_finite_gradients(gamma: float) -> None:
    objective, entropy = Focal(PROBLEM, Uniform(), gamma=gamma), torch.tensor([0.0, 1e-7, 0.3, 50.0])
    entropy.requires_grad_(True)
    cost = objective.cost(entropy)
    torch.testing.assert_close(cost, (1 - torch.exp(-entropy.double())).pow(gamma).mul(entropy).float())
    cost.sum().backward()
    assert torch.isfinite(entropy.grad).all()  # type: ignore[arg-type]


def test_a_checkpoint_names_gamma_and_wrong_ones_are_refused() -> None:
    focal = Focal(PROBLEM, Timesteps(20, "linear"), gamma=2.0)
    assert focal.describe() == {**Masked(PROBLEM, Timesteps(20, "linear")).describe(), "kind": "focal", "gamma": 2.0}
    assert focal.label(0) == "focal(2) timesteps(20,linear)"
    with pytest.raises(ValueError, match="prior of a stage"):
        replace(focal, stages=(Stage(1, Uniform(), (1.0,)),))
    scalar = replace(focal, gamma=np.float32(2.0)).describe()
    assert json.dumps(scalar) == json.dumps(focal.describe())
    for gamma in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="gamma must be finite"):
            replace(focal, gamma=gamma)


def chances(steps: int, form: str) -> np.ndarray:
    """Weight times the chance of each mask, summed over the time steps."""
    total = np.zeros(len(MASKS))
    for t in range(steps):
        rate = (t + 1) / steps
        weight = 1 / (t + 1) if form == "inverse" else steps - t
        total += weight * rate**SIZES * (1 - rate) ** (L - SIZES) / steps
    return total / (total @ SIZES)


@pytest.mark.parametrize("form", ["inverse", "linear"])
@pytest.mark.parametrize("steps", [1, 7])
def test_weights_over_time_give_the_loss_that_enumeration_gives(steps: int, form: str) -> None:
    logits = 2 * Key(5).fold("table").generator().normal(size=(3**L, L, 2)).astype(np.float32)
    wanted, objective = expected(logits, chances(steps, form)), Masked(SMALL, Timesteps(steps, form))
    losses, dropped = [], []

    def loss(batch: Batch) -> float:
        return float(objective.loss(Table(logits), on_torch(batch), {})[0].detach())  # type: ignore[arg-type]

    for step in range(300):
        batch = objective.draw(KEY, step, (0, 40))
        losses.append(loss(batch))
        dropped.append(loss({**batch, "weight": (batch["masked"] / L).astype(np.float32)}))
    accept("timesteps", z_test(losses, wanted))
    if steps > 1:
        reject("timesteps", z_test(dropped, wanted))


def test_many_time_steps_are_the_plain_loss_and_wrong_ones_are_refused() -> None:
    found = np.bincount(SIZES, chances(4000, "inverse"))[1:]
    np.testing.assert_allclose(found, [1 / (L * size) for size in range(1, L + 1)], rtol=1e-3)
    with pytest.raises(ValueError, match="at least one time step, got 0"):
        Timesteps(0)
    with pytest.raises(ValueError, match="inverse or linear, got 'cosine'"):
        Timesteps(3, "cosine")
