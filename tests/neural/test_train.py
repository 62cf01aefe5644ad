from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory.diffusion.masks import TwoRates, Uniform
from lo_theory.neural import (
    Causal,
    Focal,
    LearnedOrder,
    Masked,
    Observer,
    ProSeCo,
    TrainConfig,
    TrainedPosterior,
    Transformer,
    TransformerConfig,
    learning_rate,
    load,
    load_model,
    save_model,
    train,
)
from lo_theory.neural.checkpoint import save
from lo_theory.neural.objectives import State
from lo_theory.problem import nae_sat
from lo_theory.problem.layout import MASK
from tests.neural.small import CAUSAL, KEY, NETWORK, OBJECTIVE, PROBLEM, TRAINING
from tests.processes import Process, wait_until


class Stopped(Exception):
    """Raised by a test to end a run in the middle."""


def stop_at(last: int) -> Any:
    def on_log(step: int, values: Mapping[str, Any]) -> None:
        if step >= last:
            raise Stopped

    return on_log


@dataclass(frozen=True)
class Counting(Masked):
    """Its loss depends on a tensor that only the state carries."""

    def initial_state(self) -> State:
        return {"rows": torch.zeros((), dtype=torch.float64)}

    def loss(self, model: Transformer, batch: Mapping[str, torch.Tensor], state: State) -> tuple[torch.Tensor, State]:
        loss, _ = super().loss(model, batch, {})
        rows = state["rows"] + len(batch["tokens"])
        return loss * (1 + 0.01 * rows.float()), {"rows": rows}


@dataclass(frozen=True)
class Poisoned(Masked):
    """Its loss is NaN at one step."""

    at: int = 7

    def draw(self, key: Any, step: int, rows: tuple[int, int]) -> Any:
        batch = dict(super().draw(key, step, rows))
        return {**batch, "weight": batch["weight"] * np.float32(np.nan)} if step == self.at else batch


def test_a_short_run_leaves_the_marginals_only_line_far_behind() -> None:
    problem = nae_sat(4, 8, seed=3)
    layout, steps = problem.layout, 300
    network = replace(NETWORK, layers=2, heads=4, width=48, inner=96)
    config = TrainConfig(steps=steps, batch=64, learning_rate=6e-3, warmup=30, threads=1)
    model = train(network, config, replace(OBJECTIVE, stages=()), KEY).model
    tokens = problem.sample(KEY.fold("evaluation"), 2000)
    masked, weight = (part[0] for part in Uniform().sample(KEY.fold("masks of evaluation"), tokens, layout))

    def gap_closed(network: Transformer) -> float:
        probs = TrainedPosterior(network, layout).marginals(np.where(masked, MASK, tokens)).probs
        drawn = np.take_along_axis(probs, tokens[..., None].astype(np.intp), 2)[..., 0]
        loss = float((weight * -np.log(drawn)).sum() / len(tokens))
        marginals, floor = problem.marginal_entropy() / layout.length, problem.entropy() / layout.length
        return (marginals - loss) / (marginals - floor)

    assert gap_closed(model) > 0.6
    assert gap_closed(Transformer(network, seed=0)) < 0.05


def test_the_loss_that_is_logged_is_the_mean_since_the_last_time() -> None:
    logs: dict[int, Mapping[str, Any]] = {}
    train(
        NETWORK, replace(TRAINING, log_every=1), OBJECTIVE, KEY, on_log=lambda step, values: logs.update({step: values})
    )
    rough: dict[int, Mapping[str, Any]] = {}
    train(
        NETWORK,
        replace(TRAINING, log_every=4),
        OBJECTIVE,
        KEY,
        on_log=lambda step, values: rough.update({step: values}),
    )
    assert rough[0]["event"] == "start"
    for last in (4, 8, 12):
        assert rough[last]["loss"] == pytest.approx(np.mean([logs[step]["loss"] for step in range(last - 3, last + 1)]))
    assert rough[4]["law"] == "rotation(two_rates(0.1,0.9),uniform)"
    assert rough[8]["law"] == "uniform"
    assert logs[1]["loss"] == pytest.approx(math.log(2), abs=0.2)


def test_the_learning_rate_warms_up_and_follows_a_cosine() -> None:
    config = TrainConfig(steps=110, batch=1, learning_rate=2.0, warmup=10, final_ratio=0.1)
    rates = [learning_rate(config, step) for step in range(110)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[60] == pytest.approx(2.0 * 0.55)
    assert rates[109] == pytest.approx(0.2, rel=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    "objective", [OBJECTIVE, Counting(PROBLEM, Uniform()), Causal(PROBLEM)], ids=["staged", "state", "causal"]
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_run_continues_to_the_same_bytes(objective: Any, precision: str, tmp_path: Path) -> None:
    network = CAUSAL if isinstance(objective, Causal) else NETWORK
    config = replace(TRAINING, precision=precision)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    losses: list[tuple[int, float]] = []

    def keep(step: int, values: Mapping[str, Any]) -> None:
        losses.extend((step, values["loss"]) for name in values if name == "loss")

    train(network, config, objective, KEY, checkpoint=whole, on_log=keep)
    uninterrupted = losses.copy()
    losses.clear()
    with pytest.raises(Stopped):
        train(network, config, objective, KEY, checkpoint=broken, checkpoint_seconds=0, on_log=stop_at(5))
    assert load(broken).header["step"] == 4
    assert whole.read_bytes() != broken.read_bytes()
    trained = train(network, config, objective, KEY, checkpoint=broken, on_log=keep)
    assert trained.resumed_from == 4
    assert losses == uninterrupted
    assert len(losses) == 2
    assert whole.read_bytes() == broken.read_bytes()
    again = train(network, config, objective, KEY, checkpoint=broken)
    assert again.resumed_from == config.steps
    assert all(torch.equal(value, trained.model.state_dict()[name]) for name, value in again.model.state_dict().items())


SMALLER = replace(NETWORK, layers=1, width=8, inner=8)
EVERYTHING = {"optimiser": "muon", "ema": 0.99, "microbatch": 3, "prefetch": 5, "weight_decay": 0.1}


def saving(path: Path, network: TransformerConfig, config: TrainConfig, objective: Any) -> None:
    """Train with a checkpoint after every step, and print its number."""
    log = {"on_log": lambda step, _: print(step, flush=True)}
    train(network, config, objective, KEY, checkpoint=path, checkpoint_seconds=0, **log)


@pytest.mark.parametrize(
    ("network", "objective", "settings"),
    [
        pytest.param(NETWORK, OBJECTIVE, {}, id="plain", marks=pytest.mark.soak),
        pytest.param(NETWORK, OBJECTIVE, EVERYTHING, id="everything"),
        pytest.param(SMALLER, Focal(PROBLEM, Uniform()), {}, id="focal"),
        pytest.param(SMALLER, ProSeCo(PROBLEM), {}, id="proseco"),
        pytest.param(SMALLER, LearnedOrder(PROBLEM), {}, id="learned order"),
    ],
)
def test_a_killed_process_continues_to_the_same_bytes(
    network: TransformerConfig, objective: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Of every objective; that of Puma, which has a pool, is in test_puma.py."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = replace(TRAINING, steps=200, log_every=1, **settings)
    train(network, config, objective, KEY, checkpoint=whole)
    with Process(saving, killed, network, config, objective) as process:
        wait_until(lambda: len(process.said()[0].splitlines()) > 23)
        process.kill()
        assert process.returncode == -signal.SIGKILL
    assert 22 <= load(killed).header["step"] < 200
    assert train(network, config, objective, KEY, checkpoint=killed).resumed_from is not None
    assert whole.read_bytes() == killed.read_bytes()


@pytest.mark.parametrize(
    "change",
    [{"optimiser": "muon"}, {"ema": 0.9}, {"microbatch": 3}, {"prefetch": 0}, {"prefetch": 7}],
    ids=lambda change: ",".join(f"{name}={value}" for name, value in change.items()),
)
def test_every_setting_continues_to_the_same_bytes(change: dict[str, Any], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    config = replace(TRAINING, **change)
    first = train(NETWORK, config, OBJECTIVE, KEY, checkpoint=whole)
    with pytest.raises(Stopped):
        train(NETWORK, config, OBJECTIVE, KEY, checkpoint=broken, checkpoint_seconds=0, on_log=stop_at(5))
    again = train(NETWORK, config, OBJECTIVE, KEY, checkpoint=broken)
    assert again.resumed_from == 4
    assert whole.read_bytes() == broken.read_bytes()
    assert again.flops == first.flops
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_evaluations_come_when_they_are_due_and_stand_in_the_log() -> None:
    logs: list[tuple[int, Mapping[str, Any]]] = []
    modes: list[tuple[int, bool, bool]] = []

    def evaluate(step: int, model: Transformer) -> Mapping[str, float]:
        modes.append((step, model.training, torch.is_grad_enabled()))
        return {"held_out": float(model.head.weight.abs().sum())}

    observer = Observer(on_log=lambda step, values: logs.append((step, values)), evaluate=evaluate, evaluate_every=5)
    watched = train(NETWORK, replace(TRAINING, log_every=6), OBJECTIVE, KEY, on_log=observer)
    assert modes == [(5, False, False), (10, False, False), (12, False, False)]  # and after the last step
    assert [step for step, _ in logs] == [0, 5, 6, 10, 12]
    assert ["held_out" in values for _, values in logs] == [False, True, False, True, True]
    assert ["loss" in values for _, values in logs] == [False, False, True, False, True]
    assert [values.get("event") for _, values in logs] == ["start", "evaluation", None, "evaluation", None]
    for name in ("flops", "training_seconds", "processor_seconds"):
        assert all(0 < before[name] < after[name] for (_, before), (_, after) in itertools.pairwise(logs[1:]))
    assert logs[-1][1]["held_out"] == float(watched.model.head.weight.detach().abs().sum())
    plain = train(NETWORK, TRAINING, OBJECTIVE, KEY)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, watched.model.state_dict()[name])


def test_the_network_goes_on_training_after_an_evaluation_that_fails_or_not() -> None:
    kept: list[Transformer] = []

    def fail(step: int, model: Transformer) -> Mapping[str, float]:
        kept.append(model)
        if step == 4:
            raise Stopped
        return {}

    with pytest.raises(Stopped):
        train(NETWORK, TRAINING, OBJECTIVE, KEY, on_log=Observer(evaluate=fail, evaluate_every=2))
    assert len(kept) == 2
    assert kept[0].training


def test_an_evaluation_with_a_name_that_training_uses_is_refused() -> None:
    observer = Observer(evaluate=lambda step, model: {"gradient_norm": 1.0, "own": 2.0}, evaluate_every=5)
    with pytest.raises(ValueError, match="evaluate returned gradient_norm, which training logs itself"):
        train(NETWORK, TRAINING, OBJECTIVE, KEY, on_log=observer)
    with pytest.raises(ValueError, match="evaluate_every must be at least 1 to evaluate, got 0"):
        Observer(evaluate=lambda step, model: {})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "change",
    [{}, {"optimiser": "muon", "ema": 0.9, "microbatch": 3}, {"compile": True}],
    ids=["plain", "more", "compiled"],
)
def test_a_gpu_learns_as_a_cpu_does_and_goes_on_where_it_stopped(change: dict[str, Any], tmp_path: Path) -> None:
    path, config = tmp_path / "model", replace(TRAINING, **change)
    on_gpu = replace(config, device="cuda")
    with pytest.raises(Stopped):
        train(NETWORK, on_gpu, OBJECTIVE, KEY, checkpoint=path, checkpoint_seconds=0, on_log=stop_at(5))
    found = train(NETWORK, on_gpu, OBJECTIVE, KEY, checkpoint=path)
    assert found.resumed_from == 4
    expected = train(NETWORK, replace(config, compile=False), OBJECTIVE, KEY).model.state_dict()
    for name, value in found.model.state_dict().items():
        torch.testing.assert_close(value.cpu(), expected[name], rtol=0.02, atol=0.01)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"network": replace(NETWORK, inner=32)}, "model.inner is 24, expected 32"),
        ({"config": replace(TRAINING, learning_rate=1e-3)}, "training.learning_rate"),
        ({"objective": replace(OBJECTIVE, distribution=nae_sat(4, 8, seed=4))}, "objective.problem"),
        ({"objective": replace(OBJECTIVE, law=TwoRates(1, 1))}, "objective.law"),
        ({"key": KEY.fold(1)}, "seed.path"),
        ({"config": replace(TRAINING, threads=2)}, "trained with 1 threads, now 2"),
        ({"config": replace(TRAINING, optimiser="muon")}, "training.optimiser is 'adamw', expected 'muon'"),
        ({"config": replace(TRAINING, ema=0.5)}, r"training.ema is None, expected 0\.5"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(change: dict[str, Any], word: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    call = {"network": NETWORK, "config": TRAINING, "objective": OBJECTIVE, "key": KEY}
    train(**call, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=word):
        train(**{**call, **change}, checkpoint=path)
    assert path.read_bytes() == before


def test_open_threads_take_the_recorded_number_and_leave_torch_as_it_was(tmp_path: Path) -> None:
    path, before = tmp_path / "model", torch.get_num_threads()
    config, events = replace(TRAINING, steps=6, threads=2), []  # few steps: two threads on a busy machine are slow
    with pytest.raises(Stopped):
        train(NETWORK, config, OBJECTIVE, KEY, checkpoint=path, checkpoint_seconds=0, on_log=stop_at(5))
    trained = train(
        NETWORK,
        replace(config, threads=None),
        OBJECTIVE,
        KEY,
        checkpoint=path,
        on_log=lambda step, values: events.append(values),
    )
    assert trained.threads == events[0]["threads"] == 2
    assert events[0]["event"] == "resume"
    assert torch.get_num_threads() == before


def test_a_checkpoint_from_before_a_setting_came_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(Stopped):
        train(NETWORK, TRAINING, OBJECTIVE, KEY, checkpoint=path, checkpoint_seconds=0, on_log=stop_at(5))
    stored = load(path)
    older = {name: value for name, value in stored.header["model"].items() if name != "embedding_scale"}
    save(path, replace(stored, header={**stored.header, "model": older}))
    with pytest.raises(ValueError, match=r"model\.embedding_scale is 1\.0, expected 0\.1"):
        train(replace(NETWORK, embedding_scale=0.1), TRAINING, OBJECTIVE, KEY, checkpoint=path)
    assert train(NETWORK, TRAINING, OBJECTIVE, KEY, checkpoint=path).resumed_from == stored.header["step"]


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(FloatingPointError, match="loss is nan at step 7 of 12"):
        train(NETWORK, TRAINING, Poisoned(PROBLEM, Uniform()), KEY, checkpoint=path, checkpoint_seconds=0)
    kept = load(path)
    assert kept.header["step"] == 7
    assert all(torch.isfinite(value).all() for value in kept.tensors.values())


def test_training_draws_nothing_from_the_global_generators() -> None:
    on_torch, on_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    train(NETWORK, TRAINING, OBJECTIVE, KEY)
    assert torch.equal(on_torch, torch.get_rng_state())
    np.testing.assert_array_equal(on_numpy, np.random.get_state()[1])  # type: ignore[index] # noqa: NPY002


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"learning_rate": 0.0}, {"learning_rate": math.inf}, {"betas": (0.9, 1.0)}, {"final_ratio": 2.0},
     {"clip": -1.0}, {"precision": "half"}, {"threads": 0}, {"weight_decay": -0.1}],
)  # fmt: skip
def test_impossible_settings_are_named(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(TRAINING, **change)


def test_training_starts_from_the_weights_of_a_network_that_is_given(tmp_path: Path) -> None:
    first = train(NETWORK, TRAINING, OBJECTIVE, KEY).model
    path = save_model(tmp_path / "first.safetensors", first, problem=PROBLEM.fingerprint())
    given = load_model(path, problem=PROBLEM.fingerprint())
    before = {name: value.clone() for name, value in given.state_dict().items()}
    still = replace(TRAINING, steps=1, warmup=1, learning_rate=1e-30)  # a step too small to change a float32
    same = train(given, still, OBJECTIVE, KEY).model
    assert all(torch.equal(value, before[name]) for name, value in same.state_dict().items())
    assert any(
        not torch.equal(value, before[name])
        for name, value in train(NETWORK, still, OBJECTIVE, KEY).model.state_dict().items()
    )
    moved = train(given, TRAINING, OBJECTIVE, KEY).model
    assert any(not torch.equal(value, before[name]) for name, value in moved.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())  # copied, not changed


def test_a_start_from_other_weights_is_another_run(tmp_path: Path) -> None:
    one, other = (Transformer(NETWORK, seed=seed) for seed in (1, 2))
    path = tmp_path / "model.safetensors"
    whole = train(one, TRAINING, OBJECTIVE, KEY, checkpoint=path).model
    resumed = train(one, TRAINING, OBJECTIVE, KEY, checkpoint=path)
    assert resumed.resumed_from == TRAINING.steps
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.model.state_dict().items())
    for start in (other, NETWORK):
        with pytest.raises(ValueError, match="checkpoint of something else: its initial is"):
            train(start, TRAINING, OBJECTIVE, KEY, checkpoint=path)
    plain = tmp_path / "plain.safetensors"
    train(NETWORK, TRAINING, OBJECTIVE, KEY, checkpoint=plain)
    with pytest.raises(ValueError, match="its initial is None"):
        train(one, TRAINING, OBJECTIVE, KEY, checkpoint=plain)


def test_a_network_alone_is_refused_by_another_problem_and_is_no_checkpoint_of_a_training(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.safetensors", Transformer(NETWORK, seed=1), problem=PROBLEM.fingerprint())
    with pytest.raises(ValueError, match="checkpoint of something else: its problem is"):
        load_model(path, problem="another")
    with pytest.raises(ValueError, match="checkpoint of something else: its training"):
        train(NETWORK, TRAINING, OBJECTIVE, KEY, checkpoint=path)
