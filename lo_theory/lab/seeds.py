"""Rows that differ in nothing but their seeds say which they are of, as the cells of a sweep that are not pooled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.rows import Row
from lo_theory.lab.schema import plain

__all__ = ["SEEDS", "seed_texts", "seeded", "with_seeds"]

SEEDS = "seeds"
"""The key that holds the seeds as a text, such as ``seed 1``."""


def with_seeds(text: str, keys: Mapping[str, Any]) -> str:
    """A label, and the seeds where the keys have them."""
    return f"{text} {keys[SEEDS]}" if keys.get(SEEDS) else text


def seeded(experiment: Experiment, rows: Sequence[Row]) -> list[Row]:
    """The rows with the key ``seeds`` where another row of the experiment differs from theirs in seeds only."""
    texts = seed_texts(experiment)
    return [_with(row, texts[int(row.keys["row"])]) if "row" in row.keys else row for row in rows]


def _with(row: Row, text: str) -> Row:
    return Row(row.unit, row.metric, row.sums, {**row.keys, SEEDS: text}) if text else row


def seed_texts(experiment: Experiment) -> list[str]:
    """By row: ``seed 1``, ``problem.seed 0``, or both; empty where no other row is of the same settings."""
    alike: dict[str, list[int]] = {}
    seeds: list[dict[str, Any]] = []
    for i, row in enumerate(experiment.rows):
        settings = plain(row)
        problem = settings.get("problem")
        own = {"seed": settings.pop("seed", None)}
        if isinstance(problem, dict):
            own = {"problem.seed": problem.pop("seed", None), **own}
        seeds.append(own)
        alike.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(i)
    texts = [""] * len(seeds)
    for peers in alike.values():
        names = [name for name in seeds[peers[0]] if len({str(seeds[i][name]) for i in peers}) > 1]
        one = all(len({str(seeds[i][name]) for name in names}) == 1 for i in peers)
        for i in peers if names else ():
            shown = names[-1:] if one else names  # problem and training have one seed: it is said once
            texts[i] = ", ".join(f"{name} {seeds[i][name]}" for name in shown)
    return texts
