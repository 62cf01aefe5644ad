"""Kept kernels are those of the sources: after an update, with damaged files, in folders that cannot be written.

Each case runs processes of its own on a small package that has this one's ``jit`` and a kernel of two files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lo_theory.jit
from lo_theory.jit import cache

_FORM = """
from typing import NamedTuple
from lo_theory.jit import packed

@packed
class Form(NamedTuple):
    high: float
    low: float
"""
_INNER = """
from lo_theory.jit import jit

@jit()
def difference(high, low):
    return high - low
"""
_KERNELS = """
from lo_theory.jit import jit
from lo_theory.posterior._inner_kernels import difference

@jit()
def answer(form):
    return difference(form.high, form.low)
"""
_RUN = """
import json
from numba.core import event
from lo_theory.posterior._kernels import answer
from lo_theory.posterior.forms import Form
{before}
with event.install_recorder("numba:compile") as found:
    value = answer(Form({values}))
print(json.dumps([value, len(found.buffer) // 2]))  # a beginning and an end each
"""
_LONG_AGO = 1_000_000_000


class Package:
    """A small copy of the package in a folder of its own, with an environment for its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "lo_theory"
        shutil.copytree(Path(lo_theory.jit.__file__).parent, self.root / "jit", ignore=shutil.ignore_patterns("__py*"))
        self.write("__init__.py", "")
        self.write("rng.py", "")
        self.write("posterior/__init__.py", "")
        self.write("posterior/forms.py", _FORM)
        self.write("posterior/_inner_kernels.py", _INNER)
        self.write("posterior/_kernels.py", _KERNELS)
        self.environment = {**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
        self.environment |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        self.environment.pop("NUMBA_CACHE_DIR", None)

    def write(self, name: str, text: str, when: float | None = None) -> None:
        """Write a source file, with a time of its own."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if when is not None:
            os.utime(path, (when, when))

    def start(self, values: str = "high=5.0, low=2.0", before: str = "") -> subprocess.Popen[str]:
        """Start a process that calls the kernel."""
        command = [sys.executable, "-c", _RUN.format(values=values, before=before)]
        where = {"cwd": self.folder, "env": self.environment}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **where)

    def run(self, values: str = "high=5.0, low=2.0", before: str = "") -> tuple[float, int, str]:
        """Call the kernel in a process: its answer, how much was compiled, and what was said."""
        process = self.start(values, before)
        shown, said = process.communicate()
        assert process.returncode == 0, said
        value, compiled = json.loads(shown)
        return value, compiled, said

    def kept(self) -> list[Path]:
        """All files of kept kernels."""
        return sorted(self.folder.rglob("*.kernel"))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


@pytest.mark.parametrize("arrangement", ["in the package", "NUMBA_CACHE_DIR", "package not writeable"])
def test_an_updated_source_gives_the_new_numbers(package: Package, arrangement: str) -> None:
    if arrangement == "NUMBA_CACHE_DIR":
        package.environment["NUMBA_CACHE_DIR"] = str(package.folder / "mine")
    if arrangement == "package not writeable":
        (package.root / "__pycache__").write_text("a file, so that nobody can make the folder, not even root")
    assert package.run()[:2] == (3.0, 2)
    where = {"NUMBA_CACHE_DIR": "mine", "package not writeable": "cache/lo_theory"}.get(
        arrangement, "lo_theory/__pycache__"
    )
    assert [path.parents[1] for path in package.kept()] == [package.folder / where]
    assert package.run()[:2] == (3.0, 0)
    # Two fields exchanged in a file without kernels, and a kernel that is called; both with times long gone.
    swapped = _FORM.replace("high: float\n    low: float", "low: float\n    high: float")
    package.write("posterior/forms.py", swapped, _LONG_AGO)
    assert package.run()[:2] == (3.0, 2)
    package.write("posterior/_inner_kernels.py", _INNER.replace("high - low", "high + low"), _LONG_AGO)
    assert package.run()[:2] == (7.0, 2)
    assert package.run()[:2] == (7.0, 0)


def test_only_sources_that_kernels_are_made_of_count(package: Package) -> None:
    package.run()
    package.write("lab/rows.py", "x = 1")
    package.write("neural/__init__.py", "")
    (package.root / "posterior" / ".#_kernels.py").symlink_to("somebody@somewhere.1:2")  # as Emacs locks a file
    assert package.run()[:2] == (3.0, 0)
    for source in ("diffusion/masks.py", "neural/_kernels.py"):
        package.write(source, "")
        assert package.run()[:2] == (3.0, 2)


def test_a_time_in_the_future_compiles_once(package: Package) -> None:
    ahead = time.time() + 1e9
    package.write("posterior/_kernels.py", _KERNELS, ahead)
    assert package.run()[:2] == (3.0, 2)
    assert package.run()[:2] == (3.0, 0)


def test_a_damaged_file_is_made_again(package: Package) -> None:
    package.run()
    (kept,) = package.kept()
    whole = kept.read_bytes()
    for damaged in (whole[:100], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        kept.write_bytes(damaged)
        assert package.run() == (3.0, 2, "")
        assert kept.stat().st_size == len(whole)


def test_what_others_can_write_to_is_not_loaded(package: Package) -> None:
    package.run()
    (kept,) = package.kept()
    kept.chmod(0o666)
    assert package.run()[:2] == (3.0, 2)
    assert package.run()[:2] == (3.0, 0)  # the file was replaced by one of this user's own
    kept.parent.chmod(0o777)
    assert package.run()[:2] == (3.0, 2)
    assert kept.parent.name == package.kept()[-1].parent.name  # kept in the user's cache now
    assert package.run()[:2] == (3.0, 0)


def test_kernels_of_modules_outside_the_digest_are_not_kept(package: Package) -> None:
    code = "from lo_theory.jit import jit\n\n@jit()\ndef own(x):\n    return x + {}\n"
    for number in (1.0, 2.0):
        (package.folder / "mine.py").write_text(code.format(number))
        before = "import mine; print(mine.own(0.0))"
        process = package.start(before=before)
        shown, said = process.communicate()
        assert (float(shown.split()[0]), said) == (number, "")
    assert all("own" not in path.name for path in package.kept())


def test_without_a_folder_that_can_be_written_it_computes_and_says_so_once(package: Package) -> None:
    for name in ("lo_theory/__pycache__", "cache"):
        (package.folder / name).write_text("a file")
    value, compiled, said = package.run(before="answer(Form(high=1, low=2))")
    assert (value, compiled) == (3.0, 2)
    assert said.count("compiled kernels cannot be kept") == said.count("set NUMBA_CACHE_DIR to a folder") == 1


def test_processes_that_start_together_keep_one_kernel(package: Package) -> None:
    processes = [package.start(values) for values in ("high=5.0, low=2.0", "high=5, low=2", "high=5.0, low=2")]
    answers = [json.loads(process.communicate()[0])[0] for process in processes]
    assert answers == [3.0, 3, 3.0]
    assert len(package.kept()) == 3
    for values in ("high=5.0, low=2.0", "high=5, low=2", "high=5.0, low=2"):
        assert package.run(values)[:2] == (3.0, 0)


def test_a_process_keeps_nothing_once_the_sources_have_changed(package: Package) -> None:
    change = f"open({str(package.root / 'posterior' / 'forms.py')!r}, 'a').write('# changed')"
    assert package.run(before=change)[:2] == (3.0, 2)
    assert package.kept() == []


def test_folders_of_other_versions_go_when_long_unused(tmp_path: Path) -> None:
    folders = [tmp_path / f"lo_theory-kernels-{number:02}" for number in range(20)]
    for age, folder in enumerate(folders):
        folder.mkdir()
        (folder / "some.kernel").touch()
        os.utime(folder, (time.time() - 600 * age,) * 2)
    cache._forget_others(folders[15])
    # The seven used last, the one asked for, and all used within the hour.
    assert sorted(tmp_path.iterdir()) == [*folders[:7], folders[15]]


def test_parts_that_killed_processes_left_go_after_an_hour(tmp_path: Path) -> None:
    folder, other = tmp_path / "lo_theory-kernels-new", tmp_path / "lo_theory-kernels-old"
    ages = {"a.kernel": 1e6, "a.kernel.0123456789abcdef": 3700, "b.kernel.0123456789abcdef": 3500}
    for place in (folder, other):
        place.mkdir()
        for name, age in ages.items():
            (place / name).touch()
            os.utime(place / name, (time.time() - age,) * 2)
    cache._forget_others(folder)
    for place in (folder, other):
        assert sorted(path.name for path in place.iterdir()) == ["a.kernel", "b.kernel.0123456789abcdef"]
