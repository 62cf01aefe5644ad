"""How the kernels of this room are compiled.

They allocate nothing: every array belongs to the caller, in named tuples of arrays. Numba would still count references, atomically,
to every array of a tuple at every call, which costs five times the work itself at a few microseconds a row; ``_nrt=False`` compiles
without counting, and refuses at compilation any kernel that allocates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numba import njit

__all__ = ["inlined_kernel", "kernel"]

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile a kernel that allocates nothing; it runs without the interpreter lock."""
    return njit(cache=True, nogil=True, _nrt=False)(function)  # type: ignore[no-any-return,call-overload]


def inlined_kernel(function: Function) -> Function:
    """Compile a kernel whose call must cost nothing: the body of an inner loop."""
    return njit(cache=True, nogil=True, _nrt=False, forceinline=True)(function)  # type: ignore[no-any-return,call-overload]
