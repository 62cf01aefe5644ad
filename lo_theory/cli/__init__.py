"""The command line ``lo-theory``: runs, sweeps, tables, figures, samples, thresholds, and what they run on.

Parses, calls one function of a group of commands, explains errors. Each file of this room is a group: it adds its
commands to the parser and imports whatever is heavy only when one of them runs, so that ``--help`` is instant. Errors
of the user's making are one line on standard error and exit code 2; ``--debug`` shows where they came from.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from lo_theory.cli import experiments, samples, schedule, sweep, thresholds, variance, views

__all__ = ["console", "main"]

_INTERRUPTED = 130
_SECONDS_TO_LEAVE = 0.1
_GROUPS = (experiments, sweep, views, samples, schedule, variance, thresholds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 after an error that was explained, 130 after Ctrl-C."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    for word in given:
        if word.startswith("-") and word.endswith("=--"):  # argparse drops the value, and fails
            parser.error(f"{word}: an option cannot have the value --")
    options = parser.parse_args(given)
    options.command_line = shlex.join(["lo-theory", *given])
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal without ± shows ? in its place
        _check_integers(options)
        options.function(options)
        sys.stdout.flush()
    except BrokenPipeError:
        _mute(sys.stdout)  # the reader has seen enough
    except KeyboardInterrupt:
        resumes = "; what was computed is kept, and the same command continues from there" if options.resumes else ""
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
    _open_streams()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell has it for jobs in the background
        signal.signal(signal.SIGINT, _Interrupts().meet)
    try:
        code = main()
    except SystemExit as ending:  # of the argument parser, or after SIGTERM
        code = ending.code if isinstance(ending.code, int) else 0
    except KeyboardInterrupt:  # before the command began
        code = _INTERRUPTED
    for number in (signal.SIGTERM, signal.SIGINT):  # one that comes while the interpreter ends would show a traceback
        signal.signal(number, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # a full disk or a reader that has gone: said, where anybody listens
            _mute(stream)
    if threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)


class _Interrupts:
    """Ctrl-C: the first time work is stopped in order, the second time the process ends at once.

    Python drops an interrupt that comes inside a finaliser or a callback, with a traceback; here it is raised again.
    """

    def __init__(self) -> None:
        self._asked = False
        self._report = sys.unraisablehook
        sys.unraisablehook = self._unraisable

    def meet(self, number: int, frame: object) -> NoReturn:
        """Handle the signal."""
        if self._asked:
            with contextlib.suppress(OSError):
                os.write(2, b"interrupted\n")
            os._exit(_INTERRUPTED)  # every file is written whole or not at all
        self._asked = True
        raise KeyboardInterrupt

    def _unraisable(self, dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            self._asked = False  # sent again when the finaliser is left: here it would be dropped once more
            again = threading.Timer(_SECONDS_TO_LEAVE, os.kill, (os.getpid(), signal.SIGINT))
            again.daemon = True
            again.start()
        else:
            self._report(dropped)


def _open_streams() -> None:
    """Give a process that was started with closed standard streams some that lead nowhere.

    Otherwise the next file opened would become its standard output.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open as long as the process is)


def _mute(stream: Any) -> None:
    """Lead a stream that cannot be written any more to nowhere, so that its last flush is no error."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _check_integers(options: argparse.Namespace) -> None:
    for name, value in vars(options).items():
        if isinstance(value, int) and abs(value) >= 2**63:
            option = name.removeprefix("setting_").replace("_", "-")
            raise ValueError(f"--{option} must be an integer of 64 bits, got one of {len(str(abs(value)))} digits")


def _one_line(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    notes = getattr(error, "__notes__", [])  # such as the unit of work it happened in
    return " ".join(" ".join([text, *(f"({note})" for note in notes)]).split())


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
