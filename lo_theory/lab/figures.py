"""The figures of a finished run, PNG and PDF, equal bytes for equal rows. Loads matplotlib when called, no display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.rows import Row
from lo_theory.lab.style import RC
from lo_theory.lab.task import TASKS
from lo_theory.problem.storage import write_atomically

__all__ = ["write_figures"]

_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def write_figures(folder: Path, experiment: Experiment, rows: Sequence[Row]) -> list[Path]:
    """Write every figure of the task as PNG and PDF (figure.png, figure.pdf where there is one); return the paths."""
    import matplotlib

    paths = []
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **RC}):
        for name, figure in TASKS[experiment.task]().figures(experiment, rows).items():
            for form, metadata in _METADATA.items():
                paths.append(folder / f"{name}.{form}")
                write_atomically(
                    paths[-1],
                    lambda file, figure=figure, form=form, metadata=metadata: figure.savefig(
                        file, format=form, dpi=160, metadata=metadata
                    ),  # type: ignore[misc]
                )
    return paths
