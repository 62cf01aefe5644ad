"""One sequence decoded step by step, and what the exact posterior and another one know of it before every step.

Reads a run folder or an experiment file; writes the figure, its CSV and the animation into the folder given. Loads
matplotlib when drawing, no display. A cell has the colour of the value that is most likely there, the fainter the more
entropy is left: white knows nothing. Columns are in the order of the roles, latents first.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import DecodeOptions, FixedCount, Policy, Schedule, View, decode
from lo_theory.diffusion.masks import draw_masks
from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import (
    COLOURS,
    INK,
    NO_DATA,
    SEQUENTIAL,
    VALUES,
    letter_panels,
    new_figure,
    styled,
    write_figure,
)
from lo_theory.lab.panel import NATS, Look, handle
from lo_theory.lab.settings import check_laws, mask_law, policy, step_count
from lo_theory.lab.sweep.cells import cell_id
from lo_theory.lab.task import load_task
from lo_theory.posterior import BPPosterior, ExactPosterior, Posterior
from lo_theory.posterior.protocol import ask
from lo_theory.problem import LODistribution
from lo_theory.problem.layout import MASK
from lo_theory.problem.storage import write_atomically
from lo_theory.rng import Key

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Wanted:
    """What to look at: which row of the experiment, which policies, how many steps, what is hidden, which sequence.

    ``hide``: a mask law, under which the sequence of the data numbered by ``seed`` loses tokens; every decode starts
    from what is left. ``model``: a checkpoint; None: that of the row in ``folder`` or of its cell in a sweep, else
    belief propagation.
    """

    row: int = 0
    policies: tuple[str, ...] = ("vanilla", "margin")
    steps: str | int = "L"
    hide: str = "two_rates(1,1)"
    seed: int = 0
    model: Path | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name in self.policies:
            policy(name)
        mask_law(self.hide)
        step_count(self.steps, 1)


def find_model(experiment: Experiment, row: int, folder: Path | None) -> Path | None:
    """The checkpoint of a row in a run folder: of a masked model, of the longest training where there are several.

    A sweep keeps it with the row's cell, beside the folder of its results.
    """
    if folder is None:
        return None
    task = load_task(experiment.task)
    content = task.prepare(experiment.rows[row]).content()
    cells = folder.parent / f"sweep-{Path(experiment.task).stem}" / "cells"
    return _longest(folder, row) or _longest(cells / cell_id(task.identity, content), 0)


def _longest(folder: Path, row: int) -> Path | None:
    names = [f"model-{row}.safetensors", f"model-{row}-[0-9]*.safetensors", f"model-{row}-mdm-*.safetensors"]
    found = [path for name in names for path in folder.glob(name)]
    return max(found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.stem)], default=None)


def trace_all(experiment: Experiment, wanted: Wanted) -> list[Trace]:
    """Decode the same context with the exact posterior and with the other one, under every policy.

    Errors: ValueError where the row has no problem, the checkpoint is of another, or nothing is hidden.
    """
    distribution = _distribution(experiment, wanted.row)
    name, other = _other(wanted.model or find_model(experiment, wanted.row, wanted.folder), distribution)
    posteriors = {"exact": ExactPosterior(distribution), name: other}
    check_laws([("--hide", (wanted.hide,))], distribution.layout)
    key = Key(wanted.seed).fold("decode view")
    truth = distribution.sample(key.fold("data"), 1)
    masked = draw_masks(mask_law(wanted.hide), key.fold("masks"), truth, distribution.layout)[0][0]
    given = np.where(masked, np.int8(MASK), truth)[0]
    schedule = FixedCount(step_count(wanted.steps, distribution.layout.length))
    return [
        record(distribution, posteriors, denoiser, policy(name), schedule, key=key.fold("decode"), given=given)
        for denoiser in posteriors
        for name in wanted.policies
    ]


def _distribution(experiment: Experiment, row: int) -> LODistribution:
    rows = experiment.rows
    if not 0 <= row < len(rows):
        raise ValueError(f"row {row} does not exist: {experiment.experiment} has rows 0 to {len(rows) - 1}")
    problem = getattr(rows[row], "problem", None)
    if problem is None:
        raise ValueError(f"the rows of task {experiment.task} have no problem to decode: take table1, for example")
    distribution: LODistribution = problem.make()
    return distribution


def _other(path: Path | None, distribution: LODistribution) -> tuple[str, Posterior]:
    """The posterior beside the exact one, by the name that colours and tables know."""
    if path is None:
        return "bp", BPPosterior(distribution)
    from lo_theory.neural import TrainedPosterior, load_model

    model = load_model(path, problem=distribution.fingerprint())
    return "model", TrainedPosterior(model, distribution.layout)


def write_view(experiment: Experiment, wanted: Wanted, folder: Path, *, animate: bool = True) -> list[Path]:
    """Write decode.png, decode.pdf, decode.csv and decode.gif; return the paths."""
    traces = trace_all(experiment, wanted)
    layout, hidden = traces[0].distribution.layout, int(traces[0].hidden[0].sum())
    title = f"One sequence, N = {layout.n_latents}, P = {layout.n_observations}, {hidden} positions to reveal"
    title += f" in {traces[0].steps} steps"
    folder.mkdir(parents=True, exist_ok=True)
    with styled():
        paths = write_figure(folder, "decode", make_figure(traces, title))
        text: Any = to_csv(traces).encode()
        paths.append(write_atomically(folder / "decode.csv", lambda file: file.write(text)))
        if animate:
            paths.append(_write_animation(traces, title, folder / "decode.gif"))
    return paths


# --- a decode as it is recorded ---

_LEAST_PROBABILITY = 1e-12  # what is below counts as it, so that a KL is finite
_CERTAIN = 1e-9  # a marginal this near to one value is determined


@dataclass(frozen=True, eq=False)
class Trace:
    """A decode of T steps.

    ``tokens`` int8[T + 1, L], before each step and at the end; ``revealed`` int32[L], the step that revealed each
    position (-1: given); ``beliefs``: by name float64[T, L, V], the marginals before each step; ``impossible`` bool[T]:
    by then what is revealed has probability zero; ``wrong`` bool[L]: observations other than the most likely value
    given the latents of the end.
    """

    distribution: LODistribution
    denoiser: str
    policy: str
    tokens: NDArray[np.int8]
    revealed: NDArray[np.int32]
    beliefs: Mapping[str, NDArray[np.float64]]
    impossible: NDArray[np.bool_]
    wrong: NDArray[np.bool_]

    @property
    def steps(self) -> int:
        """T."""
        return len(self.tokens) - 1

    @cached_property
    def hidden(self) -> NDArray[np.bool_]:
        """bool[T, L], before each step."""
        return np.asarray(self.tokens[:-1] == MASK)

    @cached_property
    def kl(self) -> NDArray[np.float64]:
        """float64[T, L], KL(exact, other) in nats where hidden; nan where revealed, or impossible."""
        exact, other = self.beliefs.values()
        terms = exact * (np.log(np.maximum(exact, _LEAST_PROBABILITY)) - np.log(np.maximum(other, _LEAST_PROBABILITY)))
        return np.where(self.hidden & ~self.impossible[:, None], np.maximum(terms.sum(axis=2), 0.0), np.nan)

    @cached_property
    def undetermined(self) -> NDArray[np.int64]:
        """int64[T], hidden positions of which the exact posterior leaves more than one value."""
        open_ = self.beliefs["exact"].max(axis=2) < 1 - _CERTAIN
        return np.asarray((self.hidden & open_).sum(axis=1))

    def met(self) -> float:
        """KL of the other posterior at the positions as they were revealed, summed, in nats; of the possible steps."""
        places = np.flatnonzero(self.revealed >= 0)
        return float(np.nansum(self.kl[self.revealed[places], places]))


def record(
    distribution: LODistribution,
    posteriors: Mapping[str, Posterior],
    denoiser: str,
    policy: Policy,
    schedule: Schedule,
    *,
    key: Key,
    given: NDArray[np.int8],
) -> Trace:
    """Decode one sequence from ``given`` int8[L] (MASK = -1 where hidden) with one of two posteriors, watched by both.

    ``posteriors`` are ``exact`` and another one. Cost: 3 T queries of one row, T of them together. Errors: ValueError
    where nothing is hidden, and for an answer that is none (``ask``).
    """
    if not (given == MASK).any():
        raise ValueError("nothing is hidden: choose a mask law that hides something, or another seed")
    kept: list[NDArray[np.int8]] = []

    def keep(view: View, next_masked: NDArray[np.bool_]) -> None:
        kept.append(view.tokens[0].copy())

    options, layout = DecodeOptions(observer=keep), distribution.layout
    made = decode(posteriors[denoiser], policy, schedule, key=key, n=1, given=given[None], options=options)
    contexts = np.array(kept)
    answers = {name: ask(posterior, contexts, layout, name=name) for name, posterior in posteriors.items()}
    latents, observed = layout.split(made.tokens)
    law = distribution.observations.probabilities(latents)[0]
    seen = np.take_along_axis(law, observed[0].astype(np.intp)[:, None], axis=1)[:, 0]
    wrong = np.zeros(len(given), np.bool_)
    wrong[layout.observation_positions] = seen < law.max(axis=1)
    return Trace(
        distribution,
        denoiser,
        policy.name,
        np.concatenate([contexts, made.tokens]),
        made.step_revealed[0],
        {name: np.asarray(answer.probs, np.float64) for name, answer in answers.items()},
        np.isneginf(answers["exact"].log_evidence),
        wrong,
    )


def to_csv(traces: Iterable[Trace]) -> str:
    """What the figure draws: a line for each decode, step and position that is hidden before it, or given."""
    lines = [line for trace in traces for line in _csv_lines(trace)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _csv_lines(trace: Trace) -> Iterator[dict[str, Any]]:
    roles, given = trace.distribution.layout.role, trace.revealed < 0
    for step, place in np.argwhere(trace.hidden | given & (np.arange(trace.steps) == 0)[:, None]):
        kl = trace.kl[step, place]
        yield {
            **{"denoiser": trace.denoiser, "policy": trace.policy, "step": step, "position": place},
            **{"role": roles[place], "revealed_at": trace.revealed[place], "token": trace.tokens[-1, place]},
            **{"wrong": int(trace.wrong[place]), "kl": "" if np.isnan(kl) else f"{kl:.6g}"},
            **{
                f"{name}_p{v}": f"{value:.6g}"
                for name, part in trace.beliefs.items()
                for v, value in enumerate(part[step, place])
            },
        }


# --- the figure: from top to bottom step by step ---

_NAMES = {"exact": "exact posterior", "model": "trained model", "bp": "belief propagation"}


def make_figure(traces: Sequence[Trace], title: str) -> Figure:
    """A band for each decode: what both posteriors know at each step, how far they are apart, how much is open."""
    figure = new_figure(17, 1.0 + 3.9 * len(traces), title)
    grid = figure.subplots(len(traces), 4, width_ratios=[4, 4, 4.4, 1.7], sharey="row", squeeze=False)
    for axes, trace in zip(grid, traces, strict=True):
        _, other = trace.beliefs
        _belief_panel(axes[0], trace, "exact")
        axes[0].set_title(f"Decoded by {_article(trace.denoiser)}{_headline(trace)}.\n{axes[0].get_title(loc='left')}")
        _belief_panel(axes[1], trace, other)
        _kl_panel(axes[2], trace, other)
        _count_panel(axes[3], trace)
        axes[0].set_ylabel("step")
    letter_panels(grid.flat)
    figure.legend(handles=[handle(look) for look in _legend(traces)], loc="outside lower center", ncols=6)
    return figure


def _article(name: str) -> str:
    """``the `` before what is one thing; belief propagation is none."""
    return "" if name == "bp" else "the "


def _headline(trace: Trace) -> str:
    count = trace.distribution.layout.n_observations
    right = count - int(trace.wrong.sum())
    return f"{_NAMES[trace.denoiser]}, {trace.policy}: {right} of {count} observations consistent"


def _value_colour(value: int) -> str:
    return VALUES[value % len(VALUES)]


def _colours(trace: Trace, probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours [..., L, 3] of marginals [..., L, V], by role."""
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(_value_colour(v)) for v in range(probs.shape[-1])])
    layout = trace.distribution.layout
    entropy = -(probs * np.log(np.maximum(probs, 1e-300))).sum(axis=-1)
    known = np.clip(1 - entropy / np.log(layout.values), 0.0, 1.0)[..., None]
    shades = 1 - known + known * palette[probs.argmax(axis=-1)]
    return np.asarray(shades[..., layout.order, :])


def _believed(trace: Trace, name: str) -> NDArray[np.float64]:
    """Colours [T + 1, L, 3] of what a posterior believes, then of the end; grey where the exact one has no answer."""
    from matplotlib.colors import to_rgb

    layout = trace.distribution.layout
    shades = _colours(trace, np.concatenate([trace.beliefs[name], np.eye(layout.n_values)[trace.tokens[-1:]]]))
    if name == "exact":
        shades[:-1][(trace.hidden & trace.impossible[:, None])[:, layout.order]] = to_rgb(NO_DATA)
    return shades


def _belief_panel(axes: Axes, trace: Trace, name: str) -> None:
    """What one posterior believes before each step; dots: revealed at that step; below, the end."""
    layout = trace.distribution.layout
    axes.imshow(_believed(trace, name), aspect="auto", interpolation="nearest", origin="upper")
    steps = trace.revealed[layout.order]
    roles = np.flatnonzero(steps >= 0)
    axes.plot(roles, steps[roles], ".", color=INK, markersize=3)
    wrong = np.flatnonzero(trace.wrong[layout.order])
    if len(wrong):  # an empty line that is not clipped would upset the layout
        axes.plot(wrong, np.full(len(wrong), trace.steps), "x", color=COLOURS["alarm"], markersize=4.5, clip_on=False)
    _mark_impossible(axes, trace)
    axes.axhline(trace.steps - 0.5, color=INK, linewidth=0.8)
    _dress(axes, trace)
    axes.set_title(f"What {_article(name)}{_NAMES[name]} knows")


def _mark_impossible(axes: Axes, trace: Trace) -> None:
    if trace.impossible.any():
        axes.axhline(int(trace.impossible.argmax()) - 0.5, color=COLOURS["alarm"], linewidth=1)


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
    shown = np.ma.masked_invalid(np.clip(kl, NATS.low, NATS.high))
    mesh = axes.imshow(shown, aspect="auto", interpolation="nearest", norm=LogNorm(NATS.low, NATS.high), cmap=palette)
    if trace.impossible.any():
        axes.axhspan(int(trace.impossible.argmax()) - 0.5, trace.steps - 0.5, color=NO_DATA, linewidth=0)
    _dress(axes, trace)
    axes.figure.colorbar(mesh, ax=axes, pad=0.02).set_ticks(list(NATS.ticks), labels=list(NATS.ticks.values()))
    words = f"nats; sum over what was revealed: {trace.met():.2f}"
    axes.set_title(f"KL of {_article(name)}{_NAMES[name]}, {words}")


def _count_panel(axes: Axes, trace: Trace) -> None:
    """How much is hidden, and how much of that is still open."""
    steps = range(trace.steps)
    axes.plot(trace.hidden.sum(axis=1), steps, color=COLOURS["line"])
    axes.plot(np.where(trace.impossible, np.nan, trace.undetermined), steps, color=COLOURS["exact"])
    _mark_impossible(axes, trace)
    axes.set_ylim(trace.steps + 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("positions")
    axes.set_title("Still hidden, still open")


def _legend(traces: Sequence[Trace]) -> Iterator[Look]:
    for v in range(traces[0].distribution.layout.n_values):
        yield {"facecolor": _value_colour(v), "edgecolor": _value_colour(v), "label": f"value {v}"}
    yield {"facecolor": "white", "edgecolor": COLOURS["line"], "label": "nothing known, or nothing hidden (KL)"}
    yield {"marker": ".", "color": INK, "label": "revealed at this step"}
    yield {"color": COLOURS["line"], "label": "hidden"}
    yield {"color": COLOURS["exact"], "label": "hidden and not determined by the exact posterior"}
    if any(trace.wrong.any() for trace in traces):
        yield {"marker": "x", "color": COLOURS["alarm"], "label": "inconsistent in the end"}
    if any(trace.impossible.any() for trace in traces):
        yield {"color": COLOURS["alarm"], "label": "from here on impossible: no exact answer"}


# --- the animation: a frame a step ---

_WRAP = 60  # cells in a line
_DPI, _MILLISECONDS, _LAST_MILLISECONDS = 80, 220, 2500
_PALETTE = 48  # colours


def _write_animation(traces: Sequence[Trace], title: str, path: Path) -> Path:
    """Write a GIF, a frame a step, the last one longer: the sequence, and what both posteriors know of it."""
    from PIL import Image

    layout = traces[0].distribution.layout
    width = min(_WRAP, layout.length)
    lines = -(-layout.length // width)
    figure = new_figure(11, 0.7 + len(traces) * (0.5 + 0.3 * 3 * lines), title)
    grid = figure.subplots(3 * len(traces), 1).reshape(len(traces), 3)
    films = []  # of each axes its image, and all that it shows
    for band, trace in zip(grid, traces, strict=True):
        names = ["sequence", *(_NAMES[name] for name in trace.beliefs)]
        parts = [_sequence(trace), *(_believed(trace, name) for name in trace.beliefs)]
        for axes, name, cells in zip(band, names, parts, strict=True):
            wrapped = np.ones((len(cells), lines * width, 3))
            wrapped[:, : layout.length] = cells
            film = wrapped.reshape(-1, lines, width, 3)
            films.append((axes.imshow(film[0], aspect="auto", interpolation="nearest"), film))
            axes.set_yticks([0], [name])
            axes.set_xticks(np.arange(-0.5, width), [])
            axes.tick_params(length=0)
            axes.grid(axis="x", color="white", linewidth=1)
            axes.set_axisbelow(False)
            if lines == 1:
                axes.axvline(layout.n_latents - 0.5, color=INK, linewidth=1.5)
        band[0].set_title(_running(trace, 0))
    figure.set_dpi(_DPI)
    _pixels(figure)  # lays the parts out, once for all frames
    figure.set_layout_engine("none")
    frames = []
    for step in range(max(trace.steps for trace in traces) + 1):
        for band, trace in zip(grid, traces, strict=True):
            band[0].set_title(_running(trace, step))
        for image, film in films:
            image.set_data(film[min(step, len(film) - 1)])
        frames.append(Image.fromarray(_pixels(figure)))
    palette = frames[len(frames) // 2].quantize(_PALETTE)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [*[_MILLISECONDS] * len(rest), _LAST_MILLISECONDS]
    return write_atomically(
        path, lambda file: first.save(file, "GIF", save_all=True, append_images=rest, duration=times, loop=0)
    )


def _sequence(trace: Trace) -> NDArray[np.float64]:
    """Colours [T + 1, L, 3] of the sequence before each step and at the end; light grey where it is hidden."""
    from matplotlib.colors import to_rgb

    layout = trace.distribution.layout
    shades = _colours(trace, np.eye(layout.n_values)[np.maximum(trace.tokens, 0)])
    shades[(trace.tokens < 0)[:, layout.order]] = to_rgb(NO_DATA)
    return shades


def _running(trace: Trace, step: int) -> str:
    if step >= trace.steps:
        return _headline(trace)
    open_ = f"{int(trace.undetermined[step])} of them open"
    said = "what is revealed is impossible" if trace.impossible[step] else open_
    return f"{_NAMES[trace.denoiser]}, {trace.policy}: step {step}, {int(trace.hidden[step].sum())} hidden, {said}"


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    """The figure drawn, uint8[height, width, 3]."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
