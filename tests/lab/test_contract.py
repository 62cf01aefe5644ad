"""What every experiment keeps: lost units come back, equal rows give equal bytes, and figures show measured numbers.

What the panels of each tiny run show is pinned in ``pinned_panels.txt``: how they are named, their forms and scales,
how many numbers, where, and under which legend. Where a figure is changed on purpose, write it anew and look at it::

    python -m tests.lab.test_contract
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lo_theory.diffusion.statistics import Sums, between, pooled
from lo_theory.lab.config import load, resolve
from lo_theory.lab.execute import Request, execute, write_outputs
from lo_theory.lab.frame import Record, from_rows, gap, kind, minus, pool, records
from lo_theory.lab.kinds import is_share
from lo_theory.lab.panel import Colours, Panel
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row, read_rows
from lo_theory.lab.runs import FinishedRun, journal, published_tables
from lo_theory.lab.table import to_markdown
from lo_theory.lab.task import TASKS, sheets, tables
from tests.figures import placeholders
from tests.lab.conftest import TINY, make_run

SECONDS = {"seconds", "processor_seconds", "training_seconds"}
OUTLINES = Path(__file__).with_name("pinned_panels.txt")
WRITTEN = ("table.csv", "classes.csv", "table.md")


def written(folder: Path) -> dict[str, bytes]:
    """The tables and CSV files of a run."""
    return {name: (folder / name).read_bytes() for name in WRITTEN if (folder / name).exists()}


def test_lost_units_are_computed_again_and_end_in_the_same_rows(tiny_run: FinishedRun, tmp_path: Path) -> None:
    """A kill has left half of the units and a part of one. The last model is trained again; two units run at a time."""
    folder = tmp_path / tiny_run.folder.parent.name / tiny_run.folder.name
    shutil.copytree(tiny_run.folder, folder)
    for name in ("done.json", *written(folder)):
        (folder / name).unlink()
    for model in sorted(folder.glob("*.safetensors"))[-1:]:
        model.unlink()
    *units, _ = (folder / "rows.jsonl").read_bytes().split(b"\n\n")
    kept = len(units) // 2
    assert kept
    torn = units[kept][: len(units[kept]) // 2]
    (folder / "rows.jsonl").write_bytes(b"\n\n".join([*units[:kept], torn]))
    experiment = load(TINY / f"{resolve(tiny_run.config).task}.yaml")
    again = execute(experiment, Request(tmp_path, workers=2, threads=1, device="cpu"), SilentProgress())
    assert again.folder == folder
    found, expected = (
        [row for row in read_rows(run.folder / "rows.jsonl") if row.metric not in SECONDS] for run in (again, tiny_run)
    )
    assert found == expected
    computed = [entry["unit"] for entry in journal(folder) if entry["event"] == "unit"]
    assert len(computed) == len(units) + len(units) - kept, "what was on disk is not computed again"
    assert written(folder).keys() == written(tiny_run.folder).keys()


def test_equal_rows_give_equal_tables_and_other_rows_others(tiny_run: FinishedRun, tmp_path: Path) -> None:
    experiment, rows = resolve(tiny_run.config), tiny_run.rows
    write_outputs(tmp_path, experiment, rows)
    assert written(tmp_path) == written(tiny_run.folder)
    assert {path.name for path in tmp_path.glob("*.png")} == {path.name for path in tiny_run.folder.glob("*.png")}
    assert all(path.with_suffix(".pdf").exists() for path in tmp_path.glob("*.png"))
    from_files = to_markdown(tables(experiment, published_tables(tiny_run.folder)))
    assert from_files.encode() == written(tiny_run.folder)["table.md"], "the CSV has all that tables show"
    write_outputs(tmp_path, experiment, [other(row) for row in rows])
    assert all(written(tmp_path)[name] != content for name, content in written(tiny_run.folder).items())


def other(row: Row) -> Row:
    """The same row with all values smaller by a tenth, but for one: a gap closed is a ratio of differences."""
    sums = row.sums
    if row.metric == "marginals_only":
        return row
    return dataclasses.replace(row, sums=Sums(sums.n, 0.9 * sums.total, 0.81 * sums.deviations))


def test_tables_and_figures_have_something_to_show(tiny_run: FinishedRun) -> None:
    experiment, rows = resolve(tiny_run.config), tiny_run.rows
    for table in tables(experiment, rows):
        widths = {len(line) for section in table.sections for line in section}
        assert widths == {len(table.heads)}, table.title
    for panel in panels(tiny_run):
        assert panel.numbers(), panel.title


def outline(run: FinishedRun) -> list[str]:
    """A line for every panel of a run's figures: what it shows, without what was measured."""
    experiment = resolve(run.config)
    return [
        f"{experiment.task}/{name}: " + ("-" if panel is None else " | ".join(described(panel)))
        for name, sheet in sheets(experiment, run.rows).items()
        for panel in sheet.panels
    ]


def described(panel: Panel) -> Iterator[str]:
    """The parts of an outline's line."""
    scale = "" if isinstance(panel.scale, Colours) else f" {panel.scale}"
    of = {"map": panel.z, "spans": panel.x}.get(panel.form, panel.y)
    quantity = of if isinstance(of, str) else "a function"
    yield " ".join(f"{panel.title}, {panel.form} of {quantity}{scale}: {panel.ylabel} over {panel.xlabel}".split())
    yield f"{len(panel.numbers())} numbers of {len(panel.lines)} lines"
    yield ", ".join(
        place for place in panel.places(panel.y if panel.form == "spans" else panel.x) if type(place) is str
    )
    looks = [*map(panel.look, panel.lines), *(level.look for level in panel.levels)]
    kinds = Counter(", ".join(f"{name} {value}" for name, value in sorted(look.items())) for look in looks)
    yield "; ".join(f"{number} {kind}" for kind, number in kinds.items())


def read_outline(task: str) -> list[str]:
    """The pinned lines of one task."""
    return [line for line in OUTLINES.read_text(encoding="utf-8").splitlines() if line.startswith(f"{task}/")]


def test_the_panels_of_every_figure_are_those_that_are_pinned(tiny_run: FinishedRun) -> None:
    assert outline(tiny_run) == read_outline(resolve(tiny_run.config).task)


# --- every number of a panel ------------------------------------------------------------------------------------------


def panels(run: FinishedRun) -> list[Panel]:
    """All panels of all figures of a run."""
    found = sheets(resolve(run.config), run.rows)
    return [panel for sheet in found.values() for panel in sheet.panels if panel is not None]


def measured_numbers(panel: Panel) -> list[float]:
    """The numbers of a panel, but for those that were published."""
    own = [line for line in panel.lines if line.get("denoiser") != "paper"]
    return dataclasses.replace(panel, lines=own).numbers()


def estimates(lines: Iterable[Record]) -> Iterator[float]:
    """Every mean of records with the ends of its interval."""
    return itertools.chain.from_iterable(line.estimate(metric) for line in lines for metric in line.metrics)


def raw_and_pooled(rows: Sequence[Row]) -> Iterator[float]:
    """What the rows say one by one, pooled over sequences, over rows and over repetitions, and the gaps closed."""
    frame = from_rows(rows)
    for row in rows:
        share = is_share(row.keys["kind"], row.metric) and row.sums.fits_share
        yield from (row.sums.mean, *row.sums.interval(share=share), row.keys.get("overlap", math.nan))
    for name in frame["kind"].unique():
        part = kind(frame, name)
        yield from estimates(records(pool(part)))
        for over in (["row"], ["row", "draw"]):
            if set(over) <= set(part.columns):
                yield from estimates(records(pool(part, [key for key in keys_of(part) if key not in over], over)))
    yield from estimates(closed(frame))


def keys_of(part: Any) -> list[str]:
    """The keys of a frame of rows of one kind, but for those of its runs."""
    none = {"unit", "kind", "metric", "n", "sum", "squared_deviations", "problem", "seed"}
    return [name for name in part.columns if name not in none]


def closed(frame: Any) -> list[Record]:
    """The gaps closed at the end and on the way of trainings."""
    problem = pool(kind(frame, "problem"))
    parts = ((kind(frame, "losses"), ""), (kind(frame, "held_out"), "excess"))
    return [line for part, metric in parts if len(part) for line in records(gap(pool(part), problem, metric))]


def of_table1(frame: Any) -> Iterator[float]:
    """Against what independent samples give, and the losses of classes by quarters of what they hide."""
    for line in records(pool(kind(frame, "decode"))):
        for metric in ("distinct", "total_variation"):
            yield from (number / line.value(f"{metric}_expected") for number in line.estimate(metric))
    quarters: dict[tuple[Any, ...], Sums] = {}
    for line in records(pool(kind(frame, "class_losses"))):
        i, j = min(3, 4 * line.latents_hidden // line.N), min(3, 4 * line.observations_hidden // line.P)
        if "kl" in line.metrics:
            sums = line.metrics["kl"][1].sums
            place = (line.row, line.law, i, j)
            quarters[place] = quarters[place] + sums if place in quarters else sums
    for sums in quarters.values():
        yield from (sums.mean, *sums.interval())


def of_thresholds(frame: Any) -> Iterator[float]:
    """Thresholds and their errors in units of condensation."""
    for line in records(pool(kind(frame, "threshold"))):
        for name in ("dynamic", "condensation", "kesten_stigum"):
            c, error = line.value(f"{name}_c"), line.value(f"{name}_c_error")
            yield from (end / line.value("condensation_c") for end in (c, c - error, c + error))


def of_recipes(frame: Any) -> Iterator[float]:
    """The last gaps of a recipe, pooled over its trainings."""
    last: dict[Any, dict[Any, Any]] = {}
    for line in closed(frame):
        last.setdefault(line.row, {})[line.get("draw")] = line.estimate("gap")
    for gaps in last.values():
        yield from pooled(list(gaps.values()))


def of_proposals(frame: Any) -> Iterator[float]:
    """Nats above the floor, means over trainings, and the last gaps less those of the first row, by training."""
    lines = {
        line.row: line.value("marginals_only") - line.value("floor") for line in records(pool(kind(frame, "problem")))
    }
    gaps: dict[Any, dict[Any, list[float]]] = {}
    for line in closed(frame):
        if "step" in line.keys:
            gaps.setdefault(line.row, {}).setdefault(line.draw, []).append(line.value("gap"))
    for row, draws in gaps.items():
        yield from (lines[row] * (1 - sum(points) / len(points)) for points in zip(*draws.values(), strict=True))
        apart = [values[-1] - gaps[0][draw][-1] for draw, values in draws.items()]
        yield from between(apart)


def of_ratio(frame: Any) -> Iterator[float]:
    """Margin less vanilla, over problems."""
    part = pool(kind(frame, "decode"), ["N", "P", "denoiser", "steps", "policy"], over="row")
    return estimates(records(minus(part, "policy", "margin", "vanilla")))


DERIVED: Mapping[str, Callable[[Any], Iterable[float]]] = {
    "table1": of_table1,
    "thresholds": of_thresholds,
    "families": lambda frame: [1e-6],  # the lowest excess that is drawn
    "recipes": of_recipes,
    "proposals": of_proposals,
    "ratio": of_ratio,
}
"""What panels show beside raw and pooled numbers."""


def test_every_number_of_a_panel_is_in_the_frame(tiny_run: FinishedRun) -> None:
    derived = DERIVED.get(resolve(tiny_run.config).task, lambda frame: [])(from_rows(tiny_run.rows))
    numbers = [*raw_and_pooled(tiny_run.rows), *derived, 0.0]  # curves of gaps begin at zero
    known = np.unique([number for number in numbers if not math.isnan(number)])

    def is_known(number: float) -> bool:
        return bool(np.isclose(known, number, rtol=1e-9, atol=1e-12).any())

    shown = [(panel.title, number) for panel in panels(tiny_run) for number in measured_numbers(panel)]
    assert [one for one in shown if not is_known(one[1])] == []
    others = [is_known(1.0001 * number + 1e-5) for _, number in shown]
    assert sum(others) < len(others) / 20, "a number that was not measured would be seen"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, placeholders():
        lines = [line for task in TASKS for line in outline(make_run(task, Path(folder)))]
    OUTLINES.write_text("\n".join(lines) + "\n", encoding="utf-8")
