"""What Figure 2 shows: losses by mask law and role, the paper's proxy, how far the trainings have come, leaks.

Of the figure, colour is the posterior (exact, belief propagation, models from light to dark as they train longer), the
symbol is the role.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.config import Experiment
from lo_theory.lab.frame import Record, gap, kind, pool, records
from lo_theory.lab.learning import training_sheet
from lo_theory.lab.panel import Level, Logarithmic, Look, Panel, Sheet
from lo_theory.lab.seeds import seed_texts
from lo_theory.lab.style import COLOURS, INK, MODEL_SHADES
from lo_theory.lab.table import Column, Table, key, mean, measured, number, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

__all__ = ["figures", "leaking", "short", "tables"]


def _losses(frame: DataFrame) -> list[Record]:
    """Losses by law and role, of every posterior and row."""
    return records(pool(kind(frame, "losses", role=["latent", "observation"])))


def _lengths(lines: Sequence[Record]) -> list[int]:
    """Steps of the models, the shortest first."""
    return sorted({line.iterations for line in lines if line.posterior == "model"})


def _tested(frame: DataFrame) -> list[Record]:
    """Losses by role and by class that say whether a posterior beats Bayes."""
    lines = [line for name in ("losses", "class_losses") for line in records(pool(kind(frame, name)))]
    return [line for line in lines if "evidence" in line.metrics]


# --- tables ---

_LEAKS_SHOWN = 5
_ROUNDING = 1e-12  # what is smaller is rounding
_LAW, _ROLE = key("law", left=True), key("role", left=True)


def short(value: float) -> str:
    """Four decimals, or two digits of what would vanish in them; ``-`` where there is nothing."""
    if abs(value) <= _ROUNDING:
        return "0.0000"
    return number(value, ".1e" if abs(value) < 1e-3 else ".4f")


def _short(metric: str, title: str, of: str = "") -> Column:
    """Means of a metric in short; with ``of`` those of the record that the lines keep under that key."""
    return Column(title, lambda line: short((line.keys[of] if of else line).value(metric)))


def _with_half(metric: str, title: str) -> Column:
    def of(line: Record) -> str:
        found = line.estimate(metric)
        return short(found.value) + ("" if math.isnan(found.half) else f" ±{short(found.half)}")

    return Column(title, of)


def _name(line: Record) -> str:
    return "BP" if line.posterior == "bp" else f"model, {line.iterations} steps"


def _hidden(line: Record) -> str:
    """``l+o``, the latents and observations hidden, where all contexts of a law hide equally many."""
    return f"{line.latents_hidden}+{line.observations_hidden}" if line.get("latents_hidden") is not None else ""


_WHO = text("posterior", _name)
_LOSSES = (
    *(_LAW, _ROLE, text("hidden", _hidden, left=False), mean("deterministic", "determ.", ".1f", 100)),
    *(_short("exact", "Bayes"), _short("model", "loss"), _with_half("kl", "KL"), _short("log_ratio", "error")),
    *(_short("kl", "BP KL", of="bp"), Column("BP\nexcl.", lambda line: number(100 * line.bp.value("excluded"), ".1f"))),
)


_LOSS_NOTE = (
    "Nats per scored token of the role (a suffix scores the next token, every other law the hidden ones), on fresh "
    "data. Hidden: latents + observations. Determ.: contexts in per cent with exactly one assignment of the latents "
    "left, by the exact posterior (every latent certain to 1e-9). Bayes: loss of the exact posterior. KL: distance of "
    "the model's marginals from the exact ones, with 95 % intervals over sequences; its mean is that of loss - Bayes. "
    "Error: mean squared log-ratio of the model's and the exact probability of the true token, as in the paper's "
    "Figure 2. BP: belief propagation; excl.: true tokens in per cent that it excludes, each of which counts 27.6 nats "
    "(probabilities below 1e-12 count as 1e-12)."
)


def tables(frame: DataFrame, experiment: Experiment) -> Iterator[Table]:
    """Losses for each length of training, errors against the proxy, losses under the uniform law, leaks."""
    found, seeds = _losses(frame), seed_texts(experiment)
    lengths = _lengths(found)
    own = {(line.get("iterations"), line.row, line.law, line.role): line for line in found}

    def of(steps: int | None, line: Record) -> Record:
        """What another posterior, of BP None, has on the same tokens."""
        return own.get((steps, line.row, line.law, line.role), Record({}))

    lines = [line.plus(bp=of(None, line), proxy=of(max(lengths, default=0), line)) for line in found]
    pair = text("N, P", lambda line: f"{line.N}, {line.P} {seeds[line.row]}".rstrip())
    notes = [_LOSS_NOTE]
    if experiment.reference is not None:
        notes.append(f"Paper: {experiment.reference.statement} ({experiment.reference.source}).")
    for i, steps in enumerate(lengths or [None]):
        whose = "belief propagation" if steps is None else f"the model after {steps} steps"
        yield Table(
            f"{experiment.title or experiment.experiment}: {whose}",
            (pair, *_LOSSES),
            [line for line in lines if line.get("iterations") == steps],
            section=lambda line: line.row,
            notes=notes[:1] if i else notes,
        )
    yield Table(
        "The paper's proxy",
        (
            *(pair, _WHO, _LAW, _ROLE),
            _short("proxy_log_ratio", "error against\nthe proxy"),
            _short("log_ratio", "error against\nexact"),
            _short("log_ratio", "the proxy's\nown", of="proxy"),
        ),
        [line for line in lines if line.posterior == "model" and "proxy_log_ratio" in line.metrics],
        notes=(
            "Mean squared log-ratio at the true token, against the model trained longest (the paper's proxy) and "
            "against the exact posterior, and the error of the proxy itself against the exact posterior.",
        ),
    )
    yield _progress_table(frame, pair)
    yield _leak_table(frame, pair)


def _progress_table(frame: DataFrame, pair: Column) -> Table:
    losses = pool(kind(frame, "losses", law="uniform", role="all"))
    problem = pool(kind(frame, "problem"))
    lines = {line.row: line for line in records(problem)}
    return Table(
        "How far each posterior is from the Bayes optimum",
        (
            *(pair, _WHO, _short("model", "loss"), _with_half("exact", "Bayes")),
            *(_short("floor", "floor"), _short("marginals_only", "marginals\nonly"), _with_half("kl", "KL")),
            measured("gap", "gap closed", ".1f", 100),
        ),
        [
            line.plus(closed, lines[line.row])
            for line, closed in zip(records(losses), records(gap(losses, problem)), strict=True)
        ],
        notes=(
            "Uniform mask law, all tokens, nats per token. Gap closed = 1 - KL/(marginals only - floor) in per cent. "
            "95 % intervals over sequences.",
        ),
    )


def _evidence(line: Record) -> float:
    """The largest evidence of the runs that a record pools."""
    return max(found.value for found in line.runs("evidence").values())


def leaking(frame: DataFrame) -> list[Record]:
    """Losses by law or by class whose evidence is over the threshold of their problem, the largest first."""
    thresholds = {line.row: line.value("threshold") for line in records(pool(kind(frame, "leaks")))}
    found = [line for line in _tested(frame) if _evidence(line) >= thresholds.get(line.row, math.inf)]
    return sorted(found, key=_evidence, reverse=True)


def _leak_table(frame: DataFrame, pair: Column) -> Table:
    """No posterior beats Bayes: what was tested, and what was found."""
    notes = [
        "Does any posterior beat Bayes, in any row (law, latents hidden, observations hidden, role)? Evidence: ln of "
        "the wealth won by betting on its probability of the true token against the exact one; over the threshold with "
        "probability at most 0.001 over all rows of a problem, for posteriors that see the context only."
    ]
    for line in leaking(frame)[:_LEAKS_SHOWN]:
        place = f", {_hidden(line)} hidden" if _hidden(line) else ""
        notes.append(
            f"LEAK: {_name(line)}, {line.law}{place}, {line.role}s: evidence {_evidence(line):.1f}; it knows of tokens "
            "that its context hides."
        )
    return Table(
        "No model beats Bayes",
        (
            *(pair, _WHO, mean("rows_tested", "rows tested", ".0f")),
            mean("largest_evidence", "largest\nevidence", ".1f"),
            mean("threshold", form=".1f"),
            Column("leaks", lambda line: f"LEAK in {n:.0f} rows" if (n := line.value("leaks")) else "none"),
        ),
        records(pool(kind(frame, "leaks"))),
        notes=notes,
    )


# --- figures ---

_NATS = Logarithmic(1e-6)
_PLACES = 24  # groups of places along the order, at most
_HIDDEN = "l: latents hidden, with l P/N observations"
_KL = "KL from the exact marginals, nats"
_EXACT: Look = {"color": COLOURS["exact"], "linewidth": 1.6}
_SHARES: Look = {"color": INK, "linestyle": ":", "marker": "D", "label": "share of deterministic contexts"}
_ROLES: Mapping[str, Look] = {
    "latent": {"marker": "o", "linestyle": "-"},
    "observation": {"marker": "s", "linestyle": "--", "markerfacecolor": "white"},
}


def figures(frame: DataFrame, experiment: Experiment) -> Mapping[str, Sheet]:
    """One sheet for each row, ``figure``, ``figure-1`` and so on; gaps closed during training where measured."""
    rows = dict.fromkeys(line.row for line in _losses(frame))
    sheets = {f"figure-{row}" if row else "figure": _sheet(frame, experiment, row) for row in rows}
    return sheets | training_sheet(frame, experiment)


@dataclass(frozen=True)
class _Order:
    """The mask laws and the posteriors of one problem in their order, a model by its steps, belief propagation as None.

    They decide where a record stands and what colour it has.
    """

    laws: Sequence[str]
    who: Sequence[int | None]

    @classmethod
    def of(cls, lines: Sequence[Record]) -> _Order:
        """Order-aware laws first, then the uniform one, patterns, all others."""
        kinds = ("suffix", "uniform", "pattern")
        laws = dict.fromkeys(line.law for line in lines)
        ranked = sorted(laws, key=lambda law: next((i for i, name in enumerate(kinds) if law.startswith(name)), 9))
        bp = [None] if any(line.posterior == "bp" for line in lines) else []
        return cls(ranked, [*_lengths(lines), *bp])

    def colour(self, steps: int | None) -> str:
        """Colour of a posterior."""
        count = sum(one is not None for one in self.who)
        shade = min(len(MODEL_SHADES) - 1, self.who.index(steps) + max(0, 3 - count))
        return COLOURS["bp"] if steps is None else MODEL_SHADES[shade]

    def curve(self, line: Record) -> Look:
        """Colour of the posterior, symbol and dashes of the role."""
        return {"markersize": 4.5, "linewidth": 1, **_ROLES[line.role], "color": self.colour(line.get("iterations"))}

    def point(self, line: Record) -> Look:
        """The same without a line."""
        return {**self.curve(line), "linestyle": ""}

    def beside(self, line: Record, apart: float) -> float:
        """Place of a record whose x-axis are the laws: so far apart from the next posterior."""
        return self.laws.index(line.law) + apart * self.who.index(line.get("iterations"))


def _sheet(frame: DataFrame, experiment: Experiment, row: int) -> Sheet:
    own = frame[frame["row"] == row]
    roles = _losses(own)
    order = _Order.of(roles)
    panels = [*_law_panels(roles, order), *_pattern_panels(roles, order), _leak_panel(own, order)]
    panels.insert(5, _place_panel(own, order))
    legend: list[Look] = [{**_EXACT, "label": "exact posterior"}]
    for steps in order.who:
        label = "belief propagation" if steps is None else f"model, {steps} steps"
        legend.append({"marker": "o", "color": order.colour(steps), "label": label})
    legend += [{"color": INK, **look, "label": f"{role}s"} for role, look in _ROLES.items()]
    return Sheet(
        f"{experiment.title or experiment.experiment}; N = {roles[0].N}, P = {roles[0].P}",
        panels,
        columns=3,
        size=(14, 17),
        legend=legend,
        entries=8,
        grid={"height_ratios": (1.1, 1.1, 1, 1)},
        spans=(3, 3, 1, 1, 1, 1, 9 - len(panels)),
    )


def _law_panels(roles: Sequence[Record], order: _Order) -> list[Panel]:
    """Losses, with that of the exact posterior as a level, and KL: latents left of a law's tick, observations right."""

    def x(line: Record) -> float:
        return order.beside(line, 0.06) - (0.26 if line.role == "latent" else -0.14)

    def dress(axes: Axes) -> None:
        if aware := sum(law.startswith("suffix") for law in order.laws):
            axes.axvspan(-0.6, aware - 0.5, color=COLOURS["order_aware"], alpha=0.08, zorder=0, linewidth=0)
        axes.set_xlim(-0.6, len(order.laws) - 0.4)
        axes.set_xticks(range(len(order.laws)), order.laws, rotation=35, ha="right", rotation_mode="anchor")

    def dress_losses(axes: Axes) -> None:
        dress(axes)
        for line in roles:
            left = order.laws.index(line.law) - (0.4 if line.role == "latent" else 0)
            style = {**_EXACT, "linestyle": _ROLES[line.role]["linestyle"], "zorder": 1}
            axes.plot([left, left + 0.4], [line.value("exact")] * 2, **style)

    places: dict[str, Any] = {"form": "curves", "lines": roles, "x": x, "look": order.point}
    title = (
        "Loss by mask law; shaded: the order-aware problems (suffix along pi); all others: what masked diffusion meets"
    )
    return [
        Panel(title, y="model", ylabel="loss, nats per scored token", dress=dress_losses, **places),
        Panel("KL by mask law", y="kl", ylabel=_KL, scale=_NATS, dress=dress, **places),
    ]


def _pattern_panels(roles: Sequence[Record], order: _Order) -> list[Panel]:
    """Under pattern(l): the paper's error, KL, what the exact posterior knows, and the error against the proxy."""
    found = sorted((line for line in roles if line.law.startswith("pattern")), key=lambda line: line.latents_hidden)
    models = [line for line in found if line.posterior == "model"]
    one = [line for line in found if line.get("iterations") == order.who[0]]
    known = [line.plus(shown="deterministic") for line in one if line.role == "latent"]
    known += [line.plus(shown="exact") for line in one]
    longest = max(_lengths(roles), default=0)

    def known_look(line: Record) -> Look:
        return _SHARES if line.shown == "deterministic" else {**_ROLES[line.role], "color": COLOURS["exact"]}

    def shown(line: Record) -> Estimate:
        return line.estimate(line.shown)

    def error(line: Record) -> Estimate:
        return line.estimate("log_ratio" if line.iterations == longest else "proxy_log_ratio")

    def panel(title: str, lines: Sequence[Record], y: str | Callable[[Record], Any], ylabel: str, **more: Any) -> Panel:
        more = {"look": order.curve, "scale": _NATS, **more, "x": "latents_hidden", "dress": _count}
        return Panel(title, "curves", lines, y=y, xlabel=_HIDDEN, ylabel=ylabel, **more)

    title, squares = "Figure 2: error by role, against the exact posterior", "E (ln p_model - ln p_Bayes)², nats²"
    panels = [
        panel(title, models or found, "log_ratio", squares),
        panel("KL under pattern(l): models and belief propagation", found, "kl", _KL),
        panel(
            "pattern(l): what the exact posterior knows",
            known,
            shown,
            "share, or nats per hidden token",
            look=known_look,
            scale=1.0,
        ),
    ]
    if any("proxy_log_ratio" in line.metrics for line in roles):
        title = f"Against the proxy, {longest} steps\n(darkest: proxy against exact)"
        panels.append(panel(title, models, error, "E (ln p_model - ln p_proxy)², nats²"))
    return panels


def _count(axes: Axes) -> None:
    """Ticks at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _place_panel(own: DataFrame, order: _Order) -> Panel:
    """KL along the order pi, in groups of places: the problems of an order-aware learner."""
    part = kind(own, "class_losses", law="suffix")
    lines: list[Record] = []
    if len(part):
        length = part["N"] + part["P"]
        size = -(-int(length.max()) // _PLACES)
        place = (length - part["latents_hidden"] - part["observations_hidden"]) // size
        part = part.assign(position=size * place + (size - 1) / 2)  # the middle of its group
        lines = records(pool(part.drop(columns=["latents_hidden", "observations_hidden"])))

    def dress(axes: Axes) -> None:
        if lines:
            axes.axvline(lines[0].N - 0.5, color=COLOURS["line"], linewidth=0.8, linestyle=":")

    return Panel(
        "suffix: KL of the order-aware problems",
        "curves",
        lines,
        x="position",
        y="kl",
        look=order.point,
        scale=_NATS,
        xlabel="place along pi: latents first, then observations",
        ylabel=_KL,
        dress=dress,
    )


def _leak_panel(own: DataFrame, order: _Order) -> Panel:
    """Evidence of every row that its posterior beats Bayes, and the threshold of the family."""
    threshold = next((line.value("threshold") for line in records(pool(kind(own, "leaks")))), math.nan)

    def dress(axes: Axes) -> None:
        axes.set_yscale("symlog", linthresh=10)
        axes.set_xticks(range(len(order.laws)), order.laws, rotation=90, fontsize=6)

    return Panel(
        "No model beats Bayes: above the red line is a leak",
        "curves",
        _tested(own),
        x=lambda line: order.beside(line, 0.12),
        y=_evidence,
        look=lambda line: {**order.point(line), "marker": ".", "markersize": 3, "markerfacecolor": None},
        levels=[Level(threshold, {"color": COLOURS["alarm"]})],
        ylabel="evidence that it beats Bayes, nats",
        dress=dress,
    )
