"""The page of equations names functions that exist, all of them public."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "equations.md").read_text()
NAMES = sorted(set(re.findall(r"`(lo_theory(?:\.\w+)+)`", PAGE)))


def find(name: str) -> object:
    """The module, function, class or attribute of a class that a full name says; LookupError where there is none."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                raise LookupError(f"{name}: there is no {part}")
            found = getattr(found, part)
        if cut < len(parts) and parts[cut] not in importlib.import_module(".".join(parts[:cut])).__all__:
            raise LookupError(f"{name}: not public")
        return found
    raise LookupError(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_function_named_exists_and_is_documented(name: str) -> None:
    assert getattr(find(name), "__doc__", None)


def test_names_that_do_not_exist_are_found_out() -> None:
    assert len(NAMES) > 40
    for wrong in ("lo_theory.problem.predicates.nea", "lo_theory.diffusion.masks._check_rate", "lo_theory.nowhere.nae"):
        with pytest.raises(LookupError):
            find(wrong)
