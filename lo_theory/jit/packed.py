"""Named tuples that kernels pass by address.

Numba passes a tuple of a hundred arrays as some seven hundred arguments, which it takes apart and puts together again
at every call: most of what the compiler would see. A class marked ``packed`` is one address instead, of fields that do
not change while a kernel runs; a tuple within it is an address within it.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

from llvmlite import ir
from numba import typeof, types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed, lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox

__all__ = ["packed"]

Class = TypeVar("Class", bound=type)


class Packed(types.Type):  # type: ignore[misc]
    """Type of the address of a named tuple; ``plain`` is numba's own type of that tuple."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        # The name is part of the name of every kernel that takes it: short, and different for different fields.
        digest = hashlib.sha256(repr((plain.instance_class, plain.fields, plain)).encode()).hexdigest()
        super().__init__(f"{plain.instance_class.__name__}_{digest[:16]}")

    @property
    def key(self) -> Any:
        """What makes two of these types one."""
        return self.plain

    @property
    def instance_class(self) -> Any:
        """The class of the named tuple, as of numba's own type."""
        return self.plain.instance_class


@register_model(Packed)
class _Address(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, packed: Packed) -> None:
        super().__init__(manager, packed, manager.lookup(packed.plain).get_value_type().as_pointer())


@infer_getattr
class _Fields(AttributeTemplate):  # type: ignore[misc]
    key = Packed

    def generic_resolve(self, packed: Packed, name: str) -> Any:  # type: ignore[override]
        """Return the type of a field."""
        if name not in packed.plain.fields:
            return None
        kind = packed.plain.types[packed.plain.fields.index(name)]
        return Packed(kind) if isinstance(kind, types.NamedTuple) else kind


def _mark_constant(module: Any, load: Any) -> None:
    """Tell the compiler that what is loaded does not change during the call, whatever is written meanwhile."""
    word = ir.IntType(64)
    root = module.add_metadata(["lo_theory"])
    kind = module.add_metadata(["lo_theory packed", root, ir.Constant(word, 0)])
    load.set_metadata("tbaa", module.add_metadata([kind, kind, ir.Constant(word, 0), ir.Constant(word, 1)]))


@lower_getattr_generic(Packed)  # type: ignore[misc]
def _field(context: Any, builder: Any, packed: Packed, address: Any, name: str) -> Any:
    index = packed.plain.fields.index(name)
    place, kind = cgutils.gep_inbounds(builder, address, 0, index), packed.plain.types[index]
    if isinstance(kind, types.NamedTuple):
        return place
    value = builder.load(place)
    _mark_constant(builder.module, value)
    return impl_ret_borrowed(context, builder, kind, value)


@unbox(Packed)  # type: ignore[misc]
def _take_from_python(packed: Packed, instance: Any, c: Any) -> Any:
    native = c.unbox(packed.plain, instance)
    address = cgutils.alloca_once_value(c.builder, native.value)
    # The fields are written here, to memory that is constant from here on: an instruction of which the compiler cannot
    # know what it reads keeps the two apart. Without it the writes would be dropped, since nobody could see them.
    kind = ir.FunctionType(address.type, [address.type])
    address = c.builder.asm(kind, "", "=r,0,~{memory}", [address], side_effect=True)
    return NativeValue(address, is_error=native.is_error, cleanup=native.cleanup)


def packed(declared: Class) -> Class:
    """Mark a class of named tuples: kernels get the address of one, and may read its fields by name only.

    Its fields are arrays, numbers and named tuples; all named tuples within it are passed by address too.
    """

    @typeof_impl.register(declared)  # type: ignore[misc]
    def _typeof(instance: Any, c: Any) -> Packed:
        kinds = (typeof(item) for item in instance)
        return Packed(types.NamedTuple([kind.plain if isinstance(kind, Packed) else kind for kind in kinds], declared))

    return declared
