from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lo_theory.neural import Transformer
from lo_theory.neural.muon import Muon, orthogonalise
from lo_theory.neural.optimisers import Optimisers, is_hidden
from tests.neural.small import NETWORK, TRAINING

RATE = 0.01
CONFIG = replace(TRAINING, learning_rate=RATE, weight_decay=0.0)


def moved(optimiser: str, weight_decay: float = 0.0) -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Weights before, weights after one step, and gradients, by name; the gradients are random and always the same."""
    model = Transformer(NETWORK, seed=3)
    optimisers = Optimisers(model, replace(CONFIG, optimiser=optimiser, weight_decay=weight_decay))
    generator = torch.Generator().manual_seed(0)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for value in model.parameters():
        value.grad = torch.randn(value.shape, generator=generator)
    optimisers.step(RATE)
    return {name: (before[name], value.detach(), value.grad) for name, value in model.named_parameters()}  # type: ignore[misc]


def test_muon_takes_the_matrices_of_the_blocks_and_leaves_the_rest_to_adamw() -> None:
    muon, adamw = moved("muon"), moved("adamw")
    names = [name for name, (value, _, _) in muon.items() if is_hidden(name, value)]
    assert len(names) == NETWORK.layers * 5
    assert not [name for name in names if "norm" in name or name.split(".")[0] in ("tokens", "positions", "head")]
    for name, (_, after, _) in muon.items():
        assert torch.equal(after, adamw[name][1]) == (name not in names), name


def test_a_step_of_muon_is_a_nearly_orthogonal_matrix_of_the_size_of_an_adamw_step() -> None:
    for name, (before, after, gradient) in moved("muon").items():
        if not is_hidden(name, before):
            continue
        step = (before - after).double() / (RATE * 0.2 * math.sqrt(max(before.shape)))
        values = torch.linalg.svdvals(step)
        assert 0.4 < values.min() <= values.max() < 1.4, name  # Newton-Schulz stops at 0.7 to 1.2
        assert torch.linalg.svdvals(gradient).max() > 2 * torch.linalg.svdvals(gradient).min()
        # Its singular vectors are the gradient's: the product with the gradient's polar factor is near the identity.
        u, _, v = torch.linalg.svd(gradient.double(), full_matrices=False)
        assert torch.trace((u @ v).T @ step) > 0.98 * values.sum()
        assert torch.trace(gradient.double().T @ step) / gradient.double().norm() < 0.98 * step.norm(), name
        size = (before - after).square().mean().sqrt()
        assert 0.1 * RATE < size < 0.3 * RATE, name  # AdamW's usual 0.2 to 0.4 of the rate


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_weight_decay_acts_on_matrices_and_spares_embeddings_and_norms(optimiser: str) -> None:
    plain, decayed = moved(optimiser), moved(optimiser, weight_decay=0.5)
    for name, (before, after, _) in decayed.items():
        spared = before.ndim < 2 or name.startswith(("tokens.", "positions."))
        expected = plain[name][1] if spared else plain[name][1] - RATE * 0.5 * before
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-6)
        assert spared == torch.equal(after, plain[name][1])


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_what_is_restored_takes_the_same_next_step(optimiser: str) -> None:
    def run(steps: int, optimisers: Optimisers, model: Transformer, first: int = 0) -> None:
        for step in range(first, first + steps):
            generator = torch.Generator().manual_seed(step)
            for value in model.parameters():
                value.grad = torch.randn(value.shape, generator=generator)
            optimisers.step(RATE)

    config = replace(CONFIG, optimiser=optimiser)
    whole, broken = Transformer(NETWORK, seed=3), Transformer(NETWORK, seed=3)
    run(4, Optimisers(whole, config), whole)
    first = Optimisers(broken, config)
    run(2, first, broken)
    second, forgetful = Optimisers(broken, config), Transformer(NETWORK, seed=3)
    second.restore({name: value.clone() for name, value in first.tensors().items()})
    forgetful.load_state_dict(broken.state_dict())
    run(2, second, broken, first=2)
    run(2, Optimisers(forgetful, config), forgetful, first=2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[name])
        assert not torch.equal(value, forgetful.state_dict()[name])


def plain_muon(weight: torch.Tensor, gradients: list[torch.Tensor], decay: float, *, nesterov: bool) -> torch.Tensor:
    """Muon on one matrix, written down as it is defined, in float64."""
    weight, momentum = weight.double(), torch.zeros_like(weight, dtype=torch.float64)
    for gradient in gradients:
        momentum = 0.95 * momentum + 0.05 * gradient.double()
        x = 0.95 * momentum + 0.05 * gradient.double() if nesterov else momentum
        x = x / x.square().sum().sqrt()
        for _ in range(5):
            x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
        weight = weight - RATE * decay * weight - RATE * 0.2 * max(weight.shape) ** 0.5 * x
    return weight


@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (4, 12)])
def test_muon_is_what_it_is_defined_as(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    starts, *gradients = (torch.randn((3, *shape), generator=generator) for _ in range(4))
    weights = [torch.nn.Parameter(start.clone()) for start in starts]
    muon = Muon(weights, lr=RATE, weight_decay=0.5)
    for gradient in gradients:
        for weight, own in zip(weights, gradient, strict=True):
            weight.grad = own
        muon.step()
    for weight, start, *own in zip(weights, starts, *gradients, strict=True):
        torch.testing.assert_close(
            weight.detach().double(), plain_muon(start, own, 0.5, nesterov=True), rtol=0, atol=1e-6
        )
        for wrong in (plain_muon(start, own, 0.5, nesterov=False), plain_muon(start, own, 0.0, nesterov=True)):
            assert (weight.detach() - wrong).abs().max() > 1e-4


def test_a_matrix_of_zeros_stays_where_it_is() -> None:
    assert torch.equal(orthogonalise(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))
