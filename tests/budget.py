"""The family-wise false-positive budget of the suite: one number, divided here, spent through ``accept``.

With a right implementation the probability that *any* statistical test of the suite fails is at most ``BUDGET``,
whatever depends on what (Bonferroni). Every statistical test is entered in ``REGISTRY`` with the p-values it compares;
a name that is not there, or a test that compares more than it has entered, is an error. Seeds are fixed, so a test that
passes keeps passing; the budget says how much a *new* seed, version or machine may be blamed on chance.

To add a test: one line in ``REGISTRY``. All thresholds shrink a little and their sum stays ``BUDGET``.
"""

from __future__ import annotations

from collections.abc import Mapping

from lo_theory.testing import Ledger, Share

BUDGET = 1e-3


REGISTRY: Mapping[str, Share] = {
    # the helper itself
    "budget helper": Share(8),
    # rng
    "philox bits": Share(64),
    "below": Share(6),
    "unit": Share(1),
    "shuffle": Share(2),
    "key exits": Share(6),
    # problem
    "random scopes": Share(3),
    "slab vectors": Share(2),
    "constraint numbers": Share(2),
    "planted scopes": Share(4),
    "variables of scopes": Share(6),
    "null values": Share(6),
    "planted assignment": Share(1),
    # samplers against the joint law
    "sampler law": Share(16),
    "sampler rows independent": Share(12),
    "sampler noise rate": Share(3),
    "sampler law, long": Share(16),
    "sampler rows independent, long": Share(12),
    "sampler moments, long": Share(8),
    # posterior
    "calibration": Share(6),
    "calibration, long": Share(4),
    # thresholds
    "parity curve": Share(4),
    "parity free entropy": Share(1),
    "one population or several": Share(3),
    "weak overlaps": Share(1),
    "parity thresholds": Share(2),
    "colouring thresholds": Share(2),
    "parity thresholds, long": Share(6),
    "colouring thresholds, long": Share(4),
    "figure four, long": Share(2),
    "threshold intervals, long": Share(2),
    # rules that hide again, correctors
    "remasking": Share(14),
    "correctors": Share(4),
    "random sizes": Share(1),
    "first hitting": Share(2),
    # examples
    "example: block sizes": Share(1),
    "example: block weights": Share(5),
    "example: expected errors": Share(1),
    "example: exact targets": Share(1),
    # diffusion
    "decode keeps p_data": Share(14),
    "temperature": Share(3),
    "ties": Share(2),
    "oracle noise": Share(4),
    "noise on scores": Share(2),
    "addresses": Share(5),
    "noise and ties": Share(2),
    "binomial rule": Share(2),
    "z scores": Share(2),
    "known accuracies": Share(13),
    "diversity": Share(4),
    "pattern losses": Share(8),
    "leaks": Share(10),
    "information curve": Share(4),
    "decode cost": Share(3),
    "frozen entropies": Share(5),
    "two rates": Share(2),
    "masks bernoulli": Share(1),
    "masks uniform": Share(1),
    "mdm loss bernoulli": Share(1),
    "mdm loss uniform": Share(1),
    "observations first": Share(1),
    "latents only": Share(1),
    "mask proposals: plain loss": Share(12),
    "mask proposals: orders": Share(3),
    "mask proposals: unweighted bell": Share(1),
    "mirror: rates": Share(6),
    "mirror: covariance": Share(3),
    "loss variance: measured": Share(34),
    "loss variance: drawn": Share(4),
    "loss variance: table": Share(3),
    "gradient variance": Share(4),
    "random order": Share(1),
    "random swaps": Share(1),
    "causal samples": Share(1),
    # training objectives
    "timesteps": Share(4),
    "pool sizes": Share(3),
    "pool loss": Share(2),
    "pool calibration": Share(10),
    "two passes": Share(3),
    "learned order": Share(2),
    "preference bounds": Share(4),
    "policy gradient": Share(5),
    "learned plan": Share(2),
    # samplers of other packages
    "outside samplers": Share(12),
    # testing
    "same law": Share(2),
    "check: the level": Share(8),
}

LEDGER = Ledger(REGISTRY, BUDGET, "REGISTRY of tests/budget.py")
accept, reject, alpha_for = LEDGER.accept, LEDGER.reject, LEDGER.alpha_for
