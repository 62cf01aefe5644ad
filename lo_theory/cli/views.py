"""The commands ``decode-view``, one sequence decoded step by step, and ``tensorboard``, training curves as event files.

Write into a folder of their own or of the run, through the lab only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from lo_theory.cli.shared import add_out, find_run

__all__ = ["add_commands"]

_EXAMPLES = """\
examples:
  lo-theory decode-view experiments/table1.yaml --row 2          exact posterior and belief propagation
  lo-theory decode-view table1 --row 2 --hide "pattern(9)"       the latest run's model in place of belief propagation
  lo-theory decode-view table1 --steps L/8 --policies vanilla margin entropy
"""


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add ``decode-view`` and ``tensorboard`` to the subparsers ``commands``; ``shared`` are options of all."""
    words = "training curves of a run, finished or not, as TensorBoard event files"
    curves = commands.add_parser("tensorboard", parents=[shared], help=words, description=words)
    curves.add_argument("run", metavar="RUN", help="name of an experiment (its latest finished run), or a run folder")
    add_out(curves)
    words = "where to write (default: tensorboard); then: tensorboard --logdir FOLDER"
    curves.add_argument("--to", type=Path, default=Path("tensorboard"), metavar="FOLDER", help=words)
    curves.set_defaults(function=_tensorboard)
    command = commands.add_parser(
        "decode-view",
        parents=[shared],
        help="one decode step by step: what is revealed when, and what the exact posterior and a model know",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = "experiment file, or name of an experiment (its latest finished run), or a run folder"
    command.add_argument("run", metavar="EXPERIMENT", help=words)
    command.add_argument("--preset", help="of an experiment file")
    command.add_argument("--row", type=int, default=0, metavar="I", help="row of the experiment (default: 0)")
    command.add_argument("--policies", nargs="+", default=["vanilla", "margin"], help="default: vanilla margin")
    command.add_argument("--steps", default="L", help="L (one token a step, default), L/8, or an integer")
    command.add_argument(
        "--hide", default="two_rates(1,1)", metavar="LAW", help="mask law of what is hidden (default: everything)"
    )
    command.add_argument("--seed", type=int, default=0, help="which sequence of the data (default: 0)")
    command.add_argument("--model", type=Path, metavar="FILE", help="checkpoint to compare (default: the run's own)")
    command.add_argument("--no-gif", action="store_true", help="no animation")
    add_out(command)
    command.add_argument("--to", type=Path, metavar="FOLDER", help="where to write (default: the run folder)")
    command.set_defaults(function=_decode_view)


def _decode_view(options: argparse.Namespace) -> None:
    from lo_theory.lab.config import load, resolve
    from lo_theory.lab.decode_view import Wanted, find_model, write_view

    path = Path(options.run)
    if path.suffix in (".yaml", ".yml"):
        experiment, folder = load(path, preset=options.preset), None
        target = options.out / experiment.experiment / "decode-view"
    else:
        if options.preset is not None:
            raise ValueError(f"a run has its preset already: give --preset with an experiment file, not {options.run}")
        finished = find_run(options.run, options.out)
        experiment, folder, target = resolve(finished.config), finished.folder, finished.folder
    steps = int(options.steps) if options.steps.isdigit() else options.steps
    wanted = Wanted(options.row, tuple(options.policies), steps, options.hide, options.seed, options.model, folder)
    for made in write_view(experiment, wanted, options.to or target, animate=not options.no_gif):
        print(made)
    if folder is not None and find_model(experiment, wanted) is None:
        words = f"no checkpoint of row {options.row} in {folder}, nor of its cell in a sweep: "
        words += "belief propagation is shown in the model's place"
        print(f"lo-theory: {words}", file=sys.stderr)


def _tensorboard(options: argparse.Namespace) -> None:
    from lo_theory.lab.events import write_events

    folder = Path(options.run)
    run = folder if (folder / "log.jsonl").exists() else find_run(options.run, options.out).folder
    for written in write_events(run, options.to):
        print(written)
