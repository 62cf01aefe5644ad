"""What a report shows, gathered from a folder: a finished run, a published one, or a sweep with whatever is finished.

Reads the folder; for a sweep it also writes its run folder, as ``lo-theory sweep --show`` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lo_theory.lab.config import resolve
from lo_theory.lab.figures import write_figures
from lo_theory.lab.render import Table, read_tables
from lo_theory.lab.rows import read_rows
from lo_theory.lab.runs import FinishedRun, finished_runs, journal, no_finished_run, read_config
from lo_theory.lab.table import Shown
from lo_theory.lab.tables import tables

__all__ = ["Failed", "Source", "find"]


@dataclass(frozen=True)
class Failed:
    """A cell of a sweep whose last attempt failed."""

    label: str
    error: str
    trace: str


@dataclass(frozen=True)
class Source:
    """Everything that the page of one run shows; ``facts`` are those of done.json, empty while work is missing."""

    folder: Path
    title: str
    config: str
    facts: Mapping[str, Any]
    tables: Sequence[Shown]
    figures: Sequence[Path]
    finished: tuple[int, int] | None = None  # cells of a sweep: finished, all
    failed: Sequence[Failed] = ()


def find(name: str, out: Path) -> Source:
    """The source for a run folder, a sweep's folder, or the latest run of an experiment by name.

    Errors: ValueError where there is no finished run, or a folder holds none.
    """
    folder = Path(name)
    if any(folder.glob("*-of-*/config.yaml")):
        return _of_sweep(folder)
    if (folder / "config.yaml").exists():
        return _of_run(FinishedRun(folder))
    if folder.is_dir():
        raise ValueError(f"{folder} is no folder of a run (no config.yaml) or of a sweep: name one below it")
    found = finished_runs(out, name)  # of which the latest alone is opened
    sweeps = sorted((out / name).glob("sweep-*/"))
    if not found and sweeps:
        return _of_sweep(sweeps[-1])
    if not found:
        raise no_finished_run(name, out)
    return _of_run(FinishedRun(found[-1]))


def _figures(folder: Path) -> list[Path]:
    """Every figure, ``figure.png`` first: those of the task, and the view of a decode where one was made."""
    found = [path for path in sorted(folder.glob("*.png")) if path.with_suffix(".pdf").exists()]
    return sorted(found, key=lambda path: not path.name.startswith("figure"))


def _of_run(run: FinishedRun) -> Source:
    experiment = resolve(run.config)
    content: Sequence[Shown] = _published_tables(run)
    paths = _figures(run.folder)
    if not content:
        content = tables(experiment, run.rows)
    if not any(path.name.startswith("figure") for path in paths):
        write_figures(run.folder, experiment, run.rows)
        paths = _figures(run.folder)
    config = (run.folder / "config.yaml").read_text(encoding="utf-8")
    failed = _failed(run.folder.parent.glob("sweep-*/")) if "cells" in run.facts else []
    count = (int(run.facts["cells"]), int(run.facts["cells"])) if "cells" in run.facts else None
    return Source(
        run.folder, experiment.title or experiment.experiment, config, run.facts, content, paths, count, failed
    )


def _published_tables(run: FinishedRun) -> list[Table]:
    """The tables as table.md has them, where rows alone cannot give them: a sweep's, with its grid."""
    path = run.folder / "table.md"
    return read_tables(path.read_text(encoding="utf-8")) if "cells" in run.facts and path.exists() else []


def _failed(sweeps: Any) -> list[Failed]:
    """Cells whose last word in the journals is a failure, and that no shard has finished since."""
    last: dict[str, Failed] = {}
    done: set[str] = set()
    for part in [part for sweep in sweeps for part in sorted(sweep.glob("*-of-*/"))]:
        done |= {row.unit for row in read_rows(part / "rows.jsonl")}
        for entry in journal(part):
            if entry["event"] == "failed":
                label, error, trace = (str(entry.get(name, "")) for name in ("label", "error", "trace"))
                last[str(entry.get("cell"))] = Failed(label, error, trace)
    return [failure for cell, failure in last.items() if cell not in done]


def _of_sweep(folder: Path) -> Source:
    """Whatever of a sweep is finished; its grid is read from what its first driver kept."""
    from lo_theory.lab.sweep.grid import make_grid
    from lo_theory.lab.sweep.sweeps import prepare_sweep, show_sweep

    kept = next(folder.glob("*-of-*/config.yaml"))
    document = read_config(kept.parent)
    sets = document.pop("set", ())
    sweep = prepare_sweep(make_grid(document, sets=sets), folder.resolve().parent.parent)
    facts: dict[str, Any] = {}
    entries = [entry for part in sorted(folder.glob("*-of-*/")) for entry in journal(part)]
    for entry in entries:
        if entry["event"] == "session":
            facts = {name: entry[name] for name in ("command", "crew", "workers", "threads", "device") if name in entry}
    results, target = show_sweep(sweep, str(facts.get("command", "")))
    if target is None:
        raise ValueError(f"{folder} holds no finished cell yet: there is nothing to report")
    if (target / "done.json").exists():
        return _of_run(FinishedRun(target))
    return Source(
        target,
        sweep.experiment.title or sweep.experiment.experiment,
        kept.read_text(encoding="utf-8"),
        facts,
        results.tables,
        _figures(target),
        (results.finished, results.cells),
        _failed([folder]),
    )
