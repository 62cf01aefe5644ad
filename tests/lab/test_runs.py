from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import FinishedRun, Run, finished_runs, journal

ROW = Row("a", "x", Sums.single(1.0))


def test_a_run_keeps_rows_facts_and_time_over_its_sessions(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "name" / "id"
    with Run(folder, {"experiment": "name"}, {"threads": 2}) as run:
        assert not run.done
        run.append([ROW])
        run.log("unit", unit="a")
    with pytest.raises(ValueError, match="no finished run"):
        FinishedRun(folder)
    with Run(folder, {"experiment": "other"}, {"threads": 5}) as run:
        assert run.facts == {"threads": 2}  # as begun
        assert run.units == {"a"}
        run.finish({"versions": {}})
    finished = FinishedRun(folder)
    assert finished.rows == [ROW]
    assert finished.config == {"experiment": "name"}
    assert finished.facts["threads"] == 2
    assert finished_runs(tmp_path / "runs", "name") == [folder]
    assert finished_runs(tmp_path / "runs", "absent") == []


def test_seconds_add_over_sessions(tmp_path: Path) -> None:
    with Run(tmp_path, {}, {}) as run:
        run.log("unit")
    (tmp_path / "log.jsonl").write_text(
        '{"event": "x", "session": 1, "seconds": 100.0}\n{"event": "x", "session": 1, "seconds": 200.0}\n'
        '{"event": "x", "session": 2, "seconds": 1000.0}\n{"event": "x", "ses'
    )
    with Run(tmp_path, {}, {}) as run:
        run.log("unit")
        run.finish({})
    assert [entry["seconds"] for entry in journal(tmp_path)][:3] == [100.0, 200.0, 1000.0]
    assert len(list(journal(tmp_path))) == 4  # the torn line is passed over, the next one is whole
    assert 1200 <= FinishedRun(tmp_path).facts["seconds"] < 1210


def test_two_drivers_on_one_folder_are_refused(tmp_path: Path) -> None:
    with (
        Run(tmp_path, {}, {}),
        pytest.raises(ValueError, match=r"is being computed by another process \(process \d+\)"),
    ):
        Run(tmp_path, {}, {})
    Run(tmp_path, {}, {}).__exit__(None, None, None)


def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from lo_theory.lab.runs import Run\n"
        "run = Run(Path(sys.argv[1]), {}, {}); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"process {process.pid}"):
        Run(tmp_path, {}, {})
    process.kill()
    process.wait()
    process.stdout.close()
    with Run(tmp_path, {}, {}) as run:
        assert not run.done


def test_a_folder_that_cannot_be_written_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"output folder .*file/runs cannot be written \(Not a directory\): .* --out"):
        Run(tmp_path / "file" / "runs", {}, {})

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lo_theory.lab.runs.write_atomically", full)
    with pytest.raises(OSError, match=r"cannot be written \(no space is left on the disk\)"):
        Run(tmp_path / "runs", {}, {})
    monkeypatch.undo()
    Run(tmp_path / "runs", {}, {}).__exit__(None, None, None)  # and the lock was given back


def test_an_error_of_the_disk_in_the_middle_says_what_is_kept(tmp_path: Path) -> None:
    def fills_up() -> None:
        with Run(tmp_path, {}, {}) as run:
            run.append([ROW])
            raise OSError(28, "No space left on device")

    said = r"stopped \(no space is left on the disk\); what was computed is kept in .*same command"
    with pytest.raises(OSError, match=said):
        fills_up()
    with Run(tmp_path, {}, {}) as run:
        assert run.units == {"a"}


def test_a_closed_run_takes_nothing_more(tmp_path: Path) -> None:
    with Run(tmp_path, {}, {}) as run:
        pass
    with pytest.raises(ValueError, match="is closed"):
        run.append([ROW])
    with pytest.raises(ValueError, match="is closed"):
        run.log("late")


def test_damaged_facts_are_named(tmp_path: Path) -> None:
    with Run(tmp_path, {"experiment": "x"}, {}) as run:
        run.finish({})
    (tmp_path / "done.json").write_text("{")
    with pytest.raises(ValueError, match=r"done\.json is damaged"):
        FinishedRun(tmp_path)
    (tmp_path / "done.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match=r"done\.json is damaged"):
        FinishedRun(tmp_path)
