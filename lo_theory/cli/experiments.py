"""Commands on experiments: ``run``, ``table``, ``figure``, ``report``; and ``info``, ``compile`` on where they run.

Writes below the folder of runs, through the lab only.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_theory.cli.shared import (
    add_checkpoint_seconds,
    add_dry_run,
    add_out,
    check_ending,
    check_rate,
    end_on_sigterm,
    find_run,
    show_dry_run,
    show_tables,
)

if TYPE_CHECKING:
    from lo_theory.lab.runs import FinishedRun

__all__ = ["add_commands"]


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add ``run``, ``table``, ``figure``, ``report``, ``info`` and ``compile``; ``shared`` are options of all."""
    _add_run(
        commands.add_parser(
            "run", parents=[shared], help="run an experiment, or continue it, and show its table and figure"
        )
    )
    for name, function in (("table", _table), ("figure", _figure)):
        command = commands.add_parser(
            name, parents=[shared], help=f"the {name} of a finished run, without computing anything"
        )
        command.add_argument(
            "run", metavar="EXPERIMENT", help="name of an experiment (its latest finished run), or a run folder"
        )
        add_out(command)
        command.set_defaults(function=function)
    _add_report(
        commands.add_parser("report", parents=[shared], help="one HTML page of a run, readable without network")
    )
    info = commands.add_parser("info", parents=[shared], help="versions, device and threads")
    info.set_defaults(function=_info)
    words = "compile the kernels now, once, before many processes need them"
    commands.add_parser("compile", parents=[shared], help=words).set_defaults(function=_compile)


def _add_run(command: argparse.ArgumentParser) -> None:
    words = "experiment file, such as my.yaml, or the name of one that comes with the package, such as table1"
    command.add_argument("config", type=Path, metavar="CONFIG", help=words)
    command.add_argument("--preset", help="one of the file's presets (default: the one the file names)")
    command.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="PATH=VALUE",
        help="override settings, such as training.steps=500",
    )
    add_out(command)
    command.add_argument("--workers", type=int, help="units of work at a time (default: what fits the processors)")
    command.add_argument(
        "--threads", type=int, help="torch threads of each (default: 1, or what the run was begun with)"
    )
    command.add_argument("--device", default="auto", help="torch device: cpu, cuda, or auto (default)")
    add_checkpoint_seconds(command)
    command.add_argument("--quiet", action="store_true", help="no progress, only the result")
    add_dry_run(command)
    command.set_defaults(function=_run, resumes=True)


def _add_report(command: argparse.ArgumentParser) -> None:
    words = "name of an experiment (its latest finished run), a run folder, or the folder of a sweep"
    command.add_argument("run", metavar="EXPERIMENT", help=words)
    add_out(command)
    command.add_argument("--to", type=Path, metavar="FILE", help="the page (default: report.html in the run folder)")
    command.set_defaults(function=_report)


def _report(options: argparse.Namespace) -> None:
    from lo_theory.lab.report import find, write_report

    check_ending("--to", options.to, ".html")
    source = find(options.run, options.out)
    print(write_report(source, options.to or source.folder / "report.html"))


def _run(options: argparse.Namespace) -> None:
    from lo_theory.lab.config import load
    from lo_theory.lab.execute import Request, assist, execute, own_rank
    from lo_theory.lab.progress import make_progress

    check_rate(options)
    end_on_sigterm()
    experiment = load(options.config, preset=options.preset, sets=options.set)
    request = Request(
        options.out, options.workers, options.threads, options.device, options.command_line, options.checkpoint_seconds
    )
    if options.dry_run:
        show_dry_run(experiment, request, options.rate)
        return
    if own_rank() > 0:  # of torchrun's ranks the first writes, and shows the result
        assist(experiment, request)
        return
    with make_progress(quiet=options.quiet) as progress:
        finished = execute(experiment, request, progress)
    _show_tables(finished)
    if not options.quiet:
        print(f"{finished.folder}: table.csv, table.md, figure.png, figure.pdf, rows.jsonl", file=sys.stderr)


def _show_tables(finished: FinishedRun) -> None:
    from lo_theory.lab.config import resolve
    from lo_theory.lab.task import tables

    show_tables(tables(resolve(finished.config), finished.rows))
    facts = {name: finished.facts.get(name, "?") for name in ("workers", "device", "processor")}
    print("{:.0f} seconds, {} workers, {}, {}".format(finished.facts["seconds"], *facts.values()))


def _table(options: argparse.Namespace) -> None:
    _show_tables(find_run(options.run, options.out))


def _figure(options: argparse.Namespace) -> None:
    from lo_theory.lab.config import resolve
    from lo_theory.lab.task import write_figures

    finished = find_run(options.run, options.out)
    for path in write_figures(finished.folder, resolve(finished.config), finished.rows):
        print(path)


def _compile(options: argparse.Namespace) -> None:
    from lo_theory.lab.kernels import compile_kernels

    end_on_sigterm()
    began = time.perf_counter()
    print("compiling: a minute or two on two cores, seconds where it is done", file=sys.stderr)
    compile_kernels()
    print(f"the kernels are compiled: {time.perf_counter() - began:.0f} s")


def _info(options: argparse.Namespace) -> None:
    import torch

    from lo_theory.lab.units import available_processors, processor, versions

    facts = {
        **versions(),
        "processor": processor(),
        "processors": available_processors(),
        "torch threads": torch.get_num_threads(),
    }
    facts["cuda"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    for name, value in facts.items():
        print(f"{name:14} {value}")
