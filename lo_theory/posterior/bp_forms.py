"""How the numbers of a graph's tables are passed to the message kernels: closed forms where every table has one.

All-equal tables (NAE, colouring, their negations, with noise and with weights by value) and parity tables (q = 2) have
messages that cost k**2 q operations instead of k q**k. Imports numpy only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AllEqual", "Form", "Parity", "Table", "fields_to_one", "find_form", "tables_to_one"]

_LARGEST_CLOSED_FORM = 1024  # k**2 q**2, the operations of a factor, which the compiler unrolls


class AllEqual(NamedTuple):
    """Tables that depend on whether all arguments agree, and on which value."""

    values: tuple[float, ...]  # q ones
    arguments: tuple[float, ...]  # k ones
    entries: tuple[float, ...]  # k q ones
    unequal: NDArray[np.float64]  # [T]
    equal: NDArray[np.float64]  # [T, q]
    scaled: NDArray[np.bool_]  # [T]: whether messages are divided by their sums


class Parity(NamedTuple):
    """Tables that depend on the parity of k bits."""

    values: tuple[float, ...]  # 2 ones
    arguments: tuple[float, ...]  # k ones
    even: NDArray[np.float64]  # [T]
    odd: NDArray[np.float64]  # [T]


class Table(NamedTuple):
    """Any tables."""

    values: tuple[float, ...]  # q ones
    tables: NDArray[np.float64]  # [T, q**k]
    scaled: NDArray[np.bool_]  # [T]
    digits: NDArray[np.int64]  # [k], working memory as what follows
    before: NDArray[np.float64]  # [k + 1]
    out: NDArray[np.float64]  # [k, q]


Form = AllEqual | Parity | Table


def _digits(q: int, k: int) -> NDArray[np.intp]:
    return np.stack(np.unravel_index(np.arange(q**k), (q,) * k))


def _all_equal(tables: NDArray[np.float64], q: int, k: int, scaled: bool) -> Form | None:
    if k < 2 or (k * q) ** 2 > _LARGEST_CLOSED_FORM:
        return None
    digits = _digits(q, k)
    agree = (digits == digits[0]).all(axis=0)
    unequal, equal = tables[:, ~agree], tables[:, agree]
    if (unequal != unequal[:, :1]).any():
        return None
    # Where the unequal weight dominates, a message lies between fixed bounds and needs no scaling.
    needed = np.logical_and(scaled, (equal > unequal[:, :1]).any(axis=1))
    ones = (1.0,)
    return AllEqual(ones * q, ones * k, ones * (k * q), unequal[:, 0].copy(), np.ascontiguousarray(equal), needed)


def _parity(tables: NDArray[np.float64], q: int, k: int, scaled: bool) -> Form | None:
    if q != 2 or k < 2 or (k * q) ** 2 > _LARGEST_CLOSED_FORM:
        return None
    odd = _digits(q, k).sum(axis=0) % 2 == 1
    if (tables[:, odd] != tables[:, odd][:, :1]).any() or (tables[:, ~odd] != tables[:, ~odd][:, :1]).any():
        return None
    return Parity((1.0,) * 2, (1.0,) * k, tables[:, ~odd][:, 0].copy(), tables[:, odd][:, 0].copy())


def _table(tables: NDArray[np.float64], q: int, k: int, scaled: bool) -> Form:
    return Table(
        (1.0,) * q,
        np.array(tables),
        np.full(len(tables), scaled),
        np.zeros(k, np.int64),
        np.empty(k + 1),
        np.empty((k, q)),
    )


def tables_to_one(tables: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Tables [T, states] over powers of two 2**shift that leave largest entries in (1/2, 1], and the shifts [T].

    Errors: ValueError for a table of which a positive weight would become zero.
    """
    mantissa, shift = np.frexp(tables.max(axis=1, initial=0.0))
    shift = (shift - (mantissa == 0.5)).astype(np.int64)
    scaled = np.ldexp(tables, -shift[:, None])
    lost = (scaled == 0.0) & (tables > 0.0)
    if lost.any():
        raise ValueError(
            f"the weights {tables[lost][0]:.3g} and {tables[lost.any(axis=1)][0].max():.3g} of one table or field are "
            "too far apart for one number to hold their ratio: take 0 for the smaller one"
        )
    return scaled, shift


def fields_to_one(field: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Fields [n, q] without numbers above 1, and the sum of the shifts, as in ``tables_to_one``."""
    large = field.max(axis=1, initial=0.0) > 1.0
    if not large.any():
        return field, 0
    scaled, shift = tables_to_one(field[large])
    field = np.array(field)
    field[large] = scaled
    return field, int(shift.sum())


def find_form(tables: NDArray[np.float64], q: int, k: int, *, scaled: bool, closed: bool = True) -> Form:
    """The cheapest form that all ``tables`` float64[T, q**k] have; with ``closed`` false the general one.

    With ``scaled`` false, messages to variables come out unnormalised: the weight of the factor given the variable's
    value.
    """
    for find in (_all_equal, _parity) if closed and len(tables) else ():
        form = find(tables, q, k, scaled)
        if form is not None:
            return form
    return _table(tables, q, k, scaled)
