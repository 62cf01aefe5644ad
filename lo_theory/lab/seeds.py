"""In what the rows of an experiment differ, as texts: in seeds alone, as the cells of a sweep do, or in settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.schema import plain

__all__ = ["difference_texts", "seed_texts"]


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


_SHOWN = ("problem.N", "problem.P", "name")  # beside every number already
_LONGEST = 40  # characters of a value in a text


def difference_texts(experiment: Experiment) -> list[str]:
    """By row, in what it differs from others of its pair and name, seeds aside, such as ``training.steps 500``."""
    seeds = ("seed", "problem.seed")
    flat = [{path: value for path, value in _leaves(plain(row)) if path not in seeds} for row in experiment.rows]
    peers: dict[tuple[Any, ...], list[int]] = {}
    for i, row in enumerate(flat):
        peers.setdefault(tuple(row.get(path) for path in _SHOWN), []).append(i)
    texts = [""] * len(flat)
    for alike in peers.values():
        first, paths = flat[alike[0]], dict.fromkeys(path for i in alike for path in flat[i])
        differing = [path for path in paths if any(flat[i].get(path) != first.get(path) for i in alike)]
        for i in alike:
            texts[i] = ", ".join(f"{path} {_shortened(flat[i].get(path))}" for path in differing)
    return texts


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Single settings of plain values, with their dotted paths."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _leaves(part, f"{path}.{name}" if path else str(name))
    else:
        yield path, value


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
