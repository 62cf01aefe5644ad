"""``lo-theory compile``: afterwards the usual calls find every kernel in the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lo_theory.cli import main
from tests.lab.grids import worker_processes
from tests.lab.test_sweep_pool import wait_until

_LISTEN = """
import numba
from numba.core import event

with event.install_recorder("numba:compile") as found:
    {call}
print(len({{recorded.data["dispatcher"] for _, recorded in found.buffer}}))
"""
_USUAL = """
    from lo_theory import ExactPosterior, Key, decode, generated_accuracies, nae_sat
    from lo_theory.diffusion import OneAtATime, Uniform, losses, margin
    from lo_theory.posterior import BPPosterior

    problem = nae_sat(8, 24, seed=0)
    posterior = ExactPosterior(problem)
    generated = decode(posterior, margin(), OneAtATime(), key=Key(2), n=20)
    generated_accuracies(problem, generated.tokens, Key(3))
    losses(BPPosterior(problem), posterior, problem, Uniform(), key=Key(4), n=20)
"""
_UNKNOWN = "numba.njit(lambda x: x + 1)(1)"


def compiled(call: str) -> int:
    """Kernels that a process of its own compiles for ``call``."""
    done = subprocess.run([sys.executable, "-c", _LISTEN.format(call=call)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_nothing_is_left_to_compile(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile"]) == 0
    assert capsys.readouterr().out.startswith("the kernels are compiled: ")
    assert compiled(_USUAL) == 0
    assert compiled(_UNKNOWN) == 1  # the listener hears what is not in the cache


def test_a_compilation_that_is_stopped_leaves_no_process(tmp_path: Path) -> None:
    empty = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-m", "lo_theory.cli", "compile"], env=empty) as process:
        wait_until(lambda: len(worker_processes(process.pid)) == 2)
        begun = worker_processes(process.pid)
        process.terminate()
        assert process.wait(60) == 143
    wait_until(lambda: not set(begun) & set(worker_processes()))
