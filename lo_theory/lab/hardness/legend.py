"""The legend of the hardness map: what every line, symbol and shade on it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lo_theory.lab.hardness.panels import PATHS, Ratios, dashes_of, gap_found, marker_of
from lo_theory.lab.hardness.tables import THRESHOLD_NAMES, Cell, Mark
from lo_theory.lab.style import COLOURS, NO_DATA
from lo_theory.lab.summary import Measured

__all__ = ["legend_handles"]


def _text(mark: Mark) -> str:
    rate = mark.rate()
    where = f"b = {rate:.3f}" if 0 <= rate <= 1 else f"b = {rate:.2f}, outside"
    return f"{THRESHOLD_NAMES[mark.name]}, {mark.observed} observations: c = {mark.c:.3g}, {where}"


def legend_handles(
    found: Sequence[Mark], plane: Mapping[tuple[float, float], Cell], ratios: Ratios, starts: Sequence[Measured]
) -> list[Any]:
    """One handle for each kind of mark that the figure holds."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    if plane:
        handles += [
            Line2D([], [], linewidth=2, label=f"path of {name}", **style) for name, (_, _, style) in PATHS.items()
        ]
        handles += [Line2D([], [], linestyle="", label=_text(mark), **marker_of(mark)) for mark in found]
    if plane and gap_found(starts):
        dark: dict[str, Any] = {"facecolor": "#555555", "edgecolor": "white", "hatch": "////"}
        handles.append(Patch(**dark, label="planted and uninformed population dynamics differ"))
    if len(ratios) > 1:
        names = dict.fromkeys((mark.name, mark.observed) for mark in found)
        handles += [
            Line2D(
                [],
                [],
                color=COLOURS["alarm"],
                **dashes_of(*name),
                label=f"{THRESHOLD_NAMES[name[0]]} against P/N, {name[1]}",
            )
            for name in names
        ]
    known = [*plane.values(), *(cell for places in ratios.values() for cell in places.values())]
    if any(cell.refused > 0 for cell in known):
        handles.append(Patch(color=NO_DATA, label="exact posterior refuses half or more"))
        handles.append(Line2D([], [], marker=".", color="black", linestyle="", label="it refuses some contexts"))
    return handles
