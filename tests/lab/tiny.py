"""A tiny experiment that goes through every room in a few seconds."""

from __future__ import annotations

import copy
from typing import Any

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
