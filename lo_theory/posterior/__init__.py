"""What can be known: the posterior protocol, its answers, and the exact posterior. Never loads torch."""

from __future__ import annotations

from lo_theory.posterior.exact import ExactPosterior
from lo_theory.posterior.protocol import Marginals, Posterior

__all__ = ["ExactPosterior", "Marginals", "Posterior"]
