"""How the kernels of belief propagation are compiled.

Division by zero gives infinity, not an exception: the callers look at what they divide by. Kernels that only kernels
call have no way in from Python, which saves most of their compilation, and allocate nothing, which saves counting
references (``_nrt``, numba's own option: see ``_compile``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.core.options import DefaultOptions

__all__ = ["inner_kernel", "kernel", "message_kernel"]

Function = TypeVar("Function", bound=Callable[..., object])

_COMMON: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
_INNER = {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    **({"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}),
}

# The compiler may drop products with a constant 0 or 1 and fuse a product with a sum (which moves last bits between
# machines); it may not reorder sums. No message is infinite or not a number.
_RELAXED = {"nnan", "ninf", "nsz", "contract"}


def kernel(function: Function) -> Function:
    """Compile a kernel that Python calls."""
    return njit(**_COMMON)(function)  # type: ignore[no-any-return,call-overload]


def inner_kernel(function: Function) -> Function:
    """Compile a kernel that only kernels call and that allocates nothing."""
    return njit(**_COMMON, **_INNER)(function)  # type: ignore[no-any-return,call-overload]


def message_kernel(function: Function) -> Function:
    """Compile the arithmetic of messages: an inner kernel with relaxed rounding, never reordered."""
    return njit(**_COMMON, **_INNER, fastmath=_RELAXED)(function)  # type: ignore[no-any-return,call-overload]
