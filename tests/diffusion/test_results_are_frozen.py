"""What the diffusion room returns and takes cannot be written to."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import lo_theory.diffusion


def test_every_dataclass_of_the_room_is_frozen() -> None:
    found = []
    for path in Path(lo_theory.diffusion.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"lo_theory.diffusion.{path.stem}".removesuffix(".__init__"))
        for value in vars(module).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module.__name__:
                found.append(value)
                if value.__name__.startswith("_"):  # what gathers while it measures
                    continue
                assert value.__dataclass_params__.frozen, value  # type: ignore[attr-defined]
    assert len(found) > 15
