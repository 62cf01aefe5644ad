"""The one plotting style of the project: what each colour and marker means, in every figure.

Plain values, no matplotlib: ``lo_theory.lab.drawing`` lays ``RC`` over matplotlib's own defaults, so a figure looks the
same whatever a user's settings are. A denoiser has one colour everywhere, a policy one marker; filled and open, dark
and faint are left to the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "ACCURACY_MARKERS",
    "BP_SHADES",
    "CATEGORICAL",
    "COLOURS",
    "INK",
    "LAW_MARKERS",
    "MARKERS",
    "MODEL_SHADES",
    "NO_DATA",
    "ORDER_SHADES",
    "RC",
    "SEQUENTIAL",
    "SHADING",
    "VALUES",
    "marker",
]

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

ORDER_SHADES: Mapping[str, str] = MappingProxyType(
    {
        "latents_first": "#053061",
        "much_closer": "#2166ac",
        "closer": "#4393c3",
        "random": "#7fbfdd",
        "reversed": "#2a9d8f",
    }
)
"""Order-aware learners by the kind of their order: blues, the nearer to latents first the darker."""

BP_SHADES: Mapping[str, str] = MappingProxyType({"planted": "#7f2704", "random": "#d95f02", "noise": "#fdae6b"})
"""Belief propagation by where its messages start."""

CATEGORICAL = (
    *("#08519c", "#3182bd", "#6baed6", "#a6c8e4", "#a63603", "#e6550d"),
    *("#fd9a4d", "#54278f", "#006d2c", "#31a354", "#8fce8b", "#737373"),
)
"""Things without an order and without a colour of their own, by place: neighbours of one family share a hue."""

MARKERS: Mapping[str, str] = MappingProxyType(
    {"vanilla": "o", "top_probability": "^", "margin": "D", "entropy": "s", "fixed_order": "v"}
)
"""Policy -> marker."""

_OTHER_MARKERS = ("X", "h", "p", "d", "8")

ACCURACY_MARKERS: Mapping[str, str] = MappingProxyType({"conditional": "<", "infill": ">", "infill_drawn": "P"})
"""Accuracy of one pass -> marker; none is that of a policy, nor of a mask law."""

LAW_MARKERS = ("x", "+", "1", "2", "3", "4", "|", "_", (5, 2, 0), (7, 2, 0))
"""Of mask laws, by the order in which a figure meets them: strokes, where policies and accuracies have areas."""


def marker(policy: str) -> str:
    """Marker of a policy: a fixed one of those that are left for a policy that somebody added."""
    if policy in MARKERS:
        return MARKERS[policy]
    return _OTHER_MARKERS[sum(policy.encode()) % len(_OTHER_MARKERS)]


SEQUENTIAL = "viridis"
"""Colour map of quantities that begin at zero."""

NO_DATA = "#bdbdbd"
"""Cells of a map that hold no answer: what the exact posterior refuses."""

INK = "#262626"
"""Symbols in a legend that show a shape whatever its colour."""

SHADING: Mapping[str, str] = MappingProxyType({"band": "#ededed", "hard": "#fddbc7", "clustered": "#dcdcdc"})
"""Areas behind the data: a mere band, the hard phase, the phase in which a planted state is not detectable."""

VALUES = ("#2a6f97", "#e9a03b", "#6a994e", "#9d6bbd", "#c8553d", "#4d4d4d")
"""Values of a token, by value; fainter the less is known of it."""

RC: Any = MappingProxyType(  # matplotlib types its settings name by name
    {
        "backend": "agg",
        "pdf.fonttype": 42,
        "savefig.dpi": 160,
        "figure.constrained_layout.use": True,
        "figure.titlesize": 13,
        "figure.titleweight": "bold",
        "font.size": 9,
        "axes.labelsize": 9,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.labelcolor": INK,
        "axes.edgecolor": "#6b6b6b",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#e9e9e9",
        "grid.linewidth": 0.6,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "xtick.color": "#6b6b6b",
        "ytick.color": "#6b6b6b",
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.3,
        "lines.markersize": 5,
        "image.cmap": SEQUENTIAL,
    }
)
"""Laid over matplotlib's defaults."""
