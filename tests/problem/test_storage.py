"""Files: a problem comes back bit for bit; foreign and damaged files are refused, unexecuted.

A write is whole or absent.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lo_theory.problem import LODistribution, nae_sat, random_slab
from lo_theory.problem.storage import write_atomically
from lo_theory.rng import Key
from tests.problem.problems import problems


@pytest.fixture
def saved(tmp_path):
    return nae_sat(4, 5, seed=1, noise=0.1).save(tmp_path / "problem.npz")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems)
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
