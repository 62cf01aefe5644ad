"""Which reading fits the published numbers, on numbers whose answer is known."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.config import Experiment, resolve
from lo_theory.lab.drawing import styled
from lo_theory.lab.experiments.table1 import Published, Reference
from lo_theory.lab.experiments.table1_readings import Reading, readings, readings_sheet, readings_table, verdict
from lo_theory.lab.frame import from_rows
from lo_theory.lab.rows import Row
from tests.lab.decodes import cell, pairs_of, share
from tests.lab.tiny import tiny

pairs = ((25, 275), (100, 200))
PAPER = {(25, 275): (78.0, 94.0), (100, 200): (63.0, 89.0)}
REFERENCE = Reference(
    "made up",
    tuple(Published(*pair, policy, PAPER[pair][i]) for pair in pairs for i, policy in enumerate(("vanilla", "margin"))),
)


def experiment(reference: Reference | None = REFERENCE) -> Experiment:
    made = resolve(tiny())
    return Experiment(made.experiment, made.rows, title="A table", reference=reference)


def read(rows: Iterable[Row], reference: Reference = REFERENCE) -> list[Reading]:
    return readings(from_rows(rows), reference)


OFF = {(25, 275): (95.0, 90.0), (100, 200): (90.0, 80.0)}
NEAR = {(25, 275): (79.0, 93.0), (100, 200): (62.0, 90.6)}


def test_the_reading_that_fits_is_found_and_named() -> None:
    rows = [*pairs_of(OFF), *pairs_of(NEAR, steps=25, argmax=True)]
    found = read(rows)
    assert len(found) == 2 * 2  # two decodes, two accuracies
    assert found[0].accuracy == "self-consistency"
    assert found[0].decode == "L/12 steps, argmax"
    published = {pair: dict(zip(("vanilla", "margin"), PAPER[pair], strict=True)) for pair in pairs}
    assert found[0].distance(published) == pytest.approx(((1 + 1 + 1 + 2.56) / 4) ** 0.5)
    said = verdict(found, REFERENCE)
    assert said.startswith("The published numbers at (25, 275), (100, 200) come out within 2 points under: self-")
    assert "L/12 steps, argmax (largest difference +1.6 (margin at (100, 200)))" in said
    assert said.count("largest difference") == 1


def test_where_none_fits_it_says_so_and_names_the_nearest() -> None:
    only = {(25, 275): OFF[25, 275]}
    said = verdict(read(pairs_of(only)), REFERENCE)
    assert said.startswith(
        "Under none of 2 definitions do the published numbers at (25, 275) come out within 2 points."
    )
    assert (
        "The nearest that is decoded is self-consistency, model, L steps: 12.3 points root mean square, +17.0 (vanilla at"
        in said
    )
    assert "Vanilla alone: unpaired, model, L steps (15.5)." in said
    assert "Margin alone: self-consistency, model, L steps (4.0)." in said
    assert said.endswith("1 of the 2 published pairs were not run.")
    wide = Reference("made up", REFERENCE.rows, tolerance=17.5)
    assert "come out within 17.5 points under" in verdict(read(pairs_of(only), wide), wide)


def test_a_reading_that_lacks_a_pair_that_was_run_cannot_fit_all() -> None:
    rows = [*pairs_of(OFF), *pairs_of({(25, 275): PAPER[25, 275]}, name="rope")]
    found = read(rows)
    assert found[0].label == "self-consistency, model, rope, L steps"
    assert verdict(found, REFERENCE).startswith("Under none of 2 definitions")


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        (
            80.0,
            "it is above zero in 1 and below in 0 (95 % intervals over runs, of one run over sequences), and as large as published in none.",
        ),
        (62.0, "it is above zero in 0 and below in 1 "),
        (98.0, "as large as published in 1: self-consistency, model, L steps at (8, 24) (+28.0)."),
        (70.0, "it is above zero in 0 and below in 0 "),
    ],
)
def test_other_sizes_confirm_nothing_and_only_the_effect_is_compared(margin: float, expected: str) -> None:
    found = read(pairs_of({(8, 24): (70.0, margin)}))
    said = verdict(found, REFERENCE)
    assert said.startswith("No published pair was run, only (8, 24), so no definition can be confirmed here.")
    assert "published as +16.0 to +26.0 points" in said
    assert expected in said
    assert said.endswith("Nothing follows for the published sizes.")


def test_noise_on_scores_is_compared_with_vanilla_decoding_that_has_none() -> None:
    pair = (25, 275)
    rows = [*cell(pair, "vanilla", 78.0, 62.5), *cell(pair, "margin", 94.0, 62.5, noise="gumbel 0.5")]
    found = read(rows)
    assert [one.decode for one in found] == ["L steps, gumbel 0.5"] * 2
    assert found[0].values[pair]["vanilla"].value == pytest.approx(78.0)
    assert read(cell(pair, "margin", 94.0, 62.5)) == []  # vanilla was not measured


def test_several_runs_of_a_pair_are_pooled() -> None:
    pair = (25, 275)
    rows = [row for i in range(2) for row in pairs_of({pair: (70.0 + 20 * i, 80.0 + 10 * i)}, row=i, seed=i)]
    keys = {"kind": "one_pass", "N": 25, "P": 275, "problem": "a", "denoiser": "exact"}
    rows += [
        Row("unit", name, share(90.0 + 4 * i), {**keys, "row": i, "seed": i})
        for i in range(2)
        for name in ("conditional", "infill", "infill_drawn")
    ]
    found = {reading.accuracy: reading.values[pair] for reading in read(rows)}
    assert [value.value for value in found["self-consistency"].values()] == pytest.approx([80, 85, 5])
    assert found["conditional"]["vanilla"].value == pytest.approx(92)


@pytest.mark.parametrize(
    ("pair", "steps", "decode"),
    [
        ((25, 275), 300, "L steps"),
        ((25, 275), 250, "250 steps"),
        ((25, 275), 25, "L/12 steps"),
        ((25, 275), 26, "26 steps"),
        ((12, 48), 8, "L/8 steps"),
        ((12, 45), 8, "L/8 steps"),
    ],
)
def test_steps_are_a_share_of_the_length_only_where_they_are(pair: tuple[int, int], steps: int, decode: str) -> None:
    rows = list(pairs_of({pair: (70.0, 80.0)}, steps=steps))
    assert {reading.decode for reading in read(rows)} == {decode}


def test_an_effect_between_cells_without_spread_has_an_interval_all_the_same() -> None:
    pair = (25, 275)
    rows = [*pairs_of({pair: (70.0, 80.0)})]
    certain = [Row(row.unit, row.metric, Sums.of([1.0] * 50), row.keys) for row in rows]
    effect = read(certain)[0].values[pair]["effect"]
    assert effect.low < effect.value == 0 < effect.high


def test_the_table_and_the_figure_show_every_reading() -> None:
    rows = [*pairs_of(OFF), *pairs_of(NEAR, steps=25)]
    keys = {"kind": "one_pass", "row": 0, "N": 25, "P": 275, "problem": "a", "seed": 0, "denoiser": "exact"}
    rows += [Row("unit", name, share(97.5), keys) for name in ("conditional", "infill", "infill_drawn")]
    frame = from_rows(rows)
    table = readings_table(frame, experiment())
    (lines,) = table.sections
    assert len(lines) == 2 * 2 + 3
    assert lines[0] == ["self-consistency", "model", "L/12 steps", "2", "70.5", "91.8", "+21.3", "1.2", "1.6"]
    assert ["infill", "exact", "one pass", "1", "97.5", "97.5", "0", "14.0", "19.5"] in lines
    assert "come out within 2 points" in table.notes[0]
    assert readings_table(frame, experiment(None)).sections == []
    (sheet,) = readings_sheet(frame, experiment()).values()
    with styled():
        figure = sheet.draw()
    pairs = ["(25, 275)", "(100, 200)"]
    assert [axes.get_title(loc="left")[-len(name) :] for axes, name in zip(figure.axes, pairs, strict=True)] == pairs
    assert len(figure.axes[0].get_yticklabels()) == len(lines)
    assert readings_sheet(frame, experiment(None)) == {}
