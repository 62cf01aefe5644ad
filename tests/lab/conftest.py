"""One finished run of every tiny configuration in ``pinned_rows/``, for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lo_theory.lab.config import load
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.task import TASKS

TINY = Path(__file__).with_name("pinned_rows")


@pytest.fixture(scope="session", params=TASKS)
def tiny_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The run of one task, made once; its figures are not rendered."""
    out = tmp_path_factory.mktemp(request.param)
    asked = Request(out, workers=1, threads=1, device="cpu")
    return execute(load(TINY / f"{request.param}.yaml"), asked, SilentProgress())
