"""Sudoku and Zebra by masked models: which puzzles a denoiser solves under which policy, and the first error.

The law of the grids is known, so every failed puzzle has a kind: a digit that what is shown excludes (model error), or
digits of one step that only exclude each other (dependence error). All that is written later is in a dead end. Sets of
puzzles are in ``puzzle_sets``, tables and figure in ``puzzles_shown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np

from lo_theory.diffusion import (
    AlongOrder,
    Decoded,
    DecodeOptions,
    Noise,
    Policy,
    PuzzleThenMoves,
    Sums,
    decode,
    fewest_candidates,
    first_errors,
    fixed_order,
    losses,
    order_losses,
    reading_order,
)
from lo_theory.diffusion.contexts import row_means
from lo_theory.diffusion.masks import draw_masks
from lo_theory.lab import measures
from lo_theory.lab.experiments.puzzle_sets import FAMILIES, MOVES, Puzzles, puzzle_set
from lo_theory.lab.experiments.puzzles_shown import figures as figures
from lo_theory.lab.experiments.puzzles_shown import tables as tables
from lo_theory.lab.problems import Sudoku, Zebra
from lo_theory.lab.schema import setting
from lo_theory.lab.settings import (
    Cell,
    Decoding,
    Evaluation,
    Model,
    Objective,
    Training,
    check_laws,
    made_by_name,
    mask_law,
    policy,
    schedule,
    step_count,
)
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit
from lo_theory.posterior import BPPosterior, Posterior, PropagationOnly, Screened, few_rounds
from lo_theory.posterior.by_puzzle import ByPuzzle
from lo_theory.posterior.conditioned import Completed, Conditioned, exact_posterior
from lo_theory.posterior.sudoku_units import UnitBP
from lo_theory.problem import MASK, Distribution, Enumerated, LODistribution, sudoku, zebra
from lo_theory.problem.zebra_law import CluesAndCells
from lo_theory.rng import Key

Bind = Callable[[Distribution], Posterior]
"""Makes the posterior of a law of puzzles."""


def _of_pairs(bind: Callable[[LODistribution], Posterior]) -> Bind:
    """Of the L&O problem behind the grids, which knows of pairs of cells in a unit that they differ, with all given; of
    Zebra that of each puzzle.
    """

    def make(law: Distribution) -> Posterior:
        if isinstance(law, CluesAndCells):
            return ByPuzzle(law, bind)
        given = _all_differ(law.layout.q)
        return Completed(bind(given.problem), given)

    return make


@lru_cache
def _all_differ(size: int) -> Conditioned:
    behind = sudoku.cell_problem(size)
    return Conditioned(behind, np.ones(behind.layout.n_observations, np.int8))


def _propagation() -> Bind:
    return _of_pairs(PropagationOnly)


def _bp() -> Bind:
    return _of_pairs(lambda behind: Screened(BPPosterior(behind), PropagationOnly(behind)))


def _few_rounds(rounds: int) -> Bind:
    _check_rounds(rounds)
    return _of_pairs(lambda behind: few_rounds(behind, rounds))


def _unit_bp(rounds: int = 1000) -> Bind:
    _check_rounds(rounds)
    return lambda law: UnitBP(law.layout.q, rounds=rounds)


def _check_rounds(rounds: int) -> None:
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")


UNTRAINED: dict[str, Callable[..., Bind]] = {
    "propagation": _propagation,
    "bp": _bp,
    "few_rounds": _few_rounds,
    "unit_bp": _unit_bp,
}
"""Denoisers beside ``exact`` and ``model``, by name."""


@dataclass(frozen=True)
class Solving(Decoding):
    """How puzzles are decoded, ``sequences`` of each set; ``L`` steps are one cell a step, whatever clues there are.

    ``denoisers``: exact, model, or of ``UNTRAINED``: propagation, bp, few_rounds(1), unit_bp, unit_bp(1).
    """

    denoisers: tuple[str, ...] = ("exact", "propagation", "bp", "model")  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.denoisers:
            if name not in ("exact", "model"):
                made_by_name(name, UNTRAINED, "denoiser", "denoisers, beside exact and model")
        if self.cost_sequences:
            raise ValueError("cost_sequences: what a decode costs is of whole sequences, not of puzzles: leave it out")


def untrained(name: str, law: Distribution) -> Posterior:
    """The denoiser of ``UNTRAINED`` for a law of puzzles."""
    bind: Bind = made_by_name(name, UNTRAINED, "denoiser", "denoisers")
    return bind(law)


@dataclass(frozen=True)
class Row:
    """A law of grids or of Zebra puzzles, sets of ``puzzles``, who solves them, ``draws`` trainings.

    ``training`` null: no model.

    ``name`` tells models of one experiment apart. One whose objective is ``row_order`` or ``solver_order`` also decodes
    along that order.
    ``orders``: causal learners beside the model, trained alike. Those of ``MOVES`` read a puzzle and write the moves
    that solve it (``PuzzleThenMoves``), as the paper's do. ``rows`` and ``random`` read the cells in that order and see
    no clue that comes later: they are judged by their loss and by the grids that they make of nothing. Of Sudoku.
    """

    problem: Sudoku | Zebra
    puzzles: tuple[str, ...] = ("minimal",)
    name: str = ""
    seed: int = 0
    draws: int = setting(3, least=1)
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    training: Training | None = None
    orders: tuple[Literal["rows", "random", "row_moves", "solver_moves", "random_moves"], ...] = ()
    decoding: Solving = field(default_factory=Solving)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        for name in self.puzzles:
            puzzle_set(name, self.problem.family)
        if isinstance(self.problem, Zebra):
            self._check_zebra()
        if not self.puzzles or len(set(self.puzzles)) < len(self.puzzles):
            raise ValueError(f"puzzles names at least one set, and none twice; got {', '.join(self.puzzles) or 'none'}")
        if self.training is None and (self.orders or any(cell.denoiser == "model" for cell in self.decoding.cells())):
            raise ValueError("decoding and orders ask for a model, but training is null: give training")
        if self.training is not None:
            self.objective.check_lasts(self.training.steps)

    def _check_zebra(self) -> None:
        """Raise ValueError for what is of Sudoku alone, or of contexts that hide clues."""
        if self.orders or self.objective.kind in _OWN:
            raise ValueError(
                f"orders and objective.kind {', '.join(_OWN)} fill Sudoku grids: of Zebra puzzles leave them out"
            )
        for name in self.decoding.denoisers:
            if name.startswith("unit_bp"):
                raise ValueError(f"decoding.denoisers: {name} is of the units of a Sudoku: of Zebra puzzles take bp")
        if self.training is not None and self.training.evaluations:
            raise ValueError(
                "training.evaluations are under the uniform law, which hides clues: of Zebra puzzles give 0, and "
                "evaluation.laws: [latents_only]"
            )

    def check_fits(self, distribution: Distribution) -> None:
        """Raise ValueError where a mask law or a set of puzzles does not fit the grids."""
        if self.training is not None:
            check_laws([("evaluation.laws", self.evaluation.laws), *self.objective.named_laws()], distribution.layout)
            if isinstance(distribution, CluesAndCells):
                _check_clues_shown(self.evaluation, distribution)
            elif not isinstance(distribution, Enumerated) and (self.evaluation.exact or set(self.orders) - set(MOVES)):
                raise ValueError(
                    "evaluation.exact and orders need the exact loss, which is known at 4 x 4, not at "
                    f"{self.problem.label}: give evaluation: {{exact: false}}, and orders of {', '.join(MOVES)} alone"
                )
        for name in self.puzzles:
            try:
                one = puzzle_set(name, self.problem.family)(distribution, Key(0), 1)
                exact_posterior(distribution).marginals(one.given)  # refuses puzzles with too many solutions
            except ValueError as error:
                raise ValueError(f"puzzles: {name}: {error}") from error


def _check_clues_shown(setting: Evaluation, law: CluesAndCells) -> None:
    """Raise ValueError for a mask law that hides clues, where the exact loss is asked for."""
    for name in setting.laws if setting.exact else ():
        masked, _ = draw_masks(mask_law(name), Key(0), law.sample(Key(0), 64), law.layout)
        if masked[..., law.layout.observation_positions].any():
            raise ValueError(
                f"evaluation.laws: {name} hides clues, and the exact loss is known where all are shown: take "
                "latents_only, or give evaluation: {exact: false}"
            )


@dataclass(frozen=True)
class Published:
    """A published number: puzzles solved, in per cent; ``puzzles`` names the set where there are several."""

    policy: str
    percent: float
    puzzles: str = ""


@dataclass(frozen=True)
class Reference:
    """Published numbers to print beside ours."""

    source: str
    rows: tuple[Published, ...]


def units(s: Subject) -> Iterator[Unit]:
    """What is known of the grids, the denoisers without training, then each training with what it is judged by."""
    title, own = f"{s.row.problem.label} {s.row.name}".strip(), {"name": s.row.name}
    s = s.named(title, **own) if s.row.name else s.named(title)
    row, cells = s.row, s.row.decoding.cells()
    yield s.unit("problem", "problem", partial(_problem, s))
    for cell in (cell for cell in cells if cell.denoiser != "model"):
        yield s.unit(f"solve/{cell.name}", _label(cell), partial(_solve, s, cell))
    learned = [*(cell for cell in cells if cell.denoiser == "model"), *_own_cells(row)]
    for draw in range(row.draws) if row.training is not None else ():
        needs, learner = [f"training/{draw}"], _learner(s, draw)
        measure = partial(measures.training, s, learner, {"learner": "masked", "draw": draw})
        yield s.unit(needs[0], f"#{draw} training", measure, learner=learner)
        for law in row.evaluation.laws:
            measure, n = partial(_losses, s, draw, law), row.evaluation.sequences
            yield s.unit(f"losses/{draw}/{law}", f"#{draw} losses under {law}", measure, needs, forwards=n)
        for cell in learned:
            n = row.decoding.sequences * len(row.puzzles) * step_count(cell.steps, s.law.layout.n_latents)
            measure = partial(_solve, s, cell, draw)
            yield s.unit(f"solve/{draw}/{cell.name}", f"#{draw} {_label(cell)}", measure, needs, forwards=n)
        for order in row.orders:
            name, causal = f"{order}/{draw}", _learner(s, draw, order)
            measure = partial(measures.training, s, causal, {"learner": order, "draw": draw})
            yield s.unit(f"training/{name}", f"#{draw} {order} training", measure, learner=causal)
            decodes = len(row.puzzles) * len(row.decoding.argmax) if order in MOVES else 1
            judge = _moved if order in MOVES else _along
            measure, n = partial(judge, s, draw, order), row.evaluation.sequences + decodes * row.decoding.sequences
            yield s.unit(f"along/{name}", f"#{draw} {order}", measure, [f"training/{name}"], forwards=n)


_OWN: Mapping[str, Callable[[], Policy]] = {"row_order": fixed_order, "solver_order": fewest_candidates}


def _own_cells(row: Row) -> list[Cell]:
    """Decodes of a model that was trained along an order, along that order, in the first number of steps."""
    kind, steps = row.objective.kind, row.decoding.steps[0]
    return [Cell("model", kind, steps, argmax, "fixed_count") for argmax in row.decoding.argmax] if kind in _OWN else []


def _label(cell: Cell) -> str:
    return f"{cell.denoiser}, {cell.policy}, {cell.steps} steps{', argmax' if cell.argmax else ''}"


def _learner(s: Subject, draw: int, order: str = "") -> Learner:
    """The masked network of a training, or the causal one of an order: both see the same data."""
    root = s.key.fold("training").fold(draw)
    name, own = f"{s.title} #{draw} {order}".strip(), dict[str, Any](key=root)
    if order in MOVES:
        law = PuzzleThenMoves(s.law, MOVES[order])
        own |= {"distribution": law, "reading": tuple(range(law.layout.length))}
    elif order:
        own["reading"] = reading_order("latents_first" if order == "rows" else order, s.law.layout, root.fold("order"))
    return s.learner(name, f"{order}-{draw}" if order else str(draw), **own)


def _exact(s: Subject) -> Posterior:
    return s.once("exact", lambda: exact_posterior(s.law))


def _denoiser(s: Subject, name: str, draw: int) -> Posterior:
    """Who decodes, watched."""
    if name == "exact":
        return s.watched(_exact(s))
    if name == "model":
        return s.watched(s.model(_learner(s, draw)))
    return s.watched(s.once(("untrained", name), lambda: untrained(name, s.law)))


def _puzzles(s: Subject, name: str) -> Puzzles:
    key, n = s.key.fold("puzzles").fold(name), s.row.decoding.sequences
    return s.once(("puzzles", name), lambda: puzzle_set(name, s.row.problem.family)(s.law, key, n))


_MOST_SOLUTIONS = 10_000


def _problem(s: Subject) -> list[Finding]:
    """The known lines of the law; of Zebra also those of the cells where all clues are shown, by counting solutions."""
    for name in s.row.puzzles:
        try:  # what the exact posterior refuses ends the run before a training
            _exact(s).marginals(_puzzles(s, name).given)
        except ValueError as error:
            raise ValueError(f"puzzles: {name}: {error}") from error
    lines = measures.loss_lines(s.law)
    if isinstance(s.law, CluesAndCells) and s.row.evaluation.exact:
        rows = s.law.sample(s.key.fold("solutions"), s.row.evaluation.sequences)
        counts = [len(zebra.solutions(s.law.puzzle(row), _MOST_SOLUTIONS)) for row in rows]
        floor = float(np.log(counts).mean()) / s.law.layout.n_latents
        lines |= {"latents_floor": floor, "latents_marginals_only": float(np.log(s.law.layout.q))}
    return [Finding("problem", {}, measures.singles(lines))]


def _losses(s: Subject, draw: int, name: str) -> list[Finding]:
    """Losses of the model under a mask law; contexts are the same for all trainings."""
    exact = s.watched(_exact(s)) if s.row.evaluation.exact else None
    key, law = s.key.fold("losses").fold(name), mask_law(name)
    found = losses(_denoiser(s, "model", draw), exact, s.law, law, key=key, n=s.row.evaluation.sequences)
    metrics = {metric: getattr(found, metric) for metric in ("model", "exact", "kl")}
    return [Finding("losses", {"draw": draw, "law": law.name}, {name: one for name, one in metrics.items() if one.n})]


def _solve(s: Subject, cell: Cell, draw: int | None = None) -> list[Finding]:
    """Decode every set of puzzles, the same ones whoever decodes."""
    setting, denoiser = s.row.decoding, _denoiser(s, cell.denoiser, draw or 0)
    steps = step_count(cell.steps, s.law.layout.n_latents)
    temperature = setting.temperature if cell.temperature is None else cell.temperature
    noise = Noise(**asdict(cell.noise)) if cell.noise is not None else None
    options = DecodeOptions(temperature, cell.argmax, noise, setting.chunk)
    chosen = _OWN[cell.policy]() if cell.policy in _OWN else policy(cell.policy)
    rule, found = (chosen, schedule(cell.schedule, steps)), []
    own = {} if draw is None else {"draw": draw}
    for name in s.row.puzzles:
        puzzles, root = _puzzles(s, name), s.key.fold("solve").fold(name).fold(draw or 0).fold(cell.name)
        made = decode(denoiser, *rule, key=root, n=len(puzzles.given), given=puzzles.given, options=options)
        keys = {**own, **cell.keys, "steps": steps, "temperature": temperature, "puzzles": name}
        found += judged(s, made, puzzles, keys)
    return found


def judged(s: Subject, made: Decoded, puzzles: Puzzles, keys: Mapping[str, object]) -> list[Finding]:
    """What became of decoded puzzles: over the whole set; by number of clues and by technique where there are several.

    Cells are compared with the solution where there is one alone.
    """
    errors, empty = first_errors(s.watched(_exact(s)), made), puzzles.given < 0
    right = made.tokens == puzzles.grids
    values = {
        "solved": errors.solved,
        "by_model": errors.by_model,
        "by_dependence": errors.by_dependence,
        "cells_excluded": row_means(errors.excluded, empty),
        "cells_dead": row_means(errors.dead, empty),
    }
    if puzzles.single:
        values |= {
            "cells_right": row_means(right, empty, 1.0),
            "cells_dead_wrong": row_means(errors.dead & ~right, empty),
        }
    family = FAMILIES[s.row.problem.family]
    splits: dict[str, Sequence[str | int]] = {"clues": [family.clues(s.law, puzzle) for puzzle in puzzles.given]}
    if puzzles.single:
        splits["technique"] = [family.difficulty(s.law, puzzle).technique for puzzle in puzzles.given]
    found = [Finding("puzzles", keys, {name: Sums.of(value) for name, value in values.items()})]
    for split, own in splits.items():
        ranks = family.techniques.index if split == "technique" else int
        for kind in sorted(set(own), key=ranks) if len(set(own)) > 1 else ():
            here = np.array([one == kind for one in own])
            found.append(Finding("puzzles", {**keys, split: kind}, {n: Sums.of(v[here]) for n, v in values.items()}))
    return found


def _moved(s: Subject, draw: int, order: str) -> list[Finding]:
    """A causal learner of moves: its loss on them beside the exact one, and every set of puzzles by its own moves.

    Losses are those of the moves of a sequence over the L cells. A cell that is never filled counts as a wrong digit
    after all moves: one that its units have.
    """
    learner, root, setting = s.causal(_learner(s, draw, order)), s.key.fold("along").fold(order), s.row.evaluation
    law, cells = PuzzleThenMoves(s.law, MOVES[order]), s.law.layout.length
    tokens = law.sample(root.fold("data"), setting.sequences)
    model = order_losses(learner, None, tokens).model[:, cells:].sum(axis=1)
    loss = {"model": Sums.of(model / cells)}
    if setting.exact:
        given = np.where(tokens[:, :cells] < s.law.layout.q, tokens[:, :cells], np.int8(MASK))
        evidence = s.watched(_exact(s)).marginals(given).log_evidence
        exact = evidence - s.law.log_prob(law.read(tokens).grids) + law.moves_entropy((given == MASK).sum(axis=1))
        loss |= {"exact": Sums.of(exact / cells), "kl": Sums.of((model - exact) / cells)}
    found = [Finding("along", {"learner": order, "draw": draw}, loss)]
    for argmax in s.row.decoding.argmax:
        options = DecodeOptions(s.row.decoding.temperature, argmax, None, s.row.decoding.chunk)
        for name in s.row.puzzles:
            puzzles, key = _puzzles(s, name), root.fold("solve").fold(name).fold(draw).fold(str(argmax))
            made = learner.generate(key=key, n=len(puzzles.given), given=law.prompt(puzzles.given), options=options)
            played, last = law.read(made.tokens), np.arange(cells, dtype=np.int32)
            never = played.grids == MASK
            wrong = np.maximum(played.grids[:, sudoku.geometry(s.law.layout.q).peers].max(axis=2), 0)
            decoded = replace(
                made,
                tokens=np.where(never, wrong, played.grids).astype(np.int8),
                step_revealed=np.where(never, cells + last, played.times).astype(np.int32),
            )
            keys = {"draw": draw, "denoiser": order, "policy": "own", "argmax": argmax, "steps": cells, "puzzles": name}
            whole, *split = judged(s, decoded, puzzles, keys)
            more = {"unfinished": Sums.of(never.any(axis=1)), "void": Sums.of(played.void > 0)}
            found += [whole._replace(metrics={**whole.metrics, **more}), *split]
    return found


_NOTHING = "random(0)"  # no clue at all


def _along(s: Subject, draw: int, order: str) -> list[Finding]:
    """A causal learner: its loss along its order, and the grids that it makes of nothing."""
    learner, root, setting = s.causal(_learner(s, draw, order)), s.key.fold("along").fold(order), s.row.evaluation
    tokens = s.law.sample(root.fold("data"), setting.sequences)
    known = AlongOrder(s.watched(_exact(s)), learner.reading).conditionals(tokens) if setting.exact else None
    found = order_losses(learner, known, tokens)
    who = {"learner": order, "draw": draw}
    made = learner.generate(key=root.fold("generate").fold(draw), n=s.row.decoding.sequences)
    nothing = Puzzles(np.full_like(made.tokens, -1), made.tokens, single=False)
    keys = {"draw": draw, "denoiser": "causal", "policy": order, "steps": s.law.layout.length, "puzzles": _NOTHING}
    return [Finding("along", who, measures.order_totals(found)), *judged(s, made, nothing, keys)]
