"""The command line: ``lo-theory run | table | figure | sample | info``.

Parses, calls one function of the lab, prints. Whatever is heavy is imported by the command that needs it, so that
``--help`` is instant. Errors of the user's making are one line on standard error and exit code 2; ``--debug`` shows
where they came from.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import signal
import sys
import threading
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lo_theory.lab.runs import FinishedRun

__all__ = ["console", "main"]

_INTERRUPTED, _TERMINATED = 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 after an error that was explained, 130 after Ctrl-C."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    options.command_line = shlex.join(["lo-theory", *given])
    try:
        options.function(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
    except KeyboardInterrupt:
        resumes = "; what was computed is kept, and the same command goes on from there" if options.resumes else ""
        print(f"interrupted{resumes}", file=sys.stderr)
        return _INTERRUPTED
    except (ValueError, OSError, ArithmeticError, MemoryError, RuntimeError) as error:
        if options.debug:
            raise
        print(f"lo-theory: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def console() -> None:
    """Run ``main`` as a program.

    A worker thread that does not stop in time (in the middle of a long matrix product, say) would crash the interpreter
    as it shuts down; every file is written whole or not at all, so the process may simply end.
    """
    try:
        code = main()
    except SystemExit as ending:  # of the argument parser, or after SIGTERM
        code = ending.code if isinstance(ending.code, int) else 0
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)


def _one_line(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return " ".join(text.split())


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    shared.set_defaults(resumes=False)
    parser = argparse.ArgumentParser(
        prog="lo-theory", description="Masked diffusion models against the truth on Latents-and-Observations data."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(
        commands.add_parser(
            "run", parents=[shared], help="run an experiment, or go on with it, and show its table and figure"
        )
    )
    for name, function in (("table", _table), ("figure", _figure)):
        command = commands.add_parser(
            name, parents=[shared], help=f"the {name} of a finished run, without computing anything"
        )
        command.add_argument(
            "run", metavar="EXPERIMENT", help="name of an experiment (its latest finished run), or a run folder"
        )
        _add_out(command)
        command.set_defaults(function=function)
    _add_sample(commands.add_parser("sample", help="draw sequences from a family of distributions"), shared)
    info = commands.add_parser("info", parents=[shared], help="versions, device and threads")
    info.set_defaults(function=_info)
    return parser


def _add_out(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="FOLDER", help="folder of all runs (default: runs)"
    )


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=Path, metavar="CONFIG", help="experiment file, such as experiments/table1.yaml")
    command.add_argument("--preset", help="one of the file's presets (default: the one the file names)")
    command.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="PATH=VALUE",
        help="override settings, such as training.steps=500",
    )
    _add_out(command)
    command.add_argument("--workers", type=int, help="units of work at a time (default: what fits the processors)")
    command.add_argument(
        "--threads", type=int, help="torch threads of each (default: 1, or what the run was begun with)"
    )
    command.add_argument("--device", default="auto", help="torch device: cpu, cuda, or auto (default)")
    command.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=15.0,
        metavar="S",
        help="time between checkpoints of a training (default: 15)",
    )
    command.add_argument("--quiet", action="store_true", help="no progress, only the result")
    command.set_defaults(function=_run, resumes=True)


def _add_sample(command: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    from lo_theory.lab.problems import FAMILIES

    families = command.add_subparsers(title="families", required=True, metavar="FAMILY")
    for name, kind in FAMILIES.items():
        family = families.add_parser(name, parents=[shared], help=kind.__doc__, description=kind.__doc__)
        for field in dataclasses.fields(kind)[1:]:
            _add_setting(family, field, typing.get_type_hints(kind)[field.name])
        family.add_argument("-n", type=int, required=True, metavar="SEQUENCES", help="how many sequences")
        family.add_argument("--seed", type=int, default=0, help="seed of the sequences (default: 0)")
        family.add_argument(
            "--threads", type=int, default=1, help="processor threads; the sequences do not depend on it"
        )
        family.add_argument(
            "-o", "--output", type=Path, required=True, metavar="FILE.npz", help="where to write the sequences"
        )
        family.add_argument("--save-problem", type=Path, metavar="FILE.npz", help="also write the distribution itself")
        family.set_defaults(function=_sample, kind=kind)


def _add_setting(family: argparse.ArgumentParser, field: dataclasses.Field[Any], hint: Any) -> None:
    """Make an option of a setting of a family; its own seed is called --problem-seed."""
    name = "problem-seed" if field.name == "seed" else field.name
    required = field.default is dataclasses.MISSING
    extra: dict[str, Any] = {"required": required, "default": None if required else field.default}
    if hint is bool:
        extra = {"action": "store_true"}
    elif typing.get_origin(hint) is typing.Literal:
        extra["choices"] = typing.get_args(hint)
    else:
        extra["type"] = hint
    family.add_argument(
        f"--{name}", dest=f"setting_{field.name}", help=None if required else "(default: %(default)s)", **extra
    )


def _run(options: argparse.Namespace) -> None:
    from lo_theory.lab.config import load
    from lo_theory.lab.execute import Request, execute
    from lo_theory.lab.progress import make_progress

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    experiment = load(options.config, preset=options.preset, sets=options.set)
    request = Request(
        options.out, options.workers, options.threads, options.device, options.command_line, options.checkpoint_seconds
    )
    with make_progress(quiet=options.quiet) as progress:
        finished = execute(experiment, request, progress)
    _show_tables(finished)
    if not options.quiet:
        print(f"{finished.folder}: table.csv, table.md, figure.png, figure.pdf, rows.jsonl", file=sys.stderr)


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(_TERMINATED)  # an exit, so that half-written temporary files are removed


def _find(options: argparse.Namespace) -> FinishedRun:
    """The run folder named, or the latest finished run of the experiment named."""
    from lo_theory.lab.runs import FinishedRun, finished_runs

    folder = Path(options.run)
    if (folder / "config.yaml").exists():
        return FinishedRun(folder)
    found = finished_runs(options.out, options.run)
    if not found:
        raise ValueError(
            f"no finished run of {options.run!r} in {options.out}: run it first, or name its folder with --out"
        )
    if len(found) > 1:
        print(f"{len(found)} finished runs; the latest is {found[-1].folder}", file=sys.stderr)
    return found[-1]


def _show_tables(finished: FinishedRun) -> None:
    from rich.console import Console

    from lo_theory.lab.config import resolve
    from lo_theory.lab.render import print_tables
    from lo_theory.lab.tables import tables

    class Paper(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # main knows what to do; rich would exit with an error

    console = Paper()
    if not console.is_terminal:
        console = Paper(width=120, color_system=None, no_color=True)
    print_tables(console, tables(resolve(finished.config), finished.rows))
    facts = {name: finished.facts.get(name, "?") for name in ("workers", "device", "processor")}
    print("{:.0f} seconds, {} workers, {}, {}".format(finished.facts["seconds"], *facts.values()))


def _table(options: argparse.Namespace) -> None:
    _show_tables(_find(options))


def _figure(options: argparse.Namespace) -> None:
    from lo_theory.lab.config import resolve
    from lo_theory.lab.figures import write_figures

    finished = _find(options)
    write_figures(finished.folder, resolve(finished.config), finished.rows)
    for form in ("png", "pdf"):
        print(finished.folder / f"figure.{form}")


def _sample(options: argparse.Namespace) -> None:
    import numpy as np

    from lo_theory.lab.schema import build
    from lo_theory.problem.storage import write_atomically
    from lo_theory.rng import Key

    if options.n < 1:
        raise ValueError(f"-n must be at least 1, got {options.n}")
    names = {field.name: f"setting_{field.name}" for field in dataclasses.fields(options.kind)[1:]}
    family = typing.get_args(typing.get_type_hints(options.kind)["family"])[0]
    problem = build(
        options.kind, {"family": family, **{name: getattr(options, option) for name, option in names.items()}}
    )
    distribution = problem.make()
    tokens = distribution.sample(Key(options.seed).fold("sample"), options.n, threads=options.threads)
    arrays = {
        "tokens": tokens,
        "latent_positions": distribution.layout.latent_positions,
        "observation_positions": distribution.layout.observation_positions,
        "problem": np.array(distribution.fingerprint()),
    }
    write_atomically(options.output, lambda file: np.savez(file, allow_pickle=False, **arrays))
    if options.save_problem is not None:
        distribution.save(options.save_problem)
    layout = distribution.layout
    print(f"{options.output}: {options.n} sequences, N = {layout.n_latents}, P = {layout.n_observations}")


def _info(options: argparse.Namespace) -> None:
    import torch

    from lo_theory.lab.execute import available_processors, processor, versions

    facts = {
        **versions(),
        "processor": processor(),
        "processors": available_processors(),
        "torch threads": torch.get_num_threads(),
    }
    facts["cuda"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    for name, value in facts.items():
        print(f"{name:14} {value}")


if __name__ == "__main__":
    console()
