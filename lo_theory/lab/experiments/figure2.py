"""Figure 2 of the paper and what it asks: losses by mask law, pattern and role, against the Bayes optimum.

A unit of losses sends the same contexts through every model, belief propagation and the exact posterior at once. In the
figure colour is the posterior (exact, belief propagation, models from light to dark as they train longer), the symbol
is the role.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab import measures
from lo_theory.lab.config import Experiment, seed_texts
from lo_theory.lab.drawing import COLOURS, INK, MODEL_SHADES
from lo_theory.lab.frame import Frame, Record, beside, each, gap, kind, of_kind, pool, records, with_texts
from lo_theory.lab.learning import training_sheet
from lo_theory.lab.panel import Axes, Level, Logarithmic, Look, Panel, Sheet
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import require_distinct, setting
from lo_theory.lab.settings import Model, Objective, Training, check_laws, mask_law
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table import PAIR, Column, Table, key, mean, measured, number, text
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit
from lo_theory.posterior import Posterior
from lo_theory.problem import Layout, LODistribution


@dataclass(frozen=True)
class PatternEvaluation:
    """Losses by pattern and role on ``sequences`` fresh contexts of each mask law, against the exact posterior.

    ``laws``, beside pattern(l), l in ``patterns`` (all of 1..N-1 when left out). ``bp``: judge belief propagation
    too. ``proxy``: also measure the errors as the paper does, against the model trained longest in place of the exact
    posterior. ``limit_states``: the largest number of assignments the exact posterior may enumerate for one group of
    latents.
    """

    sequences: int = setting(1000, least=2)
    laws: tuple[str, ...] = ("uniform", "suffix")
    patterns: tuple[int, ...] | None = setting(None, least=1)
    bp: bool = True
    proxy: bool = False
    limit_states: int = setting(2**26, least=1, most=2**62 - 1)

    def __post_init__(self) -> None:
        names = [mask_law(text).name for text in self.laws]
        names += [f"pattern({count})" for count in self.patterns or ()]
        require_distinct("the list of laws and patterns", names)
        if self.patterns is None and (among := [name for name in names if name.startswith("pattern(")]):
            raise ValueError(
                f"laws name {among[0]}, which is among the patterns, all of 1..N-1 when left out: leave it out, or "
                "give patterns"
            )

    def texts(self, layout: Layout) -> tuple[str, ...]:
        """All mask laws, by the names that ``mask_law`` reads, in the order of tables."""
        patterns = range(1, layout.n_latents) if self.patterns is None else self.patterns
        return (*self.laws, *(f"pattern({count})" for count in patterns))


@dataclass(frozen=True)
class Row:
    """A problem, trainings of a model on it, and where they are judged. ``training`` null: no model.

    ``further``: longer trainings, in steps. Each is a training of its own, from the same initialisation and on the same
    data, with the cosine of its own length; stages of the curriculum given in steps are the same steps in all.
    """

    problem: Problem
    seed: int = 0
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    training: Training | None = None
    further: tuple[int, ...] = setting((), least=1)
    evaluation: PatternEvaluation = field(default_factory=PatternEvaluation)

    def __post_init__(self) -> None:
        if self.further and self.training is None:
            raise ValueError("further lengths are given, but training is null: give training, or further: []")
        lengths = self.lengths
        if lengths:
            self.objective.check_lasts(lengths[0])
        if any(after <= before for before, after in itertools.pairwise(lengths)):
            raise ValueError(f"further lengths must grow, beginning above training.steps: got {list(lengths)}")
        if self.evaluation.proxy and len(lengths) < 2:
            raise ValueError("evaluation.proxy asks for a model trained further than another: give further lengths")
        if not lengths and not self.evaluation.bp:
            raise ValueError("nothing is judged: give training, or evaluation.bp: true")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Steps of all trainings, the shortest first."""
        return () if self.training is None else (self.training.steps, *self.further)

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a mask law does not fit the problem."""
        layout = distribution.layout
        check_laws([("evaluation", self.evaluation.texts(layout)), *self.objective.named_laws()], layout)


@dataclass(frozen=True)
class Reference:
    """What was published, to print below ours."""

    source: str
    statement: str


def units(s: Subject) -> Iterator[Unit]:
    """All units, in the order in which their rows are kept."""
    s, row = s.named(s.size), s.row
    facts = measures.singles(measures.loss_lines(s.distribution))
    yield s.unit("problem", "problem", lambda: [Finding("problem", {}, facts)])
    for steps in row.lengths:
        learner, keys = _learner(s, steps), {"iterations": steps}
        measure = partial(measures.training, s, learner, keys)
        yield s.unit(f"training/{steps}", f"{steps}-step training", measure, learner=learner)
    laws, trainings = row.evaluation.texts(s.distribution.layout), [f"training/{steps}" for steps in row.lengths]
    for law in laws:
        yield s.unit(f"losses/{law}", f"losses under {law}", partial(_losses, s, law), trainings)
    measured = [f"losses/{law}" for law in laws]
    yield s.unit("leaks", "leaks", partial(_leaks, s, measured), measured)


def _learner(s: Subject, steps: int) -> Learner:
    return s.learner(f"{s.title} {steps}-step", str(steps), training=replace(s.row.training, steps=steps))


def _judged(s: Subject) -> dict[str, dict[str, Any]]:
    """Keys of everything that is judged, by name."""
    judged: dict[str, dict[str, Any]] = {
        f"model({steps})": {"posterior": "model", "iterations": steps} for steps in s.row.lengths
    }
    return judged | ({"bp": {"posterior": "bp", "iterations": ""}} if s.row.evaluation.bp else {})


def _posterior(s: Subject, keys: Mapping[str, Any]) -> Posterior:
    """The posterior of these keys; a model in float32, so that rounded logits do not count as its errors."""
    return s.bp() if keys["posterior"] == "bp" else s.model(_learner(s, keys["iterations"]), precision="float32")


def _losses(s: Subject, text: str) -> list[Finding]:
    setting = s.row.evaluation
    judged = {name: (keys, _posterior(s, keys)) for name, keys in _judged(s).items()}
    longest = f"model({s.row.lengths[-1]})" if setting.proxy else None
    exact = s.exact(setting.limit_states)
    measured = measures.law_losses(s, judged, exact, mask_law(text), setting.sequences, beside=longest)
    return [found for keys, losses in measured for found in measures.by_pattern(keys, losses)]


def _leaks(s: Subject, measured: Sequence[str]) -> list[Finding]:
    """Rows of losses, of whatever class and role, whose evidence says that a posterior beats Bayes."""
    names = {f"row{s.index}/{name}" for name in measured}
    lines = [line for line in list(s.context.run.rows) if line.unit in names and line.metric == "evidence"]
    evidence = {i: line.sums.total for i, line in enumerate(lines)}
    found = []
    for keys in _judged(s).values():
        own = [i for i, line in enumerate(lines) if all(line.keys[name] == keys[name] for name in keys)]
        found.append(Finding("leaks", keys, measures.singles(measures.leaks(evidence, own))))
    return found


def _loss_lines(frame: Frame) -> list[Record]:
    """Losses by law and role, of every posterior and row."""
    return of_kind(frame, "losses", role=["latent", "observation"])


def _lengths(lines: Sequence[Record]) -> list[int]:
    """Steps of the models, the shortest first."""
    return sorted({line.iterations for line in lines if line.posterior == "model"})


def _tested(frame: Frame) -> list[Record]:
    """Losses by role and by class that say whether a posterior beats Bayes."""
    lines = [*of_kind(frame, "losses"), *of_kind(frame, "class_losses")]
    return [line for line in lines if "evidence" in line.metrics]


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


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """Losses for each length of training, errors against the proxy, losses under the uniform law, leaks."""
    frame = with_texts(frame, "seeds", seed_texts(experiment))
    found = _loss_lines(frame)
    lengths = _lengths(found)
    own = {(line.get("iterations"), line.row, line.law, line.role): line for line in found}

    def of(steps: int | None, line: Record) -> Record:
        """What another posterior, of BP None, has on the same tokens."""
        return own.get((steps, line.row, line.law, line.role), Record({}))

    lines = [line.plus(bp=of(None, line), proxy=of(max(lengths, default=0), line)) for line in found]
    notes = [_LOSS_NOTE]
    if experiment.reference is not None:
        notes.append(f"Paper: {experiment.reference.statement} ({experiment.reference.source}).")
    for i, steps in enumerate(lengths or [None]):
        whose = "belief propagation" if steps is None else f"the model after {steps} steps"
        yield Table(
            f"{experiment.heading}: {whose}",
            (PAIR, *_LOSSES),
            [line for line in lines if line.get("iterations") == steps],
            section=["row"],
            notes=notes[:1] if i else notes,
        )
    yield Table(
        "The paper's proxy",
        (
            *(PAIR, _WHO, _LAW, _ROLE),
            _short("proxy_log_ratio", "error against\nthe proxy"),
            _short("log_ratio", "error against\nexact"),
            _short("log_ratio", "the proxy's\nown", of="proxy"),
        ),
        [line for line in lines if line.posterior == "model" and "proxy_log_ratio" in line.metrics],
        notes="Mean squared log-ratio at the true token, against the model trained longest (the paper's proxy) and "
        "against the exact posterior, and the error of the proxy itself against the exact posterior.",
    )
    yield _progress_table(frame)
    yield _leak_table(frame)


def _progress_table(frame: Frame) -> Table:
    losses, problem = pool(kind(frame, "losses", law="uniform", role="all")), pool(kind(frame, "problem"))
    closed = beside(records(losses), records(gap(losses, problem)), "row", "posterior", "iterations")
    return Table(
        "How far each posterior is from the Bayes optimum",
        (
            *(PAIR, _WHO, _short("model", "loss"), _with_half("exact", "Bayes")),
            *(_short("floor", "floor"), _short("marginals_only", "marginals\nonly"), _with_half("kl", "KL")),
            measured("gap", "gap closed", ".1f", 100),
        ),
        beside(closed, records(problem), "row"),
        notes="Uniform mask law, all tokens, nats per token. Gap closed = 1 - KL/(marginals only - floor) in per "
        "cent. 95 % intervals over sequences.",
    )


def _evidence(line: Record) -> float:
    """The largest evidence of the runs that a record pools."""
    return max(found.value for found in line.runs("evidence").values())


def leaking(frame: Frame) -> list[Record]:
    """Losses by law or by class whose evidence is over the threshold of their problem, the largest first."""
    thresholds = {line.row: line.value("threshold") for line in of_kind(frame, "leaks")}
    found = [line for line in _tested(frame) if _evidence(line) >= thresholds.get(line.row, math.inf)]
    return sorted(found, key=_evidence, reverse=True)


def _leak_table(frame: Frame) -> Table:
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
            *(PAIR, _WHO, mean("rows_tested", "rows tested", ".0f")),
            mean("largest_evidence", "largest\nevidence", ".1f"),
            mean("threshold", form=".1f"),
            Column("leaks", lambda line: f"LEAK in {n:.0f} rows" if (n := line.value("leaks")) else "none"),
        ),
        of_kind(frame, "leaks"),
        notes=notes,
    )


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


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """One sheet for each row, ``figure``, ``figure-1`` and so on; gaps closed during training where measured."""
    rows = dict.fromkeys(line.row for line in _loss_lines(frame))
    sheets = {f"figure-{row}" if row else "figure": _sheet(frame, experiment, row) for row in rows}
    return sheets | training_sheet(frame, experiment)


@dataclass(frozen=True)
class _Order:
    """The mask laws and the posteriors of one problem in their order, a model by its steps, belief propagation as None.

    They decide where a record is drawn and in which colour.
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


def _sheet(frame: Frame, experiment: Experiment, row: int) -> Sheet:
    own = frame[frame["row"] == row]
    roles = _loss_lines(own)
    order = _Order.of(roles)
    panels = [*_law_panels(roles, order), *_pattern_panels(roles, order), _leak_panel(own, order)]
    panels.insert(5, _place_panel(own, order))
    legend: list[Look] = [{**_EXACT, "label": "exact posterior"}]
    for steps in order.who:
        label = "belief propagation" if steps is None else f"model, {steps} steps"
        legend.append({"marker": "o", "color": order.colour(steps), "label": label})
    legend += [{"color": INK, **look, "label": f"{role}s"} for role, look in _ROLES.items()]
    return Sheet(
        f"{experiment.heading}; N = {roles[0].N}, P = {roles[0].P}",
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
    known = each([line for line in one if line.role == "latent"], "deterministic") + each(one, "exact")
    longest = max(_lengths(roles), default=0)

    def known_look(line: Record) -> Look:
        return _SHARES if line.metric == "deterministic" else {**_ROLES[line.role], "color": COLOURS["exact"]}

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
            "value",
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


def _place_panel(own: Frame, order: _Order) -> Panel:
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


def _leak_panel(own: Frame, order: _Order) -> Panel:
    """Evidence of every row that its posterior beats Bayes, and the threshold of the family."""
    threshold = next((line.value("threshold") for line in of_kind(own, "leaks")), math.nan)

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
