"""What Table 1 shows: accuracies of generated sequences with their known lines and the published numbers, and losses.

What the paper claims, its numbers and the effect of adaptive decoding, is compared in ``readings``.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.config import Experiment
from lo_theory.lab.frame import Record, gap, kind, named, pool, records
from lo_theory.lab.learning import training_sheet
from lo_theory.lab.panel import Level, Look, Panel, Sheet, label_inches
from lo_theory.lab.seeds import difference_texts, seed_texts
from lo_theory.lab.style import ACCURACY_MARKERS, COLOURS, INK, LAW_MARKERS, marker
from lo_theory.lab.table import (
    Table,
    key,
    largest,
    largest_z,
    mean,
    measured,
    number,
    only,
    percent,
    text,
    with_expected,
)
from lo_theory.lab.table1.readings import (
    effects_sheet,
    effects_table,
    pair_text,
    readings_sheet,
    readings_table,
    variants,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

__all__ = ["figures", "named_rows", "tables"]

_KNOWN = ("constant", "independent")  # observations always at their most likely value, drawn from their marginals
_QUARTERS = ("0-25 %", "25-50 %", "50-75 %", "75-100 %")


def named_rows(frame: DataFrame, experiment: Experiment) -> DataFrame:
    """The frame with what rows of one pair differ in as a part of their name, such as ``training.steps 500``."""
    return named(frame, difference_texts(experiment))


class _Measured:
    """The lines of all tables and panels, by row of the experiment; ``seeds`` where rows differ in these alone."""

    def __init__(self, frame: DataFrame, experiment: Experiment) -> None:
        self.frame, self.experiment = frame, experiment
        self.title = experiment.title or experiment.experiment
        self._seeds = seed_texts(experiment)
        self.problems: dict[int, Record] = {line.row: line for line in self.lines("problem")}

    def lines(self, name: str) -> list[Record]:
        return self._pooled(kind(self.frame, name))

    def _pooled(self, part: DataFrame) -> list[Record]:
        return [line.plus(seeds=self._seeds[line.row]) for line in records(pool(part))]

    @functools.cached_property
    def cells(self) -> list[Record]:
        return self.lines("decode")

    @functools.cached_property
    def losses(self) -> list[Record]:
        """Losses; under the uniform law with the lines of the problem and the gap closed."""
        uniform = pool(kind(self.frame, "losses", law="uniform"))
        gaps = {line.row: line for line in records(gap(uniform, pool(kind(self.frame, "problem"))))}
        return [
            line.plus(gaps[line.row], self.problems[line.row]) if _is_uniform(line) else line
            for line in self.lines("losses")
        ]

    @functools.cached_property
    def with_published(self) -> list[Record]:
        """The cells, those of each row with the published numbers of its pair, and then those of all other pairs."""
        published = self.experiment.reference.rows if self.experiment.reference is not None else ()
        lines, seen = [], set()
        for row, part in _by_row(self.cells):
            pair = part[0].N, part[0].P
            seen.add(pair)
            place = {"row": row, "place": _place(part[0])}
            lines += [*part, *(_of_paper(line, **place) for line in published if pair == (line.N, line.P))]
        return lines + [_of_paper(line) for line in published if (line.N, line.P) not in seen]

    @functools.cached_property
    def classes(self) -> list[Record]:
        """KL under the uniform law by the quarters of latents and of observations hidden, 16 of each row, or nan."""
        part = kind(self.frame, "class_losses", law="uniform", metric="kl")
        if len(part):
            sizes = {"latents_hidden": part.N, "observations_hidden": part.P}
            part = part.assign(**{name: (4 * part[name] // size).clip(upper=3) for name, size in sizes.items()})
        lines = []
        for _, own in _by_row(self._pooled(part)):
            there = {(line.latents_hidden, line.observations_hidden): line for line in own}
            for i, j in itertools.product(range(4), repeat=2):
                empty = Record({**own[0].keys, "latents_hidden": i, "observations_hidden": j})
                lines.append(there.get((i, j), empty))
        return lines


def _by_row(lines: Sequence[Record]) -> Iterator[tuple[int, list[Record]]]:
    return ((row, list(part)) for row, part in itertools.groupby(lines, key=lambda line: int(line.row)))


def _is_uniform(line: Record) -> bool:
    return bool(line.law == "uniform")


def _of_paper(line: Any, **keys: Any) -> Record:
    known: dict[str, Any] = {"self_consistency": (Estimate(line.percent / 100, math.nan, math.nan), {})}
    return Record({"N": line.N, "P": line.P, "denoiser": "paper", "policy": line.policy, "steps": "?", **keys}, known)


# --- tables ---


_PAIR, _DENOISER = text("N, P", pair_text), key("denoiser", left=True)
_CELL = (_PAIR, _DENOISER, text("policy", lambda line: ", ".join([line.policy, *variants(line)])), key("steps"))


def _row(line: Record) -> Any:
    return line.get("row")


def tables(frame: DataFrame, experiment: Experiment) -> Iterator[Table]:
    """Accuracies, which reading of the paper fits, effects, diversity, one pass, losses, and where models err."""
    frame = named_rows(frame, experiment)
    found = _Measured(frame, experiment)
    yield _accuracies(found)
    yield readings_table(frame, experiment)
    yield effects_table(frame)
    yield Table(
        "Diversity: have the generated sequences the law of the data?",
        (
            *(*_CELL, with_expected("distinct", "distinct", ".1f", 100), largest("bias", "bias z")),
            *(largest("pair", "pair z"), with_expected("total_variation", "TV to p_data", ".3f")),
        ),
        found.cells,
        _row,
        notes=(
            "Distinct: distinct latent strings in per cent of the sequences (what the data would give). Bias z, pair "
            "z: largest |z| of a latent's mean and of a pair's correlation, ! where 999 of 1000 exact samplers stay "
            "below. TV: total variation distance between the sequences and p_data, N <= 12 (what as many exact samples "
            "give).",
        ),
    )
    yield Table(
        "One pass, no decoding",
        (_PAIR, _DENOISER, percent("conditional"), percent("infill"), percent("infill_drawn", "infill, drawn")),
        found.lines("one_pass"),
        _row,
        notes=(
            "Conditional: observations given the true latents; infill: hidden observations of a true sequence under "
            "the uniform mask law, most likely values or drawn from the marginals. Per cent, with 95 % intervals over "
            "sequences.",
        ),
    )
    yield _models(found)
    yield _classes_table(found)


def _accuracies(found: _Measured) -> Table:
    """Accuracies of generated observations, with the published ones below."""
    columns = [*_CELL, percent("self_consistency", "self-\nconsistent")]
    noisy = any(cell.value("self_consistency_ceiling") < 1 for cell in found.cells)
    ours = [
        *([mean("self_consistency_ceiling", "ceiling", ".1f", 100)] if noisy else []),
        *(percent("consistent", "wholly\nconsistent"), percent("unpaired"), mean("observation_mean", "mean\nobs.")),
    ]
    notes = [
        "Per cent, with 95 % intervals over sequences. Self-consistent: observations that agree with the generated "
        "latents; wholly consistent: sequences of positive probability; unpaired: agreement with an unrelated sequence "
        "of the data."
    ]
    if noisy:
        notes.append("Ceiling: what observations drawn exactly given the generated latents would reach on average.")
    lines = [_known_lines(problem) for problem in found.problems.values()]
    if len(set(lines)) == 1:
        notes.append(lines[0])
    else:
        notes += [
            f"({pair_text(problem)}): {line}" for problem, line in zip(found.problems.values(), lines, strict=True)
        ]
    if found.experiment.reference is not None:
        notes.append(f"Paper: {found.experiment.reference.source}.")
    columns += [only(lambda line: bool(line.denoiser != "paper"), column) for column in ours]
    return Table(found.title, columns, found.with_published, _row, notes)


def _models(found: _Measured) -> Table:
    """Losses of the trained models beside their lines."""
    return Table(
        "The trained models",
        (
            *(_PAIR, key("law", left=True), mean("model", "loss", ".4f"), measured("exact", "exact\nloss")),
            only(_is_uniform, mean("floor", form=".4f")),
            only(_is_uniform, mean("marginals_only", "single\ntokens", ".4f")),
            measured("kl", "KL", ".4f"),
            only(_is_uniform, percent("gap", "gap\nclosed")),
        ),
        found.losses,
        _row,
        notes=(
            "Nats per token on fresh data, by mask law, with 95 % intervals over sequences. Exact loss: the exact "
            "posterior's on the model's contexts, under the uniform law the floor in the mean. KL: distance of the "
            "model's marginals from the exact ones. Single tokens: loss of the marginals only. Gap closed = (marginals "
            "only - loss)/(marginals only - floor) in per cent, loss - floor measured as KL where there is one.",
        ),
    )


def _classes_table(found: _Measured) -> Table:
    """KL by what contexts hide, in quarters."""
    return Table(
        "Where the models err",
        (
            _PAIR,
            text("latents hidden", lambda four: _QUARTERS[four.latents_hidden]),
            *(mean(f"kl {j}", f"observations\n{name}") for j, name in enumerate(_QUARTERS)),
        ),
        [
            four[0].plus(*(Record({}, {f"kl {j}": line.metrics["kl"]}) for j, line in enumerate(four) if line.metrics))
            for four in zip(*(found.classes[j::4] for j in range(4)), strict=True)
        ],
        _row,
        notes=(
            "KL in nats per hidden token, uniform mask law, by the share of latents and of observations hidden; class "
            "by class and for the other laws in classes.csv.",
        ),
    )


def _known_lines(problem: Record) -> str:
    """The known lines of self-consistency and of agreement with the data."""
    ceiling, constant, independent = (
        number(100 * problem.value(f"self_consistency_{name}"), ".1f") for name in ("ceiling", *_KNOWN)
    )
    data = ", ".join(f"{100 * problem.value(name):.1f}" for name in _KNOWN)
    return (
        f"Self-consistent: exact sampler {ceiling}, observations always at their most likely value {constant}, drawn "
        f"from their single-token marginals {independent}; the last two agree with the data in {data}."
    )


# --- figures ---

_COLUMNS = 3
_WIDTH, _HEIGHT = 13.0, 3.3  # inches of the sheet, and of a line of panels


class _Place(NamedTuple):
    """Where a row is on the horizontal axis, by its label."""

    row: int | None
    label: str

    def __str__(self) -> str:
        return self.label


def _place(line: Record) -> _Place:
    """The pair and the name of a row; of published numbers those of the row beside which they are, or the pair."""
    return line.get("place") or _Place(line.get("row"), f"({line.N}, {line.P}) {line.get('name', '')}".strip())


def figures(frame: DataFrame, experiment: Experiment) -> Mapping[str, Sheet]:
    """Everything the tables print, pair by pair; the readings, the effects and the trainings on sheets of their own."""
    frame = named_rows(frame, experiment)
    return {
        "figure": _sheet(_Measured(frame, experiment)),
        **readings_sheet(frame, experiment),
        **effects_sheet(frame),
        **training_sheet(frame, experiment),
    }


def _sheet(found: _Measured) -> Sheet:
    """Panels in lines of three; the first and the last are two wide. A quantity that was not measured has none."""
    laws = dict(zip(dict.fromkeys(line.law for line in found.losses), itertools.cycle(LAW_MARKERS), strict=False))
    once = found.lines("one_pass")
    wide = [(2, _self_consistency(found)), *((1, panel) for panel in _of_cells(found))]
    wide += [(1, _one_pass(once)), *((1, panel) for panel in _of_losses(found, laws)), (2, _classes(found))]
    wide = [(span, panel) for span, panel in wide if panel.numbers()] or wide[:1]
    panels: list[Panel | None] = []
    spans: list[int] = []
    for span, panel in wide:
        left = -sum(spans) % _COLUMNS
        empty = left if span > left else 0
        panels += [*[None] * empty, panel]
        spans += [*[1] * empty, span]
    height, legend = _HEIGHT + label_inches([str(_place(line)) for line in found.cells]), _legend(found, once, laws)
    size = (_WIDTH, 0.5 + height * -(-sum(spans) // _COLUMNS))
    return Sheet(found.title, panels, _COLUMNS, size, legend, entries=min(6, len(legend)), spans=spans)


def _legend(found: _Measured, once: Sequence[Record], laws: Mapping[str, Any]) -> list[Look]:
    """Colours of denoisers, filled or open, and each symbol once."""
    names = sorted({line.denoiser for line in (*found.cells, *once)})
    names += ["paper"] if found.experiment.reference else []
    symbols = {f"policy {cell.policy}": marker(cell.policy) for cell in found.cells if not cell.argmax}
    symbols |= {"most likely tokens (argmax)": "*"} if any(cell.argmax for cell in found.cells) else {}
    symbols |= {name.replace("_", ", "): mark for name, mark in ACCURACY_MARKERS.items() if once}
    symbols |= {f"mask law {law}": mark for law, mark in laws.items()}
    return [
        *({"edgecolor": COLOURS[name], "facecolor": COLOURS[name], "label": name} for name in names),
        {"edgecolor": INK, "facecolor": INK, "label": "filled: one token a step"},
        {"edgecolor": INK, "facecolor": "white", "label": "open: several tokens a step"},
        *({"color": INK, "marker": mark, "label": label} for label, mark in symbols.items()),
    ]


def _cell_look(line: Record) -> Look:
    """Colour by denoiser, symbol by policy, filled at one token a step."""
    colour = COLOURS[line.denoiser]
    if line.denoiser == "paper":
        return {"color": colour, "marker": marker(line.policy), "markersize": 6}
    fill = colour if line.steps == line.N + line.P else "white"
    symbol, size = ("*", 8) if line.argmax else (marker(line.policy), 5)
    return {"color": colour, "marker": symbol, "markerfacecolor": fill, "markersize": size}


def _level(found: _Measured, metric: str, style: str = "-") -> Level:
    """A known line of each row's problem."""

    def value(line: Record) -> float:
        row = line.get("row")
        return found.problems[row].value(metric) if row in found.problems else math.nan

    return Level(value, {"linestyle": style})


def _self_consistency(found: _Measured) -> Panel:
    """Self-consistency, its known lines, and the published numbers, those of pairs that were not measured apart."""
    rows, lines = {line.row for line in found.cells}, found.with_published
    apart = any("row" not in line.keys for line in lines)

    def dress(axes: Axes) -> None:
        if rows and apart:
            axes.axvline(len(rows) - 0.5, color=COLOURS["line"], linewidth=0.8, linestyle=":")

    known = "line: exact sampler; dashed: always the most likely value; dotted: independent marginals"
    levels = {"ceiling": "-", "constant": "--", "independent": ":"}
    return Panel(
        "Self-consistency",
        lines=lines,
        x=_place,
        y="self_consistency",
        look=_cell_look,
        levels=[_level(found, f"self_consistency_{name}", style) for name, style in levels.items()],
        scale=100,
        xlabel=f"measured | published (which accuracy is not stated)\n{known}" if apart else known,
        ylabel="self-consistent observations, %",
        dress=dress,
    )


def _of_cells(found: _Measured) -> Iterator[Panel]:
    """What is measured of each decode beside its self-consistency."""
    of = functools.partial(Panel, lines=found.cells, x=_place, look=_cell_look)
    yield of("Whole sequences", y="consistent", scale=100, ylabel="wholly consistent sequences, %")
    yield of(
        "Unpaired",
        y="unpaired",
        levels=[_level(found, "constant", "--"), _level(found, "independent", ":")],
        scale=100,
        xlabel="dashed: always the most likely value; dotted: data, or independent",
        ylabel="agreement with an unrelated sequence, %",
    )
    levels, words = [_level(found, "observation_mean")], ("line: the data", "mean of generated observations")
    yield of("Mean", y="observation_mean", levels=levels, xlabel=words[0], ylabel=words[1])
    yield of(
        "Diversity",
        y=_over_expected("distinct"),
        levels=[Level(1.0, {})],
        ylabel="distinct latent strings / expected",
        dress=lambda axes: axes.set_ylim(-0.05, None),
    )
    for name, what in (("bias", "a latent's mean"), ("pair", "a pair's correlation")):
        yield of(
            f"{name.capitalize()} z",
            y=f"{name}_z",
            levels=[Level(_usual_z(name), {})],
            xlabel="line: 999 of 1000 exact samplers stay below",
            ylabel=f"largest |z| of {what}",
            dress=_dress_z,
        )
    yield of(
        "Total variation",
        y=_over_expected("total_variation"),
        levels=[Level(1.0, {})],
        xlabel="line: as many exact samples; N <= 12",
        ylabel="total variation to p_data / expected",
    )


def _over_expected(metric: str) -> Callable[[Record], Estimate]:
    return lambda line: Estimate(*(end / line.value(f"{metric}_expected") for end in line.estimate(metric)))


def _usual_z(name: str) -> Callable[[Record], float]:
    """The level under which the largest |z| of exact samplers stays."""
    counts = f"{name}_count"
    return lambda line: largest_z(int(line.value(counts))) if line.value(counts) >= 1 else math.nan


def _dress_z(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _one_pass(once: Sequence[Record]) -> Panel:
    """Accuracies that need no decoding."""
    return Panel(
        "One pass",
        lines=[line.plus(accuracy=name) for line in once for name in ACCURACY_MARKERS],
        x=_place,
        y=lambda line: line.estimate(line.accuracy),
        look=lambda line: {"color": COLOURS[line.denoiser], "marker": ACCURACY_MARKERS[line.accuracy], "markersize": 5},
        scale=100,
        ylabel="accuracy in one pass, %",
    )


def _of_losses(found: _Measured, laws: Mapping[str, Any]) -> Iterator[Panel]:
    """Losses of the model and the exact posterior, KL and gap closed; symbols tell mask laws apart."""

    def look(line: Record) -> Look:
        return {"color": COLOURS[line.get("of", "model")], "marker": laws[line.law], "markersize": 7}

    yield Panel(
        "Loss",
        lines=[line.plus(of=name) for line in found.losses for name in ("exact", "model") if name in line.metrics],
        x=_place,
        y=lambda line: line.estimate(line.of),
        look=look,
        levels=[_level(found, "floor"), _level(found, "marginals_only", "--")],
        xlabel="uniform law: line the floor, dashed marginals only",
        ylabel="loss, nats per token",
    )
    yield Panel(
        "KL",
        lines=found.losses,
        x=_place,
        y="kl",
        look=look,
        ylabel="KL from the exact posterior, nats per token",
        dress=lambda axes: axes.set_yscale("log", nonpositive="mask"),
    )
    yield Panel(
        "Gap closed",
        "bars",
        [line for line in found.losses if _is_uniform(line)],
        x=_place,
        y="gap",
        look=lambda line: {"facecolor": COLOURS["model"]},
        scale=100,
        xlabel="0: single-token marginals only; 100: Bayes-optimal",
        ylabel="gap closed, %",
        dress=lambda axes: axes.set_ylim(min(0.0, axes.get_ylim()[0]), 100),
    )


def _classes(found: _Measured) -> Panel:
    """KL by what the uniform law hides: quarters of the latents from left to right, of the observations by shade."""

    def look(line: Record) -> Look:
        j = line.observations_hidden
        label = f"{_QUARTERS[j]} of the observations hidden"
        return {"facecolor": COLOURS["model"], "alpha": 0.25 * (j + 1), "label": label}

    return Panel(
        "KL by class",
        "bars",
        found.classes,
        x=_place,
        y=lambda line: line.value("kl"),
        look=look,
        xlabel="uniform law; four groups a pair: 0-25, 25-50, 50-75, 75-100 % of the latents hidden",
        ylabel="KL, nats per hidden token",
    )
