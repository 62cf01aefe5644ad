"""The command ``sweep``: every cell of a grid, on local processes or a cluster, and the tables of what is finished.

Writes below the folder of runs, through the lab only.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_theory.cli.shared import (
    add_checkpoint_seconds,
    add_dry_run,
    add_out,
    check_rate,
    end_on_sigterm,
    show_dry_run,
    show_tables,
)

if TYPE_CHECKING:
    from lo_theory.lab.sweep.grid import Grid
    from lo_theory.lab.sweep.results import Results
    from lo_theory.lab.sweep.sweeps import Failure, SweepRequest

__all__ = ["add_commands"]

_LARGEST_SHOWN = 1000  # cells whose tables a screen is given
_MOST_FAILURES = 20  # shown with their errors at the end

_EXAMPLES = """\
examples:
  lo-theory sweep experiments/sweep_example.yaml                 on this machine's cores
  lo-theory sweep FILE --axis problem.seed,seed=[0,1,2,3]        more seeds; finished cells are kept
  lo-theory sweep FILE --shard 3/8                               one of eight jobs of an array
  lo-theory sweep FILE --dask tcp://head:8786                    on a Dask cluster
  lo-theory sweep FILE --show --pool seed                        what is finished, pooled over seeds; computes nothing
"""


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add ``sweep`` to the subparsers ``commands``; ``shared`` are options of all commands."""
    command = commands.add_parser(
        "sweep",
        parents=[shared],
        help="compute every cell of a grid of settings, or continue it, and show what is finished",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = "sweep file: an experiment file with axes, or the name of one that comes with the package, such as ratio"
    command.add_argument("config", type=Path, metavar="CONFIG", help=words)
    command.add_argument("--preset", help="one of the file's presets (default: the one the file names)")
    for name, metavar, words in (
        ("--set", "PATH=VALUE", "override settings, such as training.steps=500"),
        ("--axis", "PATH=[VALUES]", "replace an axis, or add one, such as seed=[0,1,2] or problem.seed,seed=[0,1,2]"),
    ):
        command.add_argument(name, action="extend", nargs="+", default=[], metavar=metavar, help=words)
    command.add_argument("--pool", nargs="*", metavar="PATH", help="axes that the tables average over, such as seed")
    add_out(command)
    _add_pool(command)
    command.add_argument("--shard", default="1/1", metavar="I/N", help="compute only this part of the cells")
    command.add_argument(
        "--attempts", type=int, default=3, metavar="K", help="times a cell is begun whose worker dies (default: 3)"
    )
    command.add_argument("--yes", action="store_true", help="do not ask before a very large grid")
    command.add_argument("--show", action="store_true", help="show what is finished, and compute nothing")
    command.add_argument("--quiet", action="store_true", help="no progress, only the result")
    add_dry_run(command)
    command.set_defaults(function=_sweep, resumes=True)


def _add_pool(command: argparse.ArgumentParser) -> None:
    pool = command.add_mutually_exclusive_group()
    pool.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler, or `local` for a cluster on this machine")
    pool.add_argument("--serial", action="store_true", help="no worker processes: one cell after the other")
    command.add_argument("--workers", type=int, help="worker processes of this machine (default: what fits)")
    command.add_argument("--threads", type=int, help="threads of each (default: 1, or what the sweep was begun with)")
    command.add_argument("--device", default="auto", help="of cells that train: cpu, cuda, or auto (default)")
    add_checkpoint_seconds(command)


def _sweep(options: argparse.Namespace) -> None:
    from lo_theory.lab.progress import make_progress
    from lo_theory.lab.sweep.grid import load_grid, pooled_over
    from lo_theory.lab.sweep.sweeps import prepare_sweep, run_sweep, show_sweep

    check_rate(options)
    if options.dry_run and options.show:
        raise ValueError("--dry-run says what a sweep would take, --show what is finished: give one of them")
    end_on_sigterm()
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        raise ValueError("a sweep starts its own workers, one a GPU: start it without torchrun, and give --workers")
    request = _request(options)
    grid = load_grid(options.config, preset=options.preset, sets=options.set, axes=options.axis)
    if options.pool is not None:
        grid = pooled_over(grid, options.pool)
    _confirm(grid, options)
    sweep = prepare_sweep(grid, options.out)
    if options.dry_run:
        own = [i for i, cell in enumerate(sweep.cells) if request.shard.has(cell)]
        part = dataclasses.replace(sweep.experiment, rows=tuple(sweep.experiment.rows[i] for i in own))
        show_dry_run(part, request, options.rate, [sweep.cells[i].label for i in own])
        return
    failures: list[Failure] = []
    if not options.show:
        with make_progress("cells", quiet=options.quiet) as progress:
            failures = run_sweep(sweep, request, progress)
    # The shards of an array would draw the same figure many times over: the last of them does.
    results, folder = show_sweep(sweep, options.command_line, only_complete=request.shard.count > 1)
    if folder is not None:
        _print_tables(results, folder)
    if not (options.quiet and results.complete):
        _print_state(results, folder)
    for failure in failures[:_MOST_FAILURES]:
        print(f"({failure.label}) failed: {failure.error}", file=sys.stderr)
    if len(failures) > _MOST_FAILURES:
        journal = sweep.folder / request.shard.folder / "log.jsonl"
        print(f"and {len(failures) - _MOST_FAILURES} more, all of them in {journal}", file=sys.stderr)
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(sweep.cells)} cells failed; the same command tries them again")


def _request(options: argparse.Namespace) -> SweepRequest:
    from lo_theory.lab.sweep.cells import Shard
    from lo_theory.lab.sweep.sweeps import SweepRequest

    return SweepRequest(
        options.out,
        options.workers,
        options.threads,
        options.device,
        options.command_line,
        options.checkpoint_seconds,
        Shard.parse(options.shard),
        "serial" if options.serial else "pool" if options.dask is None else "dask",
        "local" if options.dask is None else options.dask,
        options.attempts,
    )


def _confirm(grid: Grid, options: argparse.Namespace) -> None:
    """Ask before a grid that is probably a slip; ValueError where nobody can answer, or the answer is no."""
    from lo_theory.lab.sweep.grid import LARGEST_GRID

    if options.yes or options.show or grid.size <= LARGEST_GRID:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ValueError(f"the grid has {grid.size:,} cells: give --yes if that is meant, or fewer values")
    print(f"The grid has {grid.size:,} cells. Continue? [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise ValueError("nothing was begun")


def _print_tables(results: Results, folder: Path) -> None:
    if results.finished > _LARGEST_SHOWN:
        print(f"tables of {results.finished} cells: {folder / 'table.md'}")
        return
    show_tables(results.tables)


def _print_state(results: Results, folder: Path | None) -> None:
    """How much of the grid is finished, and where its tables are."""
    print(f"{results.finished} of {results.cells} cells of the grid are finished", file=sys.stderr)
    if folder is not None:
        pooled = ", pooled.csv" if results.pooled else ""
        print(f"{folder}: table.csv, table.md, figure.png, figure.pdf, rows.jsonl{pooled}", file=sys.stderr)
