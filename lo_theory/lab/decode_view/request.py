"""From what a user names to a recorded decode: the problem, the trained model of a run, the contexts.

Reads a run folder or an experiment file; writes the figure, its CSV and the animation into the folder given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import FixedCount
from lo_theory.diffusion.masks import draw_masks
from lo_theory.lab.config import Experiment
from lo_theory.lab.decode_view.trace import Trace, Views, record, to_csv
from lo_theory.lab.drawing import styled, write_figure
from lo_theory.lab.laws import check_laws, mask_law, policy
from lo_theory.lab.settings import step_count
from lo_theory.lab.sweep.cells import cell_id
from lo_theory.lab.task import TASKS
from lo_theory.posterior import BPPosterior, ExactPosterior, Posterior
from lo_theory.problem import LODistribution
from lo_theory.problem.layout import MASK
from lo_theory.problem.storage import write_atomically
from lo_theory.rng import Key

__all__ = ["Wanted", "find_model", "trace_all", "write_view"]

_NUMBERS = re.compile(r"\d+")


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


def _distribution(experiment: Experiment, row: int) -> LODistribution:
    rows = experiment.rows
    if not 0 <= row < len(rows):
        raise ValueError(f"row {row} does not exist: {experiment.experiment} has rows 0 to {len(rows) - 1}")
    problem = getattr(rows[row], "problem", None)
    if problem is None:
        raise ValueError(f"the rows of task {experiment.task} have no problem to decode: take table1, for example")
    distribution: LODistribution = problem.make()
    return distribution


def find_model(experiment: Experiment, wanted: Wanted) -> Path | None:
    """The checkpoint of the row: of a masked model, of the longest training where there are several.

    A sweep keeps it with the row's cell, beside the folder of its results.
    """
    if wanted.model is not None or wanted.folder is None:
        return wanted.model
    return _newest(wanted.folder, wanted.row) or _newest(_cell_folder(experiment, wanted.folder, wanted.row), 0)


def _cell_folder(experiment: Experiment, folder: Path, row: int) -> Path:
    cell = cell_id(experiment.task, TASKS[experiment.task]().prepare(experiment.rows[row]).content())
    return folder.parent / f"sweep-{experiment.task}" / "cells" / cell


def _newest(folder: Path, row: int) -> Path | None:
    names = [f"model-{row}.safetensors", f"model-{row}-[0-9]*.safetensors", f"model-{row}-mdm-*.safetensors"]
    found = [path for name in names for path in folder.glob(name)]
    return max(found, key=lambda path: [int(part) for part in _NUMBERS.findall(path.stem)], default=None)


def _other(experiment: Experiment, wanted: Wanted, distribution: LODistribution) -> tuple[str, Posterior]:
    path = find_model(experiment, wanted)
    if path is None:
        return "bp", BPPosterior(distribution)
    from lo_theory.neural import TrainedPosterior, load_model

    model = load_model(path, problem=distribution.fingerprint())
    return "model", TrainedPosterior(model, distribution.layout)


def _given(wanted: Wanted, distribution: LODistribution) -> NDArray[np.int8]:
    """The context int8[L] from which every decode starts."""
    check_laws([("--hide", (wanted.hide,))], distribution.layout)
    key = Key(wanted.seed).fold("decode view")
    truth = distribution.sample(key.fold("data"), 1)
    masked = draw_masks(mask_law(wanted.hide), key.fold("masks"), truth, distribution.layout)[0][0]
    return np.where(masked, np.int8(MASK), truth)[0]


def trace_all(experiment: Experiment, wanted: Wanted) -> list[Trace]:
    """Decode the same context with the exact posterior and with the other one, under every policy.

    Errors: ValueError where the row has no problem, the checkpoint is of another, or nothing is hidden.
    """
    distribution = _distribution(experiment, wanted.row)
    judge, other = _other(experiment, wanted, distribution)
    views = Views(distribution, ExactPosterior(distribution), judge, other)
    given = _given(wanted, distribution)
    schedule = FixedCount(step_count(wanted.steps, distribution.layout.length))
    key = Key(wanted.seed).fold("decode view").fold("decode")
    cases = [(denoiser, name) for denoiser in ("exact", judge) for name in wanted.policies]
    return [record(views, who, policy(name), schedule, key=key, given=given) for who, name in cases]


def write_view(experiment: Experiment, wanted: Wanted, folder: Path, *, animate: bool = True) -> list[Path]:
    """Write decode.png, decode.pdf, decode.csv and decode.gif; return the paths."""
    from lo_theory.lab.decode_view.picture import make_figure, write_animation

    traces = trace_all(experiment, wanted)
    layout = traces[0].distribution.layout
    hidden = int(traces[0].hidden[0].sum())
    title = f"One sequence, N = {layout.n_latents}, P = {layout.n_observations}, {hidden} positions to reveal"
    title += f" in {traces[0].steps} steps"
    folder.mkdir(parents=True, exist_ok=True)
    with styled():
        paths = write_figure(folder, "decode", make_figure(traces, title))
        text: Any = to_csv(traces).encode()
        paths.append(write_atomically(folder / "decode.csv", lambda file: file.write(text)))
        if animate:
            paths.append(write_animation(traces, title, folder / "decode.gif"))
    return paths
