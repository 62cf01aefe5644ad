from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest

from lo_theory.neural import TrainConfig
from tests.neural.small import TRAINING

# What the first version knew of a run: its checkpoints must go on being accepted.
FIRST = {
    "steps",
    "batch",
    "learning_rate",
    "final_ratio",
    "warmup",
    "weight_decay",
    "betas",
    "clip",
    "precision",
    "device",
}


def test_settings_left_at_their_defaults_leave_the_identity_of_a_run_as_it_always_was() -> None:
    assert TRAINING.identity().keys() == FIRST
    assert TRAINING.identity() == {name: asdict(TRAINING)[name] for name in FIRST}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"optimiser": "muon"}, "optimiser"),
        ({"ema": 0.99}, "ema"),
        ({"microbatch": 4}, "microbatch"),
        ({"compile": True}, "compile"),
    ],
)
def test_what_changes_a_bit_of_the_result_is_part_of_the_identity(change: dict[str, Any], name: str) -> None:
    changed = replace(TRAINING, **change).identity()
    assert changed == {**TRAINING.identity(), name: change[name]}


@pytest.mark.parametrize("change", [{"threads": 7}, {"log_every": 3}, {"prefetch": 0}, {"peak_flops": 1e12}])
def test_what_changes_no_bit_is_not(change: dict[str, Any]) -> None:
    assert replace(TRAINING, **change).identity() == TRAINING.identity()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimiser": "sgd"}, "optimiser must be one of adamw, muon, got 'sgd'"),
        ({"ema": 1.0}, "ema must lie strictly between 0 and 1 .*, got 1.0"),
        ({"ema": 0.0}, "ema must lie strictly between 0 and 1 .*, got 0.0"),
        ({"ema": math.nan}, "ema must lie strictly"),
        ({"microbatch": 0}, "microbatch must be at least 1, got 0"),
        ({"prefetch": -1}, "prefetch must be at least 0, got -1"),
        ({"peak_flops": 0.0}, "peak_flops must be positive and finite, got 0.0"),
        ({"peak_flops": math.inf}, "peak_flops must be positive and finite, got inf"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
    ],
)
def test_impossible_settings_are_named_with_their_number(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(TrainConfig(steps=3, batch=2), **change)
