from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lo_theory.neural import (
    Masked,
    Observer,
    Transformer,
    TransformerConfig,
    flop_per_token,
    load,
    measure_matmul_rate,
    train,
)
from lo_theory.neural.flops import Meter, core_parameters
from tests.neural.small import CAUSAL, KEY, LENGTH, NETWORK, OBJECTIVE, PROBLEM, TRAINING
from tests.neural.test_objectives import Twice


class Clock:
    """A time that passes when it is told to, or by ``tick`` at every look."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now, self.tick = 100.0, tick

    def perf_counter(self) -> float:
        self.now += self.tick
        return self.now

    def thread_time(self) -> float:
        """Of a thread that has half a processor."""
        return self.now / 2


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("lo_theory.neural.flops.time", made)
    return made


@pytest.mark.parametrize("length", [300, 512])
def test_the_papers_network_costs_six_times_its_parameters_and_its_attention(length: int) -> None:
    network = TransformerConfig.of("19M", n_values=2, length=length)
    assert flop_per_token(network) == 6 * 18_880_896 + 12 * 8 * 384 * length
    assert flop_per_token(replace(network, length=200, pad_to=length)) == flop_per_token(network)
    assert flop_per_token(replace(network, causal=True)) == flop_per_token(network)


@pytest.mark.parametrize("change", [{}, {"inner": None}, {"layers": 3}, {"positions": "rope"}, {"pad_to": 40}], ids=str)
def test_parameters_are_counted_from_the_form_as_from_the_network(change: dict[str, Any]) -> None:
    network = replace(NETWORK, **change)
    assert core_parameters(network) == Transformer(network, seed=0).core_parameters()


@pytest.mark.parametrize("length", [32, 64])
def test_the_formula_is_what_the_products_of_forward_and_backward_cost(length: int) -> None:
    """An independent count: torch's own, product by product."""
    rows, network = 3, TransformerConfig(layers=2, heads=2, width=64, n_values=2, length=length)
    model = Transformer(network, seed=0)
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        model(torch.zeros(rows, length, dtype=torch.int64)).sum().backward()
    tokens = rows * length
    norms = 6 * (2 * network.layers + 1) * network.width  # parameters that multiply no matrix
    head = 6 * network.width * network.n_values  # a matrix that is not counted
    assert counter.get_total_flops() == tokens * (flop_per_token(network) - norms + head)


@pytest.mark.parametrize(
    ("network", "objective", "sequences"),
    [(NETWORK, OBJECTIVE, 1), (replace(NETWORK, pad_to=20), OBJECTIVE, 1), (NETWORK, Masked(PROBLEM, Twice()), 2)],
    ids=["plain", "padded", "twice"],
)
def test_what_is_logged_is_the_cost_of_every_sequence_that_was_learned_from(
    network: TransformerConfig, objective: Masked, sequences: int, tmp_path: Any
) -> None:
    logs: dict[int, Any] = {}
    config = replace(TRAINING, log_every=4, peak_flops=2e9, microbatch=3)
    # An evaluation sends sequences through the network too, but nothing is learned from them.
    observer = Observer(
        on_log=lambda step, values: logs.update({step: values}),
        evaluate=lambda step, model: {"evaluated": float(model(torch.zeros(50, LENGTH, dtype=torch.int64)).sum())},
        evaluate_every=2,
    )
    path = tmp_path / "model"
    trained = train(network, config, objective, KEY, checkpoint=path, on_log=observer)
    per_row = sequences * network.places * flop_per_token(network)
    for step in (4, 8, 12):
        assert logs[step]["flops"] == step * config.batch * per_row
        ratio = logs[step]["flops_per_second"] / logs[step]["tokens_per_second"]
        assert ratio == pytest.approx(flop_per_token(network) * network.places / LENGTH)
        assert logs[step]["utilisation"] == pytest.approx(logs[step]["flops_per_second"] / 2e9)
    assert trained.flops == 12 * config.batch * per_row
    assert ("sequences" in load(path).header) == (sequences != 1)
    again = train(network, config, objective, KEY, checkpoint=path)
    assert (again.resumed_from, again.flops) == (12, trained.flops)


def test_without_a_peak_there_is_no_utilisation() -> None:
    logs: list[Any] = []
    train(NETWORK, TRAINING, OBJECTIVE, KEY, on_log=lambda step, values: logs.append(values))
    assert "flops_per_second" in logs[1]
    assert "utilisation" not in logs[1]


def test_the_rate_is_that_since_the_last_reading_without_pauses(clock: Clock) -> None:
    meter = Meter(NETWORK, rows=4, batch=8, peak_flops=1e6)
    model = Transformer(NETWORK, seed=0)
    meter.begin(sequences=100)
    with meter.count(model):
        for seconds, rows in ((2.0, 4), (3.0, 8)):
            model(torch.zeros(rows, LENGTH, dtype=torch.int64))
            clock.now += seconds
            with meter.pause():
                clock.now += 1000.0
            values = meter.read()
            assert values["tokens_per_second"] == pytest.approx(2 * rows * LENGTH / seconds)  # of both ranks
            assert values["flops_per_second"] == pytest.approx(2 * rows * LENGTH * flop_per_token(NETWORK) / seconds)
            assert values["utilisation"] == pytest.approx(values["flops_per_second"] / 1e6)
    assert meter.spent() == {"training_seconds": 5.0, "processor_seconds": 2.5}
    meter.begin(sequences=124)
    assert meter.spent() == {"training_seconds": 0.0, "processor_seconds": 0.0}
    meter.begin(sequences=100)
    with meter.count(model):
        model(torch.zeros(12, LENGTH, dtype=torch.int64))
    assert meter.sequences == 100 + 2 * 12
    assert meter.flops == 124 * LENGTH * flop_per_token(NETWORK)
    model(torch.zeros(5, LENGTH, dtype=torch.int64))
    assert meter.sequences == 124


def test_the_matrix_rate_is_operations_over_seconds(clock: Clock) -> None:
    clock.tick = 0.5
    size = 8
    assert measure_matmul_rate("cpu", seconds=2.0, size=size) == 2 * size**3 * 10 / 0.5
    with pytest.raises(ValueError, match="got 0 and"):
        measure_matmul_rate(size=0)
    with pytest.raises(ValueError, match=r"got 4 and 0\.0"):
        measure_matmul_rate(seconds=0.0, size=4)


def test_a_real_matrix_rate_is_plausible_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    rate = measure_matmul_rate("cpu", seconds=0.05, size=256)
    assert 1e7 < rate < 1e15
    assert math.isfinite(rate)
    assert torch.equal(before, torch.get_rng_state())


def test_a_causal_network_is_counted_too() -> None:
    from lo_theory.neural import Causal

    trained = train(CAUSAL, replace(TRAINING, steps=3), Causal(PROBLEM), KEY)
    assert trained.flops == 3 * TRAINING.batch * LENGTH * flop_per_token(CAUSAL)
