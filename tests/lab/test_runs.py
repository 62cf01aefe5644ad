from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import FinishedRun, Run, finished_runs, journal, read_facts

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


def finished(folder: Path) -> dict[str, bytes]:
    """A finished run with two units; what its files hold."""
    with Run(folder, {"experiment": "x", "title": "1e19"}, {"threads": 1, "device": "cpu"}) as run:
        run.append([ROW])
        run.append([Row("b", "x", Sums(2, 1.0, 1.0))])
        run.sort(["b", "a"])
        run.finish({"versions": {"numpy": "2"}})
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_finished_run_is_what_was_written_or_refused_by_name(tmp_path: Path) -> None:
    whole = finished(tmp_path)
    run = FinishedRun(tmp_path)
    assert (run.config["title"], run.facts["rows"], [row.unit for row in run.rows]) == ("1e19", 2, ["b", "a"])
    first_unit = whole["rows.jsonl"].split(b"\n\n")[0] + b"\n\n"
    done = whole["done.json"]
    for name, content, words in (
        ("rows.jsonl", first_unit, "its content does not match its digest"),
        ("rows.jsonl", b"", "its content does not match"),
        ("rows.jsonl", whole["rows.jsonl"].replace(b"\n", b"\r\n"), "its content does not match"),
        ("config.yaml", whole["config.yaml"].replace(b"x", b"y"), "its content does not match"),
        ("done.json", done.replace(b'"threads": 1', b'"threads": 3'), "its content does not match"),
        ("done.json", done[:40], "is damaged"),
        ("done.json", b'{"seconds": null}', "seconds is to be a number of seconds, found None"),
        ("done.json", b'{"seconds": -1}', "found -1"),
        ("done.json", b'{"seconds": 1, "versions": [1]}', "versions is to be a mapping"),
        ("done.json", b'{"seconds": 1, "cells": "6"}', "cells is to be a number of cells"),
        ("done.json", b"{}", "seconds is to be a number of seconds, found None"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ValueError,
            match=rf"{name} is damaged \(.*{words}.*: (remove done.json|fetch it again)"
            if words != "is damaged"
            else name,
        ):
            FinishedRun(tmp_path)
        (tmp_path / name).write_bytes(whole[name])
    assert FinishedRun(tmp_path).rows == run.rows


def test_a_finished_run_without_digests_is_read_and_torn_rows_are_refused(tmp_path: Path) -> None:
    whole = finished(tmp_path)
    old = b"".join(line for line in whole["rows.jsonl"].splitlines(keepends=True) if not line.startswith(b'{"closed"'))
    (tmp_path / "rows.jsonl").write_bytes(old)
    (tmp_path / "done.json").write_text('{"seconds": 1.0, "threads": 1}')
    (tmp_path / "started.json").write_text('{"threads": 1}')
    assert [row.unit for row in FinishedRun(tmp_path).rows] == ["b", "a"]
    (tmp_path / "rows.jsonl").write_bytes(old[:-20])
    with pytest.raises(ValueError, match=r"it ends in the middle of a unit.*remove done.json"):
        _ = FinishedRun(tmp_path).rows


def test_a_run_is_gone_on_with_only_as_it_was_begun(tmp_path: Path) -> None:
    whole = finished(tmp_path)
    (tmp_path / "done.json").unlink()
    facts = {"threads": 1, "device": "cpu"}
    for content in (
        whole["started.json"].replace(b'"threads": 1', b'"threads": 3'),
        b'{"threads": 0, "device": "cpu"}',
        b'{"threads": true}',
        b'{"device": ["cpu"]}',
        b"[]",
        b"\xff",
    ):
        (tmp_path / "started.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"started\.json is damaged .*: remove it, and run again with the threads"):
            Run(tmp_path, {"experiment": "x"}, facts)
    (tmp_path / "started.json").write_bytes(b'{"thraeds": 1, "device": "cpu"}')
    with pytest.raises(ValueError, match="threads is to be a number of threads, found None"):
        read_facts(tmp_path, facts)
    (tmp_path / "started.json").write_bytes(whole["started.json"])
    (tmp_path / "config.yaml").write_bytes(b"experiment: y\n")
    with pytest.raises(
        ValueError, match=r"config\.yaml is damaged .*: remove it, and the same command writes it again"
    ):
        Run(tmp_path, {"experiment": "x"}, facts)
    (tmp_path / "config.yaml").unlink()
    with Run(tmp_path, {"experiment": "x"}, facts) as run:
        run.finish({})
    assert FinishedRun(tmp_path).config == {"experiment": "x"}


def test_temporary_files_of_killed_writers_are_removed_when_a_run_is_opened(tmp_path: Path) -> None:
    code = (
        "import os, sys; from lo_theory.problem.storage import write_atomically\n"
        "write_atomically(sys.argv[1], lambda file: os._exit(9))"
    )
    for name in ("rows.jsonl", "model-0.safetensors"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=False)
    (tmp_path / ".mine").write_text("")
    assert len(list(tmp_path.iterdir())) == 3
    with Run(tmp_path, {}, {}):
        assert {path.name for path in tmp_path.iterdir()} == {
            ".mine",
            "config.yaml",
            "lock",
            "log.jsonl",
            "rows.jsonl",
            "started.json",
        }


def test_what_is_said_of_a_folder_that_was_deleted_is_not_that_it_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def deleted() -> None:
        with Run(folder, {}, {}):
            shutil.rmtree(folder)
            raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(OSError, match="run is gone or not within reach"):
        deleted()


def test_a_journal_of_other_kinds_is_passed_over(tmp_path: Path) -> None:
    lines = [
        '{"event": "x", "session": 1, "seconds": null}',
        '{"event": [], "session": 1, "seconds": 1}',
        "[1]",
        "{",
        "\ufffd",
    ]
    good = '{"event": "x", "session": 1, "seconds": 2}'
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, good]))
    assert [entry["seconds"] for entry in journal(tmp_path)] == [2]
