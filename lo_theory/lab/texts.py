"""Quantities as the cells of tables show them, the same in every task: rounded, with intervals, "-" if unknown."""

from __future__ import annotations

import math

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.summary import Measured, largest_z

__all__ = ["largest_z_text", "number", "percent", "with_error"]


def number(value: float, form: str = ".3f") -> str:
    """A number in a form, ``-`` for nan."""
    return "-" if math.isnan(value) else format(value, form)


def with_error(sums: Sums | None, scale: float = 1.0, form: str = ".2f") -> str:
    """``16.40 ±1.20``: a mean and half of its 95 % interval."""
    if sums is None or math.isnan(sums.mean):
        return "-"
    low, high = sums.interval()
    shown = format(scale * sums.mean, form)
    return shown if math.isnan(low) else f"{shown} ±{format(scale * (high - low) / 2, form)}"


def percent(measured: Measured | None, metric: str) -> str:
    """``93.4 ±0.5``: per cent, and the larger half of the 95 % interval."""
    if measured is None or math.isnan(measured.value(metric)):
        return "-"
    value, (low, high) = measured.value(metric), measured.interval(metric)
    half = max(high - value, value - low)
    return f"{100 * value:.1f}" if math.isnan(half) else f"{100 * value:.1f} ±{100 * half:.1f}"


def largest_z_text(decode: Measured, name: str) -> str:
    """``10.9 !``: the largest |z| of a decode, marked where 999 of 1,000 exact samplers stay below."""
    value, count = decode.value(f"{name}_z"), decode.value(f"{name}_count")
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" + (" !" if value > largest_z(int(count)) else "  ")
