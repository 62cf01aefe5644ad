"""Quantities as the cells of tables show them, the same in every task: rounded, with intervals, "-" if unknown."""

from __future__ import annotations

import math

from lo_theory.diffusion.statistics import Estimate, Runs
from lo_theory.lab.summary import Measured, largest_z

__all__ = ["largest_z_text", "number", "percent", "shown", "with_error"]


def number(value: float, form: str = ".3f") -> str:
    """A number in a form, ``-`` for nan."""
    return "-" if math.isnan(value) else format(value, form)


def shown(estimate: Estimate, scale: float = 1.0, form: str = ".2f") -> str:
    """``16.40 ±1.20``: a value and half of its 95 % interval (``Estimate.half``); the value alone where there is none.

    A sign in the form, as in ``+.1f``, is the value's only.
    """
    half = estimate.half
    text = number(scale * estimate.value, form)
    return text if math.isnan(half) or text == "-" else f"{text} ±{format(scale * half, form.lstrip('+z'))}"


def with_error(runs: Runs | None, scale: float = 1.0, form: str = ".2f") -> str:
    """``shown`` of what is no share; ``-`` for None."""
    return "-" if runs is None else shown(runs.estimate(), scale, form)


def percent(measured: Measured | None, metric: str) -> str:
    """``93.4 ±0.5``: ``shown`` in per cent."""
    return "-" if measured is None else shown(measured.estimate(metric), 100, ".1f")


def largest_z_text(decode: Measured, name: str) -> str:
    """``10.9 !``: the largest |z| of a decode, marked where 999 of 1,000 exact samplers stay below."""
    value, count = decode.value(f"{name}_z"), decode.value(f"{name}_count")
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" + (" !" if value > largest_z(int(count)) else "  ")
