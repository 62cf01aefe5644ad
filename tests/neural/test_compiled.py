from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lo_theory.neural import TransformerConfig, load, train
from lo_theory.neural.compiled import compile_network, compiling
from tests.neural.small import KEY, LENGTH, NETWORK, OBJECTIVE, TRAINING

TINY = TransformerConfig(layers=1, heads=1, width=8, inner=8, n_values=2, length=LENGTH)
COMPILED = replace(TRAINING, steps=4, log_every=2, compile=True)


def test_a_computer_without_a_compiler_is_told_so_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    path = tmp_path / "model"
    with pytest.raises(ValueError, match=r"C\+\+ compiler on cpu: 'no-such-compiler' .*compile = false"):
        train(NETWORK, COMPILED, OBJECTIVE, KEY, checkpoint=path)
    assert not path.exists()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"'(g|clang)\+\+' is not there"):
        compile_network(torch.nn.Linear(2, 2), torch.device("cpu"))


def test_a_gpu_without_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs triton on cuda:1"):
        compile_network(torch.nn.Linear(2, 2), torch.device("cuda", 1))


def test_what_the_compiler_raises_has_a_remedy_and_everything_else_passes() -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    def backend() -> None:
        """Stands for a compiler."""

    with pytest.raises(ValueError, match=r"torch\.compile failed .*compile = false"), compiling():
        raise BackendCompilerFailed(backend, RuntimeError("ld: cannot find -lfoo"), None)
    with pytest.raises(KeyError), compiling():
        raise KeyError("something else")


RUN = """
import json, sys
from lo_theory.neural import train
from tests.neural.small import KEY, OBJECTIVE
from tests.neural.test_compiled import COMPILED, TINY

trained = train(TINY, COMPILED, OBJECTIVE, KEY, checkpoint=sys.argv[1])
assert type(trained.model).__name__ == "Transformer"
"""


def run(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the compiler keeps much in memory, and what it has built in a folder."""
    variables = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(path.parent / "built"), **environment}
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", RUN, str(path)], env=variables, cwd=root, capture_output=True, text=True
    )


def compare(path: Path, **change: Any) -> None:
    config = replace(COMPILED, compile=False, **change)
    plain = train(TINY, config, OBJECTIVE, KEY).model.state_dict()
    stored = load(path)
    assert stored.header["training"]["compile"] is True
    for name, value in plain.items():
        torch.testing.assert_close(stored.tensors[f"model/{name}"], value, rtol=1e-3, atol=1e-4)


@pytest.mark.soak
def test_a_compiled_network_learns_the_same_up_to_rounding(tmp_path: Path) -> None:
    path = tmp_path / "model"
    done = run(path)
    assert done.returncode == 0, done.stderr
    compare(path)
    with pytest.raises(AssertionError):
        compare(path, learning_rate=2e-3)
    with pytest.raises(ValueError, match=r"training\.compile is True, expected False"):
        train(TINY, replace(COMPILED, compile=False), OBJECTIVE, KEY, checkpoint=path)


@pytest.mark.soak
def test_a_compiler_that_fails_is_named_with_the_remedy(tmp_path: Path) -> None:
    broken = tmp_path / "broken-compiler"
    broken.write_text("#!/bin/sh\necho no space in this compiler >&2\nexit 1\n")
    broken.chmod(0o755)
    done = run(tmp_path / "model", CXX=str(broken))
    assert done.returncode != 0
    assert "ValueError: torch.compile failed" in done.stderr
    assert load(tmp_path / "model").header["step"] == 0
