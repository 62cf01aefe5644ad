from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lo_theory.diffusion import MirrorUniform
from lo_theory.neural import (
    LearnedOrder,
    Masked,
    ProSeCo,
    Puma,
    Ranks,
    Transformer,
    TransformerConfig,
    estimate_memory,
    train,
)
from lo_theory.neural.memory import free_memory
from lo_theory.neural.memory import require_memory as require
from lo_theory.neural.objectives import most_passes
from tests.neural.small import KEY, LENGTH, NETWORK, OBJECTIVE, PROBLEM, TRAINING
from tests.neural.test_objectives import on_torch

GIB = 2**30
PAPER = TransformerConfig.of("19M", n_values=2, length=300, pad_to=512)
WIDE = replace(TRAINING, batch=256, precision="bfloat16")


def kept_for_backward(network: TransformerConfig, rows: int, *, half: bool) -> int:
    """Bytes of all that autograd keeps after a forward pass, apart from the weights: counted, not estimated."""
    model = Transformer(network, seed=0)

    def forward() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            model(torch.zeros(rows, network.length, dtype=torch.int64))

    return kept_bytes(model, forward)


def kept_bytes(model: Transformer, forward: Callable[[], Any]) -> int:
    """Bytes of all that autograd keeps of what ``forward`` does, apart from the weights."""
    weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
    kept: dict[int, int] = {}

    def see(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        _ = forward()  # what it answers lives on until all is counted
    return sum(kept.values())


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "change",
    [{}, {"positions": "rope"}, {"positions": "both", "pad_to": 128}, {"length": 33}, {"inner": 100}, {"heads": 2}],
    ids=str,
)
def test_the_estimate_covers_what_is_kept_for_the_backward_pass_and_not_much_more(
    change: dict[str, Any], half: bool
) -> None:
    network = replace(TransformerConfig(layers=6, heads=6, width=96, n_values=2, length=100), **change)
    config = replace(TRAINING, batch=64, precision="bfloat16" if half else "float32")

    def differ(rows: int) -> tuple[int, int]:  # two sizes, so that weights and other fixed parts drop out
        estimated = estimate_memory(network, replace(config, batch=rows)) - estimate_memory(
            network, replace(config, batch=1)
        )
        counted = kept_for_backward(network, rows, half=half) - kept_for_backward(network, 1, half=half)
        return estimated, counted

    estimated, counted = differ(17)
    assert counted <= estimated <= 1.6 * counted


@pytest.mark.parametrize(
    ("objective", "passes"),
    [
        (OBJECTIVE, 1),
        (Puma(PROBLEM, 4), 1),
        (Masked(PROBLEM, MirrorUniform()), 2),
        (ProSeCo(PROBLEM), 2),
        (LearnedOrder(PROBLEM), 3),
    ],
    ids=lambda value: value.label(0) if hasattr(value, "label") else str(value),
)
def test_every_pass_of_an_objective_is_kept_and_counted(objective: Any, passes: int) -> None:
    assert most_passes(objective, 10) == passes
    network = TransformerConfig(layers=6, heads=6, width=96, n_values=2, length=LENGTH)
    model = getattr(objective, "network", Transformer)(network, seed=0)

    def counted(rows: int) -> int:
        batch = on_torch(objective.draw(KEY, 0, (0, rows)))
        return kept_bytes(model, lambda: objective.loss(model, batch, objective.initial_state()))

    def estimated(passes: int) -> int:
        sizes = (estimate_memory(network, replace(TRAINING, batch=rows), passes=passes) for rows in (17, 1))
        return next(sizes) - next(sizes)

    kept = counted(17) - counted(1)
    assert kept <= estimated(passes) <= 1.6 * kept
    assert not kept <= estimated(passes - 1), "a pass less would not do"


def test_weights_gradients_moments_and_averages_are_counted() -> None:
    few = replace(TRAINING, batch=1)
    network = TransformerConfig.of("19M", n_values=2, length=4)
    parameters = sum(value.numel() for value in Transformer(network, seed=0).parameters())
    hidden = sum(
        value.numel()
        for name, value in Transformer(network, seed=0).named_parameters()
        if value.ndim == 2 and name.startswith("blocks.")
    )
    plain = estimate_memory(network, few)
    assert plain == pytest.approx(1.1 * 16 * parameters, rel=0.02)
    assert estimate_memory(network, replace(few, ema=0.9)) - plain == pytest.approx(1.1 * 4 * parameters, rel=1e-3)
    assert plain - estimate_memory(network, replace(few, optimiser="muon")) == pytest.approx(1.1 * 4 * hidden, rel=1e-3)


def test_only_rows_that_go_through_together_count() -> None:
    whole = estimate_memory(PAPER, WIDE)
    assert estimate_memory(PAPER, replace(WIDE, microbatch=256)) == whole
    assert estimate_memory(PAPER, replace(WIDE, microbatch=32)) == estimate_memory(PAPER, replace(WIDE, batch=32))
    assert estimate_memory(PAPER, WIDE, ranks=8) < 0.2 * whole
    assert 20 * GIB < whole < 200 * GIB


def test_a_network_that_does_not_fit_is_refused_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, needed = tmp_path / "model", estimate_memory(NETWORK, TRAINING)
    monkeypatch.setattr("lo_theory.neural.memory.free_memory", lambda device: needed - 1)
    with pytest.raises(ValueError, match="GiB free: set microbatch to 4 "):
        train(NETWORK, TRAINING, OBJECTIVE, KEY, checkpoint=path)
    assert not path.exists()
    train(NETWORK, replace(TRAINING, microbatch=4), OBJECTIVE, KEY)
    monkeypatch.setattr("lo_theory.neural.memory.free_memory", lambda device: needed)
    train(NETWORK, TRAINING, OBJECTIVE, KEY)
    monkeypatch.setattr("lo_theory.neural.memory.free_memory", lambda device: None)  # a system that does not say
    train(NETWORK, TRAINING, OBJECTIVE, KEY)


@pytest.mark.parametrize("free", [4 * GIB, 10 * GIB, 20 * GIB])
def test_the_microbatch_that_is_named_fits_and_the_next_would_not(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lo_theory.neural.memory.free_memory", lambda device: free)
    with pytest.raises(ValueError, match="256 sequences of 512 tokens") as error:
        require(PAPER, WIDE, Ranks())
    said = re.search(
        r"needs about ([0-9.]+) GiB of memory, cpu has ([0-9.]+) GiB free: set microbatch to ([0-9]+)", str(error.value)
    )
    assert said is not None
    assert float(said[1]) == pytest.approx(estimate_memory(PAPER, WIDE) / GIB, abs=0.01)
    assert float(said[2]) == free / GIB
    require(PAPER, replace(WIDE, microbatch=int(said[3])), Ranks())
    with pytest.raises(ValueError, match="microbatch"):
        require(PAPER, replace(WIDE, microbatch=2 * int(said[3])), Ranks())


def test_where_no_microbatch_helps_a_smaller_network_is_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lo_theory.neural.memory.free_memory", lambda device: GIB // 5)
    with pytest.raises(ValueError, match="use a smaller network"):
        require(PAPER, WIDE, Ranks())


def test_ranks_on_one_computer_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(TRAINING, batch=64)
    one = estimate_memory(NETWORK, config, ranks=4)
    monkeypatch.setattr("lo_theory.neural.memory.free_memory", lambda device: 3 * one)
    require(NETWORK, config, Ranks(0, 4, 0, local_count=3))
    with pytest.raises(ValueError, match="GiB"):
        require(NETWORK, config, Ranks(0, 4, 0, local_count=4))


def test_a_computer_says_what_is_free() -> None:
    free = free_memory(torch.device("cpu"))
    assert free is None or 2**24 < free < 2**50


PEAK = """
import re, sys
from dataclasses import replace
from lo_theory.diffusion.masks import Uniform
from lo_theory.neural import Masked, TrainConfig, TransformerConfig, estimate_memory, train
from lo_theory.problem import nae_sat
from lo_theory.rng import Key

def status(name):
    return 1024 * int(re.search(rf"^{name}:\\s+(\\d+)", open("/proc/self/status").read(), re.M).group(1))

objective, key = Masked(nae_sat(25, 275, seed=0), Uniform()), Key(0)
config = TrainConfig(steps=2, batch=4, threads=1, precision=sys.argv[1])
train(TransformerConfig.of("small", n_values=2, length=300), replace(config, batch=1), objective, key)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
network = TransformerConfig.of("19M", n_values=2, length=300)
train(network, config, objective, key)
print((status("VmHWM") - before) / estimate_memory(network, config))
"""


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's own account of memory")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_peak_that_the_system_saw_is_near_the_estimate(precision: str) -> None:
    shown = subprocess.run([sys.executable, "-c", PEAK, precision], capture_output=True, text=True, check=True)
    assert 0.7 < float(shown.stdout) < 1.1


FAULTS = """
import resource, sys
import numpy as np
from lo_theory.neural.memory import keep_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep" and not keep_memory():
    print("other")
    raise SystemExit
for turn in range(6):
    if turn == 1:
        before = faults()
    tensors = [np.full(2**18, 1.0) for _ in range(32)]  # 64 MiB in all
    del tensors
print(faults() - before)
"""


def test_memory_that_is_kept_costs_no_page_faults() -> None:
    def count(way: str) -> str:
        return subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True).stdout

    kept = count("keep").strip()
    if kept == "other":
        pytest.skip("this system's C library is not glibc")
    assert int(kept) < 200
    assert int(count("give back")) > 1000, "without it, 64 MiB are asked for anew each time"
