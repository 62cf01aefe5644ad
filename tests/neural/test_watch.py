from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lo_theory.diffusion.masks import Uniform
from lo_theory.neural import Ranks, load, train
from lo_theory.neural.step import Training
from lo_theory.neural.watch import Watch
from tests.neural.small import KEY, NETWORK, OBJECTIVE, PROBLEM, TRAINING
from tests.neural.test_train import Poisoned

CPU = torch.device("cpu")
SEEN_LATE = functools.partial(Watch, every_step=False)  # as on a GPU
WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique")
WAITING_CALLS = ("tolist", "item", "numpy", "cpu", "__float__", "__int__", "__bool__", "__array__", "__index__")


class Calls(TorchFunctionMode):
    """Counts what is called in Python, for some of it reads a CPU's memory without being an operation."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in WAITING_CALLS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """Counts operations by name; those of WAITING make the program wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.calls = Calls(self.counts)

    def __enter__(self) -> Any:
        self.calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.calls.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__.split(".")[-1]] += 1
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> int:
        return sum(self.counts[name] for name in WAITING + WAITING_CALLS)


def see(watch: Watch, losses: list[float], norms: list[float]) -> None:
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        watch.see(step, torch.tensor(loss), torch.tensor(norm))


def test_the_sum_and_the_last_norm_are_kept() -> None:
    watch = SEEN_LATE(TRAINING, CPU)
    see(watch, [0.5, 0.25, 2.0], [1.0, 3.0, 7.0])
    assert watch.look() == (2.75, 7.0)
    watch.begin_again()
    watch.see(3, torch.tensor(0.5), torch.tensor(1.0))
    assert watch.look() == (0.5, 1.0)


@pytest.mark.parametrize(
    ("losses", "norms", "said"),
    [
        ([1, math.nan, math.nan, 1], [1, math.nan, 1, 1], "loss is nan at step 1 of 12"),
        ([1, 1, 1, math.nan], [1, 1, math.inf, math.nan], "gradient norm is inf at step 2 of 12"),
        ([1, 1, -math.inf, 1], [1, 1, 1, math.nan], "loss is -inf at step 2 of 12"),
    ],
)
def test_the_first_number_that_is_not_finite_is_named_however_late_it_is_looked_at(
    losses: list[float], norms: list[float], said: str
) -> None:
    watch = SEEN_LATE(TRAINING, CPU)
    see(watch, losses, norms)
    for _ in range(2):
        with pytest.raises(FloatingPointError, match=said):
            watch.look()
    watch.begin_again()  # a new sum forgets nothing
    with pytest.raises(FloatingPointError, match=said):
        watch.look()


def test_on_a_cpu_it_is_seen_at_once() -> None:
    watch = Watch(TRAINING, CPU)
    watch.see(0, torch.tensor(1.0), torch.tensor(1.0))
    with pytest.raises(FloatingPointError, match="gradient norm is inf at step 1"):
        watch.see(1, torch.tensor(1.0), torch.tensor(math.inf))


@pytest.mark.parametrize(
    "change", [{}, {"optimiser": "muon"}, {"ema": 0.9}, {"microbatch": 3}, {"precision": "bfloat16"}], ids=str
)
def test_a_step_never_waits_for_the_device(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*, every_step: bool) -> Operations:
        monkeypatch.setattr("lo_theory.neural.step.Watch", functools.partial(Watch, every_step=every_step))
        training = Training(NETWORK, replace(TRAINING, **change), OBJECTIVE, KEY, Ranks())
        for _ in range(2):
            batch = {name: torch.from_numpy(values) for name, values in training.draw(training.step).items()}
            with Operations() as operations:
                training.advance(batch)
        return operations

    assert step(every_step=False).waits == 0
    assert step(every_step=True).waits > 0  # so the counter counts
    assert step(every_step=False).counts["mm"] > 10


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
def test_a_late_look_keeps_the_last_good_checkpoint_too(
    checkpoint_seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lo_theory.neural.step.Watch", SEEN_LATE)
    path, logs = tmp_path / "model", []
    config = replace(TRAINING, log_every=5, ema=0.9, optimiser="muon")
    with pytest.raises(FloatingPointError, match="loss is nan at step 7 of 12"):
        train(
            NETWORK,
            config,
            Poisoned(PROBLEM, Uniform()),
            KEY,
            checkpoint=path,
            checkpoint_seconds=checkpoint_seconds,
            on_log=lambda step, values: logs.append(step),
        )
    assert logs == [0, 5]
    kept = load(path)
    assert kept.header["step"] == (7 if checkpoint_seconds == 0 else 0)
    assert all(torch.isfinite(value).all() for value in kept.tensors.values())


def test_a_run_without_logs_and_checkpoints_does_not_return_what_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lo_theory.neural.step.Watch", SEEN_LATE)
    with pytest.raises(FloatingPointError, match="step 7"):
        train(NETWORK, replace(TRAINING, log_every=1000), Poisoned(PROBLEM, Uniform()), KEY)


def test_weights_that_are_not_finite_are_not_written_although_every_loss_was(tmp_path: Path) -> None:
    training = Training(NETWORK, TRAINING, OBJECTIVE, KEY, Ranks())
    training.tensors()
    with torch.no_grad():
        training.model.blocks[1].attention.out.weight[0, 3] = math.inf  # type: ignore[index, union-attr]
    with pytest.raises(FloatingPointError, match=r"model/blocks.1.attention.out.weight is not finite at step 0 of 12"):
        training.tensors()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "change", [{}, {"optimiser": "muon"}, {"ema": 0.9}, {"microbatch": 3}, {"compile": True}], ids=str
)
def test_a_step_never_waits_for_a_gpu(change: dict[str, Any]) -> None:
    config = replace(TRAINING, device="cuda", precision="bfloat16", **change)
    training = Training(NETWORK, config, OBJECTIVE, KEY, Ranks())
    batches = [
        {name: torch.from_numpy(values).to("cuda") for name, values in training.draw(step).items()} for step in range(5)
    ]
    for step, batch in enumerate(batches):
        torch.cuda.set_sync_debug_mode("error" if step >= 3 else "default")  # what is made once may wait
        try:
            training.advance(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    training.watch.look()
