"""How the kernels of belief propagation are compiled.

Division by zero gives infinity, not an exception: the callers look at what they divide by. Kernels that only kernels
call allocate nothing, which saves counting references (``_nrt``, numba's own option: see ``_compile``).
"""

from __future__ import annotations

from typing import Any

from numba.core.options import DefaultOptions

from lo_theory.jit import jit

__all__ = ["kernel", "message_kernel", "plain_kernel"]

_COMMON: dict[str, Any] = {"error_model": "numpy"}
_UNCOUNTED: dict[str, Any] = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}

# The compiler may drop products with a constant 0 or 1 and fuse a product with a sum (which moves last bits between
# machines); it may not reorder sums. No message is infinite or not a number.
_RELAXED = {"nnan", "ninf", "nsz", "contract"}

kernel = jit(**_COMMON)
"""Compile a kernel that Python calls."""

plain_kernel = jit(**_COMMON, **_UNCOUNTED)
"""Compile a kernel that allocates nothing, whether Python or a kernel calls it."""

message_kernel = jit(**_COMMON, **_UNCOUNTED, fastmath=_RELAXED)
"""Compile the arithmetic of messages: a plain kernel with relaxed rounding, never reordered."""
