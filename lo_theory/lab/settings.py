"""The settings of one row of an experiment: mask laws and policies by name, model, training, decoding, evaluation.

Every field has its unit in its name or in its docstring, and defaults that a laptop can bear. Importing this file loads
nothing heavy.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lo_theory.lab.schema import closest, require_distinct, setting
from lo_theory.rng import Key

if TYPE_CHECKING:
    from lo_theory.diffusion import Policy, Schedule
    from lo_theory.diffusion.masks import MaskLaw
    from lo_theory.problem import Layout


_NAMED = re.compile(r"^([a-z_][a-z0-9_]*)(?:\(([^()]*)\))?$")


def mask_law(text: str) -> MaskLaw:
    """Make the law named by ``uniform``, ``pattern(4)``, ``two_rates(0.5,1)`` and so on, as tables print it."""
    from lo_theory.diffusion import LAWS

    law: MaskLaw = made_by_name(text, LAWS, "mask law", "laws")
    return law


def policy(text: str) -> Policy:
    """Make the decoding policy named by ``margin``, or by ``mine(0.5)`` for one in ``POLICIES`` that takes numbers."""
    from lo_theory.diffusion import POLICIES

    made: Policy = made_by_name(text, POLICIES, "policy", "policies")
    return made


def schedule(text: str, steps: int) -> Schedule:
    """Make the schedule named by ``cosine``, or by ``beta(2,1)`` for one that takes numbers, for ``steps`` steps."""
    from lo_theory.diffusion import SCHEDULES

    made: Schedule = made_by_name(text, SCHEDULES, "schedule", "schedules", steps)
    return made


def made_by_name(text: str, known: Mapping[str, Callable[..., Any]], kind: str, kinds: str, *first: int) -> Any:
    """Call what ``text`` names in ``known``, with ``first`` and the numbers in its brackets; ValueError says how."""
    match = _NAMED.match(text.replace(" ", ""))
    name = match.group(1) if match else text
    if match is None or name not in known:
        raise ValueError(
            f"unknown {kind} {text!r}: the closest is {closest(name, list(known))} ({kinds}: {', '.join(known)})"
        )
    try:
        return known[name](*first, *_numbers(known[name], name, match.group(2) or "", len(first)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{kind} {text!r}: {error}") from error


def _numbers(maker: Callable[..., Any], name: str, text: str, given: int) -> list[int | float]:
    """The numbers between the brackets of a name, as many as it takes after ``given``; a reading order is no number."""
    takes = [
        part
        for part in list(inspect.signature(maker).parameters.values())[given:]
        if "tuple" not in str(part.annotation) and "ArrayLike" not in str(part.annotation)
    ]
    least = sum(part.default is part.empty for part in takes)
    parts = text.split(",") if text else []
    if not least <= len(parts) <= len(takes):
        count = str(least) if least == len(takes) else f"{least} to {len(takes)}"
        names = f" ({', '.join(part.name for part in takes)})" if takes else ""
        raise ValueError(f"{name} takes {count if takes else 'no'} numbers{names}, got {len(parts)}")
    try:
        return [int(part) if re.fullmatch("[+-]?[0-9]+", part) else float(part) for part in parts]
    except ValueError as error:
        raise ValueError(f"{name} takes numbers, got {text}") from error


def require_laws(texts: tuple[str, ...]) -> None:
    """Raise ValueError if a list of mask laws is empty or names one that is none."""
    if not texts:
        raise ValueError("at least one mask law is needed, such as uniform")
    for text in texts:
        mask_law(text)


def check_laws(
    named: Iterable[tuple[str, Iterable[str]]], layout: Layout, make: Callable[[str], MaskLaw] = mask_law
) -> None:
    """Raise ValueError, with the path in ``named``, for a mask law that sequences of ``layout`` cannot have."""
    from lo_theory.diffusion.masks import draw_masks

    for path, texts in named:
        for text in texts:
            try:
                draw_masks(make(text), Key(0), np.zeros((2, layout.length), np.int8), layout)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error


def step_count(steps: str | int, length: int) -> int:
    """Count steps: an integer as it is, ``L`` the length, ``L/8`` an eighth of it rounded up; at most the length."""
    if isinstance(steps, int):
        count = steps
    else:
        match = re.fullmatch(r"L(?:/([1-9][0-9]*))?", steps)
        if match is None:
            raise ValueError(f"steps are L (one token a step), L/<integer>, or an integer, got {steps!r}")
        count = -(-length // int(match.group(1) or 1))
    if count < 1:
        raise ValueError(f"a decode takes at least one step, got {steps}")
    return min(count, length)


@dataclass(frozen=True)
class Source:
    """What is published, in words, where there are no numbers to compare with."""

    source: str


@dataclass(frozen=True)
class Shape:
    """Depth and widths of a network; ``inner`` is 4 * width when left out."""

    layers: int = setting(least=1)
    heads: int = setting(least=1)
    width: int = setting(least=1)
    inner: int | None = setting(None, least=1)


@dataclass(frozen=True)
class Model:
    """A transformer: its shape by name or in numbers, how it knows positions, the scale of its initial embeddings."""

    shape: Literal["small", "6M", "19M"] | Shape = "small"
    positions: Literal["learned", "rope", "both"] = "learned"
    rope_base: float = setting(1e4, above=0)
    pad_to: int | None = setting(None, least=1)
    embedding_scale: float = setting(1.0, above=0, late=True)


@dataclass(frozen=True)
class Stage:
    """Mask laws for the first ``steps`` steps, taken in turn over the rows of a batch.

    Or for a ``share`` of all steps of the training, which serves trainings of any length. ``prior``: probabilities of a
    latent's values on the stage's data; null, the problem's own.
    """

    steps: int | None = setting(None, least=0)
    laws: tuple[str, ...] = ("uniform",)
    share: float | None = setting(None, least=0, most=1, late=True)
    prior: tuple[float, ...] | None = setting(None, late=True)

    def __post_init__(self) -> None:
        require_laws(self.laws)
        if (self.steps is None) == (self.share is None):
            raise ValueError(f"a stage lasts steps or a share of them, one of the two: {self.steps} and {self.share}")
        if self.prior is not None and (min(self.prior, default=-1.0) < 0 or abs(sum(self.prior) - 1) > 1e-9):
            raise ValueError(f"the prior of a stage is probabilities that add up to 1, got {list(self.prior)}")

    @property
    def name(self) -> str:
        """Its laws, and its prior where it has its own: ``uniform, prior 0.3/0.7``."""
        prior = "" if self.prior is None else f", prior {'/'.join(f'{share:g}' for share in self.prior)}"
        return f"{'+'.join(self.laws)}{prior}"

    def length(self, steps: int) -> int:
        """Steps that it lasts in a training of ``steps``."""
        return round(steps * self.share) if self.share is not None else self.steps or 0


OBJECTIVES: Mapping[str, Callable[..., tuple[float | None, ...]]] = {
    "masked": lambda: (),
    "focal": lambda gamma=1.0: (gamma,),
    "puma": lambda stages, tau=None: (stages, tau),
    "proseco": lambda weight=1.0: (weight,),
    "learned_order": lambda c1=0.7, c2=0.65: (c1, c2),
    "row_order": lambda: (),
    "solver_order": lambda: (),
}
"""Kinds of objective, and the numbers that each takes; ``lo_theory.lab.training`` makes the objective of them."""
_OWN_MASKS = tuple(OBJECTIVES)[2:]


@dataclass(frozen=True)
class Objective:
    """The masked-diffusion objective: mask laws in turn over the rows of a batch, after the stages of a curriculum.

    ``kind``: another objective after the stages, with its numbers: ``puma(8)`` (stages, tau), ``proseco`` (weight),
    ``learned_order`` (c1, c2), ``row_order`` and ``solver_order`` (of Sudoku, see ``AfterClues``), which draw their own
    masks, or ``focal`` (gamma), which takes ``laws``.
    """

    laws: tuple[str, ...] = ("uniform",)
    stages: tuple[Stage, ...] = ()
    kind: str = setting("masked", late=True)

    def __post_init__(self) -> None:
        require_laws(self.laws)
        name, _ = self.named_kind()
        if name in _OWN_MASKS and self.laws != ("uniform",):
            raise ValueError(f"objective {self.kind} draws its own masks: leave out laws, not {', '.join(self.laws)}")
        shares = sum(stage.share or 0.0 for stage in self.stages)
        if shares > 1 + 1e-9:
            raise ValueError(
                f"the shares of all stages make up at most 1, the whole training; these make up {shares:g}"
            )

    def check_lasts(self, steps: int) -> None:
        """Raise ValueError where the stages would outlast a training of ``steps``, which then never sees ``laws``."""
        lengths = [stage.length(steps) for stage in self.stages]
        exact = sum(stage.length(steps) if stage.share is None else stage.share * steps for stage in self.stages)
        if exact > steps + 1e-6:  # shares of it, rounded, may pass it by a step
            raise ValueError(
                f"the stages last {' + '.join(map(str, lengths))} steps, but training.steps is {steps}: give stages as "
                "a share of the training, such as {share: 0.25, laws: [...]}, or train longer"
            )

    def named_kind(self) -> tuple[str, tuple[float | None, ...]]:
        """The name of its kind, and its numbers; ValueError for one that is none, and for too many or too few."""
        numbers: tuple[float | None, ...] = made_by_name(self.kind, OBJECTIVES, "objective", "kinds")
        return self.kind.partition("(")[0].strip(), numbers

    def named_laws(self) -> list[tuple[str, tuple[str, ...]]]:
        """All its mask laws, each list under its path."""
        staged = [(f"objective.stages[{i}].laws", stage.laws) for i, stage in enumerate(self.stages)]
        return [("objective.laws", self.laws), *staged]


@dataclass(frozen=True)
class Training:
    """AdamW on a cosine: ``learning_rate`` after ``warmup`` steps, falling to ``final_ratio`` of itself.

    ``ema``: decay of an average of the weights, which is then the model; ``microbatch``: rows that go through the
    network at once; ``compile``: torch.compile. See ``lo_theory.neural.TrainConfig``. ``warmup_share``: at least this
    share of the steps is warm-up. ``evaluations``: at most so many times, evenly, the gap closed is measured on
    ``evaluation_contexts`` held-out contexts (sequences, of a causal network); it changes nothing of what is learned.
    """

    steps: int = setting(least=1)
    batch: int = setting(128, least=1)
    learning_rate: float = setting(4e-3, above=0)
    final_ratio: float = setting(0.0, least=0, most=1)
    warmup: int = setting(100, least=0)
    weight_decay: float = setting(0.0, least=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = setting(1.0, above=0)
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    optimiser: Literal["adamw", "muon"] = "adamw"
    ema: float | None = setting(None, above=0)
    microbatch: int | None = setting(None, least=1)
    compile: bool = False
    warmup_share: float = setting(0.0, least=0, most=1, late=True)
    evaluations: int = setting(0, least=0, late=True)
    evaluation_contexts: int = setting(512, least=2, late=True)

    @property
    def warmup_steps(self) -> int:
        """Steps of warm-up, whichever of the two settings gives more."""
        return max(self.warmup, round(self.warmup_share * self.steps))

    def __post_init__(self) -> None:
        if self.ema is not None and not self.ema < 1:
            raise ValueError(f"ema is a decay below 1, got {self.ema}")


@dataclass(frozen=True)
class Noise:
    """Oracle noise on the scores of a policy; see ``lo_theory.diffusion.Noise``."""

    scale: float = setting(least=0)
    law: Literal["gumbel", "gaussian"] = "gumbel"
    logarithmic: bool = False
    annealed: bool = False

    @property
    def label(self) -> str:
        """``gumbel 0.5 annealed log``: how tables and addresses name it."""
        words = ("annealed" if self.annealed else "", "log" if self.logarithmic else "")
        return " ".join(filter(None, (self.law, f"{self.scale:g}", *words)))


@dataclass(frozen=True)
class Cell:
    """One decode: which denoiser, which positions next, in how many steps, tokens drawn or most likely."""

    denoiser: str
    policy: str
    steps: str | int
    argmax: bool
    schedule: str
    noise: Noise | None = None
    temperature: float | None = None

    @property
    def name(self) -> str:
        """Address of the cell inside its row."""
        tokens = "argmax" if self.argmax else "drawn"
        noise = () if self.noise is None else (self.noise.label,)
        own = () if self.temperature is None else (f"temperature {self.temperature:g}",)
        return "/".join((self.denoiser, self.policy, f"{self.schedule}({self.steps})", tokens, *noise, *own))

    @property
    def keys(self) -> dict[str, str | int | bool]:
        """What its rows are keyed by; ``noise`` only where there is some."""
        plain = {name: getattr(self, name) for name in ("denoiser", "policy", "steps", "argmax", "schedule")}
        return plain if self.noise is None else {**plain, "noise": self.noise.label}


Denoiser = Literal["exact", "model", "bp"]


@dataclass(frozen=True)
class ExtraCell:
    """A single cell beside the grid; ``temperature`` null: that of the grid."""

    denoiser: Denoiser
    policy: str
    steps: str | int = "L"
    argmax: bool = False
    noise: Noise | None = None
    temperature: float | None = setting(None, above=0, late=True)


@dataclass(frozen=True)
class Decoding:
    """A grid of decodes, every combination of the four lists, and single cells in ``extra``; ``sequences`` each.

    ``noise`` is that of the grid, and of the single cells that name none of their own.

    ``policies``: names in ``lo_theory.diffusion.POLICIES``, with numbers where one takes some, such as ``mine(0.5)``.
    ``steps``: L, L/8 or an integer. ``schedule``: a name in ``lo_theory.diffusion.SCHEDULES``; fixed_count splits the
    positions evenly, binomial is the paper's rule. ``chunk`` sequences go through the denoiser at once.
    ``cost_sequences``: on so many true sequences the cost of each decode that draws its tokens and
    hides none again is measured; 0, on none.
    """

    sequences: int = setting(2000, least=2)
    denoisers: tuple[Denoiser, ...] = ("exact", "model")
    policies: tuple[str, ...] = ("vanilla", "top_probability", "margin")
    steps: tuple[str | int, ...] = ("L", "L/8")
    argmax: tuple[bool, ...] = (False,)
    schedule: str = "fixed_count"
    temperature: float = setting(1.0, above=0)
    noise: Noise | None = None
    extra: tuple[ExtraCell, ...] = ()
    chunk: int = setting(1024, least=1)
    cost_sequences: int = setting(0, least=0, late=True)

    def __post_init__(self) -> None:
        for steps in (*self.steps, *(cell.steps for cell in self.extra)):
            step_count(steps, 1)
        for name in (*self.policies, *(cell.policy for cell in self.extra)):
            policy(name)
        schedule(self.schedule, 1)

    def cells(self) -> tuple[Cell, ...]:
        """All cells, each once; a denoiser's cells are together, the grid first."""
        grid = itertools.product(self.denoisers, self.argmax, self.steps, self.policies)
        cells = [
            Cell(denoiser, policy, steps, argmax, self.schedule, self.noise) for denoiser, argmax, steps, policy in grid
        ]
        for cell in self.extra:
            cells.append(Cell(**{**vars(cell), "noise": cell.noise or self.noise}, schedule=self.schedule))
        return tuple(dict.fromkeys(sorted(cells, key=lambda cell: cell.denoiser)))


@dataclass(frozen=True)
class Evaluation:
    """Losses and one-pass accuracies of a denoiser on ``sequences`` fresh contexts of each mask law.

    ``exact``: also compare with the exact posterior (KL per class); it must then fit, see ``limit_states``, the largest
    number of assignments it may enumerate for one group of latents.
    """

    sequences: int = setting(4096, least=2)
    laws: tuple[str, ...] = ("uniform",)
    exact: bool = True
    limit_states: int = setting(2**26, least=1, most=2**62 - 1)

    def __post_init__(self) -> None:
        require_laws(self.laws)
        require_distinct("evaluation.laws", (mask_law(text).name for text in self.laws))
