"""The network through torch.compile, and errors that say what is missing. Touches torch's compiler only."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["compile_network", "compiling"]

_REMEDY = "install one, or train with compile = false"


def compile_network(network: nn.Module, device: torch.device) -> nn.Module:
    """The network compiled for ``device``: its forward and backward, not the loss and not the optimiser.

    Shapes are fixed: each number of rows is compiled for itself, when it first comes (a batch has at most two of
    them, the microbatch and what is left). The weights are shared with ``network``, which stays as it is. ValueError
    where the compiler that torch needs is not there.
    """
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise ValueError(f"compile = true needs triton on {device}, which is not installed: {_REMEDY}")
    else:
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        if shutil.which(compiler) is None:
            raise ValueError(
                f"compile = true needs a C++ compiler on {device}: {compiler!r} is not there (CXX names another); "
                f"{_REMEDY}"
            )
    compiled: nn.Module = torch.compile(network, dynamic=False)  # type: ignore[assignment]
    return compiled


@contextmanager
def compiling() -> Iterator[None]:
    """Turn what the compiler raises, when a shape first comes, into a ValueError with a remedy."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"torch.compile failed ({reason}): mend the compiler, or use compile = false") from error
