"""How kernels are compiled, and where they are kept: the one door to numba that all rooms use.

``jit`` compiles a kernel; ``KernelCache`` keeps what was compiled under one digest of the package's sources. With
numba's own setting NUMBA_DISABLE_JIT=1 the kernels run as plain Python, with the same numbers, for a debugger.
"""

from lo_theory.jit.cache import KernelCache
from lo_theory.jit.compiler import jit, tuple_setitem
from lo_theory.jit.packed import packed

__all__ = ["KernelCache", "jit", "packed", "tuple_setitem"]
