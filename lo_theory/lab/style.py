"""The one plotting style of the project: what colour and marker stands for what, in every figure.

Plain values, no matplotlib: ``lo_theory.lab.figures`` lays ``RC`` over matplotlib's own defaults, so a figure looks the
same whatever a user's settings are. A denoiser has one colour everywhere, a policy one marker; filled and open, dark
and faint are left to the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["COLOURS", "DIVERGING", "MARKERS", "MODEL_SHADES", "NO_DATA", "RC", "SEQUENTIAL"]

COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "exact": "#1b7837",  # the exact posterior, and whatever is the truth
        "model": "#762a83",  # a masked diffusion model
        "order_aware": "#2166ac",  # a causal learner
        "bp": "#d95f02",  # belief propagation
        "paper": "#555555",  # published numbers
        "line": "#8c8c8c",  # known lines: floor, marginals only
        "alarm": "#b2182b",  # thresholds, limits that nothing may pass
    }
)
"""Who said it -> colour."""

MODEL_SHADES = ("#c2a5cf", "#9970ab", "#762a83", "#40004b")
"""Models of one kind that differ in one ordered quantity (steps, size), lightest first."""

MARKERS: Mapping[str, str] = MappingProxyType(
    {"vanilla": "o", "top_probability": "^", "margin": "D", "entropy": "s", "fixed_order": "v"}
)
"""Policy -> marker."""

SEQUENTIAL = "viridis"
"""Colour map of quantities that begin at zero."""

DIVERGING = "RdBu_r"
"""Colour map of quantities with a sign, white at zero."""

NO_DATA = "#bdbdbd"
"""Cells of a map that hold no answer: what the exact posterior refuses."""

RC: Any = MappingProxyType({"backend": "agg", "pdf.fonttype": 42})  # matplotlib types its settings name by name
"""Laid over matplotlib's defaults."""
