"""What a decode costs, as every experiment that decodes measures and shows it."""

from __future__ import annotations

from collections.abc import Sequence

from lo_theory.diffusion import DecodeOptions, Policy, Schedule, Sums, decode_cost
from lo_theory.diffusion.policies import hides_again
from lo_theory.lab import measures
from lo_theory.lab.frame import Record
from lo_theory.lab.table import Column, Table, mean, measured, percent
from lo_theory.posterior import Posterior
from lo_theory.problem import LODistribution
from lo_theory.rng import Key

__all__ = ["cost_table", "measured_costs"]


def measured_costs(
    denoiser: Posterior,
    rule: tuple[Policy, Schedule],
    distribution: LODistribution,
    *,
    key: Key,
    n: int,
    exact: Posterior | None,
    options: DecodeOptions | None = None,
) -> dict[str, Sums]:
    """Metrics of ``decode_cost`` on ``n`` true sequences; nothing for n = 0, and where tokens are drawn twice."""
    if not n or hides_again(rule[0]) or (options is not None and options.rewriter is not None):
        return {}
    return measures.costs(decode_cost(denoiser, *rule, distribution, key=key, n=n, exact=exact, options=options))


def cost_table(lines: Sequence[Record], names: Sequence[Column], section: Sequence[str] = ()) -> Table:
    """What decodes cost in nats, of the lines where that was measured; ``names`` are the columns that name a line."""
    return Table(
        "What each decode costs",
        (
            *(*names, measured("cost", form="z.3f"), measured("dependence_error", "dependence", "z.3f")),
            *(measured("model_error", "model", "z.3f"), percent("infinite_cost", "infinite")),
            mean("calls", form=".1f"),
        ),
        [line for line in lines if "infinite_cost" in line.metrics],
        section,
        notes="Nats per true sequence along the decoder's own path, with 95 % intervals over sequences. Cost: ln of "
        "the data's probability less ln of the decoder's; dependence: tokens of one step drawn independently; model: "
        "marginals that are not the exact ones. Infinite: per cent of sequences of which the denoiser excludes a "
        "token; they are not in the means. Calls: posterior calls that one sequence takes.",
    )
