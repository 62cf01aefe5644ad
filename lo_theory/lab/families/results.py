"""What the experiment on families shows: KL above Bayes law by law, what that says, and a panel for each mask law."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.config import Experiment
from lo_theory.lab.frame import Record, kind, pool, records
from lo_theory.lab.learning import training_sheet
from lo_theory.lab.panel import Look, Panel, Sheet
from lo_theory.lab.seeds import seed_texts
from lo_theory.lab.style import COLOURS, SHADING
from lo_theory.lab.table import Column, Table, key, measured, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

__all__ = ["figures", "gaps", "nothing", "tables", "verdict"]

_NOTHING = 1e-9  # nats per token: where the single-token marginals lie less above Bayes, there is nothing to know


def gaps(frame: DataFrame, experiment: Experiment) -> list[Record]:
    """One record for each mask law, row and role, in this order: metrics as ``last kl``.

    first, last: the shortest and the longest training of the masked model; ``first`` only if there are two. bp: where
    there is a factor graph. marginals: of single tokens, which is what there is to know. aware first, aware last: the
    order-aware learner along its own order. ``learned``: the share of what there is to know below which a gap counts as
    closed, and two gaps as level.
    """
    learned = {line.row: line.value("learned") for line in records(pool(kind(frame, "problem")))}
    along: dict[int, list[Record]] = {}
    for line in records(pool(kind(frame, "along"))):
        along.setdefault(line.row, []).append(line)
    places: dict[tuple[str, int, str], list[Record]] = {}
    for line in records(pool(kind(frame, "losses"))):
        places.setdefault((line.law, line.row, line.role), []).append(line)
    laws, seeds = list(dict.fromkeys(law for law, *_ in places)), seed_texts(experiment)
    found = []
    for (law, row, role), lines in sorted(places.items(), key=lambda item: (laws.index(item[0][0]), item[0][1])):
        own = {line.posterior: line for line in lines if line.posterior != "mdm"}
        own |= _ends([line for line in lines if line.posterior == "mdm"])
        own |= _ends(along.get(row, ()), "aware ")
        metrics = {f"{name} {metric}": known for name, line in own.items() for metric, known in line.metrics.items()}
        family = f"{lines[0].family} {seeds[row]}".strip()
        found.append(Record({"row": row, "family": family, "law": law, "role": role, "learned": learned[row]}, metrics))
    return found


def _ends(lines: Sequence[Record], prefix: str = "") -> dict[str, Record]:
    """The first and the last by length of training; of one it is the last."""
    ordered = sorted(lines, key=lambda line: int(line.training_steps))
    names = ("first", "last") if len(ordered) > 1 else ("last",)
    return {f"{prefix}{name}": ordered[-1 if name == "last" else 0] for name in names if ordered}


def nothing(gap: Record) -> bool:
    """Whether the tokens revealed say nothing about any single hidden one."""
    return gap.value("marginals kl") < _NOTHING


def verdict(gap: Record) -> str:
    """In words, by the rules that the table's notes state."""
    least, last = gap.learned * gap.value("marginals kl"), gap.estimate("last kl")
    if nothing(gap):
        return "nothing to know"
    if last.high < least:
        return "learned"
    first = gap.estimate("first kl")
    trend = "falls" if last.high < first.low else "rises" if last.low > first.high else "flat"
    return f"{_against_bp(gap, least)}; gap {trend}"


def _against_bp(gap: Record, least: float) -> str:
    """``level with BP`` only where the whole 95 % interval of the difference is small; else who is above."""
    above = gap.estimate("last kl_above")
    if math.isnan(above.value):
        return "no BP" if math.isnan(gap.value("bp kl")) else "not compared with BP"  # rows of an older version
    if -least < above.low and above.high < least:
        return "level with BP"
    return "above BP" if above.low > 0 else "below BP" if above.high < 0 else "not told apart from BP"


# --- tables ---


def _above(name: str, title: str) -> Column:
    return measured(f"{name} kl", title, ".2f", 1e3)


_GAPS = (
    *(_above("marginals", "to know"), _above("bp", "BP")),
    *(_above("first", "model,\nfirst"), _above("last", "model,\nlast")),
)


def tables(frame: DataFrame, experiment: Experiment) -> Iterator[Table]:
    """A table for each mask law, and one of all by role."""
    found = gaps(frame, experiment)
    for law in dict.fromkeys(gap.law for gap in found):
        yield _law_table(law, [gap for gap in found if gap.law == law and gap.role == "all"])
    notes = ["10^-3 nats per hidden token of the role: means over its hidden tokens in a context."]
    notes += [] if experiment.reference is None else [f"Paper: {experiment.reference.source}."]
    yield Table(
        "By role",
        (key("law", left=True), key("family", left=True), key("role", left=True), *_GAPS),
        [gap for gap in found if gap.role != "all"],
        section=lambda gap: gap.law,
        notes=notes,
    )


def _law_table(law: str, found: Sequence[Record]) -> Table:
    """All families under one mask law, the order-aware learner beside."""
    of = " or ".join(sorted({f"{100 * gap.learned:g} %" for gap in found}))
    notes = [
        "Minus Bayes: KL from the exact marginals in 10^-3 nats per token, with 95 % intervals over contexts; BP -: no "
        "factor graph. To know: of the single-token marginals, which read nothing. First and last: shortest and "
        "longest training of the masked model, and of the order-aware learner along its own order, latents first, on "
        f"whole sequences (the same in every table). Verdict: learned, if the last interval is below {of} of what "
        "there is to know. Else by the last model minus BP, context by context: level with BP (a candidate for "
        f"hardness), if its interval lies within {of} of what there is to know; above BP (a fast algorithm gets "
        "further from the same tokens: not yet learned) or below BP, if zero is outside; else not told apart. Gap "
        "falls or rises: intervals of first and last apart."
    ]
    if law.startswith("satisfied"):
        notes.append(
            "Only observations of value 1 are revealed. The exact posterior takes the hidden as missing at random, as "
            "all others do: KL compares marginals given the same tokens, losses at the true token mean nothing here."
        )
    aware = (_above("aware first", "order-aware,\nfirst"), _above("aware last", "order-aware,\nlast"))
    columns = (key("family", left=True), *_GAPS, text("verdict", verdict), *aware)
    return Table(f"Above Bayes under {law}", columns, found, notes=notes)


# --- figures ---

_LEAST, _MOST = 1e-6, 4.0  # nats: what is less is drawn at the least; upper end of the axis
_COLUMNS = 3
_OPEN = {"markerfacecolor": "white"}
_MODEL, _AWARE = {"color": COLOURS["model"], "marker": "o"}, {"color": COLOURS["order_aware"], "marker": "^"}
_LAW_LOOKS: Mapping[str, Look] = {
    "marginals": {"color": COLOURS["line"], "marker": "_", "markersize": 14, "label": "to know (reads nothing)"},
    "bp": {"color": COLOURS["bp"], "marker": "s", "label": "belief propagation"},
    "first": {**_MODEL, **_OPEN, "label": "masked model, shortest training"},
    "last": {**_MODEL, "label": "masked model, longest training"},
}
_AWARE_LOOKS: Mapping[str, Look] = {
    "aware first": {**_AWARE, **_OPEN, "label": "order-aware, shortest training"},
    "aware last": {**_AWARE, "label": "order-aware, longest training"},
}


def figures(frame: DataFrame, experiment: Experiment) -> Mapping[str, Sheet]:
    """Gaps to Bayes by family on a log axis, a panel for each mask law; last the order-aware learner by itself."""
    found = [gap for gap in gaps(frame, experiment) if gap.role == "all"]
    parts = [[gap for gap in found if gap.law == law] for law in dict.fromkeys(gap.law for gap in found)]
    rows = {gap.row: gap for gap in sorted(found, key=lambda gap: int(gap.row))}
    shown = [(f"{part[0].law}{_shaded(part)}", part, _LAW_LOOKS) for part in parts]
    shown.append(("order-aware learner along latents first", list(rows.values()), _AWARE_LOOKS))
    panels = [_panel(*one, labelled=i % _COLUMNS == 0) for i, one in enumerate(shown)]
    size = (14, 1 + 4.4 * -(-len(panels) // _COLUMNS))
    title = experiment.title or experiment.experiment
    sheet = Sheet(title, panels, _COLUMNS, size, entries=3, grid={"sharey": True})
    return {"figure": sheet, **training_sheet(frame, experiment)}


def _shaded(part: Sequence[Record]) -> str:
    return "; shaded: nothing to know" if any(map(nothing, part)) else ""


def _panel(title: str, part: Sequence[Record], looks: Mapping[str, Look], *, labelled: bool) -> Panel:
    """The gaps of each family side by side; a family of whose single tokens nothing is to be known is shaded."""
    unknown = {gap.row for gap in part if nothing(gap)} if "marginals" in looks else set()
    there = [who for who in looks if any(not math.isnan(gap.value(f"{who} kl")) for gap in part)]
    names = [gap.family for gap in part]

    def height(line: Record) -> Estimate:
        known = line.row not in unknown or line.who != "marginals"
        return Estimate(*(max(number, _LEAST) if known else math.nan for number in line.estimate(f"{line.who} kl")))

    def dress(axes: Axes) -> None:
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(_LEAST / 2, _MOST)
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(names)), names, **turned)
        axes.set_xlim(-0.6, len(names) - 0.4)
        for i, gap in enumerate(part):
            if gap.row in unknown:
                axes.axvspan(i - 0.5, i + 0.5, color=SHADING["band"], zorder=-1, linewidth=0)
        for i in range(len(names) - 1):
            axes.axvline(i + 0.5, color=SHADING["band"], linewidth=0.8, zorder=0)
        axes.tick_params(axis="y", labelleft=True)

    return Panel(
        title,
        lines=[gap.plus(who=who) for gap in part for who in there],
        x="row",
        y=height,
        look=lambda line: looks[line.who],
        ylabel=f"KL above Bayes, nats per token (least drawn: {_LEAST:g})" if labelled else "",
        dress=dress,
    )
