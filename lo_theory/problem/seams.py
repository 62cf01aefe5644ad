"""What a public function expects of what it is given, and how to write one: the check at every seam.

A protocol is satisfied by having its members, so that is what a ``Seam`` looks at; of everything else ``checked`` reads
the type hints. Touches nothing; imports keys only.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from lo_theory.rng import Key

__all__ = ["DISTRIBUTION", "Seam", "check_count", "check_key", "check_threads", "checked", "is_whole"]

F = TypeVar("F", bound=Callable[..., Any])

_MOST_AT_ONCE = 1024  # threads or processes: torch crashes the process at some ten thousand


def _got(value: Any) -> str:
    """What was given, in an error: itself where it is short, and what to add to a class or a function."""
    if isinstance(value, type):
        return f"the class {value.__name__}, not made: write {value.__name__}(...)"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}, not called: write {value.__name__}(...)"
    shown = repr(value)
    return f"{shown if len(shown) < 80 else 'one'} of type {type(value).__name__}"


@dataclass(frozen=True)
class Seam:
    """A protocol by its members: what it is called in a sentence, and an example of one."""

    what: str
    members: tuple[str, ...]
    example: str

    def fits(self, value: Any) -> bool:
        """Whether ``value`` is an instance with all members."""
        return not isinstance(value, type) and all(hasattr(value, member) for member in self.members)

    def check(self, value: Any, name: str) -> None:
        """Raise ValueError unless ``value`` (the argument ``name``) is an instance with all members."""
        missing = [member for member in self.members if not hasattr(value, member)]
        if missing or isinstance(value, type):
            lacks = "" if hasattr(value, "__name__") else f", which has no {missing[0]!r}"
            raise ValueError(f"{name} must be {self.what}, such as {self.example}; got {_got(value)}{lacks}")


DISTRIBUTION = Seam("a problem", ("layout", "sample", "log_prob", "entropy", "fingerprint"), "nae_sat(25, 275, seed=0)")
_SEAMS = {"Distribution": DISTRIBUTION}  # protocols that ``checked`` looks at, by name


def check_key(key: Any, name: str = "key") -> None:
    """Raise ValueError unless ``key`` is a Key."""
    if not isinstance(key, Key):
        hint = f"Key({key!r})" if isinstance(key, numbers.Integral) else "Key(0)"
        raise ValueError(f"{name} must be an address for randomness, such as {hint}; got {key!r}")


def is_whole(number: Any) -> bool:
    """Whether ``number`` is a whole number, of Python or numpy; a truth value and 2.0 are none."""
    return isinstance(number, numbers.Integral) and not isinstance(number, bool)


def check_count(n: int, sentence: str) -> None:
    """Raise ValueError, with ``sentence`` and the number, unless ``n`` is at least 1."""
    if n < 1:
        raise ValueError(f"{sentence}, got n = {n}")


def check_threads(threads: Any, name: str = "threads") -> None:
    """Raise ValueError unless ``threads`` is a whole number of threads or processes that one process can start."""
    if not is_whole(threads) or not 1 <= threads <= _MOST_AT_ONCE:
        raise ValueError(f"{name} must be a whole number from 1 to {_MOST_AT_ONCE}, got {threads!r}")


def checked(what: F) -> F:
    """Make a function or a class raise ValueError for arguments of another kind than its type hints name.

    Looked at are whole numbers, numbers, truth values, texts, classes that are no protocols, the protocol
    ``Distribution``, and unions of these; arrays and other protocols have checks of their own. An integer passes for a
    number, numpy's scalars for Python's. Cost: some 2 us a call.
    """
    made = isinstance(what, type)
    function: Any = vars(what)["__init__"] if made else what
    names = list(inspect.signature(function).parameters)

    @functools.cache
    def expected() -> dict[str, tuple[type, ...]]:
        hints = typing.get_type_hints(what if dataclasses.is_dataclass(what) else function)
        return {name: kinds for name in names if (kinds := _kinds(hints.get(name)))}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        kinds = expected()
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            if name not in kinds or type(value) in kinds[name]:
                continue
            if not any(_TESTS.get(kind, _is_instance)(value, kind) for kind in kinds[name]):
                _refuse(name, value, kinds[name])
        return function(*args, **kwargs)

    if not made:
        return call  # type: ignore[return-value]
    what.__init__ = call  # type: ignore[misc, method-assign]
    return what


def _kinds(hint: Any) -> tuple[type, ...]:
    """The classes that a hint allows; none if it is not looked at."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [_kinds(part) for part in typing.get_args(hint)]
        return sum(parts, ()) if all(parts) else ()
    if not isinstance(hint, type) or hint is Any:
        return ()
    return (hint,) if hint.__name__ in _SEAMS or typing.Protocol not in hint.__bases__ else ()


def _is_instance(value: Any, kind: type) -> bool:
    return _SEAMS[kind.__name__].fits(value) if kind.__name__ in _SEAMS else isinstance(value, kind)


_TESTS: dict[type, Callable[[Any, type], bool]] = {
    int: lambda value, kind: is_whole(value),
    float: lambda value, kind: isinstance(value, numbers.Real) and not isinstance(value, bool),
    bool: lambda value, kind: isinstance(value, (bool, np.bool_)),
}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "str": "text",
    "NoneType": "None",
    "Decoded": "a Decoded, such as decode(...) returns",
    "LODistribution": "a problem, such as nae_sat(25, 275, seed=0)",
    "PlantedEnsemble": "a PlantedEnsemble, such as planted_ensemble(nae(3, 3))",
    "Predicate": "a predicate, such as nae(2, 3)",
}


def _refuse(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    if kinds == (Key,):
        check_key(value, name)
    if len(kinds) == 1 and kinds[0].__name__ in _SEAMS:
        _SEAMS[kinds[0].__name__].check(value, name)
    words = " or ".join(_WORDS.get(kind.__name__, f"{kind.__name__}(...)") for kind in kinds)
    only = (
        ", which has sequences and their law but no observations of latents"
        if any(kind.__name__ == "LODistribution" for kind in kinds) and DISTRIBUTION.fits(value)
        else ""
    )
    raise ValueError(f"{name} must be {words}; got {_got(value)}{only}")
