"""Adaptive minus vanilla over runs, on numbers whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.config import Experiment, resolve
from lo_theory.lab.drawing import describe, styled
from lo_theory.lab.experiments.table1_readings import effects, effects_table
from lo_theory.lab.experiments.table1_shown import figures, named_rows
from lo_theory.lab.frame import from_rows
from lo_theory.lab.rows import Row
from tests.lab.decodes import pairs_of
from tests.lab.tiny import tiny


def experiment(*rows: dict[str, Any]) -> Experiment:
    return resolve({**tiny(), "rows": list(rows)})


def length(steps: int, seed: int = 0) -> dict[str, Any]:
    return {"training": {"steps": steps}, "seed": seed, "problem": {"seed": seed}}


def decodes(row: int, effect: float, pair: tuple[int, int] = (6, 18), **keys: Any) -> Iterator[Row]:
    yield from pairs_of({pair: (90.0, 90.0 + effect)}, row=row, problem=str(row), seed=row, **keys)


def losses(row: int, gap: float) -> Iterator[Row]:
    """A model that has closed ``gap`` of the way from 0.6 to 0.2 nats, its KL known to 0.004 a sequence."""
    place = {"row": row, "N": 6, "P": 18}
    lines = {"floor": 0.2, "marginals_only": 0.6}
    yield from (Row("unit", name, Sums.single(value), {"kind": "problem", **place}) for name, value in lines.items())
    kl = Sums.of([0.4 * (1 - gap) + 0.004 * (-1) ** i for i in range(100)])
    yield Row("unit", "kl", kl, {"kind": "losses", "law": "uniform", **place})
    yield Row("unit", "kl", Sums.single(0.0), {"kind": "losses", "law": "suffix", **place})


def test_runs_have_students_interval_and_single_runs_have_none() -> None:
    rows = [row for i, effect in enumerate((-6.0, -2.0, 1.0)) for row in decodes(i, effect)]
    rows += decodes(3, -10.0, pair=(8, 24))
    made = experiment(*(length(100, seed) for seed in range(3)), {"problem": {"N": 8, "P": 24}})
    ((line,),) = effects_table(named_rows(from_rows(rows), made)).sections
    assert line[:6] == ["6, 18", "model", "24", "drawn", "3", ""], "no losses, no gap"
    half = 4.302652729696 * 3.511884584284 / 3**0.5  # Student's quantile of two degrees of freedom, times the error
    assert line[6:9] == [f"-2.3 ±{half:.1f}", "-6.0, +1.0", "1/3"]
    assert line[9].startswith("-1.2 ±")


def test_trainings_of_other_lengths_are_other_kinds_and_their_gaps_are_told() -> None:
    made = experiment(length(100), length(100, 1), length(200), length(200, 1), {**length(200), "name": "alone"})
    gaps = (0.1, 0.2, 0.8, 0.9)
    rows = [row for i, gap in enumerate(gaps) for row in (*decodes(i, (-4.0, -2.0, 3.0, 5.0)[i]), *losses(i, gap))]
    rows += decodes(4, 9.0, name="alone")
    frame = named_rows(from_rows(rows), made)
    (lines,) = effects_table(frame).sections
    assert [line[0] for line in lines] == ["6, 18 training.steps 100", "6, 18 training.steps 200"]
    assert [line[5] for line in lines] == ["10 to 20", "80 to 90"]
    assert [line[8] for line in lines] == ["0/2", "2/2"]
    *_, alone = effects(frame)
    assert (alone.value("self_consistency"), alone.runs("gap")) == (pytest.approx(0.09), {})


def test_other_draws_steps_and_denoisers_are_not_mixed() -> None:
    variants: tuple[dict[str, Any], ...] = (
        {"argmax": True},
        {"temperature": 0.5},
        {"schedule": "binomial"},
        {"steps": 3},
        {"denoiser": "exact"},
        {},
    )
    rows = [row for keys in variants for row in (*decodes(0, 1.0, **keys), *decodes(1, 2.0, **keys))]
    (lines,) = effects_table(from_rows(rows)).sections
    assert [line[4] for line in lines] == ["2"] * len(variants)
    assert [line[3] for line in lines[:3]] == ["argmax", "drawn, temperature 0.5", "drawn, binomial"]


def test_the_interval_of_a_run_is_that_of_both_decodes() -> None:
    (run,) = effects(from_rows([*decodes(0, 2.0), *losses(0, 0.5)]))
    half = 1.96 * 5.0025 / 1000**0.5 * 2**0.5  # both decodes: values 5 points above and below, 1,000 of them
    ((points,), (gap,)) = run.runs("self_consistency").values(), run.runs("gap").values()
    assert [100 * end for end in points] == pytest.approx((2, 2 - half, 2 + half), abs=0.05)
    assert gap.value == pytest.approx(0.5)
    assert gap.half == pytest.approx(1.984 * 0.00402 / 10 / 0.4, rel=1e-2)


def test_the_figure_has_a_mark_for_each_run() -> None:
    made = experiment(length(100), length(100, 1), {"problem": {"P": 24}})
    rows = [row for i in range(2) for row in (*decodes(i, i - 0.5), *decodes(i, 3.0, steps=4), *losses(i, 0.3 + i / 2))]
    with styled():
        figure = figures(from_rows([*rows, *decodes(2, 1.0, pair=(6, 24))]), made)["effects"].draw()
    one, several = ([bar.lines[0].get_xydata().tolist() for bar in axes.containers] for axes in figure.axes)
    assert one == [[[pytest.approx(30), pytest.approx(-0.5)], [pytest.approx(80), pytest.approx(0.5)]]]
    assert [y for _, y in several[0]] == [pytest.approx(3)] * 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["6, 18"]
    assert "a One token a step; b Several tokens a step" in describe(figure)
    alone = figures(from_rows([*decodes(0, 1.0), *losses(0, 0.5)]), experiment(length(100)))
    assert "effects" not in alone, "one model makes no figure"
