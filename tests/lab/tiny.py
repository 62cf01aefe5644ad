"""Tiny experiments as their files would give them: one that goes through every room, and one of each task."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from lo_theory.lab.schema import read_yaml

PINNED = Path(__file__).with_name("pinned_rows")

_TINY: dict[str, Any] = {
    "experiment": "tiny",
    "title": "A tiny table",
    "problem": {"family": "nae_sat", "N": 6, "P": 18},
    "model": {"shape": {"layers": 1, "heads": 2, "width": 16}},
    "training": {"steps": 150, "batch": 16, "warmup": 5},
    "decoding": {
        "sequences": 64,
        "policies": ["vanilla", "margin"],
        "extra": [{"denoiser": "exact", "policy": "margin", "steps": "L", "argmax": True}],
    },
    "evaluation": {"sequences": 64, "laws": ["uniform", "two_rates(0,1)"]},
    "rows": [{}],
    "presets": {
        "longer": {"training": {"steps": 300}},
        "exact": {"decoding": {"denoisers": ["exact"]}, "training": None},
    },
    "reference": {"source": "made up", "rows": [{"N": 25, "P": 275, "policy": "vanilla", "percent": 78.06}]},
}


def tiny() -> dict[str, Any]:
    """A fresh copy, as a file would give it."""
    return copy.deepcopy(_TINY)


def tiny_of(task: str, **changes: Any) -> dict[str, Any]:
    """The tiny configuration of a task whose rows are pinned, with other settings in place of its own."""
    return {**read_yaml(PINNED / f"{task}.yaml"), **changes}
