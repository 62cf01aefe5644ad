"""Training curves of a run, finished or not, as TensorBoard event files. Needs the extra ``tensorboard``.

Writes below the folder it is given only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lo_theory.lab.runs import journal

_UNSAID = ("event", "session", "seconds", "step", "model", "threads")


def write_events(run: Path, target: Path) -> list[Path]:
    """Write the curves of each training of a run folder to ``target/RUN/model-NAME``, and answer these folders.

    A scalar for every number that the journal has by step: loss (by mask law, where there are stages), learning rate,
    gradient norm, tokens a second, what was evaluated on the way. Of a step that was computed twice, after a kill, the
    later one. Event files already in these folders are replaced. Errors: ValueError for a run without trainings, and
    where tensorboard is not installed.
    """
    curves = _curves(run)
    if not curves:
        raise ValueError(f"{run / 'log.jsonl'} has no training: there are no curves to write")
    try:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise ValueError("event files need tensorboard: pip install tensorboard") from error
    folders = []
    for model, entries in curves.items():
        folder = target / run.resolve().name / f"model-{model}"
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        writer = EventFileWriter(str(folder))
        for step, entry in sorted(entries.items()):
            writer.add_event(_event(step, entry))
        writer.close()
        folders.append(folder)
    return folders


def _curves(run: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """By model and step what the journal says, later entries over earlier ones."""
    curves: dict[str, dict[int, dict[str, Any]]] = {}
    for entry in journal(run):
        if "model" in entry and type(entry.get("step")) is int and _scalars(entry):
            curves.setdefault(str(entry["model"]), {}).setdefault(entry["step"], {}).update(entry)
    return curves


def _scalars(entry: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an entry by their tags."""
    found = {}
    for name, value in entry.items():
        if name not in _UNSAID and type(value) in (int, float) and math.isfinite(value):
            found[f"loss/{entry['law']}" if name == "loss" and "law" in entry else name] = float(value)
    return found


def _event(step: int, entry: Mapping[str, Any]) -> Any:
    """The event of a step, at the time when it was written: sessions are named by the nanosecond of their start."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(entry).items()]
    return Event(wall_time=entry["session"] / 1e9 + entry["seconds"], step=step, summary=Summary(value=values))
