"""The front door of the package: kernels compiled before a source file changed are forgotten."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import lo_theory


def test_importing_forgets_kernels_older_than_a_source_file_with_kernels(tmp_path: Path) -> None:
    package = tmp_path / "lo_theory"
    (package / "room" / "__pycache__").mkdir(parents=True)
    shutil.copy(lo_theory.__file__, package / "__init__.py")
    stale, fresh = (package / "room" / "__pycache__" / name for name in ("stale.nbi", "fresh.nbi"))
    for path, when in (
        (stale, 1_000),
        (package / "rng.py", 2_000),
        (package / "room" / "_kernels.py", 3_000),
        (fresh, 4_000),
    ):
        path.touch()
        os.utime(path, (when, when))
    subprocess.run([sys.executable, "-c", "import lo_theory"], cwd=tmp_path, check=True)
    assert not stale.exists()
    assert fresh.exists()
