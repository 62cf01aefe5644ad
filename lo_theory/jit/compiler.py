"""The decorator that compiles a kernel, once for Python and once for the kernels that call it.

For a kernel called from a kernel numba optimises and assembles each with all it calls, then its callers with it again,
up to the top: most of the time of compilation. Here a kernel in a kernel is a *part*: typed and lowered, but optimised
and assembled only within the kernel that Python calls. What runs is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import _dynfunc, njit, types  # type: ignore[attr-defined]
from numba.core import config
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.cpython.unsafe import tuple as unsafe_tuple

from lo_theory.jit.cache import KernelCache

__all__ = ["jit", "tuple_setitem"]


Function = TypeVar("Function", bound=Callable[..., object])


class _Part(JITCodeLibrary):  # type: ignore[misc]
    """Code to link into that of a caller: never optimised or assembled by itself."""

    def add_llvm_module(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout
        self._final_module.link_in(ll_module)

    def finalize(self) -> None:
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True


def _without_address(library: Any, fndesc: Any, env: Any) -> Any:
    """Represent a compiled function that has no address: numba names a part by this object."""
    library._ensure_finalized()
    name = fndesc.qualname.split(".")[-1]
    return _dynfunc.make_function(fndesc.lookup_module(), name, f"part {name}", 0, env, (library,))


class _PartCompiler(CompilerBase):  # type: ignore[misc]
    def define_pipelines(self) -> list[Any]:
        state = self.state
        state.library = _Part(state.targetctx.codegen(), state.func_id.func_qualname)
        state.targetctx.get_executable = _without_address  # the context is a copy, of this compilation only
        return [DefaultPassBuilder.define_nopython_pipeline(state)]


def _plain(kind: Any) -> Any:
    """Widen a signed integer to 64 bits, and drop what numba knows of a constant: one part serves all of them."""
    kind = types.unliteral(kind)
    return types.int64 if isinstance(kind, types.Integer) and kind.signed else kind  # type: ignore[attr-defined]


def _add_part(entry: Any, function: Callable[..., object], options: dict[str, Any]) -> None:
    """Let kernels that call ``entry`` link a part of their own in its place."""
    compiled: Any = njit(pipeline_class=_PartCompiler, no_cpython_wrapper=True, **options)  # type: ignore[call-overload]
    part = compiled(function)
    template = part.get_call_template

    def plain_template(args: Any, kws: Any) -> Any:
        return template([_plain(kind) for kind in args], {name: _plain(kind) for name, kind in kws.items()})

    entry.get_call_template, entry.get_overload = plain_template, part.get_overload


def jit(*, separately: bool = False, **options: Any) -> Callable[[Function], Function]:
    """Compile a kernel with numba's ``options``, and keep it (``cache.KernelCache``); it releases the interpreter lock.

    Compiled once a version of the package, processor and types of arguments, at the first call from Python, with all it
    calls; signed integers from kernels are 64 bits wide. ``separately``: optimised by itself, and again within kernels
    that call it, which takes longer and gives faster loops over words of bits. With NUMBA_DISABLE_JIT=1 the function
    itself, with the arithmetic of machine words.
    """

    def declare(function: Function) -> Function:
        """Compile ``function``."""
        if config.DISABLE_JIT:  # type: ignore[attr-defined]
            return np.errstate(all="ignore")(function)
        chosen = {"nogil": True, "no_cfunc_wrapper": True, **options}
        entry: Any = njit(**chosen)(function)
        entry._cache = KernelCache(function)
        if not separately:
            _add_part(entry, function, chosen)
        return entry  # type: ignore[no-any-return]

    return declare


def _with_item(items: tuple[Any, ...], index: int, value: Any) -> tuple[Any, ...]:
    return (*items[:index], value, *items[index + 1 :])


tuple_setitem: Any = _with_item if config.DISABLE_JIT else unsafe_tuple.tuple_setitem  # type: ignore[attr-defined]
"""``tuple_setitem(items, index, value)``: the tuple with one item exchanged; in a kernel it costs nothing."""
