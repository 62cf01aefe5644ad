"""``lo-theory compile``: afterwards the usual calls find every kernel in the cache."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from lo_theory.cli import main
from tests.lab.grids import worker_processes
from tests.processes import command, wait_until

_LISTEN = """
import numba
from numba.core import event

with event.install_recorder("numba:compile") as found:
    {call}
print(len({{recorded.data["dispatcher"] for _, recorded in found.buffer}}))
"""
_USUAL = """
    from lo_theory import ExactPosterior, Key, decode, generated_accuracies, nae_sat
    from lo_theory.diffusion import POLICIES, OneAtATime, Uniform, losses
    from lo_theory.posterior import BPPosterior

    problem = nae_sat(8, 24, seed=0)
    posterior = ExactPosterior(problem)
    for make in POLICIES.values():
        generated = decode(posterior, make(), OneAtATime(), key=Key(2), n=20)
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


def test_a_compilation_that_is_stopped_leaves_no_process() -> None:
    """Also where nothing is left to compile its two processes take a second to begin."""
    with command("compile") as process:
        wait_until(lambda: len(worker_processes(process.pid)) == 2)
        begun = worker_processes(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 143
    wait_until(lambda: not set(begun) & set(worker_processes()))
