"""Tables and figures of Table 1: accuracies beside the published ones, diversity, losses, where the models err."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.config import Experiment, difference_texts, seed_texts
from lo_theory.lab.costs import cost_table
from lo_theory.lab.drawing import ACCURACY_MARKERS, COLOURS, INK, LAW_MARKERS, marker
from lo_theory.lab.experiments.table1_along import along_sheets, along_tables
from lo_theory.lab.experiments.table1_readings import (
    effects_sheet,
    effects_table,
    readings_sheet,
    readings_table,
    variants,
)
from lo_theory.lab.frame import Frame, Record, beside, each, gap, kind, of_kind, parts, pool, records, with_texts
from lo_theory.lab.learning import training_sheet
from lo_theory.lab.panel import Axes, Level, Look, Panel, Sheet, label_inches
from lo_theory.lab.table import (
    PAIR,
    Table,
    key,
    largest,
    largest_z,
    mean,
    measured,
    number,
    only,
    pair_text,
    percent,
    text,
    with_expected,
)

_KNOWN = ("constant", "independent")  # observations always at their most likely value, drawn from their marginals
_QUARTERS = ("0-25 %", "25-50 %", "50-75 %", "75-100 %")


def named_rows(frame: Frame, experiment: Experiment) -> Frame:
    """The frame with what rows of one pair differ in as a part of their name, such as ``training.steps 500``."""
    return with_texts(frame, "name", difference_texts(experiment))


class _Measured:
    """The lines of all tables and panels, by row of the experiment."""

    def __init__(self, frame: Frame, experiment: Experiment) -> None:
        frame = with_texts(frame, "seeds", seed_texts(experiment))
        self.frame, self.experiment = frame, experiment
        self.cells, self.one_pass = of_kind(frame, "decode"), of_kind(frame, "one_pass")
        self.problems: dict[int, Record] = {line.row: line for line in of_kind(frame, "problem")}

    @functools.cached_property
    def losses(self) -> list[Record]:
        """Losses; under the uniform law with the lines of the problem and the gap closed."""
        uniform = kind(self.frame, "losses", law="uniform")
        gaps = records(gap(pool(uniform), pool(kind(self.frame, "problem"))))
        lines = [line.plus(self.problems[line.row], law="uniform") for line in gaps]
        return beside(of_kind(self.frame, "losses"), lines, "row", "law")

    @functools.cached_property
    def with_published(self) -> list[Record]:
        """The cells, those of each row with the published numbers of its pair, and then those of all other pairs."""
        published = self.experiment.reference.rows if self.experiment.reference is not None else ()
        lines, seen = [], set()
        for part in parts(self.cells, "row"):
            pair = part[0].N, part[0].P
            seen.add(pair)
            place = {"row": part[0].row, "place": _place(part[0])}
            lines += [*part, *(_of_paper(line, **place) for line in published if pair == (line.N, line.P))]
        return lines + [_of_paper(line) for line in published if (line.N, line.P) not in seen]

    @functools.cached_property
    def classes(self) -> list[Record]:
        """KL under the uniform law by the quarters of latents and of observations hidden, 16 of each row, or nan."""
        part = kind(self.frame, "class_losses", law="uniform", metric="kl")
        if len(part):
            sizes = {"latents_hidden": part.N, "observations_hidden": part.P}
            part = part.assign(**{name: (4 * part[name] // size).clip(upper=3) for name, size in sizes.items()})
        every = [
            Record({**own[0].keys, "latents_hidden": i, "observations_hidden": j})
            for own in parts(records(pool(part)), "row")
            for i, j in itertools.product(range(4), repeat=2)
        ]
        return beside(every, records(pool(part)), "row", "latents_hidden", "observations_hidden")


def _is_uniform(line: Record) -> bool:
    return bool(line.law == "uniform")


def _of_paper(line: Any, **keys: Any) -> Record:
    known: dict[str, Any] = {"self_consistency": (Estimate(line.percent / 100, math.nan, math.nan), {})}
    return Record({"N": line.N, "P": line.P, "denoiser": "paper", "policy": line.policy, "steps": "?", **keys}, known)


_DENOISER = key("denoiser", left=True)
_CELL = (PAIR, _DENOISER, text("policy", lambda line: ", ".join([line.policy, *variants(line)])), key("steps"))


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """Accuracies, which reading of the paper fits, effects, diversity, one pass, losses, errors, and on the way."""
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
        ["row"],
        notes="Distinct: distinct latent strings in per cent of the sequences (what the data would give). Bias z, "
        "pair z: largest |z| of a latent's mean and of a pair's correlation, ! where 999 of 1000 exact samplers stay "
        "below. TV: total variation distance between the sequences and p_data, N <= 12 (what as many exact samples "
        "give).",
    )
    yield cost_table(found.cells, _CELL, ["row"])
    yield Table(
        "One pass, no decoding",
        (PAIR, _DENOISER, percent("conditional"), percent("infill"), percent("infill_drawn", "infill, drawn")),
        found.one_pass,
        ["row"],
        notes="Conditional: observations given the true latents; infill: hidden observations of a true sequence under "
        "the uniform mask law, most likely values or drawn from the marginals. Per cent, with 95 % intervals over "
        "sequences.",
    )
    yield _models(found)
    yield _classes_table(found)
    yield from along_tables(frame, experiment)


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
    notes += found.experiment.paper
    columns += [only(lambda line: bool(line.denoiser != "paper"), column) for column in ours]
    return Table(found.experiment.heading, columns, found.with_published, ["row"], notes)


def _models(found: _Measured) -> Table:
    """Losses of the trained models beside their lines."""
    return Table(
        "The trained models",
        (
            *(PAIR, key("law", left=True), mean("model", "loss", ".4f"), measured("exact", "exact\nloss")),
            only(_is_uniform, mean("floor", form=".4f")),
            only(_is_uniform, mean("marginals_only", "single\ntokens", ".4f")),
            measured("kl", "KL", ".4f"),
            only(_is_uniform, percent("gap", "gap\nclosed")),
        ),
        found.losses,
        ["row"],
        notes="Nats per token on fresh data, by mask law, with 95 % intervals over sequences. Exact loss: the exact "
        "posterior's on the model's contexts, under the uniform law the floor in the mean. KL: distance of the "
        "model's marginals from the exact ones. Single tokens: loss of the marginals only. Gap closed = (marginals "
        "only - loss)/(marginals only - floor) in per cent, loss - floor measured as KL where there is one.",
    )


def _classes_table(found: _Measured) -> Table:
    """KL by what contexts hide, in quarters."""
    return Table(
        "Where the models err",
        (
            PAIR,
            text("latents hidden", lambda four: _QUARTERS[four.latents_hidden]),
            *(mean(f"kl {j}", f"observations\n{name}") for j, name in enumerate(_QUARTERS)),
        ),
        [
            four[0].plus(*(Record({}, {f"kl {j}": line.metrics["kl"]}) for j, line in enumerate(four) if line.metrics))
            for four in zip(*(found.classes[j::4] for j in range(4)), strict=True)
        ],
        ["row"],
        notes="KL in nats per hidden token, uniform mask law, by the share of latents and of observations hidden; "
        "class by class and for the other laws in classes.csv.",
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


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """Everything the tables print, pair by pair; a summary, readings, effects and trainings on sheets of their own."""
    frame = named_rows(frame, experiment)
    found = _Measured(frame, experiment)
    return {
        "figure": _sheet(found),
        **_summary(found),
        **readings_sheet(frame, experiment),
        **effects_sheet(frame),
        **along_sheets(frame, experiment),
        **training_sheet(frame, experiment),
    }


def _sheet(found: _Measured) -> Sheet:
    """Panels in lines of three; the first and the last are two wide. A quantity that was not measured has none."""
    laws = dict(zip(dict.fromkeys(line.law for line in found.losses), itertools.cycle(LAW_MARKERS), strict=False))
    wide = [(2, _self_consistency(found)), *((1, panel) for panel in _of_cells(found))]
    wide += [(1, _one_pass_panel(found)), *((1, panel) for panel in _of_losses(found, laws)), (2, _classes(found))]
    wide = [(span, panel) for span, panel in wide if panel.numbers()] or wide[:1]
    panels: list[Panel | None] = []
    spans: list[int] = []
    for span, panel in wide:
        left = -sum(spans) % _COLUMNS
        empty = left if span > left else 0
        panels += [*[None] * empty, panel]
        spans += [*[1] * empty, span]
    height, legend = _HEIGHT + label_inches([str(_place(line)) for line in found.cells]), _legend(found, laws)
    size = (_WIDTH, 0.5 + height * -(-sum(spans) // _COLUMNS))
    return Sheet(found.experiment.heading, panels, _COLUMNS, size, legend, entries=min(6, len(legend)), spans=spans)


def _summary(found: _Measured) -> dict[str, Sheet]:
    """What the paper claims of adaptive decoding beside what is measured; nothing where only one of them is known."""
    policies = ("vanilla", "margin")
    plain = [line for line in found.cells if not line.argmax and line.policy in policies and not line.get("noise")]
    published = [line for line in found.with_published if line.denoiser == "paper" and line.policy in policies]
    if not plain or not published:
        return {}

    def panel(title: str, lines: Sequence[Record], ylabel: str = "") -> Panel:
        return Panel(
            title,
            lines=lines,
            x=_place,
            y="self_consistency",
            look=_cell_look,
            scale=100,
            ylabel=ylabel,
            dress=lambda axes: axes.set_ylim(40, 103),
        )

    one = [line for line in plain if line.steps == line.N + line.P]
    several = [line for line in plain if line.steps < line.N + line.P]
    claim = [Record({**line.keys, "place": _place(line)}, line.metrics) for line in published]
    panels = [
        panel("Published: the adaptive order wins", claim, "accuracy of observations, %"),
        panel("Here, one token a step", one),
        panel("Here, several tokens a step", several),
    ]
    shown = {line.denoiser for line in (*claim, *plain)}
    legend: list[Look] = [
        *({"edgecolor": COLOURS[name], "facecolor": COLOURS[name], "label": name} for name in sorted(shown)),
        *({"color": INK, "marker": marker(name), "label": name} for name in policies),
    ]
    size = (_WIDTH, 3.6 + label_inches([str(_place(line)) for line in (*plain, *claim)]))
    title = "Does a clever decoding order help? The claim, the exact posterior and trained models"
    return {"summary": Sheet(title, panels, 3, size, legend, entries=len(legend))}


def _legend(found: _Measured, laws: Mapping[str, Any]) -> list[Look]:
    """Colours of denoisers, filled or open, and each symbol once."""
    names = sorted({line.denoiser for line in (*found.cells, *found.one_pass)})
    names += ["paper"] if found.experiment.reference else []
    symbols = {f"policy {cell.policy}": marker(cell.policy) for cell in found.cells if not cell.argmax}
    symbols |= {"most likely tokens (argmax)": "*"} if any(cell.argmax for cell in found.cells) else {}
    symbols |= {name.replace("_", ", "): mark for name, mark in ACCURACY_MARKERS.items() if found.one_pass}
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


def _one_pass_panel(found: _Measured) -> Panel:
    """Accuracies that need no decoding."""
    return Panel(
        "One pass",
        lines=each(found.one_pass, *ACCURACY_MARKERS),
        x=_place,
        y="value",
        look=lambda line: {"color": COLOURS[line.denoiser], "marker": ACCURACY_MARKERS[line.metric], "markersize": 5},
        scale=100,
        ylabel="accuracy in one pass, %",
    )


def _of_losses(found: _Measured, laws: Mapping[str, Any]) -> Iterator[Panel]:
    """Losses of the model and the exact posterior, KL and gap closed; symbols tell mask laws apart."""

    def look(line: Record) -> Look:
        return {"color": COLOURS[line.get("metric", "model")], "marker": laws[line.law], "markersize": 7}

    yield Panel(
        "Loss",
        lines=each(found.losses, "exact", "model"),
        x=_place,
        y="value",
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
