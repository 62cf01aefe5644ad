"""The command ``thresholds``: when the latents can be known, and the mask rates at which that is hard.

Prints results on standard output and nothing else there; expected durations go to standard error. Reads the table
named, writes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from lo_theory.cli.threshold_requests import Request

__all__ = ["add_commands"]

_FULL, _QUICK = 8e8, 2e7  # factor messages
_UNITS = {"days": 86400, "hours": 3600, "min": 60, "s": 1}

_DESCRIPTION = """\
Kesten-Stigum (closed form), dynamic and condensation threshold of an observation law in the limit of many latents, as
mean degree c = kM/N, density M/N = c/k and neighbours (k-1)c, with 95 % errors; and the mask rates at which the
propositions of the paper place hard masking problems. docs/thresholds.md says how, and what is not promised.
"""

_EXAMPLES = """\
examples:
  lo-theory thresholds nae --q 3 --k 3 --N 30           the window of Proposition 3.3 for all ordered subsets
  lo-theory thresholds colouring --q 5 --observed all   every observation revealed, not only the satisfied
  lo-theory thresholds nae --q 3 --k 3 --revealed 0.05  and 5 % of the latents
  lo-theory thresholds xor --k 3 --noise 0.1 --quick --json
  lo-theory thresholds table mine.npy --closed-form     any balanced predicate: bool[q, ..., q]
  lo-theory thresholds slab --N 30 --P 5000 --width 1 --c 0.1
"""

_TABLE = """\
FILE.npy holds one of: a truth table of zeros and ones [q, ..., q], one axis for each of k arguments; a likelihood
[q, ..., q] of probabilities of the value 1; with --k, emission tables [q**k, r] or [E, q**k, r] of probabilities
P(value | state), first argument slowest, each of the E equally frequent. Nothing in it is executed.
"""

_LAWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nae": ("not all k arguments equal", ("q", "k")),
    "xor": ("parity of k bits", ("k",)),
    "colouring": ("the two ends of an edge differ", ("q",)),
    "sat": ("a clause of k literals (refused: it breaks Assumption B.11)", ("k",)),
}


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add ``thresholds`` to the subparsers ``commands``, one parser below it for each observation law."""
    raw = argparse.RawDescriptionHelpFormatter
    help_line = "Kesten-Stigum, dynamic and condensation thresholds, and hard mask rates"
    command = commands.add_parser(
        "thresholds", help=help_line, description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=raw
    )
    laws = command.add_subparsers(title="observation laws", required=True, metavar="LAW", dest="law")
    for name, (words, settings) in _LAWS.items():
        law = laws.add_parser(name, parents=[shared], help=words, description=f"{name}: {words}.")
        for setting in settings:
            meaning = {"q": "values of a latent", "k": "latents an observation reads"}[setting]
            law.add_argument(f"--{setting}", type=int, required=True, help=meaning)
        _add_transition(law)
    words = "any truth table, likelihood or emission table"
    table = laws.add_parser("table", parents=[shared], help=words, description=_TABLE, formatter_class=raw)
    table.add_argument("file", type=Path, metavar="FILE.npy", help="the table, as numpy.save writes it")
    table.add_argument("--k", type=int, help="FILE.npy holds emission tables [q**k, r] of this k")
    _add_transition(table)
    _add_window(laws, shared, "sparse-parity", "Proposition B.2: mask rates for noisy parities, conjectural")
    slab = _add_window(laws, shared, "slab", "Proposition B.5: mask rates for random slabs, conjectural")
    slab.add_argument(
        "--c", type=float, required=True, help="revealed observations per latent from which on it is hard"
    )
    slab.add_argument(
        "--c-beta", type=float, help="constant of the proposition, which gives no value (default: its upper bound)"
    )


def _add_transition(law: argparse.ArgumentParser) -> None:
    law.add_argument(
        "--observed",
        default="satisfied",
        metavar="VALUES",
        help="observations that are revealed: satisfied (the default: value 1), all, or values such as 0,2",
    )
    law.add_argument("--noise", type=float, default=0.0, metavar="ETA", help="flip rate of observations (default: 0)")
    law.add_argument(
        "--N", type=int, help="latents: also print the window of Proposition 3.3, for all ordered k-subsets"
    )
    law.add_argument("--P", type=int, help="with --N: the window for P observations instead")
    law.add_argument(
        "--revealed", type=float, metavar="RATE", help="also: what is left with this share of latents given"
    )
    law.add_argument("--seed", type=int, default=0, help="seed of population dynamics (default: 0)")
    law.add_argument("--threads", type=int, default=1, help="processor threads; no number depends on them (default: 1)")
    effort = law.add_mutually_exclusive_group()
    effort.add_argument(
        "--messages",
        type=float,
        default=_FULL,
        help="factor messages to compute; errors fall as their square root (default: 8e8, about a minute)",
    )
    effort.add_argument(
        "--quick", dest="messages", action="store_const", const=_QUICK, help="2e7 messages: seconds, errors near 1 %%"
    )
    effort.add_argument("--closed-form", action="store_true", help="Kesten-Stigum only, at once")
    _add_json(law)
    law.set_defaults(function=_transition)


def _add_window(laws: Any, shared: argparse.ArgumentParser, name: str, words: str) -> argparse.ArgumentParser:
    law: argparse.ArgumentParser = laws.add_parser(name, parents=[shared], help=words, description=f"{words}.")
    law.add_argument("--N", type=int, required=True, help="latents")
    law.add_argument("--P", type=int, required=True, help="observations")
    setting, kind, meaning = {
        "sparse-parity": ("--k", int, "latents a parity reads"),
        "slab": ("--width", float, "half-width of a slab in units of sqrt(N), the paper's beta"),
    }[name]
    law.add_argument(setting, type=kind, required=True, help=meaning)
    _add_json(law)
    law.set_defaults(function=_mask_rates)
    return law


def _add_json(law: argparse.ArgumentParser) -> None:
    law.add_argument("--json", action="store_true", help="one JSON object; infinite and absent numbers are null")


def _interruptible(function: Callable[[], Any]) -> Any:
    """Call ``function`` in a thread, so that Ctrl-C need not wait for a sweep of a large table to end.

    The thread dies with the process, which ``console`` ends at once.
    """
    answer: Future[Any] = Future()

    def work() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=work, daemon=True).start()
    return answer.result()


def _transition(options: argparse.Namespace) -> None:
    from lo_theory.cli.threshold_reports import show_kesten_stigum, show_results, transition_record
    from lo_theory.cli.threshold_requests import make_request

    request = _interruptible(lambda: make_request(options))
    if not options.json:
        show_kesten_stigum(request)
        sys.stdout.flush()
    begin = time.perf_counter()
    found, fold = (None, None) if options.closed_form else _run_population(request)
    window = request.window(found.condensation) if found is not None else None
    if options.json:
        seconds = time.perf_counter() - begin
        _print_json(transition_record(request, found, window, fold) | {"seconds": round(seconds, 3)})
    else:
        show_results(request, found, window, fold)


def _run_population(request: Request) -> Any:
    """Find the transition and, at a rate of revealed latents, the fold; say first how long it takes."""
    from lo_theory.cli.threshold_requests import expected_seconds, find

    seconds = _interruptible(lambda: expected_seconds(request))
    unit, size = next((name, size) for name, size in _UNITS.items() if seconds >= 2 * size or size == 1)
    length = f"{max(1, round(seconds / size))} {unit}"
    shorter = "--quick for less, " if request.messages > 2 * _QUICK else ""
    print(
        f"population dynamics, {request.messages:.3g} factor messages: about {length} ({shorter}Ctrl-C to stop)",
        file=sys.stderr,
        flush=True,
    )
    return _interruptible(lambda: find(request))


def _mask_rates(options: argparse.Namespace) -> None:
    from lo_theory.cli.threshold_reports import show_words, window_record
    from lo_theory.cli.threshold_requests import parity_answer, slab_answer

    answer = {"sparse-parity": parity_answer, "slab": slab_answer}[options.law](options)
    if options.json:
        _print_json({**answer.settings, "window": window_record(answer.window), "notes": answer.notes})
        return
    for words in (answer.window.statement, *answer.notes):
        show_words(words)


def _print_json(record: dict[str, Any]) -> None:
    print(json.dumps(record, indent=2, allow_nan=False))
