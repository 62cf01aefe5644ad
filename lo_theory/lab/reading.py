"""``read``: the rows of a run, of a published folder or of a sweep as one pandas DataFrame. Reads only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pandas import DataFrame

from lo_theory.lab.frame import from_rows
from lo_theory.lab.kinds import declare_shares
from lo_theory.lab.rows import Row, read_rows
from lo_theory.lab.runs import finished_runs, no_finished_run, published_tables, read_config, read_json
from lo_theory.problem.seams import checked

if TYPE_CHECKING:
    from lo_theory.lab.sweep.sweeps import Sweep


@checked
def read(source: str | Path, out: str | Path = "runs") -> DataFrame:
    """All rows that a folder holds: a run's (finished or not), a published one's, a sweep's with whatever is finished.

    ``source`` may also be the name of an experiment: then its latest finished run below ``out``. A line is a row:
    ``unit``, the keys, ``metric``, ``n``, ``sum``, ``squared_deviations`` (docs/columns.md); in a sweep the values of
    its axes are keys too. Costs some 20 us a row. Errors: ValueError where there is nothing to read, or it is damaged.
    """
    folder = Path(source)
    if not folder.is_dir():
        found = finished_runs(Path(out), str(source))
        if not found:
            raise no_finished_run(str(source), Path(out))
        folder = found[-1]
    return from_rows(_rows(folder))


def _rows(folder: Path) -> list[Row]:
    if any(folder.glob("*-of-*/config.yaml")):
        return _sweep(folder)
    if (folder / "done.json").exists():
        declare_shares(read_json(folder / "done.json").get("shares", {}))
    if (folder / "rows.jsonl").exists():
        return read_rows(folder / "rows.jsonl")
    return published_tables(folder)


def stored_sweep(folder: Path) -> Sweep:
    """The sweep that a folder is of: the grid that its first driver was given. ValueError where that is damaged."""
    from lo_theory.lab.sweep.grid import make_grid
    from lo_theory.lab.sweep.sweeps import prepare_sweep

    document = read_config(next(folder.glob("*-of-*/config.yaml")).parent)
    sets = document.pop("set", ())
    return prepare_sweep(make_grid(document, sets=sets), folder.resolve().parent.parent)


def _sweep(folder: Path) -> list[Row]:
    """Rows of all finished cells, whoever computed them, in the order of the grid."""
    from lo_theory.lab.sweep.results import collect
    from lo_theory.lab.sweep.sweeps import stored_rows

    sweep = stored_sweep(folder)
    return collect(sweep.experiment, sweep.cells, (), stored_rows(sweep)).tidy
