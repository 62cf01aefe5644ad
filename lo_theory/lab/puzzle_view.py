"""One Sudoku decoded under each policy: which cell when, the first error, and how far denoiser and exact posterior are.

Reads a run folder or an experiment file of task ``puzzles``; writes the figure and its CSV into the folder given. Loads
matplotlib when drawing, no display.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import DecodeOptions, FirstErrors, FixedCount, decode, first_errors
from lo_theory.lab.config import Experiment
from lo_theory.lab.decode_view import find_model
from lo_theory.lab.drawing import (
    COLOURS,
    INK,
    NO_DATA,
    SEQUENTIAL,
    SHADING,
    letter_panels,
    new_figure,
    styled,
    write_figure,
)
from lo_theory.lab.experiments.puzzle_sets import puzzle_set
from lo_theory.lab.experiments.puzzles import Row, untrained
from lo_theory.lab.panel import NATS, Look, handle
from lo_theory.lab.settings import policy, step_count
from lo_theory.posterior import Posterior
from lo_theory.posterior.conditioned import exact_posterior
from lo_theory.posterior.protocol import ask
from lo_theory.problem import Distribution, sudoku
from lo_theory.problem.layout import MASK
from lo_theory.problem.storage import write_atomically
from lo_theory.rng import Key

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST_PROBABILITY = 1e-12  # what is below counts as it, so that a KL is finite


@dataclass(frozen=True)
class Wanted:
    """What to look at: who solves which puzzle under which policies.

    ``puzzle``: a line of digits, or the name of a set, of which ``seed`` numbers one. ``denoiser``: model, exact or
    one that needs no training. ``model``: a checkpoint; None: that of the row in ``folder``. ``drawn``: digits are
    drawn, else the likeliest is written.
    """

    row: int = 0
    puzzle: str = "minimal"
    denoiser: str = "model"
    policies: tuple[str, ...] = ("vanilla", "margin")
    steps: str | int = "L"
    drawn: bool = False
    seed: int = 0
    model: Path | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name in self.policies:
            policy(name)
        step_count(self.steps, 1)


@dataclass(frozen=True, eq=False)
class Solved:
    """One decode of a puzzle of L cells.

    ``tokens`` int8[L]; ``written`` int32[L], the step of each cell (-1: given); ``errors`` of this one row; ``kl``
    float64[L]: KL(exact, denoiser) in nats at each cell in the context in which it was written, nan where given and in
    a dead end.
    """

    policy: str
    tokens: NDArray[np.int8]
    written: NDArray[np.int32]
    errors: FirstErrors
    kl: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Seen:
    """A puzzle of L cells, what a denoiser knows of it as it is given, and its decodes.

    ``given`` and ``solution`` int8[L]; ``guess`` int8[L], the likeliest digits; ``kl`` float64[L], KL(exact, denoiser)
    in nats, nan where given.
    """

    denoiser: str
    given: NDArray[np.int8]
    solution: NDArray[np.int8]
    guess: NDArray[np.int8]
    kl: NDArray[np.float64]
    decodes: list[Solved]

    @property
    def size(self) -> int:
        """Cells in a row of the grid."""
        return round(len(self.given) ** 0.5)


def look(experiment: Experiment, wanted: Wanted) -> Seen:
    """Decode one puzzle with one denoiser under every policy.

    Errors: ValueError for an experiment of another task, a row that is not there, a puzzle of another size or without a
    single solution, and a model without a checkpoint.
    """
    row = _row(experiment, wanted.row)
    law = row.problem.make()
    key = Key(wanted.seed).fold("puzzle view")
    given, solution = _puzzle(law, wanted, key.fold("puzzle"))
    exact, denoiser = exact_posterior(law), _denoiser(experiment, law, wanted)
    steps = FixedCount(step_count(wanted.steps, len(given)))
    decodes = []
    for name in wanted.policies:
        options, own = DecodeOptions(argmax=not wanted.drawn), key.fold("decode")
        made = decode(denoiser, policy(name), steps, key=own, n=1, given=given[None], options=options)
        moments = np.arange(made.step_revealed.max() + 1)[:, None]
        contexts = np.where(made.step_revealed < moments, made.tokens, np.int8(MASK))
        kl, _ = _compare(exact, denoiser, contexts)
        written = made.step_revealed[0]
        own_kl = np.where(written < 0, np.nan, kl[written, np.arange(len(given))])
        decodes.append(Solved(name, made.tokens[0], written, first_errors(exact, made), own_kl))
    kl, guess = _compare(exact, denoiser, given[None])
    return Seen(wanted.denoiser, given, solution, guess[0], kl[0], decodes)


def _compare(
    exact: Posterior, denoiser: Posterior, contexts: NDArray[np.int8]
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """KL(exact, denoiser) in nats at what is hidden, nan elsewhere and where a context is impossible; likeliest
    digits.
    """
    truth, other = (ask(one, contexts, exact.layout) for one in (exact, denoiser))
    p, q = (np.maximum(one.probs, _LEAST_PROBABILITY) for one in (truth, other))
    known = (contexts == MASK) & ~np.isneginf(truth.log_evidence)[:, None]
    kl = np.where(known, np.maximum((p * np.log(p / q)).sum(axis=2), 0.0), np.nan)
    return kl, other.probs.argmax(axis=2).astype(np.int8)


def _row(experiment: Experiment, number: int) -> Row:
    rows = experiment.rows
    if not 0 <= number < len(rows):
        raise ValueError(f"row {number} does not exist: {experiment.experiment} has rows 0 to {len(rows) - 1}")
    row = rows[number]
    if not isinstance(row, Row):
        raise ValueError(f"puzzle-view takes experiments of task puzzles, got task {experiment.task}: try decode-view")
    if row.problem.family != "sudoku":
        raise ValueError(f"puzzle-view draws the grids of Sudokus, got family {row.problem.family}")
    return row


def _puzzle(law: Distribution, wanted: Wanted, key: Key) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """A puzzle int8[L] and its one solution."""
    if any(letter.isalpha() for letter in wanted.puzzle):
        given = puzzle_set(wanted.puzzle, "sudoku")(law, key, 1).given[0]
    else:
        given = sudoku.read_puzzle(wanted.puzzle)
    if len(given) != law.layout.length:
        raise ValueError(f"the puzzle has {len(given)} cells, the grids of the experiment {law.layout.length}")
    if (given != MASK).all():
        raise ValueError(f"the puzzle {sudoku.write_puzzle(given)} has no empty cell: there is nothing to decode")
    return given, sudoku.solve(given)


def _denoiser(experiment: Experiment, law: Distribution, wanted: Wanted) -> Posterior:
    if wanted.denoiser == "exact":
        return exact_posterior(law)
    if wanted.denoiser != "model":
        return untrained(wanted.denoiser, law)
    path = wanted.model or find_model(experiment, wanted.row, wanted.folder)
    if path is None:
        raise ValueError("no checkpoint of the model: give --model FILE, a run that kept its own, or --denoiser NAME")
    from lo_theory.neural import TrainedPosterior, load_model

    return TrainedPosterior(load_model(path, problem=law.fingerprint()), law.layout)


def write_view(experiment: Experiment, wanted: Wanted, folder: Path) -> list[Path]:
    """Write puzzle.png, puzzle.pdf and puzzle.csv; return the paths."""
    seen = look(experiment, wanted)
    folder.mkdir(parents=True, exist_ok=True)
    with styled():
        paths = write_figure(folder, "puzzle", make_figure(seen))
    text: Any = to_csv(seen).encode()
    return [*paths, write_atomically(folder / "puzzle.csv", lambda file: file.write(text))]


def to_csv(seen: Seen) -> str:
    """What the figure draws: a line for each cell of the puzzle as it is given (no policy), then of each decode.

    Digits and steps count from 1; a step is 0 where the cell is given.
    """
    start = {"policy": "", "step": "", "excluded": "", "dead": ""}
    columns: list[tuple[dict[str, Any], NDArray[np.int8], NDArray[np.float64]]] = [(start, seen.guess, seen.kl)]
    for one in seen.decodes:
        excluded, dead = (part[0].astype(int) for part in (one.errors.excluded, one.errors.dead))
        own = {"policy": one.policy, "step": one.written + 1, "excluded": excluded, "dead": dead}
        columns.append((own, one.tokens, one.kl))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["policy", "step", "excluded", "dead", "row", "column", "given", "solution", "digit", "kl"])
    for own, digits, kl in columns:
        for cell, nats in enumerate(kl.tolist()):
            values = [value if isinstance(value, str) else int(value[cell]) for value in own.values()]
            places = [*divmod(cell, seen.size), int(seen.given[cell] != MASK)]
            digit = [seen.solution[cell] + 1, digits[cell] + 1]
            writer.writerow([*values, *places, *digit, "" if np.isnan(nats) else f"{nats:.6g}"])
    return stream.getvalue()


# --- the figure: the puzzle as it is given, then a column for each policy; below, how far from the truth ---


def make_figure(seen: Seen) -> Figure:
    """The denoiser's likeliest digits, the grids that it fills, and below each its KL from the exact posterior."""
    clues, count = int((seen.given != MASK).sum()), 1 + len(seen.decodes)
    title = f"One puzzle of {clues} clues by {seen.denoiser}"
    figure = new_figure(5.2 * count, 11, title)
    grid = figure.subplots(2, count, squeeze=False)
    _guess_panel(grid[0, 0], seen)
    meshes = [_kl_panel(grid[1, 0], seen, seen.kl, "in the puzzle")]
    for axes, below, one in zip(grid[0, 1:], grid[1, 1:], seen.decodes, strict=True):
        _grid_panel(axes, seen, one)
        meshes.append(_kl_panel(below, seen, one.kl, "as each cell was written"))
    bar = figure.colorbar(meshes[0], ax=list(grid[1]), pad=0.01)
    bar.set_ticks(list(NATS.ticks), labels=list(NATS.ticks.values()))
    letter_panels(grid.flat)
    figure.legend(handles=[handle(look) for look in _legend()], loc="outside lower center", ncols=5)
    return figure


_GIVEN, _RIGHT, _FIRST, _DEAD = SHADING["clustered"], "white", COLOURS["alarm"], SHADING["hard"]


def _legend() -> Iterator[Look]:
    for colour, words in (
        (_GIVEN, "clue"),
        (_RIGHT, "written while all was right"),
        (_FIRST, "first error"),
        (_DEAD, "written later, in a dead end (red: not as in the solution)"),
        (NO_DATA, "no exact answer"),
    ):
        yield {"facecolor": colour, "edgecolor": COLOURS["line"], "label": words}


def _dress(axes: Axes, size: int) -> None:
    """Lines between cells, thick ones between boxes."""
    height, width = sudoku.BOXES[size]
    for line in range(size + 1):
        axes.axhline(line - 0.5, color=INK, linewidth=0.5 if line % height else 1.6)
        axes.axvline(line - 0.5, color=INK, linewidth=0.5 if line % width else 1.6)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _shade(axes: Axes, size: int, shades: Sequence[str]) -> None:
    from matplotlib.colors import to_rgb

    axes.imshow(np.array([to_rgb(shade) for shade in shades]).reshape(size, size, 3), interpolation="nearest")


def _write(axes: Axes, size: int, cell: int, digit: int, **font: Any) -> None:
    row, column = divmod(cell, size)
    large = 90 / size + 4
    axes.text(column, row, str(digit + 1), ha="center", va="center", fontsize=large, **font)


def _guess_panel(axes: Axes, seen: Seen) -> None:
    """The clues, and the likeliest digit of every other cell."""
    empty = seen.given == MASK
    _shade(axes, seen.size, [_RIGHT if one else _GIVEN for one in empty])
    for cell, digit in enumerate(seen.guess.tolist()):
        wrong = empty[cell] and digit != seen.solution[cell]
        ink, weight = (COLOURS["alarm"] if wrong else INK), ("normal" if empty[cell] else "bold")
        _write(axes, seen.size, cell, digit, color=ink, fontweight=weight)
    _dress(axes, seen.size)
    right = int((empty & (seen.guess == seen.solution)).sum())
    axes.set_title(f"the puzzle, and the likeliest digits: {right} of {empty.sum()} right")


def _outcome(seen: Seen, one: Solved) -> str:
    if one.errors.solved[0]:
        return "solved"
    kind = "model" if one.errors.by_model[0] else "dependence"
    wrong = int((one.tokens != seen.solution).sum())
    return f"{kind} error at step {one.errors.step[0] + 1}, {wrong} cells wrong in the end"


def _grid_panel(axes: Axes, seen: Seen, one: Solved) -> None:
    """The finished grid; small in a corner the step that wrote the cell."""
    first = ~one.errors.solved[0] & (one.written == one.errors.step[0])  # of a dependence error all cells of the step
    shown = one.errors.excluded[0] if one.errors.by_model[0] else first
    chosen = [one.written < 0, shown, one.errors.dead[0]]
    _shade(axes, seen.size, np.select(chosen, [_GIVEN, _FIRST, _DEAD], _RIGHT).tolist())
    for cell, digit in enumerate(one.tokens.tolist()):
        wrong, given = digit != seen.solution[cell], one.written[cell] < 0
        ink = _RIGHT if shown[cell] else COLOURS["alarm"] if wrong else INK
        _write(axes, seen.size, cell, digit, color=ink, fontweight="bold" if given else "normal")
        if not given:
            row, column = divmod(cell, seen.size)
            place, words = (column - 0.45, row - 0.43), str(one.written[cell] + 1)
            axes.text(*place, words, ha="left", va="top", fontsize=30 / seen.size + 2, color=ink)
    _dress(axes, seen.size)
    axes.set_title(f"{one.policy}: {_outcome(seen, one)}")


def _kl_panel(axes: Axes, seen: Seen, kl: NDArray[np.float64], words: str) -> Any:
    """KL of the denoiser at each cell; return what the colour bar is of."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    palette = colormaps[SEQUENTIAL].with_extremes(bad="none")
    _shade(axes, seen.size, np.where(seen.given == MASK, NO_DATA, _GIVEN).tolist())
    shown = np.ma.masked_invalid(np.clip(kl, NATS.low, NATS.high)).reshape(seen.size, seen.size)
    mesh = axes.imshow(shown, interpolation="nearest", norm=LogNorm(NATS.low, NATS.high), cmap=palette)
    _dress(axes, seen.size)
    axes.set_title(f"KL of the denoiser {words}, nats: {np.nansum(kl):.2f} in sum")
    return mesh
