"""Three trainings pooled by a sweep: Student's t over the three, at levels and at differences, as tables print it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.config import Experiment, resolve, seed_texts
from lo_theory.lab.engine import Stop
from lo_theory.lab.experiments import table1 as work
from lo_theory.lab.experiments.table1_readings import effects, readings
from lo_theory.lab.frame import from_rows
from lo_theory.lab.learning import learning_curves
from lo_theory.lab.rows import Row
from lo_theory.lab.subject import Subject
from lo_theory.lab.sweep.cells import Cell
from lo_theory.lab.sweep.results import Results, collect
from lo_theory.lab.task import TASKS, tables
from lo_theory.lab.units import Options
from tests.lab.decodes import measured as found_in
from tests.lab.decodes import pairs_of
from tests.lab.tiny import tiny

PAIR = (6, 18)
VANILLA, MARGIN = (88.5, 82.7, 65.1), (93.0, 83.5, 68.9)
GAPS = (0.9, 0.7, 0.2)


def sweep_of_three(pool: tuple[str, ...] = ("problem.seed", "seed"), **other: Any) -> Experiment:
    document = {**tiny(), "reference": {"source": "made up", "rows": [published("vanilla"), published("margin")]}}
    seeds = [{"problem": {"seed": seed}, "seed": seed, **other} for seed in range(3)]
    return resolve({**document, "rows": seeds})


def published(policy: str) -> dict[str, Any]:
    return {"N": 6, "P": 18, "policy": policy, "percent": 80.0}


def measured(seed: int) -> Iterator[Row]:
    """What one cell has measured: two decodes, losses, and its problem's lines, which differ from problem to problem."""
    place = {"row": 0, "N": 6, "P": 18, "problem": f"p{seed}", "seed": seed}
    yield from pairs_of({PAIR: (VANILLA[seed], MARGIN[seed])}, problem=f"p{seed}", seed=seed, steps=24)
    floor, span = 0.2 + 0.01 * seed, 0.4 + 0.1 * seed
    for name, value in {"floor": floor, "marginals_only": floor + span}.items():
        yield Row("unit", name, Sums.single(value), {"kind": "problem", **place})
    kl = span * (1 - GAPS[seed]) + 0.004 * (-1.0) ** np.arange(100)
    yield Row("unit", "kl", Sums.of(kl), {"kind": "losses", "law": "uniform", **place})
    along = {"kind": "held_out", **place, "step": 5, "flops": 10.0, "clock": "training_seconds"}
    yield Row("unit", "excess", Sums.of(kl), along)
    yield Row("unit", "training_seconds", Sums.single(2.0 + seed), along)


def collected(pool: tuple[str, ...], missing: frozenset[int] = frozenset()) -> Results:
    experiment = sweep_of_three()
    cells = [
        Cell(seed, f"{seed:016x}", row, {"problem.seed": seed, "seed": seed}, True)
        for seed, row in enumerate(experiment.rows)
    ]
    stored = {
        cell.id: [
            replace(row, unit=cell.id, keys={**row.keys, "part": f"row0/{row.keys['kind']}"})
            for row in measured(cell.index)
        ]
        for cell in cells
        if cell.index not in missing
    }
    return collect(experiment, cells, pool, stored)


POOL = ("problem.seed", "seed")


def over_three(values: Any) -> tuple[float, float, float]:
    mean = float(np.mean(values))
    return (mean, *stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values)))


def lines(results: Results, title: str) -> list[dict[str, str]]:
    table = next(table for table in results.tables if title in table.title)
    titles = [title for title, _ in table.heads]
    return [dict(zip(titles, line, strict=True)) for section in table.sections for line in section]


def test_levels_have_the_interval_over_the_three() -> None:
    results = collected(POOL)
    vanilla, margin = found_in(results.rows, "decode")
    for found, values in ((vanilla, VANILLA), (margin, MARGIN)):
        mean, low, high = over_three(np.array(values) / 100)
        assert found.estimate("self_consistency") == pytest.approx((mean, low, min(1.0, high)))
    printed = lines(results, "tiny table")
    assert [line["self-\nconsistent"] for line in printed if line["denoiser"] == "model"] == [
        "78.8 ±30.3",
        "81.8 ±30.2",
    ]
    assert "95 % intervals are over them (Student's t" in results.grid.notes[0]


def test_differences_are_taken_training_by_training() -> None:
    results = collected(POOL)
    effect, low, _ = over_three(np.array(MARGIN) - VANILLA)
    (line,) = lines(results, "Adaptive minus vanilla")
    assert line["runs"] == "3"
    assert line["self-consistent"] == f"{effect:+.1f} ±{effect - low:.1f}" == "+3.0 ±4.9"
    frame = from_rows(results.rows)
    (runs,) = effects(frame)
    assert [run.value for run in runs.runs("self_consistency").values()] == pytest.approx([0.045, 0.008, 0.038])
    assert [run.value for run in runs.runs("gap").values()] == pytest.approx(GAPS), "by each problem's own lines"
    reading = next(one for one in readings(frame, results.experiment.reference) if "self" in one.accuracy)
    assert reading.values[PAIR]["effect"] == pytest.approx(over_three(np.array(MARGIN) - VANILLA))
    (line,) = [line for line in lines(results, "Which definition") if line["accuracy"] == "self-consistency"]
    assert line["adaptive -\nvanilla"] == "+3.0 ±4.9"


def test_pooled_and_unpooled_tables_print_one_effect() -> None:
    pooled, apart = (lines(collected(pool), "Adaptive minus vanilla") for pool in (POOL, ()))
    assert pooled == apart


def test_gaps_are_those_of_each_training_with_its_own_lines() -> None:
    results = collected(POOL)
    mean, low, _ = over_three(GAPS)
    (line,) = lines(results, "The trained models")
    assert line["gap\nclosed"] == f"{100 * mean:.1f} ±{100 * (mean - low):.1f}" == "60.0 ±89.6"
    (((end,),),) = [learning_curves(from_rows(results.rows))]
    assert (end.value("gap"), end.estimate("gap").half) == pytest.approx((mean, mean - low))
    assert [run.value for run in end.runs("gap").values()] == pytest.approx(GAPS)
    assert end.seconds == 3.0


def test_the_csv_has_both_intervals_by_name_and_no_share_above_one() -> None:
    read = {(line["metric"], line["policy"]): line for line in csv.DictReader(io.StringIO(collected(POOL).pooled))}
    line = read["self_consistency", "vanilla"]
    mean, low, high = over_three(np.array(VANILLA) / 100)
    assert high > 1
    assert float(line["mean_of_cells"]) == pytest.approx(mean)
    assert (float(line["low_over_cells"]), float(line["high_over_cells"])) == (pytest.approx(low), 1.0)
    assert 0 < float(line["high_over_sequences"]) - float(line["low_over_sequences"]) < 0.02
    assert (line["cells"], line["n"]) == ("3", "3000")
    assert "run" not in line
    (one,) = [
        line
        for line in csv.DictReader(io.StringIO(collected(POOL, frozenset({1, 2})).pooled))
        if line["policy"] == "margin" and line["metric"] == "unpaired"
    ]
    assert (one["cells"], one["low_over_cells"]) == ("1", "")


def test_a_cell_that_is_missing_changes_no_run_of_the_others() -> None:
    results = collected(POOL, frozenset({0}))
    (runs,) = effects(from_rows(results.rows))
    assert [run.value for run in runs.runs("self_consistency").values()] == pytest.approx([0.008, 0.038])


def test_rows_that_are_not_pooled_say_their_seed() -> None:
    results = collected(())
    printed = lines(results, "tiny table")
    assert [line["N, P"] for line in printed if line["denoiser"] == "model"] == [
        f"6, 18 seed {seed}" for seed in range(3) for _ in range(2)
    ]
    shown = [line["self-\nconsistent"] for line in printed if line["denoiser"] == "model"]
    assert shown[0] == "88.5 ±0.3", "one training: over its 1,000 sequences"
    assert len(learning_curves(from_rows(results.rows))) == 3


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{}, {"seed": 1}], ["seed 0", "seed 1"]),
        ([{}, {"problem": {"seed": 4}}], ["problem.seed 0", "problem.seed 4"]),
        ([{}, {"seed": 1, "problem": {"seed": 1}}], ["seed 0", "seed 1"]),
        ([{}, {"seed": 2, "problem": {"seed": 1}}], ["problem.seed 0, seed 0", "problem.seed 1, seed 2"]),
        ([{}, {"seed": 1, "problem": {"P": 24}}], ["", ""]),
        ([{}], [""]),
    ],
)
def test_seeds_are_said_where_rows_differ_in_nothing_else(rows: list[dict[str, Any]], expected: list[str]) -> None:
    assert seed_texts(resolve({**tiny(), "rows": rows})) == expected


def test_where_the_lines_coincide_no_table_shows_a_gap() -> None:
    place = {"row": 0, "N": 6, "P": 18, "problem": "a", "seed": 0}
    rows = [Row("unit", "floor", Sums.single(0.6), {"kind": "problem", **place})]
    rows += [Row("unit", "marginals_only", Sums.single(0.6 + 1e-16 * 3), {"kind": "problem", **place})]
    for name in ("model", "exact", "kl"):
        rows += [Row("unit", name, Sums.of([0.6, 0.61]), {"kind": "losses", "law": "uniform", **place})]
    (table,) = (one for one in tables(sweep_of_three(), rows) if one.title == "The trained models")
    ((line,),) = table.sections
    assert line[-1] == "-"
    assert "nan" not in "".join(line)


def mask_sizes(problem_seed: int, seed: int = 0) -> Counter[int]:
    """Sizes of the masks under which the losses of a row of Table 1 are measured; its model is the exact posterior."""
    row = resolve({**tiny(), "rows": [{"problem": {"seed": problem_seed}, "seed": seed}]}).rows[0]
    context: Any = SimpleNamespace(options=Options(), stop=Stop())
    s = Subject(0, row, context, row.problem.make())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Subject, "model", lambda self, *_, **__: self.exact(2**20))
        rows = s.rows("losses", work._losses(s, "uniform"))
    classes = [row for row in rows if row.keys["kind"] == "class_losses" and row.metric == "model"]
    sizes: Counter[int] = Counter()
    for row in classes:
        sizes[row.keys["latents_hidden"] + row.keys["observations_hidden"]] += row.sums.n
    return sizes


def test_losses_of_two_problems_of_one_seed_are_measured_on_other_mask_sizes() -> None:
    """Else all rows of a table lie on one side of the floor together."""
    assert mask_sizes(0) == mask_sizes(0)
    assert len({tuple(sorted(mask_sizes(*seeds).items())) for seeds in ((0,), (1,), (2,), (0, 1))}) == 4


def test_runs_with_the_older_contexts_have_another_id() -> None:
    task = TASKS["table1"]()
    trained, exact = (task.prepare(row) for row in (sweep_of_three().rows[0], resolve(tiny(), preset="exact").rows[0]))
    assert trained.content()["losses"] == 2
    assert "losses" not in exact.content(), "without a model there are none: nothing has changed"
    assert TASKS["ratio"]().prepare(trained.row).content()["losses"] == 2


def test_the_three_are_far_apart() -> None:
    """What makes the tests above able to fail: over sequences the interval would be some fifty times narrower."""
    sums = sum((Sums.of([value / 100 + 0.05, value / 100 - 0.05] * 500) for value in VANILLA), Sums(0, 0.0, 0.0))
    low, high = sums.interval(share=True)
    assert 100 * (high - low) / 2 == pytest.approx(0.4, abs=0.1)
    assert all(abs(one - other) > 3 for one, other in pairwise(VANILLA))
