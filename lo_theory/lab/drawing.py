"""What every figure of the project is drawn with: the style, a sheet without a display, lettered panels, files.

Loads matplotlib when called, never ``pyplot``: no global state of it is changed, but by ``use_style``. Writes only the
files it is given.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lo_theory.lab.style import COLOURS, RC
from lo_theory.problem.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.PngImagePlugin import PngInfo

__all__ = ["describe", "letter_panels", "mark_empty", "new_figure", "styled", "use_style", "write_figure"]

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


def _png_words(info: Mapping[Any, Any]) -> PngInfo:
    """The words of a PNG, to be written again."""
    from PIL.PngImagePlugin import PngInfo

    words = PngInfo()
    for name, text in info.items():
        if isinstance(text, str):
            words.add_itxt(name, text)
    return words
