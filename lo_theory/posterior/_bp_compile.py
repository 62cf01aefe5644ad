"""How the kernels of belief propagation are compiled.

As those of the exact posterior (``_compile``), but division by zero gives infinity, not an exception: the callers look
at what they divide by.
"""

from __future__ import annotations

from typing import Any

from lo_theory.jit import jit
from lo_theory.posterior._compile import UNCOUNTED

__all__ = ["allocating_kernel", "kernel", "message_kernel"]

_COMMON: dict[str, Any] = {"error_model": "numpy"}

# The compiler may drop products with a constant 0 or 1 and fuse a product with a sum (which moves last bits between
# machines); it may not reorder sums. No message is infinite or not a number.
_RELAXED = {"nnan", "ninf", "nsz", "contract"}

allocating_kernel = jit(**_COMMON)
"""Compile a kernel that allocates memory."""

kernel = jit(**_COMMON, **UNCOUNTED)
"""Compile a kernel that allocates nothing, whether Python or a kernel calls it."""

message_kernel = jit(**_COMMON, **UNCOUNTED, fastmath=_RELAXED)
"""Compile the arithmetic of messages: a kernel with relaxed rounding, never reordered."""
