"""Panels as data: what is on x, on y, in colour, marker and fill; one painter for all, and sheets of them.

Loads matplotlib when drawing, no display. Draws only what it is given.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.drawing import COLOURS, NO_DATA, SEQUENTIAL, letter_panels, mark_empty, new_figure, png
from lo_theory.lab.frame import Record

if TYPE_CHECKING:
    from matplotlib import axes
    from matplotlib.figure import Figure


Axes: TypeAlias = "axes.Axes"
"""Axes of matplotlib, which is loaded when a figure is drawn."""

Look = Mapping[str, Any]
"""How something is drawn, in matplotlib's words: colour, marker, linestyle, label. With ``facecolor`` it is an area."""

_COLOUR = {"color", "facecolor", "c", "fc"}  # what gives a look its colour

Of = str | Callable[[Record], Any]


@dataclass(frozen=True)
class Level:
    """A line behind the data: a number for the whole panel, or what each line of the panel says (nan: nothing)."""

    value: float | Callable[[Record], float]
    look: Look


@dataclass(frozen=True)
class Colours:
    """The colours of a map, from low to high; logarithmic: of absolute values. ``ticks``: place on the bar -> text."""

    low: float
    high: float
    ticks: Mapping[float, str] = field(default_factory=dict)
    logarithmic: bool = False
    pad: float = 0.02


NATS = Colours(
    1e-4, 10, {1e-4: "≤10⁻⁴", 1e-3: "10⁻³", 1e-2: "10⁻²", 0.1: "0.1", 1: "1", 10: "10"}, logarithmic=True, pad=0.09
)
"""Of a KL or an error in nats."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Logarithmic:
    """A logarithmic axis of what is measured; what is below ``lowest`` is drawn there, beside a tick that says so."""

    lowest: float

    def apply(self, axes: Axes) -> None:
        """Make the y-axis of drawn axes such a one."""
        axes.set_yscale("log")
        top = axes.get_ylim()[1]
        powers = range(round(math.log10(self.lowest)), math.floor(math.log10(top)) + 1)
        names = [f"10{str(power).translate(_SUPERSCRIPTS)}" for power in powers]
        axes.set_yticks([10.0**power for power in powers], [f"≤{names[0]}", *names[1:]])
        axes.set_ylim(self.lowest / 2, top)


@dataclass(frozen=True)
class Mark:
    """A measured number where it is drawn, in the coordinates of its axes, and in words, for a page to show there.

    ``size``: width and height of the cell of a map.
    """

    axes: Axes
    x: float
    y: float
    words: str
    size: tuple[float, float] | None = None


def _plain(record: Record) -> Look:
    """As matplotlib draws it."""
    return {}


def _as_it_is(axes: Axes) -> None:
    """Nothing is added."""


@dataclass(frozen=True)
class Panel:
    """One quantity of the lines of a pooled frame.

    ``form`` points: ``y`` with its interval, side by side over the places of ``x``, which may be texts; neighbours of
    one text share it. bars: the same from zero. curves: ``y`` with its interval along ``x``, a number or an Estimate,
    one curve for each look. spans: ``x`` with its interval at the places of ``y``, from the top. map: ``z`` in colour
    at the numbers ``x`` and ``y``; grey where it is nan, white where there is no line, or a function says None.

    ``x``, ``y`` and ``z`` are a key, a metric or a function of a record. ``look`` says how a record is drawn (of a map:
    what is marked on its cell); looks with a ``label`` make the sheet's legend. ``scale`` multiplies what is measured,
    or is ``Logarithmic`` (points and curves); of a map it is its ``Colours``. ``levels`` are lines behind.
    ``dress(axes)`` adds what is special, last.
    """

    title: str
    form: Literal["points", "bars", "curves", "spans", "map"] = "points"
    lines: Sequence[Record] = ()
    x: Of = "row"
    y: Of = ""
    z: Of = ""
    look: Callable[[Record], Look] = _plain
    levels: Sequence[Level] = ()
    scale: float | Logarithmic | Colours = 1.0
    xlabel: str = ""
    ylabel: str = ""
    dress: Callable[[Axes], object] = _as_it_is

    def __post_init__(self) -> None:
        if self.form not in _PAINTERS:
            raise ValueError(f"the form of a panel is one of {', '.join(_PAINTERS)}, got {self.form!r}")

    def draw(self, axes: Axes) -> list[Mark]:
        """Draw it on the axes; answer where each measured number is."""
        marks = list(_PAINTERS[self.form](self, axes))
        if isinstance(self.scale, Logarithmic):
            self.scale.apply(axes)
        axes.set_title(self.title)
        if self.xlabel:
            axes.set_xlabel(self.xlabel)
        if self.ylabel:
            axes.set_ylabel(self.ylabel)
        self.dress(axes)
        return marks

    @property
    def looks(self) -> list[Look]:
        """The looks that the legend names, each once, in order."""
        levels = [{"color": COLOURS["line"], **level.look} for level in self.levels]
        every = [*(self.look(line) for line in self.lines), *levels]
        return list({look["label"]: look for look in every if look.get("label")}.values())

    def places(self, of: Of) -> list[Any]:
        """The places on an axis, in the order of the lines; of a map ascending."""
        found = dict.fromkeys(_place(line, of) for line in self.lines)
        return sorted(found) if self.form == "map" else list(found)

    def numbers(self) -> list[float]:
        """Every measured number that is drawn, as the lines hold it."""
        of = {"map": self.z, "spans": self.x}.get(self.form, self.y)
        return [value for line in self.lines for value in _estimate(line, of) if not math.isnan(value)]

    @property
    def factor(self) -> float:
        """What multiplies the measured numbers."""
        return self.scale if isinstance(self.scale, (int, float)) else 1.0


def _place(record: Record, of: Of) -> Any:
    return of(record) if callable(of) else record.keys[of] if of in record.keys else record.value(of)


def _estimate(record: Record, of: Of) -> Estimate:
    found = record.estimate(of) if isinstance(of, str) else of(record)
    if isinstance(found, Estimate):
        return found
    return Estimate(math.nan if found is None else float(found), math.nan, math.nan)


def _scaled(panel: Panel, record: Record, of: Of) -> tuple[float, Any]:
    """A value, and the lengths of its interval to both sides, or None."""
    value, low, high = (panel.factor * number for number in _estimate(record, of))
    if isinstance(panel.scale, Logarithmic) and not math.isnan(value):
        value, low, high = (max(number, panel.scale.lowest) for number in (value, low, high))
    return value, None if math.isnan(low) else [[max(0.0, value - low)], [max(0.0, high - value)]]


def _words(panel: Panel, record: Record, of: Of) -> str:
    """The number that is drawn of a record, with its interval, and below it the record's keys."""
    value, low, high = (panel.factor * number for number in _estimate(record, of))
    interval = "" if math.isnan(low) else f" ({low:.4g} to {high:.4g})"
    keys = [f"{name} {key}" for name, key in record.keys.items() if name != "kind" and key not in ("", None)]
    return f"{panel.title}: {value:.4g}{interval}\n{', '.join(keys)}"


def _spread(place: float, i: int, count: int) -> float:
    return place + 0.8 * ((i + 0.5) / count - 0.5)


def _unlabelled(look: Look) -> dict[str, Any]:
    return {name: value for name, value in look.items() if name != "label"}


def _points(panel: Panel, axes: Axes) -> Iterator[Mark]:
    places = panel.places(panel.x)
    for place, name in enumerate(places):
        here = [line for line in panel.lines if _place(line, panel.x) == name]
        for i, line in enumerate(here):
            value, error = _scaled(panel, line, panel.y)
            x, style = _spread(place, i, len(here)), _unlabelled(panel.look(line))
            if panel.form == "bars" and not math.isnan(value):
                axes.bar(x, value, 0.8 / len(here), yerr=error, **style)
            elif not math.isnan(value):
                axes.errorbar(x, value, yerr=error, **{"elinewidth": 1, "linestyle": "", **style})
            if not math.isnan(value):
                yield Mark(axes, x, value, _words(panel, line, panel.y))
        for level in panel.levels:
            if callable(level.value):
                for height in dict.fromkeys(level.value(line) for line in here):
                    ends = [place - 0.46, place + 0.46]
                    if not math.isnan(height):
                        axes.plot(ends, [panel.factor * height] * 2, **_behind(level.look))
    _across(panel, axes)
    _name_places(axes, [str(name) for name in places])


_LINE_INCHES = 0.1  # height of a line of labels
_LETTER_INCHES = 0.062  # width of a letter of one
_BREAK = re.compile(r" (?![^(]*\))")  # a blank, but not in brackets


def label_inches(names: Sequence[str]) -> float:
    """Height to leave below a panel for the names of its places where they are upright."""
    return _LETTER_INCHES * max(map(len, names)) if len(set(names)) > 3 else 0.0


def _name_places(axes: Axes, names: Sequence[str]) -> None:
    """Write names below their places, neighbours of one name together: a word a line, upright where these are too long
    to be side by side, and then as many as there is room for.
    """
    shared = [(name, [i for i, _ in part]) for name, part in itertools.groupby(enumerate(names), lambda it: it[1])]
    place, figure = axes.get_subplotspec(), axes.figure.figure  # older matplotlib has no get_figure(root=True)
    width = 1.0  # inches, less than the axes have: what is beside them takes the rest
    if place is not None and figure is not None:
        width = 0.8 * len(place.colspan) * figure.get_size_inches()[0] / place.get_gridspec().ncols
    broken = [_BREAK.sub("\n", name) for name, _ in shared]
    letters = [max(map(len, text.split("\n"))) / len(own) for text, (_, own) in zip(broken, shared, strict=True)]
    upright = _LETTER_INCHES * max(letters, default=0) > width / (len(names) + 0.2)
    step = -(-len(shared) // int(width / _LINE_INCHES)) if upright else 1
    centres = [(own[0] + own[-1]) / 2 for _, own in shared]
    texts = [name for name, _ in shared] if upright else broken
    size = 7 if len(shared) > 3 else 8
    axes.set_xticks(centres[::step], texts[::step], fontsize=size, rotation=90 if upright else 0)
    axes.set_xlim(-0.6, max(0, len(names) - 1) + 0.6)
    axes.grid(axis="x", visible=False)


def _curves(panel: Panel, axes: Axes) -> Iterator[Mark]:
    curves: dict[Hashable, list[Record]] = {}
    for line in panel.lines:
        curves.setdefault(tuple(panel.look(line).items()), []).append(line)
    for part in curves.values():
        drawn = [(_place(line, panel.x), *_scaled(panel, line, panel.y)) for line in part]
        known = [(x, y, error or [[0.0], [0.0]]) for x, y, error in drawn if not math.isnan(y)]
        x_values, y_values = [x for x, _, _ in known], [y for _, y, _ in known]
        errors = [[error[side][0] for _, _, error in known] for side in (0, 1)]
        style: dict[str, Any] = {"elinewidth": 1, **_unlabelled(panel.look(part[0]))}
        if any(isinstance(x, Estimate) for x in x_values):
            style["xerr"] = [[x.value - x.low for x in x_values], [x.high - x.value for x in x_values]]
            x_values = [x.value for x in x_values]
        axes.errorbar(x_values, y_values, yerr=errors, **style)
        shown = [line for line, (_, y, _) in zip(part, drawn, strict=True) if not math.isnan(y)]
        for x, y, line in zip(x_values, y_values, shown, strict=True):
            yield Mark(axes, x, y, _words(panel, line, panel.y))
    for level in panel.levels:
        if callable(level.value):
            heights = {_place(line, panel.x): panel.factor * level.value(line) for line in panel.lines}
            axes.plot(list(heights), list(heights.values()), **_behind(level.look))
    _across(panel, axes)


def _across(panel: Panel, axes: Axes) -> None:
    for level in panel.levels:
        if not callable(level.value):
            axes.axhline(panel.factor * level.value, **_behind(level.look))


def _behind(look: Look) -> dict[str, Any]:
    return {"color": COLOURS["line"], "linewidth": 1, "zorder": 0, **_unlabelled(look)}


def _spans(panel: Panel, axes: Axes) -> Iterator[Mark]:
    places = panel.places(panel.y)
    for line in panel.lines:
        value, error = _scaled(panel, line, panel.x)
        if not math.isnan(value):
            style: dict[str, Any] = {"elinewidth": 1, "linestyle": "", **_unlabelled(panel.look(line))}
            place = places.index(_place(line, panel.y))
            axes.errorbar(value, place, xerr=error, **style)
            yield Mark(axes, value, place, _words(panel, line, panel.x))
    for level in panel.levels:
        if not callable(level.value):
            axes.axvline(panel.factor * level.value, **_behind(level.look))
    axes.set_yticks(range(len(places)), [str(name) for name in places])
    axes.set_ylim(len(places) - 0.4, -0.6)


def edges(centres: ArrayLike) -> NDArray[np.float64]:
    """Borders of cells around their centres, float64[n + 1]."""
    places = np.asarray(centres, np.float64)
    if len(places) == 1:
        return np.array([places[0] - 0.5, places[0] + 0.5])
    middle = 0.5 * (places[1:] + places[:-1])
    return np.concatenate([[2 * places[0] - middle[0]], middle, [2 * places[-1] - middle[-1]]])


def heat(axes: Axes, x: Sequence[float], y: Sequence[float], values: ArrayLike, colours: Colours) -> None:
    """A heat map of values [y, x] with its colour bar; what is nan is grey."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize

    palette = colormaps[SEQUENTIAL].with_extremes(bad=NO_DATA)
    shown = np.ma.masked_invalid(np.asarray(values, np.float64))
    if colours.logarithmic:
        norm: Normalize = LogNorm(colours.low, colours.high)
        shown = np.ma.clip(np.abs(shown), colours.low, colours.high)
    else:
        norm = Normalize(colours.low, colours.high)
    mesh = axes.pcolormesh(edges(x), edges(y), shown, norm=norm, cmap=palette, rasterized=True)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=colours.pad, shrink=0.9, extend="neither")
    if colours.ticks:
        bar.set_ticks(list(colours.ticks), labels=list(colours.ticks.values()))
    axes.grid(visible=False)


def _map(panel: Panel, axes: Axes) -> Iterator[Mark]:
    if not isinstance(panel.scale, Colours):
        raise ValueError(f"the scale of a map is its Colours, got {panel.scale!r}")
    x, y = panel.places(panel.x), panel.places(panel.y)
    there = {(_place(line, panel.x), _place(line, panel.y)): line for line in panel.lines}
    there = {place: line for place, line in there.items() if not (callable(panel.z) and panel.z(line) is None)}
    values = [[_estimate(there[a, b], panel.z).value if (a, b) in there else math.nan for a in x] for b in y]
    heat(axes, x, y, values, panel.scale)
    columns, rows = edges(x), edges(y)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            left, right, low, high = columns[i], columns[i + 1], rows[j], rows[j + 1]
            if (a, b) not in there:
                axes.fill([left, right, right, left], [low, low, high, high], color="white", linewidth=0)
                continue
            if look := panel.look(there[a, b]):
                axes.plot(a, b, **_unlabelled(look))
            yield Mark(
                axes,
                (left + right) / 2,
                (low + high) / 2,
                _words(panel, there[a, b], panel.z),
                (right - left, high - low),
            )


_PAINTERS: Mapping[str, Callable[[Panel, Axes], Iterator[Mark]]] = {
    "points": _points,
    "bars": _points,
    "curves": _curves,
    "spans": _spans,
    "map": _map,
}


class Box(NamedTuple):
    """A measured number on a picture: centre, width and height in shares of the picture's, from its upper left."""

    x: float
    y: float
    width: float
    height: float
    words: str


@dataclass(frozen=True)
class Drawing:
    """A figure as PNG, and the measured numbers on it."""

    png: bytes
    boxes: Sequence[Box]


def _box(figure: Figure, mark: Mark) -> Box:
    """Where a mark is on its figure, once that is laid out. A point is given 0.14 inches to be met in."""
    width, height = figure.bbox.width, figure.bbox.height
    x, y = mark.axes.transData.transform((mark.x, mark.y))
    across = up = _POINT_INCHES * figure.dpi
    if mark.size is not None:
        ends = [(mark.x + sign * mark.size[0] / 2, mark.y + sign * mark.size[1] / 2) for sign in (-1, 1)]
        across, up = abs(np.subtract(*mark.axes.transData.transform(ends)))
    return Box(float(x / width), float(1 - y / height), float(across / width), float(up / height), mark.words)


_POINT_INCHES = 0.14


@dataclass(frozen=True)
class Sheet:
    """A figure: lettered panels in ``columns`` columns (None leaves a place empty), and below one legend for all.

    ``legend``: looks of what is drawn by ``dress``, before those of the panels. ``size``: inches.
    ``grid``: what ``subplots`` takes, such as ``width_ratios`` or ``sharey``; ``entries``: legend's columns; ``spans``:
    how many columns the first panels take, in place of one.
    """

    title: str
    panels: Sequence[Panel | None]
    columns: int
    size: tuple[float, float]
    legend: Sequence[Look] = ()
    entries: int = 4
    grid: Mapping[str, Any] | None = None
    spans: Sequence[int] = ()

    def draw(self) -> Figure:
        """The figure, inside ``drawing.styled``."""
        return self.paint()[0]

    def paint(self) -> tuple[Figure, list[Mark]]:
        """The figure, and where its measured numbers are; inside ``drawing.styled``."""
        figure = new_figure(*self.size, self.title)
        count = len(self.panels) + sum(self.spans) - len(self.spans)
        bands = max(1, -(-count // self.columns))
        places = list(figure.subplots(bands, self.columns, squeeze=False, **(self.grid or {})).flat)
        for i, span in enumerate(self.spans):
            _widen(places, i, span)
        drawn: list[Axes] = []
        marks: list[Mark] = []
        for axes, panel in zip(places, [*self.coloured, *[None] * (bands * self.columns - count)], strict=True):
            if panel is None:
                axes.set_axis_off()
            else:
                marks += panel.draw(axes)
                drawn.append(axes)
        mark_empty(drawn)
        letter_panels(drawn)
        if handles := [handle(look) for look in self.looks]:
            figure.legend(handles=handles, loc="outside lower center", ncols=self.entries)
        return figure, marks

    def drawing(self) -> Drawing:
        """The figure as PNG, and where its measured numbers are; inside ``drawing.styled``."""
        figure, marks = self.paint()
        content = png(figure)
        return Drawing(content, tuple(_box(figure, mark) for mark in marks))

    @property
    def coloured(self) -> list[Panel | None]:
        """The panels; looks with a label and no colour get one by label, the same in all panels and the legend."""
        there = [panel for panel in self.panels if panel is not None]
        plain = dict.fromkeys(look["label"] for panel in there for look in panel.looks if not _COLOUR & look.keys())
        colours = {label: f"C{i % 10}" for i, label in enumerate(plain)}

        def look(given: Callable[[Record], Look], record: Record) -> Look:
            own = given(record)
            label = own.get("label")
            return own if label not in colours or _COLOUR & own.keys() else {**own, "color": colours[label]}

        return [panel if panel is None else replace(panel, look=partial(look, panel.look)) for panel in self.panels]

    @property
    def looks(self) -> list[Look]:
        """What the legend names, each label once."""
        every = [*self.legend, *(look for panel in self.coloured if panel is not None for look in panel.looks)]
        found: dict[str, Look] = {}
        for look in every:
            found.setdefault(look["label"], look)
        return list(found.values())


def _widen(places: list[Axes], i: int, span: int) -> None:
    """Let the axes number ``i`` take ``span`` places of the grid; those that it covers are gone."""
    first, *covered = places[i : i + span]
    place: Any = first.get_subplotspec()
    first.set_subplotspec(place.get_gridspec()[place.num1 : place.num1 + span])
    for axes in covered:
        axes.remove()
    del places[i + 1 : i + span]


def handle(look: Look) -> Any:
    """A look as an entry of a legend: an area with ``facecolor``, else a line or a symbol."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if "facecolor" in look:
        return Patch(**look)
    drawn = {name: value for name, value in look.items() if name not in ("elinewidth", "capsize")}
    return Line2D([], [], **{"linestyle": "" if "marker" in look else "-", **drawn})
