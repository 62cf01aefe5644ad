"""One HTML page of a run, of a published folder or of a sweep, finished or not: tables, figures, settings, command.

The page is one file and asks for nothing. The template, report.html.j2, escapes every text. Writes the page, a figure
that is missing, and of a sweep the run folder of its results.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lo_theory.lab.config import resolve
from lo_theory.lab.panel import Box, Drawing
from lo_theory.lab.reading import stored_sweep
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import FinishedRun, csv_files, finished_runs, journal, no_finished_run, published_tables
from lo_theory.lab.sweep.cells import Cell
from lo_theory.lab.sweep.results import Results, collect
from lo_theory.lab.sweep.sweeps import show_sweep
from lo_theory.lab.table import Table
from lo_theory.lab.task import drawings, tables, write_figures
from lo_theory.problem.storage import write_atomically

_LARGEST_DOWNLOAD = 400_000  # bytes of a CSV that the page carries; larger ones are named
_FACTS = ("seconds", "workers", "threads", "device", "crew", "processor", "system")
_WORDS = {"crew": "computed by"}  # serial, a pool of processes, Dask
_CSV = ("table.csv", "classes.csv", "pooled.csv", "table.csv.gz", "classes.csv.gz")


@dataclass(frozen=True)
class Failed:
    """A missing cell of a sweep whose last attempt failed."""

    label: str
    error: str
    trace: str


@dataclass(frozen=True)
class Source:
    """Everything that a page shows. ``facts`` are those of done.json, or of a sweep's last session.

    ``rows``: what the page carries as CSV, where no folder holds it. ``draw``: draws the figures anew, by file name
    without ending, to be shown in place of those of the folder, with a number wherever one is measured.
    """

    folder: Path
    title: str
    config: str
    facts: Mapping[str, Any]
    tables: Sequence[Table]
    figures: Sequence[Path]
    finished: tuple[int, int] | None = None  # cells of a sweep: finished, all
    failed: Sequence[Failed] = ()
    rows: Sequence[Row] = ()
    draw: Callable[[], Mapping[str, Drawing]] = dict


def find(name: str, out: Path) -> Source:
    """What to show of a run folder, a sweep's folder, or the latest run of an experiment by name.

    Errors: ValueError where there is no finished run, or what it left is damaged.
    """
    folder = Path(name)
    if any(folder.glob("*-of-*/config.yaml")):
        return _of_sweep(folder)
    if (folder / "config.yaml").exists():
        return _of_run(FinishedRun(folder))
    if folder.is_dir():
        raise ValueError(f"{folder} is no folder of a run (no config.yaml) or of a sweep: name one below it")
    if found := finished_runs(out, name):
        return _of_run(FinishedRun(found[-1]))
    if sweeps := sorted((out / name).glob("sweep-*/")):
        return _of_sweep(sweeps[-1])
    raise no_finished_run(name, out)


def _of_run(run: FinishedRun) -> Source:
    experiment, cells = resolve(run.config), run.facts.get("cells")
    if cells is None or not any(run.folder.glob("table.csv*")):
        rows, grid = run.rows, []
    else:
        results = _results(run)
        rows, grid = results.rows, [results.grid]
    if not any(path.name.startswith("figure") for path in _figures(run.folder)):
        write_figures(run.folder, experiment, rows)
    return Source(
        run.folder,
        experiment.heading,
        (run.folder / "config.yaml").read_text(encoding="utf-8"),
        run.facts,
        [*grid, *tables(experiment, rows)],
        _figures(run.folder),
        None if cells is None else (cells, cells),
        draw=partial(drawings, experiment, rows),
    )


def _results(run: FinishedRun) -> Results:
    """The results of a finished sweep, from its CSV: that has the rows of every cell, its axes before ``kind``."""
    stored: dict[str, list[Row]] = {}
    points: dict[str, dict[str, Any]] = {}
    for row in published_tables(run.folder):
        cell, _, part = row.unit.partition("/")
        points.setdefault(cell, {path: row.keys[path] for path in takewhile(lambda name: name != "kind", row.keys)})
        keys = {name: value for name, value in row.keys.items() if value != ""}  # what a row lacks is empty in a CSV
        stored.setdefault(cell, []).append(Row(cell, row.metric, row.sums, {**keys, "part": part}))
    if len(stored) != run.facts["cells"]:
        raise ValueError(
            f"{run.folder} has in CSV the rows of {len(stored)} of its {run.facts['cells']} cells: fetch it again, or "
            "remove done.json, and the same command writes it again"
        )
    cells = [Cell(i, cell, None, point, trains=False) for i, (cell, point) in enumerate(points.items())]
    return collect(resolve(run.config), cells, run.facts.get("pool", ()), stored)


def _of_sweep(folder: Path) -> Source:
    """Whatever is finished of the grid that the first driver of the sweep's folder was given."""
    sweep = stored_sweep(folder)
    entries = [entry for part in sorted(folder.glob("*-of-*/")) for entry in journal(part)]
    last: Mapping[str, Any] = next((entry for entry in reversed(entries) if entry["event"] == "session"), {})
    facts = {name: last[name] for name in ("command", "crew", "workers", "threads", "device") if name in last}
    results, target = show_sweep(sweep, str(facts.get("command", "")))
    if target is None:
        raise ValueError(f"{folder} holds no finished cell yet: there is nothing to report")
    if results.complete:
        return _of_run(FinishedRun(target))
    missing = {cell.id for cell in sweep.cells} - {row.unit.partition("/")[0] for row in results.tidy}
    failed = {
        str(entry["cell"]): Failed(*(str(entry.get(name, "")) for name in ("label", "error", "trace")))
        for entry in entries
        if entry["event"] == "failed" and str(entry.get("cell")) in missing
    }
    return Source(
        target,
        sweep.experiment.heading,
        next(folder.glob("*-of-*/config.yaml")).read_text(encoding="utf-8"),
        facts,
        results.tables,
        _figures(target),
        (results.finished, results.cells),
        list(failed.values()),
        draw=partial(drawings, results.experiment, results.rows),
    )


def _figures(folder: Path) -> list[Path]:
    """Every figure, the summary first, where there is one, then ``figure.png``; the others by name."""
    found = [path for path in folder.glob("*.png") if path.with_suffix(".pdf").exists()]
    return sorted(found, key=lambda path: (path.stem != "summary", not path.name.startswith("figure"), path.name))


def write_report(source: Source, path: Path) -> Path:
    """Write the page, whole or not at all. Errors: ValueError where ``path`` is a folder, or a figure is damaged."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: the page is one file, such as {path / 'report.html'}")
    content = page(source).encode()
    return write_atomically(path, lambda file: file.write(content))


def page(source: Source) -> str:
    """The whole page. Its policy for the browser forbids every request, whatever the content."""
    environment = Environment(
        loader=PackageLoader("lo_theory.lab", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["digest"] = lambda text: _base64(hashlib.sha256(text.encode()).digest())
    facts = [(_WORDS.get(name, name), source.facts[name]) for name in _FACTS if source.facts.get(name) is not None]
    drawn = source.draw()
    return environment.get_template("report.html.j2").render(
        source=source,
        run=source.folder.resolve().name,
        facts=[*facts, *sorted(dict(source.facts.get("versions", {})).items())],
        figures=[_figure(path, drawn.get(path.stem)) for path in source.figures],
        files=[_download(name, content) for name, content in _contents(source).items()],
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _figure(path: Path, drawing: Drawing | None) -> dict[str, Any]:
    """A PNG, its size, so that nothing moves while the page loads, what it says of itself, and the numbers on it."""
    from PIL import Image

    content = path.read_bytes() if drawing is None else drawing.png
    try:
        with Image.open(io.BytesIO(content)) as image:
            (width, height), words = image.size, str(image.info.get("Description", ""))
    except OSError as error:
        raise ValueError(f"{path} is damaged: remove it, and lo-theory figure draws it again") from error
    return {
        **{"width": width, "height": height, "words": words, "data": _base64(content)},
        **{"name": path.name, "pdf": path.with_suffix(".pdf").name},
        "boxes": [] if drawing is None else [_place(box, width, height) for box in drawing.boxes],
    }


def _place(box: Box, width: int, height: int) -> dict[str, Any]:
    """A rectangle on a picture of so many pixels, whole ones, with the words of its number."""
    sides = {"width": round(box.width * width), "height": round(box.height * height)}
    corner = {"x": round((box.x - box.width / 2) * width), "y": round((box.y - box.height / 2) * height)}
    return {**sides, **corner, "words": box.words}


def _contents(source: Source) -> dict[str, bytes]:
    """The CSV files of a source, by name."""
    if source.rows:
        return {name: text.encode() for name, text in csv_files(source.rows).items()}
    paths = [source.folder / name for name in _CSV]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _download(name: str, content: bytes) -> dict[str, Any]:
    """A CSV; its content where it is small enough."""
    kind = "application/gzip" if name.endswith(".gz") else "text/csv"
    data = f"data:{kind};base64,{_base64(content)}" if len(content) <= _LARGEST_DOWNLOAD else ""
    return {"name": name, "size": f"{len(content) / 1000:,.0f} kB", "data": data}
