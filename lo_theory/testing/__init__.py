"""Testing samplers, posteriors and mask laws, of this package and of one's own.

``check`` puts all questions that apply to one subject. ``same_law`` and ``assert_same_law`` compare a sampler with a
law, ``Ledger`` divides a false-positive budget over a suite, ``joint_law``, ``brute_force`` and
``BruteForcePosterior`` are slow truths. The hypothesis strategies are in ``lo_theory.testing.strategies``, imported by
itself, since hypothesis is an extra.
"""

from lo_theory.testing.checking import check
from lo_theory.testing.claims import Claims
from lo_theory.testing.ledger import Ledger, Share, current_test, totals
from lo_theory.testing.of_judges import Judge
from lo_theory.testing.p_values import (
    binomial,
    chi_square,
    chi_square_of_rows,
    holm,
    mean_test,
    row_counts,
    t_test,
    z_test,
)
from lo_theory.testing.report import Check, Report
from lo_theory.testing.same_law import SameLaw, assert_same_law, detectable, draws_needed, same_law
from lo_theory.testing.twins import BruteForcePosterior, assignments, brute_force, emissions, joint_law

__all__ = [
    "BruteForcePosterior",
    "Check",
    "Claims",
    "Judge",
    "Ledger",
    "Report",
    "SameLaw",
    "Share",
    "assert_same_law",
    "assignments",
    "binomial",
    "brute_force",
    "check",
    "chi_square",
    "chi_square_of_rows",
    "current_test",
    "detectable",
    "draws_needed",
    "emissions",
    "holm",
    "joint_law",
    "mean_test",
    "row_counts",
    "same_law",
    "t_test",
    "totals",
    "z_test",
]
