"""A testbed for masked diffusion on Latents-and-Observations distributions, where the truth is known.

The public names below load on first use: importing the package loads neither torch nor matplotlib nor pandas nor numba.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_ROOMS = {
    "lo_theory.rng": ("Key",),
    "lo_theory.problem": (
        "MASK",
        "LODistribution",
        "Layout",
        "Predicate",
        "SlabObservations",
        "TableObservations",
        "all_k_subsets",
        "nae_sat",
        "random_slab",
        "sparse_parity",
    ),
    "lo_theory.problem.planted": ("planted",),
    "lo_theory.posterior": ("BPPosterior", "ExactPosterior", "Marginals", "Posterior", "condition"),
    "lo_theory.posterior.overlap": ("overlap",),
    "lo_theory.thresholds": ("find_transition", "kesten_stigum", "planted_ensemble"),
    "lo_theory.diffusion": ("DecodeOptions", "Sums", "decode", "diversity", "generated_accuracies", "losses"),
    "lo_theory.testing.checking": ("check",),
    "lo_theory.neural": (
        "Masked",
        "TrainConfig",
        "TrainedPosterior",
        "Transformer",
        "TransformerConfig",
        "as_module",
        "from_logits",
        "load_model",
        "save_model",
        "train",
    ),
    "lo_theory.lab.evaluation": ("evaluate",),
    "lo_theory.lab.reading": ("read",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lo_theory' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
