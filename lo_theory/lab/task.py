"""What an experiment's ``task`` names: a module with the settings of its rows, what they compute, how it is shown.

A module has ``Row`` (a frozen dataclass), ``units(subject)``, ``tables(frame, experiment)`` and
``figures(frame, experiment)``, and may have ``Reference`` (published numbers), ``KINDS`` (kinds of rows of its own) and
``EXPERIMENT`` (what an experiment file would hold). It is one of this package, or a user's Python file. A row of it is
``Prepared``: its problem is made, and what there is to compute is known.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.abc
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lo_theory.lab.drawing import styled, write_figure
from lo_theory.lab.frame import Record, from_rows
from lo_theory.lab.kinds import KEYS, declare, known_kinds, shares
from lo_theory.lab.panel import Drawing, Sheet
from lo_theory.lab.rows import Row
from lo_theory.lab.schema import plain
from lo_theory.lab.table import Column, Table

if TYPE_CHECKING:
    from pandas import DataFrame

    from lo_theory.lab.config import Experiment
    from lo_theory.lab.subject import Subject
    from lo_theory.lab.units import Context, Unit
    from lo_theory.problem import Distribution


_COUNTS = ("sequences", "contexts", "evaluation_contexts", "cost_sequences")
_MOST_TOKENS = 2**30  # of one measurement, which is in memory whole; some ten bytes each


@dataclass(frozen=True)
class Prepared:
    """A row of settings, and what yields its units.

    ``row.problem``, where there is one, is made once. A row that trains a network has ``row.training``, not None.
    ``row.check_fits(distribution)`` (without a problem: no argument) raises ValueError where settings do not fit.
    ``row.revision`` is what else enters the run's id.
    """

    row: Any
    make_units: Callable[[Subject], Iterator[Unit]]

    @cached_property
    def distribution(self) -> Distribution | None:
        """The problem; None for a row that has none."""
        made: Distribution | None = self.row.problem.make() if hasattr(self.row, "problem") else None
        return made

    @property
    def trains(self) -> bool:
        """Whether it trains a network, so that the device matters."""
        return getattr(self.row, "training", None) is not None

    def content(self) -> Mapping[str, Any]:
        """All that decides the row's result, as plain values: the run's id is a hash of it.

        The problem enters by its arrays' fingerprint, not by the names that made it.
        """
        content: dict[str, Any] = plain(self.row)
        if self.distribution is not None:
            content["problem"] = self.distribution.fingerprint()
        return {**content, **getattr(self.row, "revision", {})}

    def check(self) -> None:
        """Raise ValueError, with the path below the row, where settings do not fit the problem, or no memory."""
        if self.distribution is not None:
            _check_counts(self.row, self.distribution.layout.length)
        if hasattr(self.row, "check_fits"):
            self.row.check_fits(*([] if self.distribution is None else [self.distribution]))

    def units(self, index: int, context: Context) -> Iterator[Unit]:
        """Yield the units of work of row number ``index``, in the order in which their rows are kept."""
        from lo_theory.lab.subject import Subject

        yield from self.make_units(Subject(index, self.row, context, self.distribution))


def _check_counts(settings: Any, length: int, path: str = "") -> None:
    """Raise ValueError for a number of sequences that no memory holds, before a network is trained for them."""
    for part in dataclasses.fields(settings):
        value, where = getattr(settings, part.name), f"{path}{part.name}"
        if dataclasses.is_dataclass(value):
            _check_counts(value, length, f"{where}.")
        elif part.name in _COUNTS and value * length > _MOST_TOKENS:
            raise ValueError(
                f"{where} = {value:,} of length {length} would be {value * length:,} tokens, over the limit of "
                f"{_MOST_TOKENS:,}: take fewer, and pool the seeds of a sweep for more"
            )


_PARTS = ("Row", "units", "tables", "figures")


@dataclass(frozen=True)
class NoReference:
    """An experiment without published numbers."""


@dataclass(frozen=True)
class Task:
    """A kind of experiment, kept in a module; ``source``: the bytes of a user's file.

    ``identity`` enters the ids of runs: the name of a module of this package, of a user's file its name and a digest.
    """

    identity: str
    module: ModuleType
    source: bytes | None = None

    @property
    def row(self) -> type[Any]:
        """The settings of a row."""
        row: type[Any] = self.module.Row
        return row

    @property
    def reference(self) -> type[Any]:
        """Published numbers that a file may give, to be shown beside ours."""
        reference: type[Any] = getattr(self.module, "Reference", NoReference)
        return reference

    @property
    def shares(self) -> dict[str, Any]:
        """For done.json, so that ``read`` need not run a user's module: which of its metrics are shares."""
        return {} if self.source is None else {"shares": shares(getattr(self.module, "KINDS", {}))}

    def prepare(self, row: Any) -> Prepared:
        """Make a row ready to compute."""
        return Prepared(row, self.module.units)


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """All tables of a run that have lines, in the order in which they are shown."""
    task = load_task(experiment.task)
    found: Iterable[Table] = task.module.tables(_frame(rows), experiment)
    shown = [table for table in found if task.source is None or _is_table(table)]
    return [table for table in shown if table.lines]


def sheets(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Sheet]:
    """All figures of a run: file name without ending -> sheet."""
    task = load_task(experiment.task)
    found: Mapping[str, Sheet] = task.module.figures(_frame(rows), experiment)
    if task.source is not None:
        _require_sheets(found)
    return found


def _is_table(table: Any) -> bool:
    """True; ValueError for what a user's ``tables`` yields in place of a table, and for names that no line knows."""
    if not isinstance(table, Table):
        raise ValueError(f"tables is to yield tables, Table(title, columns, lines); got one of {type(table).__name__}")
    for column in table.columns:
        if not isinstance(column, Column):
            raise ValueError(f"the columns of {table.title!r} are made by key, measured, text ...; got {column!r}")
        _require_name(column.of, table.lines, f"a column of {table.title!r}")
    return True


def _require_sheets(found: Any) -> None:
    """ValueError for what a user's ``figures`` returns in place of sheets, and for names that no line knows."""
    if not isinstance(found, Mapping) or not all(isinstance(sheet, Sheet) for sheet in found.values()):
        raise ValueError(
            f'figures is to return sheets by file name, such as {{"figure": Sheet(...)}}; got {found!r:.80}'
        )
    for panel in (panel for sheet in found.values() for panel in sheet.panels if panel is not None):
        for name in (panel.x, panel.y, panel.z):
            if isinstance(name, str):
                _require_name(name, panel.lines, f"the panel {panel.title!r}")


def _require_name(name: str, lines: Iterable[Any], where: str) -> None:
    """ValueError for a key or metric that no line has and no kind of row declares: it would be shown as empty."""
    own = [line for line in lines if isinstance(line, Record)]
    kinds = known_kinds().values()
    known = {*KEYS, *(each for kind in kinds for each in (*kind.keys, *kind.metrics))}
    known |= {each for line in own for each in (*line.keys, *line.metrics)}
    if name and own and name not in known:
        close = difflib.get_close_matches(name, sorted(known), 1)
        raise ValueError(
            f"{where} names {name!r}, which no line has" + (f": did you mean {close[0]!r}?" if close else "")
        )


def write_figures(folder: Path, experiment: Experiment, rows: Sequence[Row]) -> list[Path]:
    """Write every figure as PNG and PDF, equal bytes for equal rows; return the paths. Loads matplotlib, no display."""
    with styled():
        figures = {name: sheet.draw() for name, sheet in sheets(experiment, rows).items()}
        return [path for name, figure in figures.items() for path in write_figure(folder, name, figure)]


def drawings(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Drawing]:
    """All figures of a run as PNG, with the places of their numbers: file name without ending -> drawing."""
    with styled():
        return {name: sheet.drawing() for name, sheet in sheets(experiment, rows).items()}


def _frame(rows: Sequence[Row]) -> DataFrame:
    return from_rows(sorted(rows, key=lambda row: int(row.keys.get("row", 0))))


def _load(name: str) -> Task:
    return Task(name, importlib.import_module(f"lo_theory.lab.experiments.{name}"))


TASKS: Mapping[str, Callable[[], Task]] = {
    name: functools.partial(_load, name)
    for name in (
        "table1",
        "thresholds",
        "figure4",
        "figure2",
        "orders",
        "families",
        "hardness",
        "recipes",
        "proposals",
        "ratio",
        "samplers",
        "puzzles",
    )
}
"""Every task of this package by the name that configurations use: the name of its module."""


def load_task(name: str) -> Task:
    """The task of a name in ``TASKS``, or of a Python file, whose code runs. ValueError for what is neither."""
    if name in TASKS:
        return TASKS[name]()
    if not name.endswith(".py"):
        raise ValueError(f"unknown task {name!r}: it is one of {', '.join(TASKS)}, or a Python file that ends in .py")
    path = Path(name).resolve()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"the experiment's module {path} cannot be read ({error.strerror}): check its name; of a lost module "
            "a run folder has a copy, experiment.py, which `task` in its config.yaml may name"
        ) from error
    return _of_source(path, source)


class _Source(importlib.abc.SourceLoader):
    """Loads a module from the bytes that its id is made of, and leaves no compiled file behind."""

    def __init__(self, path: Path, source: bytes) -> None:
        self._path, self._source = str(path), source

    def get_filename(self, fullname: str) -> str:
        """The path of the module."""
        return self._path

    def get_data(self, path: Any) -> bytes:
        """The bytes that were read, whatever the file holds by now."""
        return self._source


@functools.cache
def _of_source(path: Path, source: bytes) -> Task:
    digest = hashlib.blake2b(source, digest_size=8).hexdigest()
    name, loader = f"lo_theory_experiment_{digest}", _Source(path, source)
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look there for the types of their fields
    try:
        loader.exec_module(module)
        missing = [part for part in _PARTS if not hasattr(module, part)]
        if missing:
            raise ValueError(f"it has no {missing[0]}: an experiment's module has {', '.join(_PARTS)}")
        _check_row(module.Row)
        declare(getattr(module, "KINDS", {}))
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
        raise
    return Task(f"{path.stem}:{digest}", module, source)


def _check_row(row: Any) -> None:
    """Raise ValueError where a module's settings of a row are none: a frozen dataclass with a seed."""
    if not dataclasses.is_dataclass(row) or not getattr(row, "__dataclass_params__").frozen:  # noqa: B009
        raise ValueError("Row is to be a dataclass that is frozen: write @dataclass(frozen=True) above it")
    if "seed" not in {part.name for part in dataclasses.fields(row)}:
        raise ValueError("Row has no field seed, the root of its randomness: give it `seed: int = 0`")


def task_named(document: Mapping[str, Any]) -> Task:
    """The task that a file's settings name; a name that is none is left to the check of the whole file."""
    name = document.get("task", "table1")
    known = isinstance(name, str) and (name in TASKS or name.endswith(".py"))
    return load_task(name if known else "table1")
