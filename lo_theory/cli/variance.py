"""The command ``variance``: where the noise of a masked loss comes from, law by law, and that of its gradient.

Prints a table; writes a figure where one is asked for.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_theory.cli.samples import add_families, family_problem
from lo_theory.cli.shared import check_ending, show_tables

if TYPE_CHECKING:
    from lo_theory.diffusion import LossVariance, MaskLaw
    from lo_theory.diffusion.statistics import Estimate, Sums
    from lo_theory.lab.frame import Record
    from lo_theory.lab.table import Table
    from lo_theory.neural import GradientVariance, Transformer
    from lo_theory.posterior import Posterior
    from lo_theory.problem import LODistribution

__all__ = ["add_commands"]

_DESCRIPTION = """\
The loss of one sequence under a mask law is random for three reasons: A the mask, B the rate of masking, C the data.
A + B + C is its variance, and a batch of n sequences has 1/n of it. Exact by all sequences and masks up to L = 8, if
possible sequences times masks are at most 2**20; else measured on -n sequences with 95 % intervals, as the last lines
say. p_pots(measured) and mirror_p_pots(measured) have their table from the predictor (docs/equations.md).

Cost: measured, a predictor answers 8 n L contexts, n sequences of L tokens, and 2 n L more for each plackett_luce. That
is costly for the exact posterior of a long sequence: leave it out with --predictors marginals, or lower -n. Of a
network the gradient takes most of the time: 2 --pairs batches of --passes rows for each law, forward and backward.
"""

_ENUMERATED = 8  # tokens
_TITLES = {"exact": "exact", "marginals": "marginals only", "model": "model"}
_LAWS = ("uniform", "mirror_uniform", "bernoulli", "mirror", "bell(0.2)", "bell_unweighted(0.2)", "plackett_luce(4)")


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add ``variance`` to the subparsers ``commands``, one family of problems below it for each."""
    words = "where the noise of a masked loss comes from, law by law: mask, rate, data; and that of the gradient"
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("variance", help=words, description=_DESCRIPTION, formatter_class=raw)
    for family in add_families(command, shared):
        words = "to measure on: a predictor answers some 10 n L contexts (default: 100)"
        family.add_argument("-n", type=int, default=100, metavar="SEQUENCES", help=words)
        words = f"mask laws by name, which docs/concepts.md lists (default: {' '.join(_LAWS)})"
        family.add_argument("--laws", nargs="+", default=list(_LAWS), metavar="LAW", help=words)
        words = "whose loss, of: %(choices)s (default: exact, marginals, and model where --model is given)"
        many: dict[str, Any] = {"nargs": "+", "choices": list(_TITLES), "metavar": "PREDICTOR"}
        family.add_argument("--predictors", help=words, **many)
        family.add_argument("--seed", type=int, default=0, help="seed of the sequences (default: 0)")
        words = "checkpoint of a network that was trained on this problem: its loss and its gradient too"
        family.add_argument("--model", type=Path, metavar="FILE", help=words)
        words = "masked rows in a batch of the gradient (default: 64)"
        family.add_argument("--passes", type=int, default=64, metavar="ROWS", help=words)
        family.add_argument("--pairs", type=int, default=50, help="pairs of batches for the gradient (default: 50)")
        words = "processor threads of the network; more are slower where other work shares the processor (default: 1)"
        family.add_argument("--threads", type=int, default=1, help=words)
        family.add_argument("--figure", type=Path, metavar="FILE.png", help="also draw it, as PNG and PDF")
        family.set_defaults(function=_variance)


def _variance(options: argparse.Namespace) -> None:
    from lo_theory.problem.seams import check_threads

    check_threads(options.threads, "--threads")
    if options.model is None:
        _report(options)
        return
    from lo_theory.neural.threads import torch_threads

    with torch_threads(options.threads):
        _report(options)


def _report(options: argparse.Namespace) -> None:
    """Measure, print, draw."""
    from lo_theory.lab.settings import check_laws, mask_law
    from lo_theory.rng import Key

    check_ending("--figure", options.figure, ".png")
    names = _predictors(options)
    distribution = family_problem(options).make()
    check_laws([("--laws", options.laws)], distribution.layout)
    laws, key = [mask_law(law) for law in options.laws], Key(options.seed).fold("variance")
    model = None
    if options.model is not None:
        from lo_theory.neural import load_model

        model = load_model(options.model, problem=distribution.fingerprint())
    (measure, how), lines = _measure(distribution, key, options.n), []
    for name in names:
        posterior = _posterior(name, distribution, model)
        title = _TITLES[name]
        print(f"measuring {title}{', and its gradient' * (name == 'model')}", file=sys.stderr, flush=True)
        every = [*laws, *_fitted(posterior, distribution, key, options.n)]
        found = measure(posterior, every)
        gradients = _gradients(model, distribution, every, key, options) if name == "model" and model else {}
        own = [_line(title, each, gradients.get(each.law)) for each in found]
        show_tables([_table(title, own)])
        lines += own
    print(f"{_NOTE}\n{how}")
    if options.figure is not None:
        for path in _draw(lines, options.figure):
            print(path)


def _predictors(options: argparse.Namespace) -> list[str]:
    """Names of the predictors asked for, each once; ValueError where the model is named alone, or its file alone."""
    default = [name for name in _TITLES if name != "model" or options.model is not None]
    names = list(dict.fromkeys(options.predictors or default))
    if ("model" in names) != (options.model is not None):
        raise ValueError(
            "--predictors names model and there is no file of it: give --model FILE"
            if options.model is None
            else "--model is given and --predictors does not name model: name it too, or leave out --model"
        )
    return names


def _posterior(name: str, distribution: LODistribution, model: Transformer | None) -> Posterior:
    from lo_theory.posterior import ExactPosterior, MarginalsOnly

    if name == "model" and model is not None:
        from lo_theory.neural import TrainedPosterior

        return TrainedPosterior(model, distribution.layout)
    return ExactPosterior(distribution) if name == "exact" else MarginalsOnly(distribution)


def _fitted(posterior: Posterior, distribution: LODistribution, key: Any, n: int) -> list[MaskLaw]:
    """P-POTS with the table of this predictor, with one mask and with two; none where it loses nothing."""
    from lo_theory.diffusion import AtRates, Mirror, pots_rates

    rates = pots_rates(posterior, distribution, key=key.fold("rates"), n=n)
    return [AtRates(rates), Mirror(rates)]


def _measure(
    distribution: LODistribution, key: Any, n: int
) -> tuple[Callable[[Posterior, list[MaskLaw]], list[LossVariance]], str]:
    """What finds the variances of a predictor by laws, and how, in words."""
    from lo_theory.diffusion import can_enumerate, exact_variances, loss_variances

    length = distribution.layout.length
    if length <= _ENUMERATED and can_enumerate(distribution):
        return lambda posterior, laws: exact_variances(posterior, distribution, laws), "Exact: all sequences and masks."
    why = f"L = {length} is more than {_ENUMERATED}"
    if length <= _ENUMERATED:
        why = "possible sequences times masks are more than 2**20"
    return (
        lambda posterior, laws: loss_variances(posterior, distribution, laws, key=key.fold("losses"), n=n),
        f"Measured on {n} sequences: {why}.",
    )


def _gradients(
    model: Transformer, distribution: LODistribution, laws: list[MaskLaw], key: Any, options: argparse.Namespace
) -> dict[str, GradientVariance]:
    from lo_theory.neural import gradient_variance

    counts = {"passes": options.passes, "pairs": options.pairs}
    found = (gradient_variance(model, distribution, law, key=key.fold("gradients"), **counts) for law in laws)
    return {each.law: each for each in found}


def _table(predictor: str, lines: list[Record]) -> Table:
    from lo_theory.lab.table import Table, key, mean, measured

    sources = [measured(of, form="z.4f") for of in ("A", "B", "C", "total")]
    sources += [mean("per pass", form="z.4f"), measured("Cov", form="z.4f")]
    noise = [measured(of, form=".3g") for of in ("gradient", "signal") if of in lines[0].metrics]
    title = f"Variance of the loss of one sequence, (nats per token)^2: {predictor}"
    return Table(title, [key("law", left=True), key("masks"), *sources, *noise], lines)


_NOTE = """\
± is half of a 95 % interval over sequences; exact numbers have none. A: E Var over masks, B: E Var over rates, C: Var
over sequences of what is left. Cov: between the losses of two masks, E over sequences and rates. per pass: masks x
total, the variance of a batch of B forward passes times B. inf: the integral of 1/t, from masks that hide one token.
gradient: tr Cov of a batch of --passes rows, heavy-tailed where A is infinite; signal: the squared norm of its mean."""


def _estimate(sums: Sums, scale: float = 1.0) -> Estimate:
    from lo_theory.diffusion.statistics import Estimate

    return Estimate(*(scale * value for value in (sums.mean, *sums.interval())))


def _line(predictor: str, found: LossVariance, gradient: GradientVariance | None) -> Record:
    from lo_theory.lab.frame import Record

    metrics = {"A": found.masks, "B": found.rates, "C": found.data, "total": found.total, "Cov": found.covariance}
    estimates = {name: _estimate(sums) for name, sums in metrics.items()}
    estimates["per pass"] = _estimate(found.total, found.copies)
    if gradient is not None:
        estimates |= {"gradient": _estimate(gradient.noise), "signal": _estimate(gradient.signal)}
    keys = {"predictor": predictor, "law": found.law, "masks": found.copies}
    return Record(keys, {name: (estimate, None) for name, estimate in estimates.items()})


_LETTERS = 60  # in a line below a panel


def _draw(lines: list[Record], path: Path) -> list[Path]:
    """A panel a predictor: its laws by variance x passes, split by source; below it those of infinite variance."""
    from lo_theory.lab.drawing import CATEGORICAL, letter_panels, new_figure, styled, write_figure

    colours = dict(zip(("A", "B", "C"), CATEGORICAL[::4], strict=False))
    words = {"A": "A, the mask", "B": "B, the rate", "C": "C, the data"}
    predictors = list(dict.fromkeys(line.predictor for line in lines))
    with styled():
        figure = new_figure(5 * len(predictors), 4.2, "Where the noise of a masked loss comes from")
        panels = figure.subplots(1, len(predictors), squeeze=False)[0]
        for axes, predictor in zip(panels, predictors, strict=True):
            every = [line for line in lines if line.predictor == predictor]
            own = [line for line in every if math.isfinite(line.value("total"))]
            own.sort(key=lambda line: line.value("per pass"))
            ends = [0.0] * len(own)
            for source, colour in colours.items():
                parts = [max(line.masks * line.value(source), 0.0) for line in own]
                axes.barh(range(len(own)), parts, left=ends, color=colour, label=words[source])
                ends = [end + part for end, part in zip(ends, parts, strict=True)]
            axes.set_yticks(range(len(own)), [line.law for line in own])
            axes.invert_yaxis()
            endless = ", ".join(line.law for line in every if line not in own)
            below = [textwrap.fill(f"infinite, not drawn: {endless}", _LETTERS)] if endless else []
            axes.set_xlabel("\n".join(["variance x forward passes, (nats per token)²", *below]))
            axes.set_title(predictor)
        letter_panels(panels)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(colours))
        return write_figure(path.parent, path.stem, figure)
