"""What is published comes back from its rows: every ``table.md`` of experiments/results/, to the letter, from the CSV.

A change of how tables are made that changes a published character fails here, and names the folder. Where the new
rendering is the right one, draw the file again and say why in the commit.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from lo_theory.lab.config import resolve
from lo_theory.lab.experiments.table1_readings import readings_table
from lo_theory.lab.frame import from_rows
from lo_theory.lab.report import find
from lo_theory.lab.rows import read_rows, to_csv
from lo_theory.lab.runs import FinishedRun, read_config
from lo_theory.lab.table import to_markdown

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
FOLDERS = {folder.name: folder for folder in sorted(RESULTS.iterdir()) if folder.is_dir()}

WITHOUT_TABLES = {
    "decode-view": "one decode step by step, a moving picture: no rows of measurements",
    "forward-64": "from a script that examples/experiment.py has replaced; it wrote no tables",
    "puzzle-view": "one puzzle decoded under two policies: a picture and the lines it draws",
    "table1-rope-h200": "ended by the clock before its last decode: rows.jsonl, and of the tables readings.md alone",
    "variance-model": "what lo-theory variance prints and draws of one network: no run of an experiment",
    "training-h200": "seconds of training steps, from a script of its own, experiments/profile_training.py",
}
"""Folders that have data and no ``table.md``, and why."""

TABLES = sorted(set(FOLDERS) - set(WITHOUT_TABLES))


def has_rows(folder: Path) -> bool:
    """Whether a folder keeps the rows of a run as CSV."""
    return any((folder / name).exists() for name in ("table.csv", "table.csv.gz"))


def rendered(folder: Path) -> str:
    """What a run of today would write as table.md of the rows that a folder has; a report shows the same tables."""
    return to_markdown(find(str(folder), RESULTS).tables)


def test_every_folder_has_rows_and_tables_or_a_reason() -> None:
    for name, folder in FOLDERS.items():
        there = (has_rows(folder), (folder / "table.md").exists(), (folder / "done.json").exists())
        assert there == ((False,) * 3 if name in WITHOUT_TABLES else (True,) * 3), name
    assert set(WITHOUT_TABLES) <= set(FOLDERS), "a reason for a folder that is gone"


MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users)/")


def test_no_published_file_names_a_path_of_the_machine_that_made_it() -> None:
    assert MACHINE.search("task: /work/q/examples/experiment.py")
    assert not MACHINE.search("task: ../../../examples/experiment.py")
    texts = [path for path in RESULTS.rglob("*") if path.suffix in {".yaml", ".json", ".md", ".csv", ".txt", ".jsonl"}]
    assert len(texts) > 100
    assert [path for path in texts if MACHINE.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("name", TABLES)
def test_table_md_is_what_its_csv_gives(name: str) -> None:
    run = FinishedRun(FOLDERS[name])
    assert not (run.folder / "rows.jsonl").exists(), "the rows come from the CSV"
    assert rendered(run.folder) == (run.folder / "table.md").read_text(encoding="utf-8")


def test_the_readings_of_the_run_that_the_clock_ended_are_what_its_rows_give() -> None:
    folder = FOLDERS["table1-rope-h200"]
    table = readings_table(from_rows(read_rows(folder / "rows.jsonl")), resolve(read_config(folder)))
    assert to_markdown([table]) == (folder / "readings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["table1-cpu", "ratio-cpu"])
def test_one_changed_number_in_the_csv_is_seen(name: str, tmp_path: Path) -> None:
    """In a run and in a sweep: the text of a folder is that of its own rows."""
    folder = tmp_path / name
    shutil.copytree(FOLDERS[name], folder)
    rows = FinishedRun(folder).rows
    others = [row for row in rows if row.keys["kind"] != "class_losses"]
    number = next(i for i, row in enumerate(others) if row.metric == "self_consistency")
    others[number] = dataclasses.replace(others[number], sums=others[number].sums + others[number].sums)
    (folder / "table.csv.gz").unlink(missing_ok=True)
    (folder / "table.csv").write_text(to_csv(others), encoding="utf-8")
    assert rendered(folder) != (folder / "table.md").read_text(encoding="utf-8")
