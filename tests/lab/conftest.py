"""One finished run of every tiny configuration in ``pinned_rows/``, and a sweep, for all tests that only read them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lo_theory.cli import main
from lo_theory.lab.config import load
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.task import TASKS
from tests.lab.grids import words

TINY = Path(__file__).with_name("pinned_rows")


def make_run(task: str, out: Path, sets: Sequence[str] = ()) -> FinishedRun:
    """Run the tiny configuration of a task as ``lo-theory run`` would."""
    asked = Request(out, workers=1, threads=1, device="cpu")
    return execute(load(TINY / f"{task}.yaml", sets=sets), asked, SilentProgress())


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FinishedRun]:
    """The run of a task, made when it is first asked for; its figures are not rendered."""

    return functools.cache(lambda task: make_run(task, tmp_path_factory.mktemp(task)))


@pytest.fixture(scope="session")
def slow_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of slow cells that no worker computed and nobody disturbed."""
    out = tmp_path_factory.mktemp("slow")
    assert main(words(out, "--serial")) == 0
    return out


@pytest.fixture(scope="session", params=TASKS)
def tiny_run(request: pytest.FixtureRequest, tiny_runs: Callable[[str], FinishedRun]) -> FinishedRun:
    """The run of one task after the other."""
    return tiny_runs(request.param)
