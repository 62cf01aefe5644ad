"""Mappings into frozen dataclasses, strictly: the grammar of our configuration files, and nothing about their content.

``read_yaml`` reads what a person wrote, ``build`` turns it into dataclasses by their type hints, ``plain`` turns those
back into mappings. Every complaint is a ValueError that names the full path. May touch the file named; imports nothing
of the package.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
import types
import typing
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")
_LARGEST_INTEGER = 2**63 - 1  # what arrays and tables hold


_CORE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", tuple("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        tuple("-+.0123456789"),
    ),
)
"""The bare scalars of YAML 1.2's core schema that are no text: tag, form, first characters."""

_LARGEST = 1_000_000  # values of a document whose aliases are written out; one without aliases may be larger


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: 0123 is 123, and 1:30, 1_000, yes, 2024-01-01 are texts, as are all keys.

    Refuses repeated keys, merge keys, tags that the core schema does not have, and aliases that grow beyond bounds.
    """

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        _require_bounded(node)
        return self.construct_document(node)

    def construct_scalar(self, node: Any) -> str:
        text: str = super().construct_scalar(node)
        try:
            return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")  # pairs, of JSON
        except UnicodeDecodeError as error:
            raise _refusal(f"{text!r} holds half of a surrogate pair, which is no character", node) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """See ``yaml.SafeLoader``; keys are text, named once each."""
        result: dict[Hashable, Any] = {}
        if not isinstance(node, yaml.MappingNode):
            raise _refusal("the tag !!map is given to what is no mapping", node)
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refusal("a key must be text, not a list or a mapping", key_node)
            key = self.construct_scalar(key_node)
            if key == "<<" and key_node.style is None:
                raise _refusal("merge keys (<<) are not read: write out what is shared, or use presets", key_node)
            if key in result:
                raise _refusal(f"the key {key!r} is given twice", key_node)
            result[key] = self.construct_object(value_node, deep=True)
        return result


def _refusal(words: str, node: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, words, node.start_mark)


def _require_bounded(root: yaml.Node) -> None:
    """Refuse a document whose aliases lead into themselves, or make it larger than a million values."""
    sizes: dict[int, int] = {}
    begun: set[int] = set()
    waiting: list[yaml.Node] = [root]
    while waiting:
        node = waiting[-1]
        parts = [] if isinstance(node, yaml.ScalarNode) else _parts(node)
        missing = [part for part in parts if id(part) not in sizes]
        if not missing:
            sizes[id(waiting.pop())] = 1 + sum(sizes[id(part)] for part in parts)
        elif id(node) in begun:
            raise _refusal("an alias (*) leads into itself", node)
        else:
            begun.add(id(node))
            waiting += missing
    if sizes[id(root)] > max(_LARGEST, len(sizes)):
        raise _refusal(f"its aliases (*) expand to {sizes[id(root)]:.2g} values, the most is {_LARGEST:,}", root)


def _parts(node: Any) -> list[yaml.Node]:
    return [part for pair in node.value for part in (pair if isinstance(node, yaml.MappingNode) else (pair,))]


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    bases = {"0o": 8, "0x": 16}
    return int(text, bases.get(text[:2], 10))


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _truth(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return {"true": True, "false": False}[loader.construct_scalar(node).lower()]


def _unknown(loader: _Loader, node: yaml.Node) -> Any:
    raise _refusal(f"the tag {node.tag} is not read: plain values, lists and mappings only", node)


class _Dumper(yaml.SafeDumper):
    """Writes no text bare that a reader of YAML 1.1 or of 1.2 takes for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    """Text with anything but printable characters goes into double quotes: PyYAML loses some line ends elsewhere."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)
_CONSTRUCTORS: dict[str | None, Callable[[Any, Any], Any]] = {
    "null": lambda loader, node: None,
    "bool": _truth,
    "int": _integer,
    "float": _number,
    "str": _Loader.construct_scalar,
    "seq": lambda loader, node: loader.construct_sequence(node, deep=True),
    "map": _Loader.construct_mapping,
    None: _unknown,
}
_Loader.yaml_implicit_resolvers = {}  # of version 1.1
_Loader.yaml_constructors = {}
for _tag, _form, _first in _CORE:
    for _kind_of_yaml in (_Loader, _Dumper):
        _kind_of_yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$"), list(_first))
for _name, _constructor in _CONSTRUCTORS.items():
    _Loader.add_constructor(_name and f"tag:yaml.org,2002:{_name}", _constructor)


def parse_yaml(text: str | bytes, where: str) -> Any:
    """Read one YAML document, as version 1.2 means it; ``where`` names it in errors.

    Builds plain values only, executes nothing; keys are texts.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"{where}{line}: {getattr(error, 'problem', None) or error}") from error
    except (ValueError, KeyError) as error:  # a number of more digits than Python reads, a tag that lies
        raise ValueError(f"{where}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{where}: lists or mappings are nested too deep") from error


def dump_yaml(value: Any) -> str:
    """YAML that ``parse_yaml`` reads back to the same value: mappings with text keys, lists, texts, numbers, null."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


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


def require_distinct(what: str, values: Iterable[object]) -> None:
    """Raise ValueError where ``what`` names a value twice."""
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{what} names {value} twice: leave one out")


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
    """Whether a field of ``value`` is written in its mapping."""
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


_LARGEST_NUMBER = sys.float_info.max
_JOINERS = "\u200c\u200d"  # of Arabic letters, and of emoji
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
    if kind not in dict(_NAMES):
        raise ValueError(
            f"{path} is declared as {getattr(kind, '__name__', kind)}: a setting is a bool, int, float, str, Literal, "
            "dataclass, a tuple of these, or one of several such types"
        )
    good = type(value) is kind or (kind is float and type(value) is int)
    if not good:
        raise ValueError(f"{path} must be {dict(_NAMES)[kind]}, got {_kind(value)}")
    if kind is str and (bad := next((letter for letter in value if not _may_be_shown(letter)), None)):
        raise ValueError(f"{path} must be one line of text that can be shown, got {bad!r} in {value!r}")
    if type(value) is int and abs(value) > _LARGEST_INTEGER:
        raise ValueError(f"{path} must be an integer of 64 bits, got one of {len(str(abs(value)))} digits")
    if kind is float and not abs(value) <= _LARGEST_NUMBER:
        raise ValueError(f"{path} must be finite, got {value if type(value) is float else 'more than 1.8e308'}")
    return kind(value)


def _may_be_shown(letter: str) -> bool:
    """Whether a character is shown as itself in one line of a terminal, a table and a page."""
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"


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
        return None  # which class it belongs to is decided elsewhere
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
