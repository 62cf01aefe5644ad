"""Experiments from YAML files: shared settings, presets, rows, ``--set``; strictly checked, resolved, named by a hash.

A file holds shared settings (problem, model, objective, training, decoding, evaluation, seed), ``rows`` that each
override some of them, and ``presets`` that are laid over all that. ``resolve`` leaves rows only. May read the file
named.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import build, check, merge, parse_yaml, plain, read_yaml
from lo_theory.lab.settings import Decoding, Evaluation, Model, Objective, Training, mask_law, step_count
from lo_theory.problem import Layout
from lo_theory.rng import Key

__all__ = ["Experiment", "Published", "Reference", "Row", "load", "resolve"]

_FORMAT = 1  # of the configuration; a part of every id


@dataclass(frozen=True)
class Row:
    """A row of the table: a problem, how a model is trained on it, what is measured. ``training`` null: no model."""

    problem: Problem
    seed: int = 0
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    training: Training | None = None
    decoding: Decoding = field(default_factory=Decoding)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        if self.training is None and any(cell.denoiser == "model" for cell in self.decoding.cells()):
            raise ValueError("decoding asks for a model, but training is null: give training, or denoisers: [exact]")

    def check_fits(self, layout: Layout) -> None:
        """Raise ValueError where a mask law does not fit the problem, or two decodes take equally many steps."""
        if self.training is not None:
            staged = [(f"objective.stages[{i}].laws", stage.laws) for i, stage in enumerate(self.objective.stages)]
            named = [("evaluation.laws", self.evaluation.laws), ("objective.laws", self.objective.laws), *staged]
            for path, texts in named:
                for text in texts:
                    try:
                        mask_law(text).sample(Key(0), np.zeros((2, layout.length), np.int8), layout)
                    except ValueError as error:
                        raise ValueError(f"{path}: {error}") from error
        seen: dict[str, str | int] = {}
        for cell in self.decoding.cells():
            name = dataclasses.replace(cell, steps=step_count(cell.steps, layout.length)).name
            if name in seen:
                raise ValueError(
                    f"decoding.steps: {seen[name]} and {cell.steps} are the same decode {name} at L = {layout.length}: "
                    "leave one out"
                )
            seen[name] = cell.steps


@dataclass(frozen=True)
class Published:
    """A published number: accuracy in per cent."""

    N: int
    P: int
    policy: str
    percent: float


@dataclass(frozen=True)
class Reference:
    """Published numbers to print beside ours."""

    source: str
    rows: tuple[Published, ...]


@dataclass(frozen=True)
class Experiment:
    """A resolved experiment. ``title``, ``preset`` and ``reference`` are for display and do not enter its id."""

    experiment: str
    rows: tuple[Row, ...]
    task: Literal["table1"] = "table1"
    title: str = ""
    preset: str = ""
    reference: Reference | None = None

    def __post_init__(self) -> None:
        if not self.experiment or not self.experiment.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"experiment names a folder (letters, digits, - and _), got {self.experiment!r}")
        if not self.rows:
            raise ValueError("rows is empty: an experiment needs at least one")

    def to_mapping(self) -> dict[str, Any]:
        """Everything, as plain values; ``resolve`` reads it back."""
        mapping: dict[str, Any] = plain(self)
        return mapping

    def canonical(self, fingerprints: Sequence[str]) -> str:
        """Canonical JSON of all that decides the result: problems by their arrays' fingerprint, no display names."""
        rows = [{**plain(row), "problem": name} for row, name in zip(self.rows, fingerprints, strict=True)]
        content = {"format": _FORMAT, "experiment": self.experiment, "task": self.task, "rows": rows}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def identity(self, fingerprints: Sequence[str]) -> str:
        """16 hexadecimal digits that name the run; ``fingerprints`` are those of the rows' problems."""
        return hashlib.blake2b(self.canonical(fingerprints).encode(), digest_size=8).hexdigest()


_SHARED = tuple(part.name for part in dataclasses.fields(Row))


def _document() -> type:
    """The dataclass of a file without presets: an experiment's own keys and those that its rows share."""
    parts = [
        (part.name, typing.get_type_hints(kind)[part.name], field(default=None, metadata=part.metadata))
        for kind in (Experiment, Row)
        for part in dataclasses.fields(kind)
    ]
    return dataclasses.make_dataclass("Document", parts)


def load(path: str | Path, *, preset: str | None = None, sets: Sequence[str] = ()) -> Experiment:
    """Read an experiment file; ``preset`` and ``sets`` as in ``resolve``. ValueError names file, path and remedy."""
    try:
        return resolve(read_yaml(path), preset=preset, sets=sets)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def resolve(document: Mapping[str, Any], *, preset: str | None = None, sets: Sequence[str] = ()) -> Experiment:
    """Lay the preset over the file's settings, then each "a.b=value"; give every row what it leaves open.

    Lists replace lists. A ``--set`` of a shared setting also wins over the rows' own. All presets are checked, not only
    the one chosen.
    """
    base, kind = dict(document), _document()
    presets, default = base.pop("presets", None) or {}, base.pop("default_preset", None)
    if not isinstance(presets, Mapping):
        raise ValueError("presets must be a mapping from names to settings")
    check(kind, base)
    for name, part in presets.items():
        check(kind, part, f"presets.{name}")
    chosen = default if preset is None else preset
    if chosen is not None:
        if chosen not in presets:
            known = f"the presets are {', '.join(presets)}" if presets else "there are no presets"
            raise ValueError(f"unknown preset {chosen!r}: {known}")
        base = {**merge(base, presets[chosen]), "preset": chosen}
    for assignment in sets:
        base = _assign(base, assignment)
    check(kind, base)
    shared = {key: base.pop(key) for key in _SHARED if key in base}
    rows = base.get("rows")
    return build(Experiment, {**base, "rows": [merge(shared, row) for row in ([{}] if rows is None else rows)]})


def _assign(base: dict[str, Any], assignment: str) -> dict[str, Any]:
    """Apply one "a.b.0.c=value"; the value is YAML, so that numbers, lists and null are what they look like."""
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise ValueError(f"--set takes path=value, such as training.steps=500, got {assignment!r}")
    names, value = path.strip().split("."), parse_yaml(text, f"--set {assignment}")
    result = _replace(base, names, value, path)
    if names[0] in _SHARED and isinstance(result.get("rows"), list):
        result = {**result, "rows": [_without(row, names) for row in result["rows"]]}
    return typing.cast(dict[str, Any], result)


def _replace(node: Any, names: Sequence[str], value: Any, path: str) -> Any:
    """Copy ``node`` with the entry at ``names`` replaced; missing mappings are made, list entries must be there."""
    if not names:
        return value
    head, rest = names[0], names[1:]
    if isinstance(node, Mapping) or node is None:
        old = dict(node or {})
        return {**old, head: _replace(old.get(head), rest, value, path)}
    if isinstance(node, list):
        if not head.isdigit() or int(head) >= len(node):
            raise ValueError(f"--set {path}: {head!r} is no index of a list of {len(node)} (they count from 0)")
        return [_replace(item, rest, value, path) if i == int(head) else item for i, item in enumerate(node)]
    raise ValueError(f"--set {path}: {head!r} would stand below {node!r}, which is a single value")


def _without(node: Any, names: Sequence[str]) -> Any:
    """Copy ``node`` with no entry of its own at ``names``."""
    if not isinstance(node, Mapping) or names[0] not in node:
        return node
    if len(names) == 1:
        return {key: item for key, item in node.items() if key != names[0]}
    return {**node, names[0]: _without(node[names[0]], names[1:])}
