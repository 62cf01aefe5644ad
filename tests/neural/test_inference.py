"""The forward pass of a decode says what the training forward says, and its kernels what torch says in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lo_theory.neural import TrainedPosterior, Transformer, TransformerConfig, _kernels
from lo_theory.neural.posterior import autocast
from lo_theory.neural.threads import torch_threads
from lo_theory.problem import nae_sat
from lo_theory.problem.layout import MASK
from tests.neural.small import KEY, NETWORK, PROBLEM

LONG, THREE = nae_sat(12, 58, seed=0), nae_sat(4, 8, seed=3, q=3)
TABLE1 = TransformerConfig(layers=3, heads=8, width=96, inner=192, n_values=2, length=70)
CASES = {
    "the network of table1, more places than lanes": (LONG, TABLE1),
    "wide heads": (LONG, replace(TABLE1, layers=2, heads=3)),
    "rotary": (LONG, replace(TABLE1, positions="rope", heads=4)),
    "both, padded": (LONG, replace(TABLE1, positions="both", pad_to=131)),
    "one layer, few places": (PROBLEM, replace(NETWORK, layers=1)),
    "odd widths, padded, three values": (
        THREE,
        TransformerConfig(layers=2, heads=5, width=35, inner=7, n_values=3, length=12, pad_to=40),
    ),
}


def network(config: TransformerConfig) -> Transformer:
    """A network whose norms weigh, and whose logits are far from each other."""
    model, generator = Transformer(config, seed=1), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 2.0, generator=generator)
        model.head.weight.normal_(0.0, 0.5, generator=generator)
    return model


def contexts(problem: object, rows: int) -> np.ndarray:
    """From all revealed to all hidden, row by row."""
    tokens = problem.sample(KEY, rows)
    hidden = KEY.fold("places").generator().random(tokens.shape) < np.linspace(0, 1, rows)[:, None]
    return np.where(hidden, MASK, tokens).astype(np.int8)


def of_training(model: Transformer, tokens: np.ndarray, precision: str = "float32") -> np.ndarray:
    with torch.no_grad(), autocast(precision, "cpu"):
        return torch.softmax(model(torch.from_numpy(tokens).long()), dim=-1).numpy()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rows", [9, 2])  # with the table of the first block, and without
def test_marginals_are_those_of_the_training_forward(case: str, rows: int) -> None:
    problem, config = CASES[case]
    model, tokens = network(config), contexts(problem, rows)
    hidden = tokens == MASK
    expected, found = of_training(model, tokens)[hidden], TrainedPosterior(model, problem.layout).marginals(tokens)
    np.testing.assert_allclose(found.probs[hidden], expected, rtol=2e-5, atol=1e-6)
    assert expected.std() > 0.1  # the network distinguishes places and contexts


def test_bfloat16_is_as_near_to_float32_as_the_training_forward_in_bfloat16() -> None:
    model, tokens = network(TABLE1), contexts(LONG, 30)
    hidden, exact = tokens == MASK, of_training(network(TABLE1), tokens)
    theirs = np.abs(of_training(model, tokens, "bfloat16") - exact)[hidden].mean()
    found = TrainedPosterior(model, LONG.layout, precision="bfloat16").marginals(tokens).probs
    assert 0.5 * theirs < np.abs(found - exact)[hidden].mean() < 1.1 * theirs


def test_threads_and_batches_change_rounding_only() -> None:
    model, tokens = network(TABLE1), contexts(LONG, 9)
    plain = TrainedPosterior(model, LONG.layout).marginals(tokens).probs
    with torch_threads(2):
        np.testing.assert_allclose(TrainedPosterior(model, LONG.layout).marginals(tokens).probs, plain, atol=2e-6)
    single = TrainedPosterior(model, LONG.layout, batch=1).marginals(tokens).probs
    np.testing.assert_allclose(single, plain, atol=2e-6)


def test_weights_that_change_are_those_that_answer() -> None:
    model, tokens = network(NETWORK), contexts(PROBLEM, 9)
    posterior = TrainedPosterior(model, PROBLEM.layout)
    before = posterior.marginals(tokens).probs
    with torch.no_grad():
        model.tokens.weight.mul_(-1.0)
    after, hidden = posterior.marginals(tokens).probs, tokens == MASK
    np.testing.assert_allclose(after[hidden], of_training(model, tokens)[hidden], rtol=2e-5)
    assert np.abs(after - before).max() > 0.1


def test_what_is_not_a_number_is_answered_as_such() -> None:
    model, tokens = network(TABLE1), contexts(LONG, 9)
    with torch.no_grad():
        model.blocks[0].attention.query_key_value.weight[0, 0] = torch.nan
    found = TrainedPosterior(model, LONG.layout).marginals(tokens).probs
    assert np.isnan(found[tokens == MASK]).all()


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])  # of the scores: the last ones lie hundreds apart
@pytest.mark.parametrize(
    ("queries", "places", "width"), [(1, 1, 1), (7, 7, 5), (64, 64, 12), (65, 70, 24), (130, 131, 7)]
)
def test_attention_is_that_of_torch(queries: int, places: int, width: int, scale: float) -> None:
    heads = 3
    parts = normal(2, places, 3 * heads * width, scale=scale)
    out = torch.full((2, queries, heads * width), torch.nan)
    _kernels.attend(heads, parts[:, :queries].contiguous().numpy(), parts.numpy(), out.numpy())
    split = parts.double().view(2, places, 3, heads, width).permute(2, 0, 3, 1, 4)
    expected = functional.scaled_dot_product_attention(split[0][:, :, :queries], split[1], split[2])
    error = (out - expected.transpose(1, 2).flatten(2)).abs().max() / parts.abs().max()
    assert error < 2e-7 * max(10.0, scale**2)  # scores of size scale**2 are rounded to 1e-7 of that


def test_norm_is_that_of_torch() -> None:
    x, change, weight = normal(5, 33), normal(5, 33, scale=2.0), normal(33)
    total, out = x.double() + change, torch.empty(5, 33)
    _kernels.add_and_normalise(weight.numpy(), 0.3, x.numpy(), change.numpy(), out.numpy())
    torch.testing.assert_close(x, total.float())
    torch.testing.assert_close(out, functional.rms_norm(total, (33,), weight.double(), 0.3).float())


def test_gate_is_that_of_torch_far_from_zero_too() -> None:
    pair = torch.stack((torch.linspace(-200, 200, 4001), torch.full((4001,), 0.7)), dim=1).contiguous()
    out = torch.empty(4001, 1)
    _kernels.gate(pair.numpy(), out.numpy())
    expected = functional.silu(pair[:, :1].double()) * 0.7
    rounding = 3e-7 + 1e-7 * pair[:, :1].abs()  # of exp(-|g|), by that of g
    assert ((out - expected).abs() <= rounding * expected.abs() + 1e-35).all()
    pair[0, 0] = torch.nan
    _kernels.gate(pair.numpy(), out.numpy())
    assert out.isnan().sum() == 1
