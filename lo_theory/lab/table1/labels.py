"""Names for rows that differ in settings only, as the cells of a sweep do: tables and figures then tell them apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.rows import Row
from lo_theory.lab.schema import plain
from lo_theory.lab.seeds import seeded

__all__ = ["named", "variants"]

_SEEDS = frozenset({"seed", "problem.seed"})
_LONGEST = 40  # characters of a value in a name
_SHOWN = ("problem.N", "problem.P", "name")  # beside every number already


def variants(keys: Mapping[str, Any]) -> list[str]:
    """In what a decode differs from the plain one: schedule, most likely tokens, temperature, noise on the scores."""
    words = (
        "" if keys.get("schedule", "fixed_count") == "fixed_count" else str(keys["schedule"]),
        "argmax" if keys["argmax"] else "",
        "" if keys.get("temperature", 1.0) == 1.0 else f"temperature {keys['temperature']:g}",
        str(keys.get("noise", "")),
    )
    return [word for word in words if word]


def named(experiment: Experiment, rows: Sequence[Row]) -> list[Row]:
    """The rows with what else they differ in as a part of their name, such as ``training.steps 500``.

    What differs in seeds only has one name, and its seeds as a key of their own (``seeded``).
    """
    texts = _differences(experiment)
    return [_with(row, texts[int(row.keys["row"])]) if "row" in row.keys else row for row in seeded(experiment, rows)]


def _with(row: Row, text: str) -> Row:
    if not text:
        return row
    name = " ".join(filter(None, (str(row.keys.get("name", "")), text)))
    return Row(row.unit, row.metric, row.sums, {**row.keys, "name": name})


def _differences(experiment: Experiment) -> list[str]:
    """By row, in what it differs from others of its pair and name."""
    flat = [{path: value for path, value in _leaves(plain(row)) if path not in _SEEDS} for row in experiment.rows]
    peers: dict[tuple[Any, ...], list[int]] = {}
    for i, row in enumerate(flat):
        peers.setdefault(tuple(row.get(path) for path in _SHOWN), []).append(i)
    texts = [""] * len(flat)
    for alike in peers.values():
        first, paths = flat[alike[0]], dict.fromkeys(path for i in alike for path in flat[i])
        differing = [path for path in paths if any(flat[i].get(path) != first.get(path) for i in alike)]
        for i in alike:
            texts[i] = ", ".join(f"{path} {_text(flat[i].get(path))}" for path in differing)
    return texts


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Single settings of plain values, with their dotted paths."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _leaves(part, f"{path}.{name}" if path else str(name))
    else:
        yield path, value


def _text(value: Any) -> str:
    """A value; of a long list, which no table has room for, its beginning."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
