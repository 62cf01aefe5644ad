"""Decodes as a figure, step by step from top to bottom, and as an animation. Loads matplotlib when called, no display.

A cell has the colour of the value that is most likely there, the fainter the more entropy is left: white knows nothing.
Columns stand in the order of the roles, latents first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.lab.decode_view.trace import Trace
from lo_theory.lab.drawing import letter_panels, new_figure
from lo_theory.lab.style import COLOURS, INK, NO_DATA, SEQUENTIAL, VALUES
from lo_theory.problem.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["NAMES", "make_figure", "write_animation"]

NAMES = {"exact": "exact posterior", "model": "trained model", "bp": "belief propagation"}
_LEAST, _MOST = 1e-4, 10.0  # nats, of the colours of the KL
_WRAP = 60  # cells in a line of the animation
_DPI, _MILLISECONDS, _LAST_MILLISECONDS = 80, 220, 2500
_PALETTE = 48  # colours of the animation


def _article(name: str) -> str:
    """``the `` before what is one thing; belief propagation is none."""
    return "" if name == "bp" else "the "


def _who(name: str) -> str:
    return _article(name) + NAMES[name]


def _colours(trace: Trace, probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours [..., L, 3] of marginals [..., L, V], by role."""
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(VALUES[v % len(VALUES)]) for v in range(probs.shape[-1])])
    layout = trace.distribution.layout
    entropy = -(probs * np.log(np.maximum(probs, 1e-300))).sum(axis=-1)
    known = np.clip(1 - entropy / np.log(layout.values), 0.0, 1.0)[..., None]
    shades = 1 - known + known * palette[probs.argmax(axis=-1)]
    return np.asarray(shades[..., layout.order, :])


def _shown(trace: Trace, name: str) -> NDArray[np.float64]:
    """Colours [T, L, 3] of what a posterior believes; grey where the exact one has no answer left."""
    from matplotlib.colors import to_rgb

    shades = _colours(trace, trace.beliefs[name])
    if name == "exact":
        shades[(trace.hidden & trace.impossible[:, None])[:, trace.distribution.layout.order]] = to_rgb(NO_DATA)
    return shades


def _belief_panel(axes: Axes, trace: Trace, name: str) -> None:
    """What one posterior believes before each step; dots: revealed at that step; below, the end."""
    layout = trace.distribution.layout
    whole = np.eye(layout.n_values)[trace.tokens[-1]]
    shades = np.concatenate([_shown(trace, name), _colours(trace, whole[None])])
    axes.imshow(shades, aspect="auto", interpolation="nearest", origin="upper")
    steps = trace.revealed[layout.order]
    roles = np.flatnonzero(steps >= 0)
    axes.plot(roles, steps[roles], ".", color=INK, markersize=3)
    wrong = np.flatnonzero(trace.wrong[layout.order])
    if len(wrong):  # an empty line that is not clipped would upset the layout
        axes.plot(wrong, np.full(len(wrong), trace.steps), "x", color=COLOURS["alarm"], markersize=4.5, clip_on=False)
    if trace.impossible.any():
        axes.axhline(int(trace.impossible.argmax()) - 0.5, color=COLOURS["alarm"], linewidth=1)
    axes.axhline(trace.steps - 0.5, color=INK, linewidth=0.8)
    _dress(axes, trace)
    axes.set_title(f"What {_who(name)} knows")


def _dress(axes: Axes, trace: Trace) -> None:
    axes.axvline(trace.distribution.layout.n_latents - 0.5, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("role: latents | observations")
    axes.set_ylim(trace.steps + 0.5, -0.5)
    axes.grid(visible=False)


def _kl_panel(axes: Axes, trace: Trace, name: str) -> None:
    """How far the other posterior is from the exact one at what is hidden."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    palette = colormaps[SEQUENTIAL].with_extremes(bad="white")
    kl = trace.kl[:, trace.distribution.layout.order]
    shown = np.ma.masked_invalid(np.clip(kl, _LEAST, _MOST))
    mesh = axes.imshow(shown, aspect="auto", interpolation="nearest", norm=LogNorm(_LEAST, _MOST), cmap=palette)
    if trace.impossible.any():
        axes.axhspan(int(trace.impossible.argmax()) - 0.5, trace.steps - 0.5, color=NO_DATA, linewidth=0)
    _dress(axes, trace)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02)
    bar.set_ticks([_LEAST, 1e-3, 1e-2, 0.1, 1, _MOST], labels=["≤10⁻⁴", "10⁻³", "10⁻²", "0.1", "1", "10"])
    axes.set_title(f"KL of {_who(name)}, nats; sum over what was revealed: {trace.met():.2f}")


def _count_panel(axes: Axes, trace: Trace) -> None:
    """How much is hidden, and how much of that is still open."""
    steps = range(trace.steps)
    axes.plot(trace.hidden.sum(axis=1), steps, color=COLOURS["line"])
    axes.plot(np.where(trace.impossible, np.nan, trace.undetermined), steps, color=COLOURS["exact"])
    if trace.impossible.any():
        axes.axhline(int(trace.impossible.argmax()) - 0.5, color=COLOURS["alarm"], linewidth=1)
    axes.set_ylim(trace.steps + 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("positions")
    axes.set_title("Still hidden, still open")


def _headline(trace: Trace) -> str:
    count = trace.distribution.layout.n_observations
    right = count - int(trace.wrong.sum())
    return f"{NAMES[trace.denoiser]}, {trace.policy}: {right} of {count} observations consistent"


def make_figure(traces: Sequence[Trace], title: str) -> Figure:
    """A band for each decode: what both posteriors know at each step, how far they are apart, how much is open."""
    name = next(name for name in traces[0].beliefs if name != "exact")
    figure = new_figure(17, 1.0 + 3.9 * len(traces), title)
    grid = figure.subplots(len(traces), 4, width_ratios=[4, 4, 4.4, 1.7], sharey="row", squeeze=False)
    for axes, trace in zip(grid, traces, strict=True):
        _belief_panel(axes[0], trace, "exact")
        axes[0].set_title(f"Decoded by {_article(trace.denoiser)}{_headline(trace)}.\n{axes[0].get_title(loc='left')}")
        _belief_panel(axes[1], trace, name)
        _kl_panel(axes[2], trace, name)
        _count_panel(axes[3], trace)
        axes[0].set_ylabel("step")
    letter_panels(grid.flat)
    figure.legend(handles=_handles(traces), loc="outside lower center", ncols=6)
    return figure


def _handles(traces: Sequence[Trace]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    values = traces[0].distribution.layout.n_values
    handles: list[Any] = [Patch(color=VALUES[v % len(VALUES)], label=f"value {v}") for v in range(values)]
    handles.append(Patch(facecolor="white", edgecolor=COLOURS["line"], label="nothing known, or nothing hidden (KL)"))
    handles.append(Line2D([], [], marker=".", color=INK, linestyle="", label="revealed at this step"))
    handles.append(Line2D([], [], color=COLOURS["line"], label="hidden"))
    handles.append(Line2D([], [], color=COLOURS["exact"], label="hidden and not determined by the exact posterior"))
    if any(trace.wrong.any() for trace in traces):
        handles.append(
            Line2D([], [], marker="x", color=COLOURS["alarm"], linestyle="", label="inconsistent in the end")
        )
    if any(trace.impossible.any() for trace in traces):
        handles.append(Line2D([], [], color=COLOURS["alarm"], label="from here on impossible: no exact answer"))
    return handles


def _lines(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cells [L, 3] in lines of at most ``_WRAP``, white at the end."""
    width = min(_WRAP, len(cells))
    lines = -(-len(cells) // width)
    padded = np.ones((lines * width, 3))
    padded[: len(cells)] = cells
    return padded.reshape(lines, width, 3)


def _frame(trace: Trace, step: int) -> list[NDArray[np.float64]]:
    """The sequence as it stands before ``step`` (hidden: light grey), and what both posteriors know then."""
    from matplotlib.colors import to_rgb

    layout, tokens = trace.distribution.layout, trace.tokens[step]
    whole = np.eye(layout.n_values)[np.maximum(tokens, 0)]
    shown = _colours(trace, whole)
    shown[tokens[layout.order] < 0] = to_rgb(NO_DATA)
    last = step == trace.steps
    known = [_colours(trace, whole) if last else _shown(trace, name)[step] for name in trace.beliefs]
    return [_lines(cells) for cells in (shown, *known)]


def write_animation(traces: Sequence[Trace], title: str, path: Path) -> Path:
    """Write a GIF, a frame a step, the last one longer: the sequence, and what both posteriors know of it."""
    from PIL import Image

    lines = -(-traces[0].distribution.layout.length // _WRAP)
    figure = new_figure(11, 0.7 + len(traces) * (0.5 + 0.3 * 3 * lines), title)
    grid = figure.subplots(3 * len(traces), 1, squeeze=False)[:, 0]
    names = ["sequence", *(NAMES[name] for name in traces[0].beliefs)]
    images = []
    for i, axes in enumerate(grid):
        trace, part = traces[i // 3], i % 3
        images.append(axes.imshow(_frame(trace, 0)[part], aspect="auto", interpolation="nearest"))
        axes.set_yticks([0], [names[part]])
        axes.set_xticks(np.arange(-0.5, min(_WRAP, trace.distribution.layout.length)), [])
        axes.tick_params(length=0)
        axes.grid(axis="x", color="white", linewidth=1)
        axes.set_axisbelow(False)
        if lines == 1:
            axes.axvline(trace.distribution.layout.n_latents - 0.5, color=INK, linewidth=1.5)
        if part == 0:
            axes.set_title(_running(trace, 0))
    figure.set_dpi(_DPI)
    _pixels(figure)  # lays the parts out, once for all frames
    figure.set_layout_engine("none")
    frames = []
    for step in range(max(trace.steps for trace in traces) + 1):
        for number, trace in enumerate(traces):
            now = min(step, trace.steps)
            grid[3 * number].set_title(_headline(trace) if now == trace.steps else _running(trace, now))
            for image, cells in zip(images[3 * number :], _frame(trace, now), strict=False):
                image.set_data(cells)
        frames.append(Image.fromarray(_pixels(figure)))
    palette = frames[len(frames) // 2].quantize(_PALETTE)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [*[_MILLISECONDS] * (len(frames) - 1), _LAST_MILLISECONDS]
    first, rest = frames[0], frames[1:]
    return write_atomically(
        path, lambda file: first.save(file, "GIF", save_all=True, append_images=rest, duration=times, loop=0)
    )


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    """The figure drawn, uint8[height, width, 3]."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _running(trace: Trace, step: int) -> str:
    open_ = f"{int(trace.undetermined[step])} of them open"
    said = "what is revealed is impossible" if trace.impossible[step] else open_
    return f"{NAMES[trace.denoiser]}, {trace.policy}: step {step}, {int(trace.hidden[step].sum())} hidden, {said}"
