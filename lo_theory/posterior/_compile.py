"""How the kernels of this room are compiled.

They allocate nothing: every array belongs to the caller, in named tuples of arrays. Numba would still count references,
atomically, to every array of a tuple at every call, which costs five times the work itself at a few microseconds a row;
``_nrt=False`` compiles without counting, and refuses at compilation any kernel that allocates. The option is numba's
own (it is how its runtime compiles itself, in 0.61 as in 0.68); a numba that does not know it compiles the same
kernels, slower to run.
"""

from __future__ import annotations

from typing import Any

from numba.core.options import DefaultOptions

from lo_theory.jit import jit

__all__ = ["UNCOUNTED", "inlined_kernel", "kernel"]

UNCOUNTED: dict[str, Any] = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}
"""Options of a kernel that allocates nothing."""

kernel = jit(**UNCOUNTED)
"""Compile a kernel that allocates nothing; it runs without the interpreter lock."""

inlined_kernel = jit(forceinline=True, **UNCOUNTED)
"""Compile a kernel whose call must cost nothing: the body of an inner loop."""
