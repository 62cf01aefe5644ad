"""What is published comes back from its rows: every ``table.md`` of experiments/results/, to the letter, from the CSV.

A change of how tables are made that changes a published character fails here, and names the folder. Where the new
rendering is the right one, draw the file again and say why in the commit.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from lo_theory.lab.config import resolve
from lo_theory.lab.render import Table, to_markdown
from lo_theory.lab.rows import Row, read_rows
from lo_theory.lab.runs import FinishedRun, read_config
from lo_theory.lab.sweep.cells import Cell
from lo_theory.lab.sweep.results import grid_table, group_cells
from lo_theory.lab.table1.readings_table import readings_table
from lo_theory.lab.tables import tables

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
FOLDERS = {folder.name: folder for folder in sorted(RESULTS.iterdir()) if folder.is_dir()}

WITHOUT_TABLES = {
    "decode-view": "one decode step by step, a moving picture: no rows of measurements",
    "forward-64": "from a script of its own, experiments/forward_direction.py, which writes no tables",
    "forward-cpu": "from a script of its own, experiments/forward_direction.py, which writes no tables",
    "table1-rope-h200": "ended by the clock before its last decode: rows.jsonl, and of the tables readings.md alone",
    "training-h200": "seconds of training steps, from a script of its own, experiments/profile_training.py",
}
"""Folders that have data and no ``table.md``, and why."""

TABLES = sorted(set(FOLDERS) - set(WITHOUT_TABLES))


def has_rows(folder: Path) -> bool:
    """Whether a folder keeps the rows of a run as CSV."""
    return any((folder / name).exists() for name in ("table.csv", "table.csv.gz"))


def first_lines(folder: Path) -> list[dict[str, str]]:
    """For each cell of a sweep the first line of the CSV, in the order of the grid."""
    plain, packed = folder / "table.csv", folder / "table.csv.gz"
    text = gzip.decompress(packed.read_bytes()).decode() if packed.exists() else plain.read_text()
    cells: dict[str, dict[str, str]] = {}
    for line in csv.DictReader(text.splitlines()):
        cells.setdefault(line["unit"].partition("/")[0], line)
    return list(cells.values())


def grid(run: FinishedRun) -> Table:
    """The table of a sweep's grid: its axes are the columns before ``kind``, its cells the heads of the units."""
    first = first_lines(run.folder)
    names = list(first[0])
    axes = names[names.index("unit") + 1 : names.index("kind")]
    cells = []
    for i, (line, row) in enumerate(zip(first, resolve(run.config).rows, strict=True)):
        point = {path: int(line[path]) for path in axes}
        cells.append(Cell(i, line["unit"].partition("/")[0], row, point, row.training is not None))
    pool = run.facts["pool"]
    return grid_table(group_cells(cells, pool), pool, {cell.id for cell in cells})


def rendered(run: FinishedRun, rows: list[Row]) -> str:
    """What a run of today would write as table.md of these rows."""
    shown = tables(resolve(run.config), rows)
    return to_markdown([grid(run), *shown] if "cells" in run.facts else shown)


def test_every_folder_has_rows_and_tables_or_a_reason() -> None:
    for name, folder in FOLDERS.items():
        there = (has_rows(folder), (folder / "table.md").exists(), (folder / "done.json").exists())
        assert there == ((False,) * 3 if name in WITHOUT_TABLES else (True,) * 3), name
    assert set(WITHOUT_TABLES) <= set(FOLDERS), "a reason for a folder that is gone"


@pytest.mark.parametrize("name", TABLES)
def test_table_md_is_what_its_csv_gives(name: str) -> None:
    run = FinishedRun(FOLDERS[name])
    assert not (run.folder / "rows.jsonl").exists(), "the rows come from the CSV"
    assert rendered(run, run.rows) == (run.folder / "table.md").read_text(encoding="utf-8")


def test_the_readings_of_the_run_that_the_clock_ended_are_what_its_rows_give() -> None:
    folder = FOLDERS["table1-rope-h200"]
    table = readings_table(resolve(read_config(folder)), read_rows(folder / "rows.jsonl"))
    assert to_markdown([table]) == (folder / "readings.md").read_text(encoding="utf-8")


def test_one_changed_number_in_the_csv_is_seen() -> None:
    """In a run and in a sweep: the text of a folder is that of its own rows."""
    for name in ("table1-cpu", "ratio-cpu"):
        run = FinishedRun(FOLDERS[name])
        number = next(i for i, row in enumerate(run.rows) if row.metric == "self_consistency")
        row = run.rows[number]
        moved = Row(row.unit, row.metric, row.sums + row.sums, row.keys)
        changed = [*run.rows[:number], moved, *run.rows[number + 1 :]]
        assert rendered(run, changed) != (run.folder / "table.md").read_text(encoding="utf-8"), name
