from __future__ import annotations

import io

import pytest
from rich.console import Console

from lo_theory.lab.progress import BarProgress, LineProgress, evaluation_line, training_line

LINES = {"floor": 0.1733, "marginals_only": 0.5950}


def test_a_loss_stands_beside_its_lines() -> None:
    assert training_line({"loss": 0.25, "law": "uniform", **LINES}) == (
        "loss 0.2500  floor 0.1733  marginals only 0.5950  gap closed 81.8%"
    )
    assert training_line({"loss": 0.25, "law": "suffix", **LINES}).endswith("marginals only 0.5950  (suffix)")
    independent = {"loss": 0.25, "law": "uniform", "floor": 0.5, "marginals_only": 0.5}
    assert "gap" not in training_line(independent)  # nothing to close


def test_a_pipe_gets_plain_lines() -> None:
    stream = io.StringIO()
    progress = LineProgress(Console(file=stream, width=40))
    progress.begin(5, 3)
    progress.start("(8, 24) training")
    progress.training("(8, 24)", 7, 40, {"event": "resume"} | LINES)
    progress.training("(8, 24)", 20, 40, {"loss": 0.5, "law": "uniform"} | LINES)
    progress.training("(8, 24)", 30, 40, {"loss": 0.4, "law": "uniform"} | LINES)  # too soon after the last one
    progress.training("(8, 24)", 40, 40, {"loss": 0.3, "law": "uniform"} | LINES)
    progress.finish("(8, 24) training", 1.25)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "2 of 5 units of work are on disk"
    assert [line.split("  ")[1] for line in lines[1:4]] == [
        "(8, 24) continues at step 7/40",
        "(8, 24) step 20/40",
        "(8, 24) step 40/40",
    ]
    assert lines[4:] == ["[3/5] (8, 24) training  1.2 s"]


def test_cells_that_fail_or_wait_have_their_lines_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now, stream = [100.0], io.StringIO()
    lines = LineProgress(Console(file=stream, width=40), "cells")
    monkeypatch.setattr(lines._bars, "get_time", lambda: now[0])
    lines.begin(9, 7)
    for seconds, end in (
        (600, lambda: lines.finish("seed=3", 1.25)),  # the first waits for its worker, which does not count
        (10, lambda: lines.again("seed=4")),
        (50, lambda: lines.fail("seed=4", "ValueError: [no] such thing")),
        (120, lambda: lines.finish("seed=5", 1.0)),
    ):
        now[0] += seconds
        end()
    assert stream.getvalue().splitlines() == [
        "2 of 9 cells are on disk",
        "[3/9] seed=3  1.2 s",
        "  seed=4: its worker died, it is begun again",
        "[4/9] seed=4  failed: ValueError: [no] such thing, about 0:05:00 left",
        "[5/9] seed=5  1.0 s, about 0:06:00 left",
    ]
    stream = io.StringIO()
    with BarProgress(Console(file=stream, width=100, force_terminal=True, color_system=None), "cells") as bars:
        bars.begin(5, 3)
        bars.start("seed=4")
        bars.again("seed=4")
        bars.start("seed=4")
        shown = io.StringIO()
        Console(file=shown, width=100).print(bars._render())
        bars.fail("seed=4", "ValueError: [no] such thing")
    assert all(words in shown.getvalue() for words in ("cells", "2/5", "seed=4"))
    assert "seed=4: its worker died, it is begun again" in stream.getvalue()
    assert "seed=4 failed: ValueError: [no] such thing" in stream.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_bars_and_is_left_clean(width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    with BarProgress(console) as progress:
        progress.begin(5, 3)
        progress.start("(8, 24) training")
        progress.start("(8, 24) exact, margin, L steps")
        progress.training("(8, 24)", 20, 40, {"event": "start"} | LINES)
        progress.training("(8, 24)", 20, 40, {"loss": 0.25, "law": "uniform"} | LINES)
        shown = io.StringIO()
        Console(file=shown, width=width).print(progress._render())
        progress.finish("(8, 24) exact, margin, L steps", 1.0)
        progress.training("(8, 24)", 40, 40, {"loss": 0.2, "law": "uniform"} | LINES)
        progress.finish("(8, 24) training", 2.0)
        after = io.StringIO()
        Console(file=after, width=width).print(progress._render())
    assert "2/5" in shown.getvalue()
    assert "20/40" in shown.getvalue()
    assert "floor 0.1733" in shown.getvalue()
    assert "(8, 24) exact, margin, L steps" in shown.getvalue()
    assert "4/5" in after.getvalue()
    assert "(8, 24)" not in after.getvalue()
    assert max(len(line) for line in shown.getvalue().splitlines()) <= width


def test_the_gap_on_held_out_contexts_is_shown_until_the_training_ends() -> None:
    values = {"event": "evaluation", "gap_closed": 0.4321, "gap_half_interval": 0.02} | LINES
    assert evaluation_line(values) == "held-out gap closed 43.2 ±2.0 %"
    stream = io.StringIO()
    LineProgress(Console(file=stream, width=80)).training("(8, 24)", 5, 40, values)
    assert stream.getvalue() == "  (8, 24) step 5/40  held-out gap closed 43.2 ±2.0 %\n"
    progress = BarProgress(Console(file=io.StringIO(), force_terminal=True))
    progress.begin(1, 1)
    progress.start("(8, 24) training")
    shown = []
    for told in (lambda: progress.training("(8, 24)", 5, 40, values), lambda: progress.finish("(8, 24) training", 1)):
        told()
        shown.append(io.StringIO())
        Console(file=shown[-1], width=100).print(progress._render())
    assert "step 5/40  held-out gap closed 43.2" in shown[0].getvalue()
    assert "gap" not in shown[1].getvalue()


def test_the_share_of_the_matrix_rate_is_shown_where_it_is_known() -> None:
    values = {"loss": 0.3, "floor": 0.2, "marginals_only": 0.6}
    assert "matrix rate" not in training_line(values)
    assert training_line({**values, "utilisation": 0.314}).endswith("31% of the matrix rate")


def test_a_label_is_text_and_no_markup() -> None:
    shown = io.StringIO()
    progress = BarProgress(Console(file=io.StringIO(), force_terminal=True))
    for label in ("[easy]", "[/b]", ":100:"):
        progress.start(label)
        progress.training(label, 1, 40, {})
    Console(file=shown, width=100).print(progress._render())
    for label in ("[easy] steps", "[/b] steps", ":100: steps"):
        assert label in shown.getvalue()
