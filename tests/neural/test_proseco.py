"""ProSeCo: both of its passes against enumeration, and what the second one converges to."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory.neural import Masked, Observer, ProSeCo, Transformer, TransformerConfig, flop_per_token, load, train
from lo_theory.problem import LODistribution, nae_sat
from lo_theory.rng import Key
from lo_theory.testing import z_test
from tests.budget import accept, reject
from tests.neural.enumerated import (
    CHANCES,
    MASKS,
    SMALL,
    STRINGS,
    L,
    Table,
    at_rates,
    entropies,
    every_context,
    expected,
)
from tests.neural.small import CAUSAL, KEY, LENGTH, NETWORK, PROBLEM, TRAINING
from tests.neural.test_objectives import on_torch
from tests.neural.test_train import Stopped, stop_at

LEAST = 0.2
LOGITS = 1.5 * Key(5).fold("table").generator().normal(size=(3**L, L, 2)).astype(np.float32)


def plain_weight(least: float) -> np.ndarray:
    """What each mask weighs in the first pass: its chance at rate t, times 1/(t L)."""
    return at_rates(lambda t: 1 / (t * L) / (1 - least), least)


def second_pass(objective: ProSeCo) -> float:
    """E of the sum over all positions of the entropies given y, over strings, masks and y, at weight 1/(t L)."""
    contexts, total = every_context(), 0.0
    for own in itertools.product((0, 1), repeat=L):
        y = np.broadcast_to(np.array(own, np.int8), contexts.shape)
        if objective.drawn:
            chance = np.exp(-entropies(LOGITS, contexts, y)).prod(axis=2)
        else:
            likely = LOGITS[(contexts.astype(int) + 1) @ 3 ** np.arange(L)].argmax(axis=3)
            chance = (likely == y).all(axis=2)
        losses = entropies(LOGITS, y, np.broadcast_to(STRINGS[:, None], y.shape)).sum(axis=2)
        total += float(CHANCES @ (chance * losses) @ plain_weight(objective.least))
    return total


class WeightDropped(ProSeCo):
    """Every time weighs the same."""

    def draw(self, key: Key, step: int, rows: tuple[int, int]) -> Any:
        batch = super().draw(key, step, rows)
        return {**batch, "weight": np.full_like(batch["weight"], 1 / L)}


class OnTheMask(ProSeCo):
    """The second pass sees the masks as the first does."""

    def own_tokens(self, logits: torch.Tensor, batch: Any) -> torch.Tensor:
        return torch.where(batch["masked"], -1, super().own_tokens(logits, batch))


def losses(objective: ProSeCo) -> list[float]:
    """Means of 60 rows."""
    batches = (on_torch(objective.draw(KEY, step, (0, 60))) for step in range(250))
    return [float(objective.loss(Table(LOGITS), batch, {})[0].detach()) for batch in batches]  # type: ignore[arg-type]


@pytest.mark.parametrize(("weight", "drawn"), [(0.0, False), (0.7, False), (0.7, True)])
def test_the_loss_of_a_fixed_predictor_is_that_of_enumeration(weight: float, drawn: bool) -> None:
    """T0, of the first pass alone and of both."""
    settings = (SMALL, weight, drawn, LEAST)
    wanted = expected(LOGITS, plain_weight(LEAST)) + weight * second_pass(ProSeCo(*settings))
    accept("two passes", z_test(losses(ProSeCo(*settings)), wanted))
    reject("two passes", z_test(losses(WeightDropped(*settings)), wanted))
    if weight:
        reject("two passes", z_test(losses(OnTheMask(*settings)), wanted))


def test_without_a_second_pass_it_is_the_plain_loss_at_one_pass() -> None:
    first, table = ProSeCo(SMALL, 0.0), Table(LOGITS)
    batch = first.draw(KEY, 0, (0, 50))
    plain = {name: batch[name] for name in ("tokens",)} | {
        "masked": batch["masked"][:, None],
        "weight": (batch["masked"] * batch["weight"][:, None])[:, None],
    }
    found, _ = first.loss(table, on_torch(batch), {})  # type: ignore[arg-type]
    assert table.calls == 1
    wanted, _ = Masked(SMALL, None).loss(table, on_torch(plain), {})  # type: ignore[arg-type]
    torch.testing.assert_close(found, wanted)
    # Without a least rate its weights are those of Proposition 2.1: sum over t of t^(n-1) (1-t)^(L-n)/L = 1/(n L C).
    sizes = np.bincount(MASKS.sum(axis=1), at_rates(lambda t: 1 / (t * L)))[1:]
    np.testing.assert_allclose(sizes, [1 / (L * n) for n in range(1, L + 1)], rtol=1e-9)


@pytest.mark.parametrize("drawn", [False, True])
def test_the_second_pass_is_least_at_the_posterior_of_the_truth_given_y(drawn: bool) -> None:
    """All strings, masks and y in one batch: at p(x_i | y), and not at the uniform law, the gradient is zero."""
    objective, contexts = ProSeCo(SMALL, 1.0, drawn, LEAST), every_context()
    weight = CHANCES[:, None] * plain_weight(LEAST) * MASKS.any(axis=1)  # the first pass sees a mask, the second none
    mass = np.zeros((3**L, L, 2))  # of each token, together with each y
    rows, weights, own = [], [], []
    for y in itertools.product((0, 1), repeat=L):
        told = np.broadcast_to(np.array(y, np.int8), contexts.shape)
        if drawn:
            chance = np.exp(-entropies(LOGITS, contexts, told)).prod(axis=2)
        else:
            chance = (LOGITS[(contexts.astype(int) + 1) @ 3 ** np.arange(L)].argmax(axis=3) == told).all(axis=2)
        for string, joint in zip(STRINGS, (weight * chance).sum(axis=1), strict=True):
            mass[(np.array(y) + 1) @ 3 ** np.arange(L), np.arange(L), string] += joint
        rows.append((weight * chance).ravel())
        own.append(np.broadcast_to(np.array(y), (rows[-1].size, L)))
    weights = np.concatenate(rows)
    some = weights > 0
    tokens = np.tile(np.repeat(STRINGS, 2**L, axis=0), (2**L, 1))[some]
    masked, units = np.tile(MASKS, (len(STRINGS) * 2**L, 1))[some], np.concatenate(own)[some]
    # A unit of 0 draws value 0 and one of almost 1 draws value 1, so that each y comes as it should.
    batch = on_torch(
        {"tokens": tokens, "masked": masked, "weight": weights[some] * some.sum(), "units": units * 0.9999999}
    )
    known = mass.sum(axis=2) > 0
    best = np.where(known[..., None], mass / np.where(known, mass.sum(axis=2), 1)[..., None], 0.5)
    complete = ((np.arange(3**L)[:, None] // 3 ** np.arange(L)) % 3 > 0).all(axis=1)
    for law, ends in ((best, True), (np.full_like(best, 0.5), False)):
        table = Table(np.where(complete[:, None, None], np.log(np.maximum(law, 1e-30)), LOGITS).astype(np.float32))
        loss, _ = objective.loss(table, batch, {})  # type: ignore[arg-type]
        loss.backward()
        gradient = table.logits.grad[torch.from_numpy(complete)].abs().max()  # type: ignore[index]
        assert (float(gradient) < 1e-5) == ends


def test_of_a_law_of_one_string_the_second_pass_learns_everything() -> None:
    one = LODistribution(np.tile([0.0, 1.0], (4, 1)), PROBLEM.observations)
    form = TransformerConfig(layers=1, heads=2, width=16, n_values=2, length=one.layout.length)
    logged: list[float] = []
    train(
        form,
        replace(TRAINING, steps=80, learning_rate=0.02, log_every=5),
        ProSeCo(one, 1.0, least=LEAST),
        KEY,
        on_log=lambda step, values: logged.extend([values["loss"]] if "loss" in values else []),
    )
    assert logged[0] > 0.5
    assert logged[-1] < 0.02


def test_own_tokens_are_values_of_their_role() -> None:
    """Latents of three values, observations of two: the third is left out, however likely the network thinks it."""
    problem, n = nae_sat(4, 8, q=3, seed=3), 400
    values = problem.layout.values
    logits = 2 * torch.randn(1, problem.layout.length, 3, generator=torch.Generator().manual_seed(1))
    every = logits.softmax(dim=-1)[0].double().numpy() * (np.arange(3) < values[:, None])
    laws = every / every.sum(axis=1, keepdims=True)
    assert (logits[0].argmax(dim=-1).numpy() >= values).any(), "left out for a reason"
    np.testing.assert_array_equal(ProSeCo(problem).own_tokens(logits, {})[0], laws.argmax(axis=1))
    units = (torch.arange(n)[:, None].expand(n, len(values)) + 0.5) / n
    drawn = ProSeCo(problem, drawn=True).own_tokens(logits.expand(n, -1, -1), {"units": units}).numpy()
    shares = (drawn[..., None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(shares, laws, atol=1.01 / n)


@pytest.mark.parametrize(("objective", "passes"), [(ProSeCo(PROBLEM), 2), (ProSeCo(PROBLEM, 0.0), 1)])
def test_every_pass_counts_as_training(objective: ProSeCo, passes: int) -> None:
    """An evaluation sends sequences through the network too, but nothing is learned from them."""
    observer = Observer(
        evaluate=lambda step, model: {"evaluated": float(model(torch.zeros(50, LENGTH, dtype=torch.int64)).sum())},
        evaluate_every=4,
    )
    trained = train(NETWORK, replace(TRAINING, microbatch=3), objective, KEY, on_log=observer)
    assert trained.flops == 12 * TRAINING.batch * passes * LENGTH * flop_per_token(NETWORK)


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_run_continues_to_the_same_bytes(drawn: bool, precision: str, tmp_path: Path) -> None:
    objective, config = ProSeCo(PROBLEM, drawn=drawn), replace(TRAINING, precision=precision)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    first = train(NETWORK, config, objective, KEY, checkpoint=whole)
    with pytest.raises(Stopped):
        train(NETWORK, config, objective, KEY, checkpoint=broken, checkpoint_seconds=0, on_log=stop_at(5))
    assert load(broken).header["step"] == 4
    again = train(NETWORK, config, objective, KEY, checkpoint=broken)
    assert (again.resumed_from, again.flops) == (4, first.flops)
    assert whole.read_bytes() == broken.read_bytes()


@pytest.mark.parametrize("drawn", [False, True])
def test_slices_of_a_step_are_the_step_and_parts_add_up_to_it(drawn: bool) -> None:
    objective, model = ProSeCo(PROBLEM, drawn=drawn), Transformer(NETWORK, seed=4)
    whole = objective.draw(KEY, 3, (0, 9))
    parts = [objective.draw(KEY, 3, rows) for rows in ((0, 4), (4, 5))]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
    loss = float(objective.loss(model, on_torch(whole), {})[0].detach())
    shares = [float(objective.loss(model, on_torch(part), {})[0].detach()) * len(part["tokens"]) / 9 for part in parts]
    assert sum(shares) == pytest.approx(loss, rel=1e-5)
    assert ("units" in whole) == drawn


def test_wrong_settings_and_networks_are_named() -> None:
    with pytest.raises(ValueError, match="weight must be finite and not negative, got -1"):
        ProSeCo(PROBLEM, -1.0)
    with pytest.raises(ValueError, match=r"least.* must lie in \(0, 1\], got 0"):
        ProSeCo(PROBLEM, least=0.0)
    with pytest.raises(ValueError, match="causal=False"):
        ProSeCo(PROBLEM).check(Transformer(CAUSAL, seed=0))
    assert [ProSeCo(PROBLEM).label(0), ProSeCo(PROBLEM, 0.5, True).label(0)] == ["proseco(1)", "proseco(0.5,drawn)"]
    numpys = ProSeCo(PROBLEM, np.float32(1), np.bool_(True), np.float32(0.5)).describe()  # type: ignore[arg-type]
    assert json.dumps(numpys) == json.dumps(ProSeCo(PROBLEM, 1.0, True, 0.5).describe())
    assert ProSeCo(PROBLEM).describe().keys() == {"kind", "problem", "weight", "drawn", "least"}
