"""Experiments from YAML files: shared settings, presets, rows, ``--set``; strictly checked, resolved, named by a hash.

A file names a ``task`` and holds the settings of that task's rows: shared ones, ``rows`` that each override some of
them, and ``presets`` that are laid over all that. A ``recipe`` is short for settings of a training, wherever it
appears. ``resolve`` leaves rows only; ``seed_texts`` and ``difference_texts`` say in what they differ. May read the
file named.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lo_theory.lab.schema import build, check, merge, parse_yaml, plain, read_yaml
from lo_theory.lab.task import TASKS, Task, load_task, task_named
from lo_theory.lab.training_recipes import PARTS, RECIPES, settings_of, spell_out

_FORMAT = 1  # of the configuration; a part of every id


@dataclass(frozen=True)
class Experiment:
    """A resolved experiment; its rows and its reference are of its task's types.

    ``title``, ``preset`` and ``reference`` (published numbers) are for display and do not enter its id.
    """

    experiment: str
    rows: tuple[Any, ...]
    task: str = "table1"
    title: str = ""
    preset: str = ""
    reference: Any = None

    def __post_init__(self) -> None:
        if not self.experiment or not self.experiment.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"experiment names a folder (letters, digits, - and _), got {self.experiment!r}")
        if not self.rows:
            raise ValueError("rows is empty: an experiment needs at least one")

    @property
    def heading(self) -> str:
        """What its tables and figures are called."""
        return self.title or self.experiment

    @property
    def paper(self) -> list[str]:
        """A note on where the published numbers stand; nothing without a reference."""
        return [] if self.reference is None else [f"Paper: {self.reference.source}."]

    def to_mapping(self) -> dict[str, Any]:
        """Everything, as plain values; ``resolve`` reads it back."""
        mapping: dict[str, Any] = plain(self)
        return mapping

    def canonical(self, contents: Sequence[Mapping[str, Any]]) -> str:
        """Canonical JSON of all that decides the result: the contents of the prepared rows, no display names."""
        task = load_task(self.task).identity
        content = {"format": _FORMAT, "experiment": self.experiment, "task": task, "rows": list(contents)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def identity(self, contents: Sequence[Mapping[str, Any]]) -> str:
        """16 hexadecimal digits that name the run; ``contents`` are those of the prepared rows."""
        return hashlib.blake2b(self.canonical(contents).encode(), digest_size=8).hexdigest()


def _recipe(task: Task) -> list[tuple[str, Any, Any]]:
    """The key ``recipe``, as a field, where a task's rows have all that a recipe fills in."""
    names = {part.name for part in dataclasses.fields(task.row)}
    return [("recipe", Literal[tuple(RECIPES)] | None, field(default=None))] if names.issuperset(PARTS) else []


def _shared(task: Task) -> tuple[str, ...]:
    return tuple(part.name for part in dataclasses.fields(task.row)) + tuple(name for name, _, _ in _recipe(task))


def written_row(task: Task) -> type:
    """The dataclass of a row as files write it: ``recipe`` is a key of it, where the task takes one."""
    return dataclasses.make_dataclass("Row", _recipe(task), bases=(task.row,), frozen=True)


def _document(task: Task) -> type:
    """The dataclass of a file without presets: an experiment's own keys and those that its rows share."""
    hints: dict[str, Any] = {
        "experiment": str,
        "rows": types.GenericAlias(tuple, (written_row(task), ...)),
        "task": str if task.source is not None else Literal[tuple(TASKS)],
        "title": str,
        "preset": str,
        "reference": task.reference | None,
    }
    own = [(name, hint, field(default=None)) for name, hint in hints.items()]
    row = typing.get_type_hints(task.row)
    parts = [
        (part.name, row[part.name], field(default=None, metadata=part.metadata))
        for part in dataclasses.fields(task.row)
    ]
    return dataclasses.make_dataclass("Document", [*own, *parts, *_recipe(task)])


def shipped() -> dict[str, Path]:
    """The experiment files that come with the package, by name: ``shipped()["table1"]`` is its table1.yaml."""
    package = Path(str(importlib.resources.files("lo_theory")))
    folders = [package / "experiments", package.parent / "experiments"]  # of an installed wheel, of a checkout
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _find(path: Path) -> Path:
    """The file named, or the shipped experiment of that name."""
    if path.suffix or path.parent != Path() or path.exists():
        return path
    files = shipped()
    if path.name not in files:
        raise ValueError(f"there is no file {path}, and no experiment of that name: known are {', '.join(files)}")
    return files[path.name]


def read_document(path: str | Path) -> dict[str, Any]:
    """What an experiment file holds: a YAML file, or a user's module (.py) with ``EXPERIMENT``.

    A bare name such as "table1" is a file that comes with the package. A module that ``task`` names is looked for
    beside the file. ValueError names file, path and remedy.
    """
    path = _find(Path(path))
    if path.suffix != ".py":
        document = read_yaml(path)
        task = document.get("task")
        if isinstance(task, str) and task.endswith(".py"):
            document["task"] = str((path.parent / task).resolve())
        return document
    settings = getattr(load_task(str(path)).module, "EXPERIMENT", None)
    if not isinstance(settings, Mapping):
        raise ValueError(f"{path} has no EXPERIMENT, a dict of what an experiment file holds, such as its rows")
    return {"experiment": path.stem.replace(".", "_"), **settings, "task": str(path.resolve())}


def load(path: str | Path, *, preset: str | None = None, sets: Sequence[str] = ()) -> Experiment:
    """Read an experiment file or module; ``preset`` and ``sets`` as in ``resolve``. ValueError names the file."""
    try:
        return resolve(read_document(path), preset=preset, sets=sets)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def resolve(document: Mapping[str, Any], *, preset: str | None = None, sets: Sequence[str] = ()) -> Experiment:
    """Lay the preset over the file's settings, then each "a.b=value"; give every row what it leaves open.

    Lists replace lists. A ``--set`` of a shared setting also wins over the rows' own. All presets are checked, not only
    the one chosen.
    """
    if "axes" in document:
        raise ValueError("axes make a sweep of this file: compute it with `lo-theory sweep`")
    base, task = dict(document), task_named(document)
    kind = _document(task)
    presets, chosen = choose_preset(document, preset)
    for name in ("presets", "default_preset"):
        base.pop(name, None)
    check(kind, base)
    for name, part in presets.items():
        check(kind, part, f"presets.{name}")
    base = spell_out(base)
    if chosen is not None:
        base = {**merge(base, spell_out(presets[chosen])), "preset": chosen}
    for assignment in sets:
        base = _assign(base, assignment, _shared(task))
        check(kind, base)
        base = spell_out(base)
    check(kind, base)
    return _experiment(base, task)


def choose_preset(document: Mapping[str, Any], asked: str | None) -> tuple[Mapping[str, Any], str | None]:
    """The presets of a file, and the one asked for or named by ``default_preset``; ValueError where it is none."""
    presets, default = document.get("presets") or {}, document.get("default_preset")
    if not isinstance(presets, Mapping) or not all(isinstance(part, Mapping) for part in presets.values()):
        raise ValueError("presets must be a mapping from names to mappings of settings")
    if default is not None and not isinstance(default, str):
        raise ValueError(f"default_preset names one of the presets, got {default!r}")
    chosen = default if asked is None else asked
    if chosen is not None and chosen not in presets:
        known = f"the presets are {', '.join(presets)}" if presets else "there are no presets"
        raise ValueError(f"unknown preset {chosen!r}: {known}")
    return presets, chosen


def _experiment(base: dict[str, Any], task: Task) -> Experiment:
    """Give every row the shared settings it leaves open, and make all of it."""
    if "experiment" not in base:
        raise ValueError("experiment is missing: it names the folder of the runs")
    shared = {name: base.pop(name) for name in _shared(task) if name in base}
    given, reference = base.pop("rows", None), base.pop("reference", None)
    rows = [merge(shared, row) for row in ([{}] if given is None else given)]
    made = tuple(build(task.row, row, f"rows[{i}]") for i, row in enumerate(rows))
    if task.source is not None:  # what a user's row leaves open must be writable too, before anything is computed
        for i, row in enumerate(made):
            build(task.row, plain(row), f"rows[{i}]")
    return Experiment(
        **base,
        rows=made,
        reference=None if reference is None else build(task.reference, reference, "reference"),
    )


def _assign(base: dict[str, Any], assignment: str, shared: Sequence[str]) -> dict[str, Any]:
    """Apply one "a.b.0.c=value"; the value is YAML, so that numbers, lists and null are what they look like."""
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise ValueError(f"--set takes path=value, such as training.steps=500, got {assignment!r}")
    names, value = path.strip().split("."), parse_yaml(text, f"--set {assignment}")
    if names == ["recipe"] and "recipe" in shared and isinstance(value, str) and value in RECIPES:
        return _assign_recipe(base, value, shared)
    return _assign_value(base, names, value, shared)


def _assign_recipe(base: dict[str, Any], name: str, shared: Sequence[str]) -> dict[str, Any]:
    """Apply every setting of a recipe, as if each had been given by ``--set``."""
    for part, settings in settings_of(name).items():
        for key, value in settings.items():
            base = _assign_value(base, [part, key], value, shared)
    return base


def _assign_value(base: dict[str, Any], names: Sequence[str], value: Any, shared: Sequence[str]) -> dict[str, Any]:
    """Put ``value`` at the path ``names``, for all rows where the setting is a shared one."""
    result = _replace(base, names, value, ".".join(names))
    if names[0] in shared and isinstance(result.get("rows"), list):
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
    raise ValueError(f"--set {path}: {head!r} would be below {node!r}, which is a single value")


def _without(node: Any, names: Sequence[str]) -> Any:
    """Copy ``node`` with no entry of its own at ``names``."""
    if not isinstance(node, Mapping) or names[0] not in node:
        return node
    if len(names) == 1:
        return {key: item for key, item in node.items() if key != names[0]}
    return {**node, names[0]: _without(node[names[0]], names[1:])}


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
