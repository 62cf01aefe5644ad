"""What a public function expects of an object it is given, and how to write one: the check at every seam.

A protocol is satisfied by having its members, so that is what is looked at. Touches nothing; imports keys only.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

from lo_theory.rng import Key

__all__ = ["PROBLEM", "Seam", "check_count", "check_key", "check_threads"]

_MOST_AT_ONCE = 1024  # threads or processes: torch crashes the process at some ten thousand


@dataclass(frozen=True)
class Seam:
    """A protocol by its members: what it is called in a sentence, and an example of one."""

    what: str
    members: tuple[str, ...]
    example: str

    def check(self, value: Any, name: str) -> None:
        """Raise ValueError unless ``value`` (the argument ``name``) is an instance with all members."""
        missing = [member for member in self.members if not hasattr(value, member)]
        if not missing and not isinstance(value, type):
            return
        if isinstance(value, type):
            got = f"the class {value.__name__}, not made: write {value.__name__}(...)"
        elif callable(value) and hasattr(value, "__name__"):
            got = f"the function {value.__name__}, not called: write {value.__name__}(...)"
        else:
            shown = repr(value)
            got = f"{shown if len(shown) < 80 else 'one'} of type {type(value).__name__}, which has no {missing[0]!r}"
        raise ValueError(f"{name} must be {self.what}, such as {self.example}; got {got}")


PROBLEM = Seam("a problem", ("layout", "observations", "sample"), "nae_sat(25, 275, seed=0)")


def check_key(key: Any, name: str = "key") -> None:
    """Raise ValueError unless ``key`` is a Key."""
    if not isinstance(key, Key):
        hint = f"Key({key!r})" if isinstance(key, numbers.Integral) else "Key(0)"
        raise ValueError(f"{name} must be an address for randomness, such as {hint}; got {key!r}")


def _is_whole(number: Any) -> bool:
    return isinstance(number, numbers.Integral) and not isinstance(number, bool)


def check_count(n: Any, sentence: str) -> None:
    """Raise ValueError, with ``sentence`` and the number, unless ``n`` is a whole number from 1 on."""
    if not _is_whole(n) or n < 1:
        raise ValueError(f"{sentence}, got n = {n!r}")


def check_threads(threads: Any, name: str = "threads") -> None:
    """Raise ValueError unless ``threads`` is a whole number of threads or processes that one process can start."""
    if not _is_whole(threads) or not 1 <= threads <= _MOST_AT_ONCE:
        raise ValueError(f"{name} must be a whole number from 1 to {_MOST_AT_ONCE}, got {threads!r}")
