"""What every figure is drawn with: colours and markers, a sheet without a display, lettered panels, files.

``RC`` is laid over matplotlib's own defaults, so a figure looks the same whatever a user's settings are. A denoiser has
one colour everywhere, a policy one marker; filled and open, dark and faint are left to the figures. Loads matplotlib
when called, never ``pyplot``; only ``use_style`` changes global state of it. Writes only the files it is given.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

from lo_theory.problem.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.PngImagePlugin import PngInfo


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

RULE_SHADES: Mapping[str, str] = MappingProxyType(
    {
        **{"vanilla": "#08519c", "other vanilla": "#6baed6", "fixed_order": "#737373"},
        **{"margin": "#d95f02", "top_probability": "#fdae6b", "entropy": "#fdae6b"},
        **{"threshold": "#54278f", "factor": "#807dba", "frechet": "#807dba"},
        **{"entropy_bounded": "#ae017e", "stable": "#f768a1", "position_calibrated": "#8c510a"},
        **{"information_gain": "#006d2c", "lookahead": "#41ab5d"},
    }
)
"""Decoding rules: random order blue, by one score orange, by confidence violet, looking ahead green."""

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


_METADATA: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("Description", {"Software": None}),
    "pdf": ("Subject", {"Creator": None, "Producer": None, "CreationDate": None}),
}
_LETTER_INCHES = 0.11  # width of a letter of a title, as large as it comes on the average
_LETTER = re.compile(r"\$\\bf\{(\w+)\}\$")


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw and write inside this: matplotlib's defaults with the project's style laid over them."""
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **RC}):
        yield


def use_style() -> None:
    """Lay the style over pyplot's settings, for a notebook: the one place where they are changed. Its backend stays."""
    import matplotlib

    matplotlib.rcParams.update({name: value for name, value in RC.items() if name != "backend"})


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """A figure of so many inches that needs no display, its parts laid out by constraints; a long title is broken."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(textwrap.fill(title, max(1, int(width / _LETTER_INCHES))))
    return figure


def letter_panels(panels: Iterable[Axes]) -> None:
    """Put a bold letter before the title of each panel, in order, so that a text can name it."""
    for i, axes in enumerate(panels):
        letter = "" if i < 26 else chr(ord("a") + i // 26 - 1)
        letter += chr(ord("a") + i % 26)
        axes.set_title(f"$\\bf{{{letter}}}$  {axes.get_title(loc='left')}", loc="left")


def describe(figure: Figure) -> str:
    """What a figure shows, for those who cannot see it: its title and those of its panels, in one line."""
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    panels = "; ".join(_LETTER.sub(r"\1", title) for title in titles if title)
    return " ".join(f"{figure.get_suptitle()}. Panels: {panels}".split())


def mark_empty(panels: Iterable[Axes]) -> None:
    """Say so on each panel that has nothing to show: what it draws was not measured, or not published."""
    for axes in panels:
        if not axes.has_data():
            axes.text(0.5, 0.5, "no rows", transform=axes.transAxes, ha="center", va="center", color=COLOURS["line"])


def _show_dollars(figure: Figure) -> None:
    """Make every text of a figure literal, but the letters of panels and the labels that matplotlib gives to ticks.

    Titles and names are data: a ``$`` in them begins no formula.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    sides = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    own = [axis for axis in sides if not isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter)]
    ticks = {id(label) for axis in own for label in axis.get_ticklabels(which="both")}
    for text in figure.findobj(Text):
        letter = _LETTER.match(text.get_text())
        if letter is not None:
            text.set_text(letter[0] + re.sub(r"(?<!\\)\$", r"\\$", text.get_text()[letter.end() :]))
        elif id(text) not in ticks:
            text.set_parse_math(False)


def write_figure(folder: Path, name: str, figure: Figure) -> list[Path]:
    """Write a figure as PNG and PDF, each whole or not at all, equal bytes for equal figures; return the paths.

    The PNG says in its ``Description``, the PDF in its ``Subject``, what ``describe`` says.
    """
    paths, words = [], describe(figure)
    _show_dollars(figure)
    for form, (place, plain) in _METADATA.items():
        metadata = {**plain, place: words}
        path = folder / f"{name}.{form}"
        _render(figure, path, form, metadata)
        paths.append(path)
    return paths


def _render(figure: Figure, path: Path, form: str, metadata: dict[str, Any]) -> None:
    """Lay a figure out and write it in one form: by far the longest part of a short run."""
    if form == "png":
        write_atomically(path, functools.partial(_write_png, figure, metadata))
    else:
        write_atomically(path, functools.partial(figure.savefig, format=form, metadata=metadata))


def _write_png(figure: Figure, metadata: dict[str, Any], file: BinaryIO) -> None:
    """Write a figure in 256 colours of its own: a third of the bytes that it has in all of them."""
    from PIL import Image

    plain = io.BytesIO()
    figure.savefig(plain, format="png", metadata=metadata)
    with Image.open(plain) as image:
        few = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(file, "png", optimize=True, dpi=image.info["dpi"], pnginfo=_png_words(image.info))


def png(figure: Figure) -> bytes:
    """A figure as the PNG that ``write_figure`` writes; after it the places of the figure's parts are final."""
    content, words = io.BytesIO(), describe(figure)
    _show_dollars(figure)
    place, plain = _METADATA["png"]
    _write_png(figure, {**plain, place: words}, content)
    return content.getvalue()


def _png_words(info: Mapping[Any, Any]) -> PngInfo:
    """The words of a PNG, to be written again."""
    from PIL.PngImagePlugin import PngInfo

    words = PngInfo()
    for name, text in info.items():
        if isinstance(text, str):
            words.add_itxt(name, text)
    return words
