"""A sweep file: an experiment with ``axes``. Checks the grid that they span; ``expand`` makes its cells rows.

An axis is a mapping from config paths to equally long lists of values, which are taken together; the grid is the
product of the axes, and of ``rows`` if there are several. May read the file named.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lo_theory.lab.config import Experiment, choose_preset, read_document, resolve, written_row
from lo_theory.lab.schema import check, closest, merge, parse_yaml
from lo_theory.lab.task import task_named
from lo_theory.lab.training_recipes import RECIPES, spell_out

LARGEST_GRID = 100_000
"""Cells above which a grid is begun only by someone who has said that it is meant."""

_OWN = ("axes", "pool")
_SET_BY_RECIPES = sorted({f"{part}.{key}" for parts in RECIPES.values() for part in parts for key in parts[part]})
_POINTS_CHECKED = (
    1000  # of an axis before anything is made (a second); what is wrong in the rest is found with its cell
)


Point = Mapping[str, Any]
"""Values of a cell by the paths of its axes, and ``rows``, the number of its row, where the file has several."""


@dataclass(frozen=True)
class Axis:
    """Config paths, and point by point the values that they take together."""

    paths: tuple[str, ...]
    points: tuple[tuple[Any, ...], ...]

    def at(self, i: int) -> dict[str, Any]:
        """Values by path at a point."""
        return dict(zip(self.paths, self.points[i], strict=True))


def label(point: Point) -> str:
    """Name a cell on a screen: ``problem.N=8, seed=3``."""
    texts = (value if isinstance(value, str) else json.dumps(value) for value in point.values())
    shown = (text if len(text) <= 40 else f"{text[:37]}..." for text in texts)
    return ", ".join(f"{path}={text}" for path, text in zip(point, shown, strict=True))


def _names(path: str) -> list[str]:
    """Split ``a.b.c``."""
    return path.strip().split(".")


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are one, or one leads to the other."""
    return all(a == b for a, b in zip(_names(one), _names(other), strict=False))


def parse_axes(given: Any) -> list[Axis]:
    """Read the list ``axes`` of a file; None is no axis. ValueError for anything empty, unequal, repeated."""
    if given is None:
        return []
    if not isinstance(given, list):
        raise ValueError(f"axes must be a list of mappings from paths to lists of values, got {given!r}")
    if not given:
        raise ValueError("axes is empty: name at least one path and its values, such as [{seed: [0, 1, 2]}]")
    axes = []
    for i, axis in enumerate(given):
        if not isinstance(axis, Mapping) or not axis or not all(isinstance(path, str) for path in axis):
            raise ValueError(f"axes[{i}] must be a mapping from paths to lists of values, got {axis!r}")
        axes.append(_axis(axis, f"axes[{i}]."))
    _check_overlaps(axes)
    return axes


def _axis(axis: Mapping[str, Any], where: str) -> Axis:
    for path, values in axis.items():
        if not isinstance(values, list):
            raise ValueError(f"{where}{path} must be a list of values, got {values!r}")
        if not values:
            raise ValueError(f"{where}{path} is empty: give it at least one value")
    lengths = {path: len(values) for path, values in axis.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{path} has {length} values" for path, length in lengths.items())
        raise ValueError(
            f"{where.strip('. ')}: {counted}; paths of one axis are taken together, so their lists are equally long"
        )
    parsed = Axis(tuple(path.strip() for path in axis), tuple(zip(*axis.values(), strict=True)))
    seen: set[str] = set()
    for i, point in enumerate(parsed.points):
        text = json.dumps(point, sort_keys=True, default=str)
        if text in seen:
            raise ValueError(f"{where.strip('. ')} holds {label(parsed.at(i))} twice: leave one out")
        seen.add(text)
    return parsed


def _check_overlaps(axes: Sequence[Axis]) -> None:
    places = [(i, path) for i, axis in enumerate(axes) for path in axis.paths]
    for (i, one), (j, other) in itertools.combinations(places, 2):
        if _overlap(one, other):
            raise ValueError(f"axes[{j}].{other} gives values that axes[{i}].{one} gives too: leave one out")


def with_axes(axes: Sequence[Axis], assignments: Sequence[str]) -> list[Axis]:
    """Replace the axes that have the paths of "path=[values]", and add those that are new.

    Several paths, ``problem.seed,seed=[0,1]``, are one axis on which they take the same values.
    """
    result = list(axes)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        paths = [name.strip() for name in path.split(",")]
        if not equals or not all(paths) or len(set(paths)) < len(paths):
            raise ValueError(f"--axis takes path=[values], such as seed=[0,1,2], got {assignment!r}")
        values = parse_yaml(text, f"--axis {assignment}")
        for shared in (axis.paths for axis in result if 0 < len(set(paths) & set(axis.paths)) < len(axis.paths)):
            raise ValueError(
                f"--axis {path.strip()}: the file takes {' and '.join(shared)} together: give "
                f"--axis {','.join(shared)}=[values] if their values are the same, or edit the file"
            )
        places = [i for i, axis in enumerate(result) if set(axis.paths) == set(paths)]
        order = result[places[0]].paths if places else paths
        fresh = _axis(dict.fromkeys(order, values), "--axis ")
        if places:
            result[places[0]] = fresh
        else:
            result.append(fresh)
    _check_overlaps(result)
    return result


def _pool(given: Any, axes: Sequence[Axis]) -> tuple[str, ...]:
    """Read the list ``pool`` of a file: paths of axes whose cells the tables pool."""
    paths = [path for axis in axes for path in axis.paths]
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"pool must be a list of paths of axes, got {given!r}")
    for path in given:
        if path not in paths:
            near = f"the closest is {closest(str(path), paths)}" if paths else "there are no axes"
            raise ValueError(f"pool names {path}, which is no path of an axis: {near}")
    return tuple(given)


@dataclass(frozen=True)
class Grid:
    """A checked grid that is not expanded yet: a million cells cost nothing.

    ``settings``: the file with the preset laid over it, without its axes; ``pool``: paths whose cells the tables pool.
    """

    settings: Mapping[str, Any]
    axes: tuple[Axis, ...]
    pool: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(_rows(self.settings)) * math.prod(len(axis.points) for axis in self.axes)

    def points(self) -> Iterator[Point]:
        """Yield where the cells are, the last axis fastest."""
        rows = range(len(_rows(self.settings)))
        named = len(rows) > 1 or not self.axes
        for row, *places in itertools.product(rows, *(range(len(axis.points)) for axis in self.axes)):
            point: dict[str, Any] = {"rows": row} if named else {}
            for axis, i in zip(self.axes, places, strict=True):
                point |= axis.at(i)
            yield point

    def expand(self) -> tuple[Experiment, list[Point]]:
        """Make the experiment whose rows are the cells, and say where each of them is.

        Costs some 2 ms a cell. Errors: ValueError naming the cell or the path, and the remedy.
        """
        points = list(self.points())
        if not self.axes:
            return resolve(self.settings, sets=self.sets), points
        rows = [_laid(self.settings, point) for point in points]
        try:
            return resolve({**self.settings, "rows": rows}, sets=self.sets), points
        except ValueError as error:
            text = re.sub(r"\brows\[(\d+)\]", lambda found: f"cell ({label(points[int(found[1])])})", str(error))
            raise ValueError(text) from error


def load_grid(
    path: str | Path, *, preset: str | None = None, sets: Sequence[str] = (), axes: Sequence[str] = ()
) -> Grid:
    """Read a sweep file; the rest as in ``make_grid``. ValueError names file, path and remedy."""
    try:
        return make_grid(read_document(path), preset=preset, sets=sets, axes=axes)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def make_grid(
    document: Mapping[str, Any], *, preset: str | None = None, sets: Sequence[str] = (), axes: Sequence[str] = ()
) -> Grid:
    """Lay the preset over the file (its ``axes`` replace the file's), then each "path=[values]" of ``axes``.

    A file without axes is a sweep over its rows. ``sets`` as in ``resolve``, but not at an axis. The grids of all
    presets are checked, not only the one chosen.
    """
    presets, chosen = choose_preset(document, preset)
    grids: dict[str | None, Grid] = {None: _grid(document, {})}
    for name, part in presets.items():
        try:
            grids[name] = _grid(document, part)
        except ValueError as error:
            raise ValueError(f"presets.{name}: {error}") from error
    grid = grids[chosen] if not axes else _grid(document, {} if chosen is None else presets[chosen], axes)
    for assignment in sets:
        _check_set(assignment, grid.axes)
    settings = dict(grid.settings) if chosen is None else {**grid.settings, "preset": chosen}
    # The others are still to be checked by ``resolve``, and not to be laid over anything.
    settings["presets"] = {name: _without(part, _OWN) for name, part in presets.items()}
    return dataclasses.replace(grid, settings=settings, sets=tuple(sets))


def pooled_over(grid: Grid, paths: Sequence[str] | None) -> Grid:
    """The same cells, with the tables pooled over other paths of axes."""
    return dataclasses.replace(grid, pool=_pool(paths, grid.axes))


def _without(part: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key not in names}


def _grid(document: Mapping[str, Any], part: Mapping[str, Any], assignments: Sequence[str] = ()) -> Grid:
    """The grid of a file with one preset laid over it, checked; a recipe is written out in its place."""
    base = merge(_spelled(_without(document, ("presets", "default_preset"))), _spelled(part))
    axes = with_axes(parse_axes(base.get("axes")), assignments)
    grid = Grid(_without(base, _OWN), tuple(axes))
    _check_points(grid)
    return pooled_over(grid, base.get("pool"))


def _spelled(part: Mapping[str, Any]) -> dict[str, Any]:
    """Write out a recipe that file or preset share; a name that is none is left to the checks, rows to ``resolve``."""
    name = part.get("recipe")
    if not (isinstance(name, str) and name in RECIPES):
        return dict(part)
    return spell_out(_without(part, ("rows",))) | {key: value for key, value in part.items() if key == "rows"}


def _rows(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = settings.get("rows")
    if rows is None:
        return [{}]
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("rows must be a list of mappings of settings")
    if not rows:
        raise ValueError("rows is empty: leave it out, or give it at least one entry")
    return rows


def _check_set(assignment: str, axes: Sequence[Axis]) -> None:
    path = assignment.partition("=")[0].strip()
    if _names(path)[0] in _OWN or (axes and _names(path)[0] == "rows"):
        raise ValueError(f"--set {path}: the rows of a sweep are its cells; use --axis or --pool, or edit the file")
    for other in (other for axis in axes for other in axis.paths if _meet(path, other)):
        raise ValueError(f"--set {path}: the axis {other} gives its values; use --axis {other}=[...]")


def _meet(one: str, other: str) -> bool:
    """Whether two paths give a setting in common; a recipe gives many."""
    ones, others = ([path, *(_SET_BY_RECIPES if path == "recipe" else ())] for path in (one, other))
    return any(_overlap(a, b) for a in ones for b in others)


def _check_points(grid: Grid) -> None:
    """Check names, types and ranges of every value of every axis, the other axes at their first point."""
    row_type = written_row(task_named(grid.settings))
    names = [part.name for part in dataclasses.fields(row_type)]
    shared = {name: value for name, value in grid.settings.items() if name in names}
    for row in _rows(grid.settings):
        check(row_type, merge(shared, row))  # what is wrong without the axes is not their fault
    first: dict[str, Any] = {}
    for i, axis in enumerate(grid.axes):
        for path in axis.paths:
            if _names(path)[0] not in names:
                near = closest(path, names)
                raise ValueError(
                    f"axes[{i}].{path}: unknown key {path}: the closest is {near} (keys: {', '.join(names)})"
                )
        first |= axis.at(0)
    try:
        check(row_type, merge(shared, _laid(grid.settings, first)))
    except ValueError as error:  # which of the axes it is, the error's own path says
        raise ValueError(f"axes at {label(first)}: {error}" if first else str(error)) from error
    for i, axis in enumerate(grid.axes):
        for j in range(1, min(len(axis.points), _POINTS_CHECKED)):
            try:
                check(row_type, merge(shared, _laid(grid.settings, first | axis.at(j))))
            except ValueError as error:
                raise ValueError(f"axes[{i}] at {label(axis.at(j))}: {error}") from error


def _laid(settings: Mapping[str, Any], point: Point) -> Any:
    """The cell's row of the file with the values of a point laid over it."""
    row: Any = _rows(settings)[point.get("rows", 0)]
    if "recipe" in point:  # lists that another axis reaches into are then the recipe's
        settings = merge(settings, _spelled({"recipe": point["recipe"]}))
    for path, value in point.items():
        if path != "rows":
            row = _lay(row, settings, _names(path), value, path)
    return row


def _lay(own: Any, shared: Any, names: Sequence[str], value: Any, path: str) -> Any:
    """Copy ``own`` with ``value`` at ``names``: mappings merge, as those of rows do; lists come from ``shared``."""
    if not names:
        return merge(own, value) if isinstance(own, Mapping) and isinstance(value, Mapping) else value
    head, rest = names[0], names[1:]
    if own is None:
        own = shared if isinstance(shared, list) else {}
    if isinstance(own, Mapping):
        below = shared.get(head) if isinstance(shared, Mapping) else None
        return {**own, head: _lay(own.get(head), below, rest, value, path)}
    if isinstance(own, list):
        if not head.isdigit() or int(head) >= len(own):
            raise ValueError(f"{path}: {head!r} is no index of a list of {len(own)} (they count from 0)")
        return [_lay(item, None, rest, value, path) if i == int(head) else item for i, item in enumerate(own)]
    raise ValueError(f"{path}: {head!r} would be below {own!r}, which is a single value")
