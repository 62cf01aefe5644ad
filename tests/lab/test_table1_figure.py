"""The figures of Table 1: no panel without data, no label over another or off the sheet, one meaning a symbol."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab import drawing
from lo_theory.lab.config import Experiment, resolve
from lo_theory.lab.drawing import styled
from lo_theory.lab.experiments.table1_shown import figures
from lo_theory.lab.frame import from_rows
from lo_theory.lab.rows import Row
from tests.lab.decodes import cell, pairs_of, share
from tests.lab.tiny import tiny

PAIR = (6, 18)
NOISES = [0.0, 0.05, 0.1, 0.2]
LAWS = ("uniform", "two_rates(0,1)", "two_rates(1,0)", "suffix", "pattern(2)")


def experiment(count: int = 1, *, published: bool = True) -> Experiment:
    """As many rows as are asked for, each with a noise and a P of its own."""
    settings = tiny()
    if not published:
        del settings["reference"]
    settings["rows"] = [{"problem": {"P": 18 + i // 4, "noise": NOISES[i % 4]}} for i in range(count)]
    return resolve(settings)


def decodes(count: int) -> list[Row]:
    return [
        row for i in range(count) for row in pairs_of({(6, 18 + i // 4): (70 + i, 75 + i)}, row=i, denoiser="exact")
    ]


def everything() -> list[Row]:
    """Decodes by two policies and with the likeliest values, accuracies of one pass, losses under five laws."""
    rows = [*pairs_of({PAIR: (80, 90)}), *cell(PAIR, "margin", 95, 75, argmax=True)]
    rows += cell(PAIR, "vanilla", 70, 62, steps=3)
    keys = {"row": 0, "N": 6, "P": 18, "problem": "a", "seed": 0}
    once = {**keys, "kind": "one_pass", "denoiser": "model"}
    rows += [Row("unit", name, share(80), once) for name in ("conditional", "infill", "infill_drawn")]
    lines = {"floor": 0.2, "marginals_only": 0.6}
    rows += [Row("unit", name, Sums.single(value), {**keys, "kind": "problem"}) for name, value in lines.items()]
    for law in LAWS:
        losses = {**keys, "kind": "losses", "law": law}
        rows += [Row("unit", name, share(50), losses) for name in ("exact", "model", "kl")]
    return rows


def drawn(made: Experiment, rows: Sequence[Row], name: str = "figure") -> Figure:
    with styled():
        figure = figures(from_rows(rows), made)[name].draw()
        figure.draw_without_rendering()
    return figure


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.axison]


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left").split("  ")[-1] for axes in panels(figure)]


def symbols(axes: Axes) -> set[Any]:
    return {line.get_marker() for line in axes.findobj(Line2D) if line in axes.lines} - {"None", "", None}


def test_a_quantity_that_was_not_measured_has_no_panel() -> None:
    figure = drawn(experiment(), decodes(1))
    assert titles(figure) == ["Self-consistency", "Whole sequences", "Unpaired"]
    assert all(symbols(axes) for axes in panels(figure))
    places = [axes.get_subplotspec() for axes in panels(figure)]
    assert [(place.rowspan.start, place.colspan.start) for place in places if place] == [(0, 0), (0, 2), (1, 0)]
    assert titles(drawn(experiment(), everything())) == [
        *("Self-consistency", "Whole sequences", "Unpaired", "One pass", "Loss", "KL", "Gap closed"),
    ]


def test_published_numbers_are_beside_the_row_of_their_pair() -> None:
    settings = tiny()
    settings["reference"]["rows"].append({"N": 6, "P": 18, "policy": "margin", "percent": 90.0})
    figure = drawn(resolve(settings), [*pairs_of({PAIR: (80, 90)}, name="rope")])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["(6, 18)\nrope", "(25, 275)"]


def test_nothing_at_all_says_so() -> None:
    figure = drawn(experiment(published=False), [])
    assert titles(figure) == ["Self-consistency"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["no rows"]


@pytest.mark.parametrize("count", [1, 4, 20, 60])
def test_labels_do_not_lie_over_each_other(count: int) -> None:
    figure = drawn(experiment(count, published=False), decodes(count))
    for axes in panels(figure):
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert len(boxes) >= min(count, 20)
        assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes))
        assert axes.get_window_extent().height > 1.2 * figure.dpi
    assert fits(figure)


def test_each_symbol_has_one_meaning_that_the_legend_says() -> None:
    figure = drawn(experiment(), everything())
    (legend,) = figure.legends
    named = [handle.get_marker() for handle in legend.legend_handles if isinstance(handle, Line2D)]
    assert [mark for mark, times in Counter(named).items() if times > 1] == []
    assert set().union(*(symbols(axes) for axes in figure.axes)) == set(named)
    words = [text.get_text() for text in legend.get_texts()]
    assert len(words) == len(set(words))
    assert {"model", "paper", "policy vanilla", "infill, drawn", "mask law uniform", "open: several tokens a step"} <= {
        *words
    }


def test_policies_accuracies_and_laws_share_no_symbol() -> None:
    own = [drawing.marker(f"mine{i}") for i in range(200)]
    kinds = [
        set(drawing.MARKERS.values()),
        set(own),
        set(drawing.ACCURACY_MARKERS.values()),
        set(drawing.LAW_MARKERS),
        {"*"},
    ]
    assert len(set().union(*kinds)) == sum(map(len, kinds))


def fits(figure: Figure) -> bool:
    """Whether all that is drawn lies on the canvas, to within a hundredth of an inch."""
    (width, height), box = figure.get_size_inches(), figure.get_tightbbox()
    return bool(min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01)


@pytest.mark.parametrize("pairs", [[PAIR], [(25, 275)], [PAIR, (25, 275)]])
def test_the_readings_lie_inside_the_canvas(pairs: list[tuple[int, int]]) -> None:
    made = experiment(len(pairs))
    title = "Accuracy of generated observations, " * 3
    long = Experiment(made.experiment, made.rows, title=title, reference=made.reference)
    rows = [row for i, pair in enumerate(pairs) for row in pairs_of({pair: (80, 90)}, row=i)]
    assert fits(drawn(long, rows, "readings"))
