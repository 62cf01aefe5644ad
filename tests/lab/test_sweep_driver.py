"""The driver with crews that do what is asked of them: deaths, errors, full disks, cells in any order."""

from __future__ import annotations

import errno
import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from rich.console import Console

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import Run
from lo_theory.lab.sweep.cells import Cell
from lo_theory.lab.sweep.driver import Driver
from lo_theory.lab.sweep.watch import Clock, SweepBars, SweepLines, SweepSilence, duration
from lo_theory.lab.sweep.worker import Order, Report

CELLS = [Cell(i, f"{i:016x}", None, {"seed": i}, i % 3 == 0) for i in range(12)]


def report(order: Order) -> Report:
    return Report(order.cell, (Row(order.cell, "x", Sums.single(2.0), {"part": "row0/a"}),), 0.1)


class ScriptedCrew:
    """Ends cells out of order; ``fate`` says of each attempt at a cell what becomes of it."""

    def __init__(self, fate: Callable[[str, int], Any], room: tuple[int, int] = (2, 1)) -> None:
        self.fate, self.room = fate, room
        self.begun: list[tuple[str, bool]] = []
        self.open = {False: 0, True: 0}
        self.most = {False: 0, True: 0}

    def capacity(self, gpu: bool) -> int:
        return self.room[gpu]

    def submit(self, order: Order, gpu: bool) -> Future[Report]:
        future: Future[Report] = Future()
        attempt = 1 + sum(cell == order.cell for cell, _ in self.begun)
        self.begun.append((order.cell, gpu))
        self.open[gpu] += 1
        self.most[gpu] = max(self.most[gpu], self.open[gpu])
        delay = 0.03 if len(self.begun) % 3 == 1 else 0.003
        threading.Timer(delay, self.end, (future, order, gpu, self.fate(order.cell, attempt))).start()
        return future

    def end(self, future: Future[Report], order: Order, gpu: bool, outcome: Any) -> None:
        self.open[gpu] -= 1
        if outcome == "cancelled":
            future.cancel()
            future.set_running_or_notify_cancel()
        elif isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome or report(order))

    def __enter__(self) -> ScriptedCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def drive(folder: Path, crew: ScriptedCrew, **options: Any) -> Any:
    with Run(folder, {}, {}) as run:
        driver = Driver(run, crew, order, SweepSilence(), lambda cell: cell.trains, **options)
        failures = driver.compute(CELLS)
        assert driver.compute([]) == failures
    return failures


def order(cell: Cell) -> Order:
    return Order(cell.id, "table1", {}, "", {}, "0")


def stored(folder: Path) -> list[str]:
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [json.loads(line)["unit"] for line in lines if line and not line.startswith('{"closed"')]


def entries(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


def test_every_cell_is_stored_once_in_whatever_order_they_end(tmp_path: Path) -> None:
    crew = ScriptedCrew(lambda cell, attempt: None)
    assert drive(tmp_path, crew) == []
    assert sorted(stored(tmp_path)) == [cell.id for cell in CELLS]
    assert stored(tmp_path) != [cell.id for cell in CELLS]
    assert sorted(crew.begun) == [(cell.id, cell.trains) for cell in CELLS]
    assert crew.most == {False: 2, True: 1}  # no more at a time than the crew takes of each kind
    assert len(entries(tmp_path, "cell")) == 12


def test_a_cell_whose_worker_dies_is_begun_again_and_given_up_after_three_times(tmp_path: Path) -> None:
    fatal, weak = CELLS[4].id, CELLS[7].id

    def fate(cell: str, attempt: int) -> Any:
        return BrokenExecutor() if cell == fatal or (cell == weak and attempt < 3) else None

    failures = drive(tmp_path, ScriptedCrew(fate))
    assert [(failure.cell.id, failure.error) for failure in failures] == [
        (fatal, "its worker died 3 times (killed, or out of memory?)")
    ]
    assert sorted(stored(tmp_path)) == sorted(cell.id for cell in CELLS if cell.id != fatal)
    assert len(entries(tmp_path, "worker died")) == 5


def test_workers_that_all_die_end_the_sweep(tmp_path: Path) -> None:
    crew = ScriptedCrew(lambda cell, attempt: BrokenExecutor())
    with pytest.raises(RuntimeError, match=r"workers in a row died before they had finished a cell"):
        drive(tmp_path, crew)
    assert len(crew.begun) < 20


def test_a_failing_cell_stops_no_other_and_is_logged_with_its_trace(tmp_path: Path) -> None:
    wrong, strange = CELLS[1].id, CELLS[2].id
    fates = {
        wrong: Report(wrong, (), 0.1, "ValueError: no such thing", "Traceback ..."),
        strange: RuntimeError("cannot be sent\nthere"),
    }
    failures = drive(tmp_path, ScriptedCrew(lambda cell, attempt: fates.get(cell)))
    told = {failure.cell.id: failure.error for failure in failures}
    assert told == {wrong: "ValueError: no such thing", strange: "RuntimeError: cannot be sent there"}
    assert len(stored(tmp_path)) == 10
    assert {entry["cell"]: entry["trace"] for entry in entries(tmp_path, "failed")} == {
        wrong: "Traceback ...",
        strange: "",
    }


@pytest.mark.parametrize(
    ("outcome", "complaint"),
    [
        (Report(CELLS[5].id, (), 0.1, "OSError: full", "", errno.ENOSPC), r"no space is left on the disk.*is kept in"),
        ("cancelled", r"stopped \(the cluster has dropped the cells under way.*is kept in"),
    ],
)
def test_a_full_disk_or_a_lost_cluster_stops_the_sweep(tmp_path: Path, outcome: Any, complaint: str) -> None:
    crew = ScriptedCrew(lambda cell, attempt: outcome if cell == CELLS[5].id else None)
    with pytest.raises(OSError, match=complaint):
        drive(tmp_path, crew)
    kept = stored(tmp_path)
    assert len(set(kept)) == len(kept) < 12
    with Run(tmp_path, {}, {}) as run:
        missing = [cell for cell in CELLS if cell.id not in run.units]
        crew = ScriptedCrew(lambda cell, attempt: None, (1, 1))
        assert Driver(run, crew, order, SweepSilence(), lambda cell: cell.trains).compute(missing) == []
    assert sorted(stored(tmp_path)) == [cell.id for cell in CELLS]


def test_what_arrived_before_an_interrupt_is_kept(tmp_path: Path) -> None:
    class Interrupted(ScriptedCrew):
        def submit(self, order: Order, gpu: bool) -> Future[Report]:
            future: Future[Report] = Future()
            if len(self.begun) == 2:
                raise KeyboardInterrupt
            self.begun.append((order.cell, gpu))
            future.set_result(report(order))
            return future

    with pytest.raises(KeyboardInterrupt):
        drive(tmp_path, Interrupted(lambda cell, attempt: None))
    assert len(stored(tmp_path)) == 2


def test_a_crew_without_workers_is_waited_for(tmp_path: Path) -> None:
    class Late(ScriptedCrew):
        looks = 0

        def capacity(self, gpu: bool) -> int:
            self.looks += 1
            return 0 if self.looks < 6 else 1

        def submit(self, order: Order, gpu: bool) -> Future[Report]:
            future: Future[Report] = Future()
            future.set_result(report(order))
            return future

    assert drive(tmp_path, Late(lambda cell, attempt: None)) == []
    assert len(stored(tmp_path)) == 12


# --- what is shown ----------------------------------------------------------------------------------------------------------------


def test_the_time_left_is_that_of_the_cells_still_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("lo_theory.lab.sweep.watch.time.monotonic", lambda: now[0])
    clock = Clock(4)
    now[0] += 20
    assert clock.settle() == "about 60 s left"
    clock = Clock(3)
    now[0] += 600
    assert clock.settle() == "about 20 min left"
    now[0] += 600
    assert clock.settle() == "about 10 min left"
    assert clock.settle() == ""
    assert [duration(seconds) for seconds in (3, 89, 90, 5399, 5400, 86400)] == [
        *("3 s", "89 s", "2 min", "90 min", "1.5 h", "24.0 h")
    ]


def test_what_comes_once_does_not_count_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("lo_theory.lab.sweep.watch.time.monotonic", lambda: now[0])
    clock, said = Clock(1000), []
    for seconds in (600, *[1] * 9):  # the first cell waits for its worker and for what is compiled
        now[0] += seconds
        said.append(clock.settle())
    assert said[0] == "about 166.5 h left"
    assert said[-1] == "about 16 min left"
    for _ in range(60):
        now[0] += 10  # larger cells: what counts is how it goes now
        left = clock.settle()
    assert left == "about 2.6 h left"


def test_a_pipe_gets_a_line_a_cell() -> None:
    stream = io.StringIO()
    lines = SweepLines(Console(file=stream, width=40))
    lines.begin(5, 3)
    lines.start("seed=3")
    lines.finish("seed=3", 1.25)
    lines.again("seed=4")
    lines.fail("seed=4", "ValueError: [no] such thing")
    lines.finish("seed=5", 1.0)
    assert stream.getvalue().splitlines() == [
        "2 of 5 cells are on disk",
        "[3/5] seed=3  1.2 s, about 0 s left",
        "  seed=4: its worker died, it is begun again",
        "[4/5] seed=4  failed: ValueError: [no] such thing, about 0 s left",
        "[5/5] seed=5  1.0 s",
    ]


def test_a_terminal_gets_a_bar_and_the_failures_above_it() -> None:
    stream = io.StringIO()
    with SweepBars(Console(file=stream, width=100, force_terminal=True, color_system=None)) as bars:
        bars.begin(5, 3)
        for label in ("seed=3", "seed=4"):
            bars.start(label)
        bars.finish("seed=3", 1.0)
        bars.again("seed=4")
        bars.start("seed=4")
        shown = io.StringIO()
        Console(file=shown, width=100).print(bars._render())
        bars.fail("seed=4", "ValueError: [no] such thing")
    assert "cells" in shown.getvalue()
    assert "3/5" in shown.getvalue()
    assert "left" in shown.getvalue()
    assert "seed=4" in shown.getvalue()
    assert "seed=3" not in shown.getvalue()
    assert "seed=4 failed: ValueError: [no] such thing" in stream.getvalue()
