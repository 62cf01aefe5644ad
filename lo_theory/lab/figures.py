"""The figures of a finished run, PNG and PDF, equal bytes for equal rows. Loads matplotlib when called, no display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import styled, write_figure
from lo_theory.lab.rows import Row
from lo_theory.lab.task import load_task

__all__ = ["write_figures"]


def write_figures(folder: Path, experiment: Experiment, rows: Sequence[Row]) -> list[Path]:
    """Write every figure of the task as PNG and PDF (figure.png, figure.pdf where there is one); return the paths."""
    with styled():
        figures = load_task(experiment.task).figures(experiment, rows)
        return [path for name, figure in figures.items() for path in write_figure(folder, name, figure)]
