"""The panels of the hardness map: each draws one quantity, or one kind of mark, on the axes it is given.

x is the mask rate of the latents, y that of the observations: everything is hidden at the upper right. Thresholds stand
on the right edge, where all latents are hidden; filled: all observations count, open: the satisfied ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.lab.hardness.tables import Cell, Mark, Problem
from lo_theory.lab.style import COLOURS, INK, NO_DATA, SEQUENTIAL
from lo_theory.lab.summary import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "PATHS",
    "QUANTITIES",
    "RATIO_PANELS",
    "Quantity",
    "Ratios",
    "dashes_of",
    "draw_gap",
    "draw_marks",
    "draw_paths",
    "draw_threshold_curves",
    "gap_found",
    "gap_panel",
    "marker_of",
    "name_of",
    "plane_panel",
    "ratio_panel",
]

Ratios = Mapping[float, Mapping[tuple[float, float], Cell]]

_LEAST, _MOST = 1e-4, 10.0  # of logarithmic colours, nats
_SYMBOLS = {"dynamic": "o", "condensation": "s", "kesten_stigum": "D"}
_DASHES = {"all": "-", "satisfied": "--"}
_GAP = 0.02  # of the overlaps, below which two starts count as one


@dataclass(frozen=True)
class Quantity:
    """A quantity to draw: whose, which, its title; ``top`` None: logarithmic colours of its absolute value."""

    posterior: str
    metric: str
    title: str
    top: float | None = None


_JOINT = Quantity("exact", "joint_entropy", "Exact: joint entropy left,\nnats per hidden latent", math.log(2))
_KL = Quantity("bp", "kl_latent", "Belief propagation: KL from exact,\nnats per hidden latent")
_EVIDENCE = Quantity("bp", "evidence_error", "Belief propagation: |error of ln P(context)|,\nnats per hidden latent")

QUANTITIES = (
    Quantity("exact", "latent_entropy", "Exact: entropy of single marginals,\nnats per hidden latent", math.log(2)),
    _JOINT,
    Quantity("exact", "token_entropy", "Exact: entropy of single marginals,\nnats per hidden token", math.log(2)),
    Quantity("exact", "deterministic", "Share of contexts whose\nlatents are determined", 1.0),
    _KL,
    _EVIDENCE,
    Quantity("bp", "converged", "Belief propagation:\nshare of contexts converged", 1.0),
    Quantity("model", "kl_latent", "Trained model: KL from exact,\nnats per hidden latent"),
    Quantity("model", "kl_token", "Trained model: KL from exact,\nnats per hidden token"),
)
"""In the order in which they are drawn."""

RATIO_PANELS = ((_JOINT, "edge"), (_EVIDENCE, "edge"), (_JOINT, "diagonal"), (_KL, "diagonal"))
"""Quantities against P/N: on the edge with all latents hidden, and along equal rates."""


def name_of(problem: Problem, *, with_pair: bool) -> str:
    """``N = 20, P = 280``, or ``N = 20`` where there is no map."""
    return f"N = {problem.N}, P = {problem.P}" if with_pair else f"N = {problem.N}"


def _edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Borders of cells around their centres."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _heat(axes: Axes, x: Sequence[float], y: Sequence[float], values: Any, quantity: Quantity) -> None:
    """A heat map with its colour bar; what is nan is grey."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize

    palette = colormaps[SEQUENTIAL].with_extremes(bad=NO_DATA)
    shown = np.ma.masked_invalid(np.asarray(values, np.float64))
    if quantity.top is None:
        norm: Normalize = LogNorm(_LEAST, _MOST)
        shown = np.ma.clip(np.abs(shown), _LEAST, _MOST)
    else:
        norm = Normalize(0.0, quantity.top)
    mesh = axes.pcolormesh(_edges(np.array(x)), _edges(np.array(y)), shown, norm=norm, cmap=palette, rasterized=True)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.09 if quantity.title else 0.02, shrink=0.9, extend="neither")
    if quantity.top is not None and abs(quantity.top - math.log(2)) < 1e-9:
        bar.set_ticks([0, 0.2, 0.4, 0.6, math.log(2)], labels=["0", "0.2", "0.4", "0.6", "ln 2"])
    elif quantity.top is None:
        bar.set_ticks([_LEAST, 1e-3, 1e-2, 0.1, 1, _MOST], labels=["≤10⁻⁴", "10⁻³", "10⁻²", "0.1", "1", "10"])
    axes.set_title(quantity.title)
    axes.grid(visible=False)


def _value(cell: Cell | None, quantity: Quantity) -> float:
    """What is drawn of a cell: nothing where the exact posterior refuses half of the contexts or more."""
    if cell is None or cell.refused >= 0.5:
        return math.nan
    return cell.value(quantity.posterior, quantity.metric)


def plane_panel(axes: Axes, plane: Mapping[tuple[float, float], Cell], quantity: Quantity) -> None:
    """One quantity over the plane of mask rates; dots: some contexts were refused; white: nothing is asked."""
    x, y = (sorted({place[i] for place in plane}) for i in (0, 1))
    _heat(axes, x, y, [[_value(plane.get((a, b)), quantity) for a in x] for b in y], quantity)
    asked = quantity.metric not in ("latent_entropy", "joint_entropy", "kl_latent", "evidence_error")
    for a, b in [(a, b) for a in x for b in y]:
        cell = plane.get((a, b))
        if cell is None or (a == 0 and not asked):  # nothing hidden, or no latent: there is no such number
            left, right = _edges(np.array(x))[x.index(a) : x.index(a) + 2]
            low, high = _edges(np.array(y))[y.index(b) : y.index(b) + 2]
            axes.fill([left, right, right, left], [low, low, high, high], color="white", linewidth=0)
        elif cell.refused > 0:
            axes.plot(a, b, ".", color=INK, markersize=3)
    axes.set_xlabel("mask rate of latents, a")
    axes.set_ylabel("mask rate of observations, b")
    axes.set_aspect("auto")


PATHS: dict[str, tuple[list[float], list[float], dict[str, Any]]] = {
    "masked diffusion (equal rates)": ([1, 0], [1, 0], {"color": COLOURS["model"]}),
    "order-aware learner (latents first)": ([1, 0, 0], [1, 1, 0], {"color": COLOURS["order_aware"]}),
}


def _outlined(width: float) -> Any:
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=width + 2.2, foreground="white"), Normal()]


def draw_paths(axes: Axes) -> None:
    """The paths that generation walks from everything hidden to nothing hidden."""
    for x, y, style in PATHS.values():
        axes.plot(x, y, linewidth=2.8, path_effects=_outlined(2.8), clip_on=False, zorder=3, **style)
        for i in range(len(x) - 1):
            middle = ((x[i] + x[i + 1]) / 2, (y[i] + y[i + 1]) / 2)
            ahead = (middle[0] + 0.02 * (x[i + 1] - x[i]), middle[1] + 0.02 * (y[i + 1] - y[i]))
            head = {"facecolor": style["color"], "edgecolor": "white", "linewidth": 0.8}  # seen on any ground
            arrow = {"arrowstyle": "-|>", "mutation_scale": 22, **head}
            axes.annotate("", xy=ahead, xytext=middle, arrowprops=arrow, annotation_clip=False, zorder=4)


def dashes_of(name: str, observed: str) -> dict[str, Any]:
    """Line of a threshold against P/N: dashed where the satisfied observations count, thinner below Kesten-Stigum."""
    return {"linestyle": _DASHES[observed], "linewidth": 1.8 if name == "kesten_stigum" else 1.0}


def marker_of(mark: Mark) -> dict[str, Any]:
    """Symbol of a threshold: filled where all observations count."""
    face = COLOURS["alarm"] if mark.observed == "all" else "white"
    return {"marker": _SYMBOLS[mark.name], "color": COLOURS["alarm"], "markerfacecolor": face, "markersize": 7.5}


def draw_marks(axes: Axes, found: Sequence[Mark]) -> None:
    """Thresholds on the right edge, with their errors; those outside of [0, 1] are left to the legend."""
    right = max(axes.get_xlim()[1], 1.0)
    for mark in found:
        rate = mark.rate()
        if 0 <= rate <= 1:
            axes.errorbar(
                right,
                rate,
                yerr=mark.rate_error,
                linestyle="",
                elinewidth=1.4,
                clip_on=False,
                zorder=6,
                **marker_of(mark),
            )
    axes.set_xlim(right=right)


def _surface(starts: Sequence[Measured]) -> tuple[list[float], list[float], NDArray[np.float64]]:
    """Mask rates of latents and observations of population dynamics, and the gap of the overlaps [b, a]."""
    gap = {
        (item.keys["a"], item.keys["b"]): item.value("planted") - item.value("uninformed")
        if item.value("coexist")
        else 0.0
        for item in starts
    }
    x, y = (sorted({float(place[i]) for place in gap}) for i in (0, 1))
    return x, y, np.array([[gap.get((a, b), math.nan) for a in x] for b in y])


def gap_found(starts: Sequence[Measured]) -> bool:
    """Whether the two starts end apart anywhere."""
    return any(item.value("coexist") and item.value("planted") - item.value("uninformed") > _GAP for item in starts)


def draw_gap(axes: Axes, starts: Sequence[Measured]) -> None:
    """Hatching where the two starts of population dynamics end apart, outlined; by what is observed."""
    for observed, dash in _DASHES.items():
        own = [item for item in starts if item.keys["observed"] == observed]
        x, y, gap = _surface(own) if own else ([], [], np.zeros((0, 0)))
        if min(gap.shape, default=0) < 2 or not (gap > _GAP).any():
            continue
        white: dict[str, Any] = {"colors": "white", "linewidths": 1.4, "linestyles": dash, "zorder": 2}
        axes.contour(x, y, gap, levels=[_GAP], **white)
        filled = axes.contourf(x, y, gap, levels=[_GAP, 1.0], colors="none", hatches=["///"], zorder=2)
        filled.set_edgecolor("white")
        filled.set_linewidth(0)


def gap_panel(axes: Axes, starts: Sequence[Measured], observed: str) -> None:
    """Overlap from the planted start less that from the uninformed one, each point on its own grid."""
    x, y, gap = _surface(starts)
    title = f"Population dynamics ({observed} observations):\nplanted less uninformed overlap"
    _heat(axes, x, y, gap, Quantity("", "", title, 1.0))
    axes.set_xlabel("mask rate of latents, a")
    axes.set_ylabel("mask rate of observations, b")
    if not (gap > _GAP).any():
        axes.text(
            0.5, 0.5, "no difference\nat any point", transform=axes.transAxes, ha="center", va="center", color="white"
        )


def ratio_panel(axes: Axes, ratios: Ratios, quantity: Quantity, form: str) -> None:
    """One quantity against P/N (logarithmic), along the edge a = 1 or the diagonal a = b."""
    chosen = {"edge": lambda a, b: a == 1, "diagonal": lambda a, b: a == b}[form]
    labels = {"edge": "mask rate of observations, b (a = 1)", "diagonal": "mask rate of both, a = b"}
    rates = sorted({b for places in ratios.values() for a, b in places if chosen(a, b)})
    values = [
        [_value(places.get((1.0 if form == "edge" else b, b)), quantity) for places in ratios.values()] for b in rates
    ]
    _heat(axes, [math.log(ratio) for ratio in ratios], rates, values, quantity)
    axes.set_xticks([math.log(ratio) for ratio in ratios], [f"{ratio:g}" for ratio in ratios], rotation=60)
    axes.set_xlabel("P/N")
    axes.set_ylabel(labels[form])


def draw_threshold_curves(axes: Axes, found: Sequence[Mark], problem: Problem, largest: float) -> None:
    """Thresholds as mask rates of the observations against P/N."""
    low, high = axes.get_xlim()
    places = np.linspace(low, high, 400)
    for mark in found:
        rates = np.array([mark.rate(math.exp(place) * problem.N / problem.P) for place in places])
        shown = np.where((rates >= 0) & (rates <= 1), rates, np.nan)
        style = dashes_of(mark.name, mark.observed)
        axes.plot(places, shown, color=COLOURS["alarm"], path_effects=_outlined(1.8), **style)
    axes.set_xlim(low, high)
