"""Every notebook is nbformat 4 without outputs, and its code cells run from top to bottom with their assertions."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIELDS = {"markdown": {"cell_type", "id", "metadata", "source"}}
FIELDS["code"] = FIELDS["markdown"] | {"execution_count", "outputs"}


def faults(book: Any) -> list[str]:
    """What keeps a notebook from being valid nbformat 4.5 with stripped outputs; the part of the schema that we use."""
    found = []
    if set(book) != {"cells", "metadata", "nbformat", "nbformat_minor"}:
        found.append(f"top level has {sorted(book)}")
    if (book.get("nbformat"), book.get("nbformat_minor")) != (4, 5):
        found.append("not nbformat 4.5")
    cells = book.get("cells", [])
    ids = [cell.get("id") for cell in cells]
    if len(set(ids)) < len(ids) or not all(
        isinstance(name, str) and re.fullmatch(r"[\w-]{1,64}", name) for name in ids
    ):
        found.append("cell ids are missing, malformed or not unique")
    for i, cell in enumerate(cells):
        if set(cell) != FIELDS.get(cell.get("cell_type")):
            found.append(f"cell {i} has {sorted(cell)}")
        if not (isinstance(cell.get("source"), list) and all(isinstance(line, str) for line in cell["source"])):
            found.append(f"cell {i}: source is no list of lines")
        if cell.get("outputs") or cell.get("execution_count") is not None or cell.get("metadata"):
            found.append(f"cell {i} is not stripped")
    return found


def run(book: Any, name: str) -> int:
    """Execute the code cells in one fresh namespace; the number of cells."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    for i, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"{name}, code cell {i}", "exec"), namespace)
    return len(cells)


def test_there_are_four() -> None:
    assert [path.stem[0] for path in BOOKS] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_it_is_valid_and_stripped(path: Path) -> None:
    assert faults(json.loads(path.read_text())) == []


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setenv("MPLBACKEND", "agg")
    plt.switch_backend("agg")
    book = json.loads(path.read_text())
    asserted = "".join(line for cell in book["cells"] for line in cell["source"]).count("assert ")
    try:
        assert run(book, path.stem) >= 4
        assert asserted >= 4
        assert plt.get_fignums()
    finally:
        plt.close("all")


def test_the_checks_find_what_is_wrong() -> None:
    book = json.loads(BOOKS[0].read_text())
    code = next(i for i, cell in enumerate(book["cells"]) if cell["cell_type"] == "code")
    for field, value in (("outputs", [{"output_type": "stream"}]), ("execution_count", 1), ("id", "no id!")):
        spoiled = copy.deepcopy(book)
        spoiled["cells"][code][field] = value
        assert faults(spoiled)
    spoiled = copy.deepcopy(book)
    spoiled["cells"].append({**book["cells"][code], "id": "last", "source": ["assert 1 == 2\n"]})
    with pytest.raises(AssertionError):
        run({"cells": spoiled["cells"][-1:]}, "spoiled")
