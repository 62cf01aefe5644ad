"""The command ``agenda``: several experiments one after the other, each in a time box.

Writes below the folder of runs, through ``lo-theory run`` only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from lo_theory.cli.shared import add_dry_run, add_out, check_rate, end_on_sigterm, show_tables

__all__ = ["add_commands"]

_EXAMPLES = """\
examples:
  lo-theory agenda experiments/owed.yaml --dry-run --rate 300    what each entry takes at 300 TFLOP/s
  lo-theory agenda experiments/owed.yaml --device cuda           all of it; the same command goes on
  lo-theory agenda experiments/owed.yaml --only paper figure2    these two
  lo-theory agenda experiments/owed.yaml --ranks 8               every training on eight GPUs
"""


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add ``agenda`` to the subparsers ``commands``; ``shared`` are options of all commands."""
    command = commands.add_parser(
        "agenda",
        parents=[shared],
        help="run the experiments that a file lists, in order, each in its time box, or go on with them",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("file", type=Path, metavar="FILE", help="agenda, such as experiments/owed.yaml")
    command.add_argument("--only", nargs="+", default=[], metavar="ENTRY", help="only these entries")
    add_out(command)
    command.add_argument("--device", default="auto", help="torch device: cpu, cuda, or auto (default)")
    command.add_argument("--ranks", type=int, default=1, help="processes that train together, one a GPU (default: 1)")
    add_dry_run(command)
    command.set_defaults(function=_agenda, resumes=True)


def _agenda(options: argparse.Namespace) -> None:
    from lo_theory.lab.agenda import Outcome, load_agenda, outcome_table, run_entry
    from lo_theory.problem.seams import check_threads

    check_threads(options.ranks, "--ranks")
    check_rate(options)
    end_on_sigterm()
    agenda = load_agenda(options.file, options.only)
    passed = ["--out", str(options.out), "--device", options.device]
    passed += ["--dry-run"] if options.dry_run else []
    passed += ["--rate", f"{options.rate:g}"] if options.rate is not None else []
    outcomes: dict[str, Outcome] = {}
    for entry in agenda.entries:
        print(
            f"{entry.name}: {entry.why or entry.experiment} (at most {entry.minutes:g} min)",
            file=sys.stderr,
            flush=True,
        )
        ranks = 1 if options.dry_run else options.ranks
        outcomes[entry.name] = run_entry(entry, options.file.parent, passed, ranks)
    if not options.dry_run:
        show_tables([outcome_table(agenda, outcomes)])
    left = [name for name, outcome in outcomes.items() if not outcome.finished]
    if left:
        names = ", ".join(left)
        state = "could not be estimated" if options.dry_run else "are not finished"
        remedy = "their own lines say why" if options.dry_run else "the same command goes on"
        raise RuntimeError(f"{len(left)} of {len(outcomes)} entries {state} ({names}); {remedy}")
