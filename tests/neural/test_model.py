from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from lo_theory.neural import SHAPES, Masked, TrainConfig, Transformer, TransformerConfig, train
from lo_theory.neural.model import NORM_EPSILON, RMSNorm, attend, rotary_tables, rotate
from lo_theory.problem import MASK, nae_sat
from tests.neural.small import CAUSAL, KEY, LENGTH, NETWORK, PROBLEM


def tokens(rows: int = 6) -> torch.Tensor:
    complete = torch.from_numpy(PROBLEM.sample(KEY, rows)).long()
    hidden = torch.from_numpy(KEY.fold("hidden").generator().random((rows, LENGTH)) < 0.5)
    return torch.where(hidden, MASK, complete)


@pytest.mark.parametrize(("name", "parameters"), [("19M", 18_880_896), ("6M", 6_294_784)])
@pytest.mark.parametrize("positions", ["learned", "rope", "both"])
def test_the_papers_shapes_are_exact_to_the_parameter(name: str, parameters: int, positions: str) -> None:
    model = Transformer(TransformerConfig.of(name, n_values=2, length=300, positions=positions), seed=0)
    layers, _, width, inner = SHAPES[name]
    assert model.core_parameters() == parameters == layers * (4 * width**2 + 3 * width * inner + 2 * width) + width
    total = sum(parameter.numel() for parameter in model.parameters())
    learned = 300 * width if positions != "rope" else 0
    assert total == parameters + 3 * width + learned + 2 * width  # two values and the mask; positions; an untied head


def test_the_initial_weights_depend_on_the_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (Transformer(NETWORK, seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert first["positions.weight"].std() == pytest.approx(1.0, abs=0.15)
    small = Transformer(replace(NETWORK, embedding_scale=0.02), seed=5).state_dict()
    for name, value in first.items():
        shrunk = 0.02 if name in ("tokens.weight", "positions.weight") else 1.0
        assert torch.allclose(small[name], shrunk * value)
    with pytest.raises(ValueError, match="embedding_scale must be positive and finite, got 0"):
        replace(NETWORK, embedding_scale=0.0)


@pytest.mark.parametrize("positions", ["learned", "rope", "both"])
@pytest.mark.parametrize("pad_to", [None, LENGTH + 5])
def test_logits_have_one_row_a_position_and_start_near_uniform(positions: str, pad_to: int | None) -> None:
    model = Transformer(replace(NETWORK, positions=positions, pad_to=pad_to), seed=1)
    logits = model(tokens())
    assert logits.shape == (6, LENGTH, 2)
    assert logits.dtype == torch.float32
    assert 0 < logits.abs().max() < 0.5


def test_the_pad_takes_part_only_where_asked_for() -> None:
    padded = Transformer(replace(NETWORK, pad_to=LENGTH + 5), seed=1)
    before = padded(tokens())
    with torch.no_grad():
        padded.tokens.weight[-1] += torch.randn(16, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(before, padded(tokens()))
    assert Transformer(NETWORK, seed=1).tokens.weight.shape[0] == 3


def test_rotary_scalar_products_depend_on_the_difference_of_positions_only() -> None:
    cosine, sine = rotary_tables(40, 8, 1e4)
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(8, generator=generator) for _ in range(2))
    turned_query, turned_key = (rotate(vector.expand(40, 8), cosine, sine) for vector in (query, key))
    products = turned_query @ turned_key.T
    for difference in (-7, 0, 3):
        along = torch.diagonal(products, difference)
        assert torch.allclose(along, along[0].expand_as(along), atol=1e-5)
    assert (products[0, 3] - products[0, 4]).abs() > 1e-3
    assert torch.allclose(turned_query[0], query)


def test_rotary_angles_are_position_times_base_to_the_minus_2i_over_d() -> None:
    cosine, sine = rotary_tables(5, 4, 100.0)
    expected = np.outer(np.arange(5), [1.0, 100.0**-0.5])
    np.testing.assert_allclose(np.arctan2(sine.numpy(), cosine.numpy()), np.angle(np.exp(1j * expected)), atol=1e-6)


def test_rope_alone_cannot_tell_positions_apart_when_all_is_hidden() -> None:
    hidden = torch.full((1, LENGTH), MASK)
    rope = Transformer(replace(NETWORK, positions="rope"), seed=2)(hidden)[0]
    assert torch.allclose(rope, rope[0].expand_as(rope), atol=1e-5)
    for positions in ("learned", "both"):
        logits = Transformer(replace(NETWORK, positions=positions), seed=2)(hidden)[0]
        assert not torch.allclose(logits, logits[0].expand_as(logits), atol=1e-3)


@pytest.mark.parametrize("positions", ["learned", "rope", "both"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_causal_network_never_sees_later_tokens_and_a_bidirectional_one_does(
    positions: str, precision: torch.dtype
) -> None:
    given, place = tokens(), 5
    changed = given.clone()
    changed[:, place] = (given[:, place] + 2) % 3 - 1
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        causal = Transformer(replace(CAUSAL, positions=positions), seed=3)
        both_sides = Transformer(replace(NETWORK, positions=positions), seed=3)
        before, after = causal(given), causal(changed)
        two_sided = (both_sides(given) - both_sides(changed)).abs().amax(dim=(0, 2))
    assert torch.equal(before[:, :place], after[:, :place])
    assert (before - after)[:, place:].abs().amax(dim=(0, 2)).min() > 0
    assert two_sided.min() > 0


@pytest.mark.parametrize("length", [7, 32, 35])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_agrees_with_the_slow_formula(causal: bool, length: int) -> None:
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, 3, length, 4, generator=generator).bfloat16() for _ in range(3))
    expected = torch.zeros(2, 3, length, 4, dtype=torch.float64)
    for b, h, i in np.ndindex(2, 3, length):
        seen = range(i + 1) if causal else range(length)
        scores = torch.stack([(query[b, h, i].double() @ key[b, h, j].double()) / 2.0 for j in seen])
        share = torch.softmax(scores, 0)
        expected[b, h, i] = sum(share[n] * value[b, h, j].double() for n, j in enumerate(seen))
    for dtype, tolerance in ((torch.bfloat16, 0.03), (torch.float32, 1e-5)):
        found = attend(query.to(dtype), key.to(dtype), value.to(dtype), causal)
        assert found.dtype == dtype
        assert (found.double() - expected).abs().max() < tolerance


def test_the_norm_is_torchs_and_its_gradient_the_numerical_one() -> None:
    norm = RMSNorm(33).double()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 33))
    x = torch.randn(2, 5, 33, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    torch.testing.assert_close(norm(x), functional.rms_norm(x, (33,), norm.weight, NORM_EPSILON))
    torch.autograd.gradcheck(
        lambda x, weight: torch.func.functional_call(norm, {"weight": weight}, x), (x, norm.weight)
    )
    half = x.detach().bfloat16()
    expected = functional.rms_norm(half.double(), (33,), norm.weight, NORM_EPSILON)
    assert (RMSNorm.forward(norm.float(), half) - expected).abs().max() < 1e-5


def test_the_large_network_takes_a_training_step_at_length_300() -> None:
    problem = nae_sat(25, 275, seed=0)
    network = TransformerConfig.of("19M", n_values=2, length=300, positions="both")
    seen: list[float] = []
    from lo_theory.diffusion.masks import Uniform

    config = TrainConfig(steps=1, batch=2, threads=1, log_every=1)
    train(network, config, Masked(problem, Uniform()), KEY, on_log=lambda step, log: seen.append(log.get("loss", 0.0)))
    assert seen[1] == pytest.approx(np.log(2), abs=0.15)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"heads": 3}, "multiple"),
        ({"layers": 0}, "layers"),
        ({"positions": "sine"}, "positions"),
        ({"pad_to": 3}, "pad_to"),
        ({"inner": 0}, "inner"),
        ({"heads": 16, "positions": "rope"}, "even"),
        ({"rope_base": 0.0}, "rope_base"),
    ],
)
def test_impossible_forms_are_named(change: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        replace(NETWORK, **change)  # type: ignore[arg-type]


def test_an_unknown_shape_and_a_wrong_length_are_named() -> None:
    with pytest.raises(ValueError, match="19M"):
        TransformerConfig.of("20M", n_values=2, length=8)
    with pytest.raises(ValueError, match=str(LENGTH)):
        Transformer(NETWORK, seed=0)(torch.zeros(2, LENGTH + 1, dtype=torch.int64))
