"""The axes of a grid: config paths and the values that they take, parsed from a file or from the command line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lo_theory.lab.schema import closest, parse_yaml

__all__ = ["Axis", "Point", "label", "overlap", "parse_axes", "parse_pool", "path_names", "with_axes"]

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


def path_names(path: str) -> list[str]:
    """Split ``a.b.c``."""
    return path.strip().split(".")


def overlap(one: str, other: str) -> bool:
    """Whether two paths are one, or one leads to the other."""
    return all(a == b for a, b in zip(path_names(one), path_names(other), strict=False))


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
        if overlap(one, other):
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


def parse_pool(given: Any, axes: Sequence[Axis]) -> tuple[str, ...]:
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
