"""Training recipes by name: what ``recipe: paper`` and ``recipe: tuned`` set in a configuration.

A recipe is short for its settings, written in its place (file, preset, row, ``--set``): keys given beside it win
over it, as do rows over a file and ``--set`` over all. How long to train, on what and with which shape is never a
recipe's. Plain values; what was tried, and how far each result carries, is in docs/recipes.md.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lo_theory.lab.schema import merge

PARTS = ("model", "objective", "training")
"""The parts of a row that a recipe sets, the same settings in all; a task whose rows lack one of them takes none."""

RECIPES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "paper": {  # what the paper states, and where it is silent what the code it borrows does
        "model": {"positions": "rope", "embedding_scale": 0.0323},  # sqrt(2/(5 width)) at the paper's width, 384
        "objective": {"laws": ["uniform"], "stages": []},
        "training": {
            "optimiser": "adamw",
            "batch": 256,
            "learning_rate": 4e-4,
            "final_ratio": 0.1,  # to 4e-5, on a cosine
            "warmup": 100,
            "warmup_share": 0.01,  # the larger of the two
            "weight_decay": 0.1,
            "betas": [0.9, 0.95],
            "clip": 1.0,
        },
    },
    "tuned": {  # what left the marginals-only line soonest on small and middle sizes
        # L&O data tie meaning to absolute positions; under Muon at (32, 96) embeddings that start at 0.1 in place of 1
        # closed 57 % of the gap in place of 31, one training each
        "model": {"positions": "learned", "embedding_scale": 0.1},
        "objective": {
            "laws": ["uniform"],
            "stages": [{"share": 0.25, "laws": ["two_rates(0.1,0.9)"]}],  # first most latents visible
        },
        "training": {
            "optimiser": "muon",  # for the matrices of the blocks, AdamW for the rest
            "batch": 16,
            "learning_rate": 2e-3,
            "final_ratio": 0.0,
            "warmup": 0,
            "warmup_share": 0.1,
            "weight_decay": 0.0,
            "betas": [0.9, 0.95],
            "clip": 1.0,
        },
    },
}
"""Name -> part of a row -> its settings."""


def settings_of(name: str) -> dict[str, Any]:
    """The settings of a recipe, part by part, as a copy that may be changed."""
    return copy.deepcopy(dict(RECIPES[name]))


def spell_out(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write a ``recipe`` out in its place: its settings under those given beside it; the same of all ``rows``.

    ValueError for ``recipe: null``, which would read as if it undid another.
    """
    given = dict(settings)
    if "recipe" in given and given["recipe"] is None:
        raise ValueError(f"recipe: null undoes nothing: name one of {', '.join(RECIPES)}, or leave it out")
    name = given.pop("recipe", None)
    if isinstance(given.get("rows"), list):
        given["rows"] = [spell_out(row) for row in given["rows"]]
    return given if name is None else merge(settings_of(name), given)
