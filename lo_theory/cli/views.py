"""The commands ``decode-view`` and ``puzzle-view``, one decode step by step, and ``tensorboard``, training curves.

Write into a folder of their own or of the run, through the lab only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_theory.cli.shared import add_out, find_run

if TYPE_CHECKING:
    from lo_theory.lab.config import Experiment

__all__ = ["add_commands"]

_EXAMPLES = """\
examples:
  lo-theory decode-view experiments/table1.yaml --row 2          exact posterior and belief propagation
  lo-theory decode-view table1 --row 2 --hide "pattern(9)"       the latest run's model in place of belief propagation
  lo-theory decode-view table1 --steps L/8 --policies vanilla margin entropy
"""

_PUZZLE_EXAMPLES = """\
examples:
  lo-theory puzzle-view sudoku                                   a minimal puzzle by the latest run's model
  lo-theory puzzle-view experiments/sudoku.yaml --preset nine --denoiser "few_rounds(1)" --seed 3
  lo-theory puzzle-view experiments/sudoku.yaml --preset nine --denoiser bp --puzzle 8..........36......7..9.2...
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
    _add_subject(command, "sequence of the data")
    command.add_argument(
        "--hide", default="two_rates(1,1)", metavar="LAW", help="mask law of what is hidden (default: everything)"
    )
    command.add_argument("--no-gif", action="store_true", help="no animation")
    command.set_defaults(function=_decode_view)
    puzzle = commands.add_parser(
        "puzzle-view",
        parents=[shared],
        help="one Sudoku under each policy: which cell when, the first error, and how far from the exact posterior",
        epilog=_PUZZLE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_subject(puzzle, "puzzle of a set")
    words = "a line of digits, 0 or a point where empty, or the name of a set (default: minimal)"
    puzzle.add_argument("--puzzle", default="minimal", metavar="LINE", help=words)
    words = "model (default), exact, or one without training: propagation, bp, few_rounds(1), unit_bp, unit_bp(1)"
    puzzle.add_argument("--denoiser", default="model", metavar="NAME", help=words)
    puzzle.add_argument("--drawn", action="store_true", help="draw digits (default: write the likeliest)")
    puzzle.set_defaults(function=_puzzle_view)


def _add_subject(command: argparse.ArgumentParser, seeded: str) -> None:
    """What both views ask: of which experiment, which row and model, under which policies."""
    words = "experiment file, or name of an experiment (its latest finished run), or a run folder"
    command.add_argument("run", metavar="EXPERIMENT", help=words)
    command.add_argument("--preset", help="of an experiment file")
    command.add_argument("--row", type=int, default=0, metavar="I", help="row of the experiment (default: 0)")
    command.add_argument("--policies", nargs="+", default=["vanilla", "margin"], help="default: vanilla margin")
    command.add_argument("--steps", default="L", help="L (one token a step, default), L/8, or an integer")
    command.add_argument("--seed", type=int, default=0, help=f"which {seeded} (default: 0)")
    command.add_argument("--model", type=Path, metavar="FILE", help="checkpoint to compare (default: the run's own)")
    add_out(command)
    command.add_argument("--to", type=Path, metavar="FOLDER", help="where to write (default: the run folder)")


def _subject(options: argparse.Namespace, name: str) -> tuple[Experiment, Path | None, Path]:
    """The experiment, the folder of its run, None where there is none, and where to write."""
    from lo_theory.lab.config import load, resolve

    path = Path(options.run)
    if path.suffix in (".yaml", ".yml"):
        experiment = load(path, preset=options.preset)
        return experiment, None, options.to or options.out / experiment.experiment / name
    if options.preset is not None:
        raise ValueError(f"a run has its preset already: give --preset with an experiment file, not {options.run}")
    finished = find_run(options.run, options.out)
    return resolve(finished.config), finished.folder, options.to or finished.folder


def _steps(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _puzzle_view(options: argparse.Namespace) -> None:
    from lo_theory.lab.puzzle_view import Wanted, write_view

    experiment, folder, target = _subject(options, "puzzle-view")
    who = (options.row, options.puzzle, options.denoiser, tuple(options.policies))
    wanted = Wanted(*who, _steps(options.steps), options.drawn, options.seed, options.model, folder)
    for made in write_view(experiment, wanted, target):
        print(made)


def _decode_view(options: argparse.Namespace) -> None:
    from lo_theory.lab.decode_view import Wanted, find_model, write_view

    experiment, folder, target = _subject(options, "decode-view")
    own = (options.hide, options.seed, options.model, folder)
    wanted = Wanted(options.row, tuple(options.policies), _steps(options.steps), *own)
    for made in write_view(experiment, wanted, target, animate=not options.no_gif):
        print(made)
    if folder is not None and (options.model or find_model(experiment, options.row, folder)) is None:
        words = f"no checkpoint of row {options.row} in {folder}, nor of its cell in a sweep: "
        words += "belief propagation is shown in the model's place"
        print(f"lo-theory: {words}", file=sys.stderr)


def _tensorboard(options: argparse.Namespace) -> None:
    from lo_theory.lab.events import write_events

    folder = Path(options.run)
    run = folder if (folder / "log.jsonl").exists() else find_run(options.run, options.out).folder
    for written in write_events(run, options.to):
        print(written)
