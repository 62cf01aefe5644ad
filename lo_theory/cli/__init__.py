"""The command line ``lo-theory``: runs, sweeps, agendas, tables, figures, samples, thresholds, and what they run on.

Parses, calls one function of a group of commands, explains errors. Each file of this room is a group: it adds its
commands to the parser and imports whatever is heavy only when one of them runs, so that ``--help`` is instant. Errors
of the user's making are one line on standard error and exit code 2; ``--debug`` shows where they came from.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence

from lo_theory.cli import agenda, experiments, samples, sweep, thresholds, views

__all__ = ["console", "main"]

_INTERRUPTED = 130
_GROUPS = (experiments, sweep, agenda, views, samples, thresholds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 after an error that was explained, 130 after Ctrl-C."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    options.command_line = shlex.join(["lo-theory", *given])
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal without ± shows ? in its place
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
    except KeyboardInterrupt:  # before the command began
        code = _INTERRUPTED
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # one that comes while the interpreter ends would show a traceback
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
    for group in _GROUPS:
        group.add_commands(commands, shared)
    return parser
