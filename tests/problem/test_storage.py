"""Files: a problem comes back bit for bit; foreign and damaged files are refused, unexecuted.

A write is whole or absent.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pickle
import stat
import subprocess
import sys
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lo_theory.problem import LODistribution, nae_sat, random_slab
from lo_theory.problem.storage import remove_leftovers, write_arrays, write_atomically
from lo_theory.rng import Key
from lo_theory.testing.strategies import problems


@pytest.fixture
def saved(tmp_path):
    return nae_sat(4, 5, seed=1, noise=0.1).save(tmp_path / "problem.npz")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems())
def test_a_problem_comes_back(problem, tmp_path):
    again = LODistribution.load(problem.save(tmp_path / "problem.npz"))
    assert again.fingerprint() == problem.fingerprint()
    assert again.layout.order.tolist() == problem.layout.order.tolist()
    assert (again.sample(Key(0), 9) == problem.sample(Key(0), 9)).all()


def test_the_file_holds_plain_arrays_only(saved):
    with np.load(saved, allow_pickle=False) as file:
        assert set(file.files) == {"prior", "order", "scopes", "tables", "index"}
    with zipfile.ZipFile(saved) as archive:
        assert all(b"pickle" not in archive.read(name)[:200] for name in archive.namelist())


def test_saving_goes_exactly_where_it_is_told(tmp_path):
    path = tmp_path / "problem.data"  # numpy would add .npz to a name
    assert nae_sat(4, 5, seed=1).save(path) == path
    assert os.listdir(tmp_path) == ["problem.data"]


class Bomb:
    """Unpickling this would leave a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def contents(kind, tmp_path):
    """Bytes of a file that is no problem."""
    bomb = np.array([Bomb(tmp_path / "executed")], dtype=object)
    stream = io.BytesIO()
    arrays = {name: np.zeros(1) for name in ("prior", "order", "scopes", "tables", "index")}
    if kind == "empty":
        return b""
    if kind == "text":
        return b"seed: 3\n"
    if kind == "pickle":
        return pickle.dumps(bomb)
    if kind == "npy":
        np.save(stream, np.zeros(3))
    elif kind == "pickled npy":
        np.save(stream, bomb, allow_pickle=True)
    elif kind == "pickled npz":
        np.savez(stream, **{**arrays, "prior": bomb})
    elif kind == "other names":
        np.savez(stream, weights=np.zeros(3))
    elif kind == "one name more":
        np.savez(stream, **arrays, extra=np.zeros(1))
    elif kind == "wrong shapes":
        np.savez(stream, **arrays)
    elif kind == "text arrays":
        np.savez(stream, **{name: np.array(["a"]) for name in arrays})
    elif kind == "many widths":
        np.savez(stream, prior=np.full((2, 2), 0.5), order=np.arange(3), vectors=np.ones((1, 2)), width=np.ones(2))
    elif kind == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("prior.npy", b"no array")
    elif kind == "encrypted zip":
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("prior.npy", b"no array")
        return (
            stream.getvalue()
            .replace(b"PK\x03\x04\x14\x00\x00\x00", b"PK\x03\x04\x14\x00\x01\x00")
            .replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
        )
    return stream.getvalue()


KINDS = [
    "empty",
    "text",
    "pickle",
    "npy",
    "pickled npy",
    "pickled npz",
    "other names",
    "one name more",
    "wrong shapes",
    "text arrays",
    "many widths",
    "zip",
    "encrypted zip",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_file_is_refused_and_executes_nothing(kind, tmp_path):
    path = tmp_path / "problem.npz"
    path.write_bytes(contents(kind, tmp_path))
    with pytest.raises(ValueError, match=r"problem\.npz"):
        LODistribution.load(path)
    assert not (tmp_path / "executed").exists()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_or_harmless(data, saved):
    """Any byte changed or any tail cut off: a ValueError, or the same problem (the byte carried nothing)."""
    raw = bytearray(nae_sat(4, 5, seed=1, noise=0.1).save(saved).read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        del raw[place:]
    else:
        raw[place] ^= data.draw(st.integers(1, 255))
    saved.write_bytes(raw)
    with contextlib.suppress(ValueError):
        assert LODistribution.load(saved).fingerprint() == nae_sat(4, 5, seed=1, noise=0.1).fingerprint()


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        LODistribution.load(tmp_path / "nowhere.npz")


def test_a_folder_is_no_problem_file(tmp_path):
    with pytest.raises(ValueError, match="no problem file"):
        LODistribution.load(tmp_path)


# --- write_atomically -----------------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"old")

    def full_disk(file):
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, full_disk)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["rows"]


def test_a_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"old and longer")
    assert write_atomically(path, lambda file: file.write(b"new")) == path
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["rows"]


def test_a_file_gets_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    mask = os.umask(0o022)
    os.umask(mask)
    written = write_atomically(tmp_path / "rows", lambda file: file.write(b""))
    assert written.stat().st_mode == plain.stat().st_mode
    assert os.umask(mask) == mask  # and the mask of the process is left as it was


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "rows", lambda file: file.write(b""))


def test_a_slab_problem_comes_back(tmp_path):
    problem = random_slab(5, 7, 0.5, seed=0)
    again = LODistribution.load(problem.save(tmp_path / "slab"))
    assert again.observations.width == problem.observations.width
    assert again.fingerprint() == problem.fingerprint()


# --- what stands at the path --------------------------------------------------------------------------------------------------------


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    for mode in (0o600, 0o640, 0o444):
        path.chmod(mode)
        write_atomically(path, lambda file: file.write(b"new"))
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_mask_of_the_process_is_never_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the mask belongs to the whole process"))
    write_atomically(tmp_path / "rows", lambda file: file.write(b"new"))


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_stays_one_and_its_file_is_replaced(tmp_path, dangling):
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "rows", tmp_path / "link"
    if not dangling:
        real.write_bytes(b"old")
    link.symlink_to("there/rows")
    assert write_atomically(link, lambda file: file.write(b"new")) == link
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert os.listdir(tmp_path / "there") == ["rows"]


def test_a_fifo_among_temporary_files_is_left_alone(tmp_path):
    """Nobody writes to it: opening it to look would wait for ever."""
    fifo = tmp_path / ".x.npz.a.tmp"
    os.mkfifo(fifo)
    remove_leftovers(tmp_path)
    assert fifo.exists()
    (tmp_path / ".x.npz.b.tmp").write_text("left by a killed process")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [fifo.name]


def test_a_fifo_is_written_to(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(path.read_bytes)
        write_atomically(path, lambda file: file.write(b"new"))
        assert read.result(timeout=20) == b"new"
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_device_is_written_to(tmp_path):
    for name in ("/dev/null", tmp_path / "link to null"):
        if name != "/dev/null":
            name.symlink_to("/dev/null")
        write_atomically(name, lambda file: file.write(b"new"))
        write_atomically(name, lambda file: write_arrays(file, {"tokens": np.zeros(3)}))
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError, match="No space left"):
        write_atomically("/dev/full", lambda file: file.write(b"new"))
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, lambda file: file.write(b"new"))


def test_temporary_files_of_dead_processes_are_removed_and_those_of_living_ones_are_not(tmp_path):
    path = tmp_path / "rows"
    dead, young, other = (tmp_path / name for name in (".rows.aa.tmp", ".rows.bb.tmp", ".rows2.cc.tmp"))
    for left in (dead, young, other):
        left.write_bytes(b"part")
    for old in (dead, other):
        os.utime(old, (0, 0))
    with open(tmp_path / ".rows.dd.tmp", "wb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        os.utime(living.name, (0, 0))
        write_atomically(path, lambda file: file.write(b"new"))
        assert sorted(os.listdir(tmp_path)) == [".rows.bb.tmp", ".rows.dd.tmp", ".rows2.cc.tmp", "rows"]
    write_atomically(path, lambda file: file.write(b"newer"))
    assert sorted(os.listdir(tmp_path)) == [".rows.bb.tmp", ".rows2.cc.tmp", "rows"]


def test_a_write_that_was_killed_is_cleared_away_by_the_next(tmp_path):
    path = tmp_path / "rows"
    code = (
        "import os, signal\nfrom lo_theory.problem.storage import write_atomically\n"
        f"write_atomically({str(path)!r}, lambda file: os.kill(os.getpid(), signal.SIGKILL))"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".rows.")
    os.utime(left, (0, 0))
    write_atomically(path, lambda file: file.write(b"new"))
    assert os.listdir(tmp_path) == ["rows"]


# --- arrays in files ----------------------------------------------------------------------------------------------------------------


def test_no_argument_of_numpy_becomes_an_array(saved, monkeypatch):
    """numpy 2.0 and 2.1 take ``savez(allow_pickle=False)`` for one array more; such files are read all the same."""
    monkeypatch.setattr(np, "savez", lambda *_, **__: pytest.fail("its arguments differ between versions"))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it reads before it looks"))
    problem = nae_sat(4, 5, seed=1, noise=0.1)
    again = LODistribution.load(problem.save(saved))
    with zipfile.ZipFile(saved, "a") as archive, archive.open("allow_pickle.npy", "w") as member:
        np.lib.format.write_array(member, np.array(False), allow_pickle=False)
    for found in (again, LODistribution.load(saved)):
        assert found.fingerprint() == problem.fingerprint()


def test_equal_problems_give_equal_files(tmp_path):
    one, two = (nae_sat(4, 5, seed=1).save(tmp_path / name).read_bytes() for name in "ab")
    assert one == two


def meant(name, array, path):
    """A problem file in which one array is another."""
    problem = nae_sat(4, 5, seed=1)
    np.savez(path, **{**problem._arrays(), name: array})
    return path


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("prior", np.ones((4, 2), int)),
        ("prior", np.full(8, 0.5)),
        ("prior", np.full((4, 2), 0.5 + 0j)),
        ("scopes", np.zeros((5, 3))),
        ("scopes", np.zeros((5, 3), bool)),
        ("tables", np.full((8, 2), 0.5)),
        ("index", np.zeros(5)),
        ("order", np.arange(9.0)),
        ("order", np.arange(9)[None]),
    ],
)
def test_arrays_are_compared_by_meaning_and_not_by_name_alone(name, array, tmp_path):
    with pytest.raises(ValueError, match=rf"problem\.npz .*the array '{name}' has"):
        LODistribution.load(meant(name, array, tmp_path / "problem.npz"))


@pytest.mark.parametrize("kind", ["compressed", "header"])
def test_a_bomb_is_refused_before_it_is_read(kind, tmp_path):
    path, shape = tmp_path / "problem.npz", (2**27, 8)  # 8 GiB of float64
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED) as archive:
        with archive.open("prior.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            for _ in range(64 if kind == "compressed" else 1):
                member.write(bytes(2**20))
        for name in ("order", "scopes", "tables", "index"):
            archive.writestr(f"{name}.npy", b"")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="compressed" if kind == "compressed" else "not as large"):
            LODistribution.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
