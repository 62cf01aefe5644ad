"""What can be known: the posterior protocol, exact posteriors and belief propagation. Never loads torch."""

from __future__ import annotations

from lo_theory.posterior.bp import BPOptions, BPResult, run, run_batch
from lo_theory.posterior.bp_posterior import BPPosterior
from lo_theory.posterior.conditioned import Completed, Conditioned, exact_posterior
from lo_theory.posterior.cost import Cost
from lo_theory.posterior.enumerated import EnumeratedPosterior
from lo_theory.posterior.exact import ExactPosterior
from lo_theory.posterior.factor_graph import Conditioning, FactorGraph, condition, to_networkx
from lo_theory.posterior.protocol import Marginals, Posterior
from lo_theory.posterior.weak import Forgetful, MarginalsOnly, Mixed, PropagationOnly, Screened, Sharpened, few_rounds

__all__ = [
    "BPOptions",
    "BPPosterior",
    "BPResult",
    "Completed",
    "Conditioned",
    "Conditioning",
    "Cost",
    "EnumeratedPosterior",
    "ExactPosterior",
    "FactorGraph",
    "Forgetful",
    "Marginals",
    "MarginalsOnly",
    "Mixed",
    "Posterior",
    "PropagationOnly",
    "Screened",
    "Sharpened",
    "condition",
    "exact_posterior",
    "few_rounds",
    "run",
    "run_batch",
    "to_networkx",
]
