from __future__ import annotations

import json
from pathlib import Path

import pytest

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.rows import Row, Rows, digest, examine, file_of, from_csv, read_rows

PUBLISHED = Path(__file__).parents[2] / "experiments/results"

UNITS = [
    [
        Row("a", "x", Sums(3, 1.5, 0.1 + 0.2), {"N": 6, "policy": "margin"}),
        Row("a", "y", Sums(2, float("inf"), float("inf"))),
    ],
    [Row("b", "x", Sums(2, 0.5, 0.25), {"N": 6, "argmax": True})],
    [Row("c", "x", Sums(2, -1e-300, 1e300)), Row("c", "y", Sums(0, 0.0, 0.0)), Row("c", "z", Sums(1, 1.0, 0.0))],
]


def write(path: Path) -> bytes:
    rows = Rows(path)
    for unit in UNITS:
        rows.append(unit)
    rows.close()
    return path.read_bytes()


def test_rows_read_back_are_the_rows_written(tmp_path: Path) -> None:
    content = write(tmp_path / "rows.jsonl")
    assert read_rows(tmp_path / "rows.jsonl") == [row for unit in UNITS for row in unit]
    assert read_rows(tmp_path / "absent.jsonl") == []
    for block, unit in zip(content.decode().split("\n\n"), UNITS, strict=False):
        *lines, closing = block.splitlines()
        assert [json.loads(line)["metric"] for line in lines] == [row.metric for row in unit]
        assert all({"unit", "metric", "n", "sum", "squared_deviations"} <= json.loads(line).keys() for line in lines)
        assert json.loads(closing) == {
            "closed": len(unit),
            "digest": digest("".join(f"{line}\n" for line in lines).encode()),
        }


def test_a_file_cut_at_any_byte_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.jsonl")
    path = tmp_path / "rows.jsonl"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        before = read_rows(path)
        assert path.read_bytes() == whole[:cut]  # reading changes nothing
        rows = Rows(path)
        assert rows.rows == before
        for unit in UNITS:
            if unit[0].unit not in rows.units:
                rows.append(unit)
        rows.close()
        assert path.read_bytes() == whole, cut


def test_a_unit_is_written_once_and_alone(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl")
    rows.append(UNITS[0])
    with pytest.raises(ValueError, match="one new unit"):
        rows.append(UNITS[0])
    with pytest.raises(ValueError, match="one new unit"):
        rows.append([*UNITS[1], *UNITS[2]])
    with pytest.raises(ValueError, match="one new unit"):
        rows.append([])
    rows.close()
    assert read_rows(tmp_path / "rows.jsonl") == UNITS[0]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    rows = Rows(tmp_path / "rows.jsonl")
    rows.append(UNITS[0])
    before = (tmp_path / "rows.jsonl").read_bytes()
    write_some, calls = os.write, []

    def full(descriptor: int, content: bytes) -> int:
        calls.append(content)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write_some(descriptor, content[:5])  # a disk that takes five more bytes

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        rows.append(UNITS[1])
    monkeypatch.undo()
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    assert rows.units == {"a"}
    rows.append(UNITS[1])  # space again
    rows.close()
    assert read_rows(tmp_path / "rows.jsonl") == [*UNITS[0], *UNITS[1]]


def test_damage_is_named_and_kept_aside_and_what_is_whole_stays(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = write(path)
    lines = whole.decode().splitlines(keepends=True)
    windows = whole.replace(b"\n", b"\r\n")
    bare = "".join(line for line in lines if "metric" in line).encode()
    damages = {
        "".join([lines[0], "{garbage\n", *lines[2:]]).encode(): ("line 2 is damaged", {"b", "c"}),
        whole.replace(b'"sum": 0.5', b'"sum": 0.7'): (
            "line 5 is damaged .the unit 'b' does not match its digest",
            {"a", "c"},
        ),
        "".join([lines[1], lines[0], *lines[2:]]).encode(): (
            "line 1 is damaged .the unit 'a' does not match",
            {"b", "c"},
        ),
        "".join(lines[:2] + lines[4:]).encode(): ("line 3 is damaged .it belongs to 'b'", {"c"}),
        whole + "".join(lines[4:7]).encode(): ("line 13 is damaged .the unit 'b' is there twice", {"a", "b", "c"}),
        whole[:-1].replace(b"closed", b"clozed"): ("line 3 is damaged .a row needs", set()),
        windows: ("line 1 is damaged .it ends as lines of Windows do", set()),
        bare: ("line 3 is damaged .it belongs to 'b'", set()),
        b'{"unit": "a"}\n\n': ("line 1 is damaged .a row needs", set()),
    }
    for i, (content, (words, left)) in enumerate(damages.items(), start=1):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"rows\.jsonl, {words}.*nothing of it is shown"):
            read_rows(path)
        assert path.read_bytes() == content  # reading changes nothing
        with pytest.raises(
            ValueError, match=rf"{words}.*kept as rows\.jsonl\.damaged.*its units that are whole .{len(left)}."
        ):
            Rows(path)
        assert path.with_name(f"rows.jsonl.damaged{i if i > 1 else ''}").read_bytes() == content
        rows = Rows(path)
        assert rows.units == left
        for unit in UNITS:
            if unit[0].unit not in left:
                rows.append(unit)
        rows.sort(["a", "b", "c"])
        assert rows.digest == digest(whole)
        rows.close()
        assert path.read_bytes() == whole


def test_a_file_without_digests_is_read_and_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = write(path)
    old = b"".join(line for line in whole.splitlines(keepends=True) if not line.startswith(b'{"closed"'))
    torn = old + b'{"unit": "d", "met'
    path.write_bytes(torn)
    assert read_rows(path) == [row for unit in UNITS for row in unit]
    assert (examine(path).torn, examine(path).old) == (True, True)
    assert path.read_bytes() == torn
    rows = Rows(path)
    assert rows.digest == digest(whole)
    rows.close()
    assert path.read_bytes() == whole == file_of(row for unit in UNITS for row in unit)


def test_sorting_hides_the_order_of_computing(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.jsonl")
    rows = Rows(tmp_path / "rows.jsonl")
    for i in (2, 0, 1):
        rows.append(UNITS[i])
    rows.sort(["a", "b", "c"])
    rows.close()
    assert (tmp_path / "rows.jsonl").read_bytes() == whole


def test_rows_of_older_files_have_their_statistics_centred() -> None:
    older = {"unit": "a", "kind": "x", "metric": "m", "n": 4, "sum": 2.0, "sum_of_squares": 1.5}
    row = Row.from_json(json.dumps(older))
    assert row == Row("a", "m", Sums(4, 2.0, 0.5), {"kind": "x"})
    assert "sum_of_squares" not in json.loads(row.to_json())
    assert from_csv("unit,kind,metric,n,sum,sum_of_squares,mean,low,high\na,x,m,4,2.0,1.5,0.5,,\n") == [row]
    unanimous = {**older, "n": 2000, "sum": 2000 * 0.7, "sum_of_squares": 2000 * 0.7**2}
    assert Row.from_json(json.dumps(unanimous)).sums.deviations == 0
    with pytest.raises(ValueError, match="squared_deviations is missing"):
        Row.from_json(json.dumps({name: value for name, value in older.items() if name != "sum_of_squares"}))
