"""Random command lines and configuration trees: explained, begun or done, never a traceback, a hang or a gigabyte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def _fuzz(count: int, seed: int, seconds: float) -> dict[str, int]:
    """How the command lines of a seed ended; in a process of its own, whose memory is limited."""
    words = [sys.executable, "-m", "tests.cli.fuzz", str(count), str(seed)]
    result = subprocess.run(words, capture_output=True, text=True, timeout=seconds, cwd=_ROOT)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    counts: dict[str, int] = json.loads(result.stdout.splitlines()[-1])
    assert sum(counts.values()) == count
    return counts


def test_a_hundred_random_command_lines_are_explained_begun_or_done() -> None:
    counts = _fuzz(100, 1, 300)
    assert all(counts.get(ending, 0) >= 3 for ending in ("refused", "began", "done")), counts


@pytest.mark.soak
def test_five_thousand_random_command_lines_are_explained_begun_or_done() -> None:
    _fuzz(5000, 2, 3600)


def test_what_is_looked_for_would_be_seen() -> None:
    """A traceback, a line that explains nothing, a hang and a gigabyte are faults."""
    code = """
import resource, signal, time
import numpy as np
from tests.cli import fuzz

def grab(line):
    np.ones(2**27).sum()
    return 0

def say(text):
    def main(line):
        raise ValueError(text) if text is None else SystemExit(3)
    return main

signal.signal(signal.SIGALRM, fuzz._alarm)
signal.signal(signal.SIGPROF, fuzz._alarm)
fuzz._SECONDS = 0.2
for main in (lambda line: 1 / 0, lambda line: time.sleep(5), grab, lambda line: 2, say("x")):
    fuzz.main = main
    assert fuzz.try_one([])[0] == "fault", main
fuzz.main = lambda line: 0
fuzz._SECONDS = 5.0
assert fuzz.try_one([])[0] == "done"
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=_ROOT)
    assert result.returncode == 0, result.stderr
