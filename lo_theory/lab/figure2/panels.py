"""The panels of the figure: each draws one quantity of the rows of one problem on the axes it is given.

Colour is the posterior (exact, belief propagation, models from light to dark as they train longer), the symbol is the
role. On logarithmic axes what is below ``_LOWEST`` stands at that level as a triangle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion.statistics import Runs
from lo_theory.lab.rows import Row
from lo_theory.lab.style import COLOURS, INK, MODEL_SHADES
from lo_theory.lab.summary import Measured, group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = [
    "Content",
    "certainty_panel",
    "error_panel",
    "kl_panel",
    "leak_panel",
    "legend_handles",
    "loss_panel",
    "order_panel",
    "pattern_kl_panel",
    "proxy_panel",
]

_EXACT, _BP = COLOURS["exact"], COLOURS["bp"]
_ROLES: dict[str, tuple[str, Any]] = {"latent": ("o", "-"), "observation": ("s", "--")}
_LOWEST = 1e-6
_PLACES = 24  # groups of places along the order, at most


@dataclass(frozen=True)
class Content:
    """What the rows of one problem hold: losses by role, losses by class, evidence, and the names in their order."""

    roles: tuple[Measured, ...]
    classes: tuple[Measured, ...]
    leaks: tuple[Measured, ...]
    laws: tuple[str, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Content:
        """Group the rows; order-aware laws first, then the uniform one, patterns, all others."""
        roles = tuple(item for item in group(rows, "losses") if item.keys["role"] != "all")
        names = list(dict.fromkeys(str(item.keys["law"]) for item in roles))
        kinds = ("suffix", "uniform", "pattern")
        ranked = sorted(names, key=lambda name: next((i for i, kind in enumerate(kinds) if name.startswith(kind)), 9))
        lengths = sorted({int(item.keys["iterations"]) for item in roles if item.keys["posterior"] == "model"})
        classes, leaks = group(rows, "class_losses"), group(rows, "leaks")
        return cls(roles, tuple(classes), tuple(leaks), tuple(ranked), tuple(lengths))

    @property
    def has_proxy(self) -> bool:
        """Whether errors against a proxy were measured."""
        return any("proxy_log_ratio" in item.metrics for item in self.roles)

    @property
    def names(self) -> list[Any]:
        """Iterations of the models, and "" for belief propagation where there is any."""
        return [*self.lengths, *([""] if any(item.keys["posterior"] == "bp" for item in self.roles) else [])]

    def colour(self, iterations: Any) -> str:
        """Colour of a model, or of belief propagation for ""."""
        if iterations == "":
            return _BP
        place, count = self.lengths.index(iterations), len(self.lengths)
        return MODEL_SHADES[min(len(MODEL_SHADES) - 1, place + max(0, 3 - count))]

    def curve(self, iterations: Any, role: str) -> list[tuple[int, Measured]]:
        """(l, what was measured) under pattern(l), by l."""
        found = [
            (int(item.keys["latents_hidden"]), item)
            for item in self.roles
            if str(item.keys["law"]).startswith("pattern")
            and item.keys["iterations"] == iterations
            and item.keys["role"] == role
        ]
        return sorted(found, key=lambda pair: pair[0])


def _point(axes: Axes, x: float, sums: Runs, role: str, colour: str, *, logarithmic: bool) -> None:
    """A mean with its 95 % interval."""
    value, low, high = sums.estimate()
    if math.isnan(value):
        return
    style: dict[str, Any] = {"color": colour, "markersize": 4.5, "linestyle": ""}
    if role == "observation":
        style["markerfacecolor"] = "white"
    if logarithmic and value < _LOWEST:
        axes.plot(x, _LOWEST, marker="v", alpha=0.5, **style)
        return
    low, high = (value, value) if math.isnan(low) else (low, high)
    low = max(low, _LOWEST) if logarithmic else low
    error = [[max(0.0, value - low)], [high - value]]
    axes.errorbar(x, value, yerr=error, elinewidth=1, marker=_ROLES[role][0], **style)


def _by_law(axes: Axes, content: Content, metric: str, *, logarithmic: bool) -> None:
    """All laws side by side: latents to the left of a law's tick, observations to the right."""
    names = content.names
    for item in content.roles:
        role = str(item.keys["role"])
        side = -0.2 if role == "latent" else 0.2
        x = content.laws.index(str(item.keys["law"])) + side + 0.06 * (names.index(item.keys["iterations"]) - 1)
        _point(axes, x, item.metrics[metric], role, content.colour(item.keys["iterations"]), logarithmic=logarithmic)
    aware = sum(law.startswith("suffix") for law in content.laws)
    if aware:
        axes.axvspan(-0.6, aware - 0.5, color=COLOURS["order_aware"], alpha=0.08, zorder=0, linewidth=0)
    axes.set_xlim(-0.6, max(1, len(content.laws)) - 0.4)
    axes.set_xticks(range(len(content.laws)), content.laws, rotation=35, ha="right", rotation_mode="anchor")


def loss_panel(axes: Axes, content: Content) -> None:
    """Losses of models and belief propagation, and of the exact posterior as a level, by law and role."""
    _by_law(axes, content, "model", logarithmic=False)
    for item in content.roles:
        place = content.laws.index(str(item.keys["law"]))
        ends = (place - 0.4, place) if item.keys["role"] == "latent" else (place, place + 0.4)
        style = _ROLES[str(item.keys["role"])][1]
        axes.plot(ends, [item.value("exact")] * 2, style, color=_EXACT, linewidth=1.6, zorder=1)
    axes.set_ylabel("loss, nats per scored token")
    axes.set_title(
        "Loss by mask law; shaded: the order-aware problems (suffix along pi); all others: what masked diffusion meets"
    )


def _logarithmic(axes: Axes, label: str) -> None:
    axes.set_yscale("log")
    axes.set_ylim(_LOWEST / 2, None)
    axes.set_ylabel(label)


def kl_panel(axes: Axes, content: Content) -> None:
    """KL from the exact marginals, by law and role."""
    _by_law(axes, content, "kl", logarithmic=True)
    _logarithmic(axes, "KL from the exact marginals, nats")
    axes.set_title("KL by mask law")


def _along_patterns(axes: Axes, content: Content, metric: str, names: Sequence[Any], **style: Any) -> None:
    for iterations in names:
        for role, (_, line) in _ROLES.items():
            found = [(x, item.metrics[metric]) for x, item in content.curve(iterations, role) if metric in item.metrics]
            known = [(x, sums) for x, sums in found if sums.n]
            colour = content.colour(iterations)
            heights = [max(sums.mean, _LOWEST) for _, sums in known]
            axes.plot([x for x, _ in known], heights, line, color=colour, **{"linewidth": 1, **style})
            for x, sums in known:
                _point(axes, x, sums, role, colour, logarithmic=True)
    _label_patterns(axes)


def _label_patterns(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("l: latents hidden, with l P/N observations")


def error_panel(axes: Axes, content: Content) -> None:
    """The paper's panel: squared log-ratio at the true token by role, here against the exact posterior."""
    _along_patterns(axes, content, "log_ratio", content.lengths or content.names)
    _logarithmic(axes, "E (ln p_model - ln p_Bayes)², nats²")
    axes.set_title("Figure 2: error by role, against the exact posterior")


def proxy_panel(axes: Axes, content: Content) -> None:
    """The same as the paper measures it: against the model trained longest."""
    _along_patterns(axes, content, "proxy_log_ratio", content.lengths[:-1])
    _along_patterns(axes, content, "log_ratio", content.lengths[-1:], alpha=0.6)
    _logarithmic(axes, "E (ln p_model - ln p_proxy)², nats²")
    axes.set_title(f"Against the proxy, {content.lengths[-1]} steps\n(darkest: proxy against exact)")


def pattern_kl_panel(axes: Axes, content: Content) -> None:
    """KL under pattern(l) by role, models and belief propagation."""
    _along_patterns(axes, content, "kl", content.names)
    _logarithmic(axes, "KL from the exact marginals, nats")
    axes.set_title("KL under pattern(l): models and belief propagation")


def certainty_panel(axes: Axes, content: Content) -> None:
    """How hard pattern(l) is for anyone: share of deterministic contexts, and Bayes loss by role."""
    names = content.names
    for role, (marker, line) in _ROLES.items():
        found = content.curve(names[0], role) if names else []
        x = [place for place, _ in found]
        axes.plot(x, [item.value("exact") for _, item in found], line, marker=marker, markersize=3.5, color=_EXACT)
        if role == "latent":
            shares = [item.value("deterministic") for _, item in found]
            axes.plot(x, shares, ":", marker="D", markersize=3.5, color=INK, label="share of deterministic contexts")
    axes.plot([], [], color=_EXACT, label="Bayes loss, nats")
    axes.legend()
    _label_patterns(axes)
    axes.set_ylabel("share, or nats per hidden token")
    axes.set_title("pattern(l): what the exact posterior knows")


def _places(items: Sequence[Measured], length: int) -> list[tuple[float, Runs]]:
    """KL along the order in at most ``_PLACES`` groups of places: (middle of the group, KL)."""
    size = -(-length // _PLACES)
    pooled: dict[int, Runs] = {}
    for item in items:
        place = length - int(item.keys["latents_hidden"]) - int(item.keys["observations_hidden"])
        pooled[place // size] = pooled.get(place // size, Runs({})) + item.metrics["kl"]
    return [(size * number + (size - 1) / 2, sums) for number, sums in sorted(pooled.items())]


def order_panel(axes: Axes, content: Content) -> None:
    """KL along the order pi, place by place: the problems of an order-aware learner."""
    items = [item for item in content.classes if item.keys["law"] == "suffix"]
    for iterations in content.names:
        for role in _ROLES:
            own = [item for item in items if item.keys["iterations"] == iterations and item.keys["role"] == role]
            for x, sums in _places(own, sum(own[0].pair) if own else 1):
                _point(axes, x, sums, role, content.colour(iterations), logarithmic=True)
    if items:
        axes.axvline(items[0].pair[0] - 0.5, color=COLOURS["line"], linewidth=0.8, linestyle=":")
    _logarithmic(axes, "KL from the exact marginals, nats")
    axes.set_xlabel("place along pi: latents first, then observations")
    axes.set_title("suffix: KL of the order-aware problems")


def leak_panel(axes: Axes, content: Content) -> None:
    """Evidence of every row that its posterior beats Bayes, and the threshold of the family."""
    for item in (*content.roles, *content.classes):
        if "evidence" in item.metrics:
            place = content.laws.index(str(item.keys["law"])) + 0.12 * content.names.index(item.keys["iterations"])
            colour = content.colour(item.keys["iterations"])
            axes.plot(place, item.metrics["evidence"].mean, ".", color=colour, markersize=3)
    for item in content.leaks[:1]:
        axes.axhline(item.value("threshold"), color=COLOURS["alarm"], linewidth=1)
    axes.set_yscale("symlog", linthresh=10)
    axes.set_xticks(range(len(content.laws)), content.laws, rotation=90, fontsize=6)
    axes.set_ylabel("evidence that it beats Bayes, nats")
    axes.set_title("No model beats Bayes: above the red line is a leak")


def legend_handles(content: Content) -> list[Line2D]:
    """Colours of the posteriors and symbols of the roles."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_EXACT, linewidth=1.6, label="exact posterior")]
    for iterations in content.names:
        label = "belief propagation" if iterations == "" else f"model, {iterations} steps"
        handles.append(Line2D([], [], linestyle="", marker="o", color=content.colour(iterations), label=label))
    for role, (marker, line) in _ROLES.items():
        face = INK if role == "latent" else "white"
        handles.append(Line2D([], [], linestyle=line, marker=marker, color=INK, markerfacecolor=face, label=f"{role}s"))
    return [*handles, Line2D([], [], linestyle="", marker="v", color=COLOURS["line"], label=f"below {_LOWEST:g}")]
