"""The ids of every experiment file with every preset are pinned: a finished run stays finished, a cell is found again.

Under another id nothing that was computed is found, so the ids stand in ``pinned_ids.json``:
folder of the run, or of a sweep's results, then the cells of a sweep. Where a file of experiments/ is changed on
purpose, write them anew and look at the difference::

    python -m tests.lab.test_pinned_ids

Random slabs have normal vectors, which numpy draws and which are promised to no other version: in the ids of runs with
slabs their settings stand here in place of their arrays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lo_theory.lab.config import Experiment, load
from lo_theory.lab.execute import Request, prepare
from lo_theory.lab.schema import plain, read_yaml
from lo_theory.lab.sweep.grid import load_grid
from lo_theory.lab.sweep.results import collect
from lo_theory.lab.sweep.sweeps import prepare_sweep
from lo_theory.problem import SlabObservations

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PINNED = Path(__file__).with_name("pinned_ids.json")

FIVE_PAIRS = ", ".join(f"{{problem: {{N: {N}, P: {P}}}}}" for N, P in ((25, 275), (30, 270), (40, 260), (50, 250)))
SETS = (
    ("table1.yaml", "core", "seed=1"),
    ("table1.yaml", "core", "problem.seed=1"),
    ("table1.yaml", "core", "training.steps=5600"),
    ("table1.yaml", "paper", "training.steps=10000", f"rows=[{FIVE_PAIRS}, {{problem: {{N: 100, P: 200}}}}]"),
    ("table1.yaml", "core", "recipe=tuned"),
)
"""File, preset and ``--set`` of runs that are asked for beside the plain presets; a recipe among them."""


def is_sweep(path: Path) -> bool:
    """Whether a file names axes, by itself or in a preset."""
    document = read_yaml(path)
    return any("axes" in part for part in (document, *document.get("presets", {}).values()))


def cases() -> list[tuple[str, ...]]:
    """File, preset (none: "") and settings of everything that is pinned."""
    files = sorted(EXPERIMENTS.glob("*.yaml"))
    named = [(path.name, preset) for path in files for preset in ("", *read_yaml(path).get("presets", {}))]
    return [*named, *SETS]


def portable(row: Any) -> Mapping[str, Any]:
    """What a prepared row's id is a hash of, without the arrays of a random slab."""
    content = row.content()
    slab = isinstance(getattr(getattr(row, "distribution", None), "observations", None), SlabObservations)
    return {**content, "problem": plain(row.row.problem)} if slab else content


def ids(file: str, preset: str = "", *sets: str) -> list[str]:
    """The folder of a run; for a sweep that of its results, and its cells in the order of the grid."""
    path = EXPERIMENTS / file
    if is_sweep(path):
        sweep = prepare_sweep(load_grid(path, preset=preset or None, sets=sets), Path("runs"))
        found = collect(sweep.experiment, sweep.cells, sweep.grid.pool, {})
        return [f"{sweep.folder.parent.name}/{found.name}", *(cell.id for cell in sweep.cells)]
    experiment: Experiment = load(path, preset=preset or None, sets=sets)
    rows, folder = prepare(experiment, Request(Path("runs")))
    contents = [portable(row) for row in rows]
    if contents != [row.content() for row in rows]:
        folder = folder.with_name(f"{experiment.identity(contents)} without slabs")
    return [folder.relative_to("runs").as_posix()]


def name_of(case: tuple[str, ...]) -> str:
    """What a case is pinned under."""
    return " ".join(filter(None, case))


def read_pinned() -> dict[str, str]:
    """The pinned ids of each case, with a space between them."""
    pinned: dict[str, str] = json.loads(PINNED.read_text())
    return pinned


@pytest.mark.parametrize("case", cases(), ids=name_of)
def test_an_id_is_the_one_that_is_pinned(case: tuple[str, ...]) -> None:
    assert " ".join(ids(*case)) == read_pinned()[name_of(case)]


def test_what_is_pinned_is_there() -> None:
    assert sorted(read_pinned()) == sorted(map(name_of, cases()))


def test_an_id_follows_every_setting_and_no_name() -> None:
    """The pins can fail: another seed is another id; a title is not; slabs are told apart by their settings."""
    pinned = read_pinned()["families.yaml quick"]
    assert " ".join(ids("families.yaml", "quick", "title=other")) == pinned
    assert "without slabs" in pinned
    assert " ".join(ids("families.yaml", "quick", "seed=1")) != pinned
    longer = ("families.yaml", "longer", "problem={family: random_slab, N: 5, P: 9}")
    assert ids(*longer) != ids(*longer, "problem.width=0.7")


if __name__ == "__main__":
    written = {name_of(case): " ".join(ids(*case)) for case in cases()}
    PINNED.write_text(json.dumps(written, indent=1) + "\n")
