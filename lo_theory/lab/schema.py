"""Mappings into frozen dataclasses, strictly: the grammar of our configuration files, and nothing about their content.

``read_yaml`` reads what a person wrote, ``build`` turns it into dataclasses by their type hints, ``plain`` turns those
back into mappings. Every complaint is a ValueError that names the full path. May touch the file named; imports nothing
of the package.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

__all__ = ["build", "check", "closest", "merge", "parse_yaml", "plain", "read_yaml", "setting"]

T = TypeVar("T")

_MOST_VALUES = 10**6  # of a document
_LARGEST_INTEGER = 2**63 - 1  # what arrays and tables hold


class _Loader(yaml.SafeLoader):
    """The safe YAML loader, made to refuse repeated keys and to read 4e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, Hashable) else id(key))
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 4e-3 for a string because it has no point; every reader of a configuration takes it for a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


# No setting is a date: 2020-01-01 is text, and 2020-13-01 no error of the calendar's.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in _Loader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str | bytes, where: str) -> Any:
    """Read one YAML document; ``where`` names it in errors. Builds plain values only, executes nothing."""
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"{where}{line}: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise ValueError(f"{where}: lists or mappings stand too deep in one another: use fewer brackets") from error
    except ValueError as error:  # such as an integer of thousands of digits
        raise ValueError(f"{where}: a value cannot be read ({error}): put text into quotes") from error
    _require_plain(value, where)
    return value


def _require_plain(value: Any, where: str) -> None:
    """Raise ValueError for what no setting can be: a key that is no text, a date, more than a million values.

    What an alias repeats counts as often as it is used, so a value that holds itself ends here too.
    """
    waiting, seen = [value], 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen + len(waiting) > _MOST_VALUES:
            raise ValueError(f"{where} holds more than {_MOST_VALUES:,} values, those of aliases counted at every use")
        if isinstance(part, Mapping):
            for key in part:
                if not isinstance(key, str):
                    raise ValueError(f"{where}: the key {key!r} is no text: put it into quotes")
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
        elif part is not None and not isinstance(part, (bool, int, float, str)):
            raise ValueError(f"{where}: {part!r} is neither text nor a number: put it into quotes")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping with string keys all through."""
    value = parse_yaml(Path(path).read_bytes(), str(path))
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a mapping of settings, found {_kind(value)}")
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``over`` on ``base``: mappings merge key by key, everything else (lists too) is replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def closest(word: str, choices: Sequence[str]) -> str:
    """Name the choice most like ``word``, however unlike."""
    same = [choice for choice in choices if choice.lower() == word.lower()]
    return (same or difflib.get_close_matches(word, choices, n=1, cutoff=0.0))[0]


def setting(
    default: Any = dataclasses.MISSING,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    late: bool = False,
) -> Any:
    """Declare a dataclass field with a range: >= ``least``, > ``above``, <= ``most`` (a value None is exempt).

    ``late``: the setting came later; at its default ``plain`` leaves it out, so that what ran before keeps its id.
    """
    metadata = {"least": least, "above": above, "most": most, "late": late}
    return dataclasses.field(default=default, metadata=metadata)


def build(kind: type[T], value: Any, path: str = "") -> T:
    """Make the dataclass ``kind`` of a mapping, checking names, types and ranges; ``path`` is its place in the file.

    Integers pass where numbers are asked for, never the reverse; nothing else is converted.
    """
    return _build(kind, value, path, partial=False)


def check(kind: Any, value: Any, path: str = "") -> None:
    """Check names, types and ranges of a part of what ``kind`` needs: nothing is missed, and nothing built."""
    _build(kind, value, path, partial=True)


def _build(kind: Any, value: Any, path: str, partial: bool) -> Any:
    where = path or "the configuration"
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping of settings, got {_kind(value)}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for key in value:
        if key not in fields:
            if not fields:
                raise ValueError(f"unknown key {_join(path, key)}: there are no keys there")
            near = _join(path, closest(str(key), list(fields)))
            raise ValueError(f"unknown key {_join(path, key)}: the closest is {near} (keys there: {', '.join(fields)})")
    hints, arguments = typing.get_type_hints(kind), {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], _join(path, name), partial)
            _check_range(field.metadata, arguments[name], _join(path, name))
        elif not partial and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{_join(path, name)} is missing")
    if partial:
        return None
    try:
        return kind(**arguments)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _shown(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field of ``value`` stands in its mapping."""
    silent = field.metadata.get("late", False) and getattr(value, field.name) == field.default
    return field.init and not silent


def plain(value: Any) -> Any:
    """Turn dataclasses into mappings and tuples into lists, for YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if _shown(field, value)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


_NAMES: tuple[tuple[type, str], ...] = ((bool, "true/false"), (int, "an integer"), (float, "a number"), (str, "text"))


def _kind(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    for kind, name in _NAMES:
        if isinstance(value, kind):
            return f"{value!r} ({name})"
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, Mapping) else repr(value)


def _check_range(limits: Mapping[str, Any], value: Any, path: str) -> None:
    checks: tuple[tuple[str, str, Callable[[Any, Any], bool]], ...] = (
        ("least", "at least", lambda number, limit: number >= limit),
        ("above", "greater than", lambda number, limit: number > limit),
        ("most", "at most", lambda number, limit: number <= limit),
    )
    for name, words, holds in checks:
        limit = limits.get(name)
        for number in value if isinstance(value, tuple) else (value,):
            if limit is not None and number is not None and not holds(number, limit):
                raise ValueError(f"{path} must be {words} {limit}, got {number}")


def _scalar(kind: type, value: Any, path: str, partial: bool) -> Any:
    good = type(value) is kind or (kind is float and type(value) is int)
    if not good:
        raise ValueError(f"{path} must be {dict(_NAMES)[kind]}, got {_kind(value)}")
    if type(value) is int and abs(value) > _LARGEST_INTEGER:
        raise ValueError(f"{path} must be an integer of 64 bits, got one of {len(str(abs(value)))} digits")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{path} must be finite, got {value}")
    return kind(value)


def _tuple(hint: Any, value: Any, path: str, partial: bool) -> tuple[Any, ...]:
    items = typing.get_args(hint)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{path} must be a list, got {_kind(value)}")
    if items[-1] is not Ellipsis and len(value) != len(items):
        raise ValueError(f"{path} must hold {len(items)} values, got {len(value)}")
    kinds = [items[0]] * len(value) if items[-1] is Ellipsis else items
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_convert(kind, item, f"{path}[{i}]", partial) for i, (kind, item) in pairs)


def _choice(hint: Any, value: Any, path: str, partial: bool) -> Any:
    choices = typing.get_args(hint)
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        near = f"; the closest is {closest(value, list(map(str, choices)))}" if isinstance(value, str) else ""
        raise ValueError(f"{path} must be one of {', '.join(map(str, choices))}, got {_kind(value)}{near}")
    return value


def _union(hint: Any, value: Any, path: str, partial: bool) -> Any:
    """Choose the member by what was given: null, a mapping (by the tag that names its dataclass), or a scalar."""
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    if value is None and len(members) < len(typing.get_args(hint)):
        return None
    classes = [member for member in members if dataclasses.is_dataclass(member)]
    others = [member for member in members if member not in classes]
    if not classes or (others and not isinstance(value, Mapping)):
        return _convert(_fitting(others, value), value, path, partial)
    if len(classes) == 1:
        return _build(classes[0], value, path, partial)
    tag = dataclasses.fields(classes[0])[0].name
    if partial and isinstance(value, Mapping) and tag not in value:
        return None  # which class it belongs to stands elsewhere
    return _build(_tagged(classes, tag, value, path), value, path, partial)


def _fitting(members: Sequence[Any], value: Any) -> Any:
    """Return the scalar type that is the value's own, else the last: its complaint is as good as any."""
    return next((member for member in members if type(value) is member), members[-1])


def _tagged(classes: Sequence[Any], tag: str, value: Any, path: str) -> Any:
    """Return the dataclass whose field ``tag``, a Literal with one choice, has the value given."""
    kinds = {typing.get_args(typing.get_type_hints(kind)[tag])[0]: kind for kind in classes}
    if not isinstance(value, Mapping) or tag not in value:
        raise ValueError(f"{path} must be a mapping with the key {tag}, one of {', '.join(kinds)}")
    _choice(typing.Literal[tuple(kinds)], value[tag], _join(path, tag), False)
    return kinds[value[tag]]


def _convert(hint: Any, value: Any, path: str, partial: bool) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, path, partial)
    converters: dict[Any, Callable[[Any, Any, str, bool], Any]] = {
        tuple: _tuple,
        typing.Literal: _choice,
        typing.Union: _union,
        types.UnionType: _union,
    }
    return converters.get(typing.get_origin(hint), _scalar)(hint, value, path, partial)
