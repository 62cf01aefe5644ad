"""The frame, and what is made of it: pooling, differences, gap closed, tables and panels of records."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

import lo_theory
from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.drawing import styled
from lo_theory.lab.frame import Record, from_rows, gap, grouped, kind, minus, pool, records
from lo_theory.lab.kinds import check_row
from lo_theory.lab.panel import Colours, Level, Panel, Sheet
from lo_theory.lab.rows import Row
from lo_theory.lab.table import Table, key, measured, percent, to_markdown

PUBLISHED = Path(__file__).parents[2] / "experiments" / "results"
RUNS = {"vanilla": (0.5, 0.6, 0.8), "margin": (0.7, 0.75, 0.85)}


def decodes(**more: Any) -> list[Row]:
    return [
        Row(
            "u", "consistent", Sums.of([mean - 0.1, mean + 0.1]), {**_place(row), "policy": policy, "steps": 24, **more}
        )
        for policy, means in RUNS.items()
        for row, mean in enumerate(means)
    ]


def _place(row: int, of: str = "decode") -> dict[str, Any]:
    return {"kind": of, "row": row, "N": 6, "P": 18, "problem": f"p{row}", "seed": row, "denoiser": "model"}


def t_interval(values: Any) -> tuple[float, float, float]:
    mean = float(np.mean(values))
    return (mean, *stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values)))


def test_a_published_folder_is_a_frame() -> None:
    frame = lo_theory.read(PUBLISHED / "hardness-model")
    assert {"kind", "a", "b", "metric", "n", "sum", "squared_deviations"} <= set(frame.columns)
    assert len(frame) == 1966
    assert kind(frame, "cell", a=1).a.unique().tolist() == [1.0]


def test_over_rows_the_interval_is_students_over_their_means() -> None:
    pooled = records(pool(kind(from_rows(decodes()), "decode"), ["N", "P", "policy"], over="row"))
    assert [line.policy for line in pooled] == ["vanilla", "margin"], "in the order of the rows"
    for line in pooled:
        mean, low, high = t_interval(RUNS[line.policy])
        assert line.estimate("consistent") == pytest.approx((mean, max(0, low), min(1, high)))  # a share
    assert [len(line.runs("consistent")) for line in pooled] == [3, 3]
    for line in pooled:
        alone = [(one.policy, one.run, one.value("consistent")) for one in line.by_run()]
        assert alone == [(line.policy, (row,), pytest.approx(mean)) for row, mean in enumerate(RUNS[line.policy])]


def test_grouped_records_keep_the_order_of_first_appearance() -> None:
    lines = [Record({"a": a, "b": b}) for a, b in ("y2", "x1", "y1", "x2", "y2")]
    assert [line.a + line.b for line in grouped(lines, "a", "b")] == ["y2", "y2", "y1", "x2", "x1"]


def test_over_sequences_all_count_together() -> None:
    part = kind(from_rows(decodes()), "decode", row=0, policy="vanilla")
    (line,) = records(pool(part, ["N", "policy"]))
    assert line.estimate("consistent") == pytest.approx((0.5, *Sums.of([0.4, 0.6]).interval(share=True)))


@pytest.mark.parametrize(
    ("by", "over", "word"),
    [
        (["N", "policy"], "sequences", "row"),  # three problems as if they were one
        (["N"], "row", "policy"),  # two policies averaged
        (["N", "polcy"], "row", "closest: policy"),
        (["N", "policy"], "rows", "no key 'rows'"),
    ],
)
def test_a_wrong_pooling_is_rejected(by: list[str], over: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        pool(kind(from_rows(decodes()), "decode"), by, over)
    with pytest.raises(ValueError, match="several kinds"):
        pool(from_rows([*decodes(), Row("u", "floor", Sums.single(1), _place(0, "problem"))]))


def test_a_kind_without_rows_pools_to_nothing() -> None:
    assert records(pool(kind(from_rows(decodes()), "losses"), over="draw")) == []


def test_a_difference_is_taken_run_by_run() -> None:
    pooled = pool(kind(from_rows(decodes()), "decode"), ["N", "policy"], over="row")
    (line,) = records(minus(pooled, "policy", "margin", "vanilla"))
    assert line.estimate("consistent") == pytest.approx(t_interval([0.2, 0.15, 0.05]))
    assert [one.value for one in line.runs("consistent").values()] == pytest.approx([0.2, 0.15, 0.05])
    assert "policy" not in line.keys


def test_gap_closed_has_the_lines_of_each_problem() -> None:
    rows = []
    for row, closed in enumerate((0.9, 0.5)):
        span = 0.4 + row
        rows += [
            Row("u", name, Sums.single(value), _place(row, "problem"))
            for name, value in (("floor", 0.2), ("marginals_only", 0.2 + span))
        ]
        rows.append(Row("u", "kl", Sums.of([(1 - closed) * span] * 3), {**_place(row, "losses"), "law": "uniform"}))
    frame = from_rows(rows)
    losses, problem = kind(frame, "losses", law="uniform"), kind(frame, "problem")
    apart = records(gap(pool(losses), pool(problem)))
    assert [line.value("gap") for line in apart] == pytest.approx([0.9, 0.5])
    (together,) = records(gap(pool(losses, ["N", "P"], over="row"), pool(problem, ["N", "P"], over="row")))
    assert together.estimate("gap") == pytest.approx(t_interval([0.9, 0.5]))


def test_rows_that_are_not_declared_are_refused() -> None:
    check_row({"kind": "decode", "row": 0, "problem.N": 6, "policy": "margin"}, "consistent")
    for keys, metric in (
        ({"kind": "decodes"}, "consistent"),
        ({"kind": "decode", "polcy": 1}, "consistent"),
        ({"kind": "decode"}, "consistant"),
    ):
        with pytest.raises(ValueError, match="closest"):
            check_row(keys, metric)


LINES = records(pool(kind(from_rows(decodes()), "decode")))


def test_one_table_on_screen_and_page() -> None:
    columns = [key("policy", left=True), key("noise"), percent("consistent"), measured("kl")]
    table = Table("A | *table*", columns, LINES[:1] + LINES[3:4], section=lambda line: line.policy, notes=["<b>"])
    half = 100 * max(abs(end - 0.5) for end in LINES[0].estimate("consistent")[1:])
    assert table.sections[0] == [["vanilla", "", f"50.0 ±{half:.1f}", "-"]]
    assert len(table.sections) == 2
    assert to_markdown([table]).startswith(
        "**A \\| \\*table\\***\n\n| policy | noise | consistent | kl |\n| :-- | --: |"
    )


def test_forms_of_panels_hold_the_numbers_of_their_lines() -> None:
    look = {"color": "k", "marker": "o", "label": "a"}
    of = {"lines": LINES, "look": lambda line: look if line.policy == "margin" else {"color": "r"}}
    points = Panel("points", x="row", y="consistent", scale=100, levels=[Level(0.3, {"label": "level"})], **of)
    curves = Panel("curves", "curves", x="row", y="consistent", levels=[Level(lambda line: 0.1, {})], **of)
    spans = Panel("spans", "spans", x="consistent", y="policy", **of)
    with styled():
        figure = Sheet("sheet", [points, curves, spans], 3, (9, 3)).draw()
    means = [mean for means in RUNS.values() for mean in means]
    for axes, scale, side in zip(figure.axes, (100, 1, 1), ("get_ydata", "get_ydata", "get_xdata"), strict=True):
        drawn = [value for bar in axes.containers for value in getattr(bar.lines[0], side)()]
        assert sorted(drawn) == pytest.approx(sorted(scale * mean for mean in means))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "level"]
    assert len(points.numbers()) == 3 * len(means)
    assert figure.axes[0].get_title(loc="left") == "$\\bf{a}$  points"


def test_a_record_says_what_it_lacks() -> None:
    record = Record({"N": 6})
    assert (record.N, record.get("name", "")) == (6, "")
    with pytest.raises(AttributeError, match="no key 'P'"):
        record.P  # noqa: B018


def test_bars_stand_at_named_places() -> None:
    panel = Panel("bars", "bars", LINES, x=lambda line: f"(6, 18) row {line.row}", y="consistent", scale=100)
    with styled():
        (axes,) = Sheet("sheet", [panel], 1, (9, 3)).draw().axes
    means = [100 * mean for pair in zip(*RUNS.values(), strict=True) for mean in pair]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(means)
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"(6, 18)\nrow\n{row}" for row in range(3)]
    assert len(panel.numbers()) == 3 * len(means)


def test_boxes_are_where_the_numbers_are_drawn() -> None:
    of = {"lines": LINES, "look": lambda line: {"color": "#ff0000", "marker": "s", "markersize": 7, "linestyle": ""}}
    panels = [
        Panel("points", x="row", y="consistent", scale=100, **of),
        Panel("curves", "curves", x="row", y="consistent", **of),
        Panel("spans", "spans", x="consistent", y="policy", **of),
    ]
    with styled():
        drawing = Sheet("sheet", panels, 3, (9, 3)).drawing()
    assert len(drawing.boxes) == 3 * len(LINES)
    with Image.open(io.BytesIO(drawing.png)) as image:
        picture = np.asarray(image.convert("RGB")).astype(int)
    height, width, _ = picture.shape

    def red(x: float, y: float) -> bool:
        spot = picture[round(y * height) - 2 : round(y * height) + 3, round(x * width) - 2 : round(x * width) + 3]
        return bool((spot[..., 0] - spot[..., 1]).mean() > 150)

    assert all(red(box.x, box.y) for box in drawing.boxes)
    assert not all(red(box.x, 1 - box.y) for box in drawing.boxes)  # counted from below
    estimate = LINES[0].estimate("consistent")
    first = f"points: {100 * estimate.value:.4g} ({100 * estimate.low:.4g} to {100 * estimate.high:.4g})"
    assert drawing.boxes[0].words.split("\n")[0] == first
    assert f"policy {LINES[0].policy}" in drawing.boxes[0].words


def test_the_box_of_a_cell_of_a_map_is_the_cell() -> None:
    cells = [Record({"a": a, "b": b, "z": 1.0}) for a in (0.0, 1.0, 3.0) for b in (0.0, 1.0)]
    panel = Panel("map", "map", cells, x="a", y="b", z=lambda line: line.z, scale=Colours(0, 1))
    with styled():
        boxes = Sheet("sheet", [panel], 1, (6, 3)).drawing().boxes
    widths = sorted({round(box.width / boxes[0].width, 6) for box in boxes})
    assert widths == [1.0, 1.5, 2.0]
    assert len({round(box.height, 9) for box in boxes}) == 1
    assert "z 1.0" in boxes[0].words
