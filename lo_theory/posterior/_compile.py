"""How the kernels of this room are compiled.

They allocate nothing: every array belongs to the caller, in named tuples of arrays. Numba would still count references,
atomically, to every array of a tuple at every call, which costs five times the work itself at a few microseconds a row;
``_nrt=False`` compiles without counting, and refuses at compilation any kernel that allocates. The option is numba's
own (it is how its runtime compiles itself, in 0.61 as in 0.68); a numba that does not know it compiles the same
kernels, slower to run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.core.options import DefaultOptions

__all__ = ["inlined_kernel", "inner_kernel", "kernel"]

Function = TypeVar("Function", bound=Callable[..., object])

_UNCOUNTED: dict[str, Any] = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}


def kernel(function: Function) -> Function:
    """Compile a kernel that allocates nothing; it runs without the interpreter lock."""
    return njit(cache=True, nogil=True, **_UNCOUNTED)(function)  # type: ignore[no-any-return,call-overload]


def inner_kernel(function: Function) -> Function:
    """Compile a kernel that only kernels call: Python must not, there is no way in. Unpacking tuples is most of a
    compilation.
    """
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **_UNCOUNTED}
    return njit(cache=True, nogil=True, **options)(function)  # type: ignore[no-any-return,call-overload]


def inlined_kernel(function: Function) -> Function:
    """Compile an inner kernel whose call must cost nothing: the body of an inner loop."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True, **_UNCOUNTED}
    return njit(cache=True, nogil=True, **options)(function)  # type: ignore[no-any-return,call-overload]
