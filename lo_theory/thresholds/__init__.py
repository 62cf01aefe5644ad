"""When it can be known: Kesten-Stigum, dynamic and condensation thresholds, and the mask rates they make hard."""

from lo_theory.thresholds.ensemble import PlantedEnsemble, planted_ensemble
from lo_theory.thresholds.hardness import (
    MaskWindow,
    all_subsets_window,
    observations_window,
    parity_window,
    slab_capacity,
    slab_window,
)
from lo_theory.thresholds.kesten_stigum import factor_jacobian, kesten_stigum, kesten_stigum_from_jacobian
from lo_theory.thresholds.population import Dynamics, Sweep
from lo_theory.thresholds.rows import (
    RowSpecification,
    parity_thresholds,
    published,
    threshold_columns,
    transition_columns,
)
from lo_theory.thresholds.runs import Series, poisson_degrees, run_at_degree, run_at_overlap
from lo_theory.thresholds.side_information import Fold, Starts, compare_starts, find_fold
from lo_theory.thresholds.transitions import Curve, Effort, Transition, find_transition, overlap_curve
from lo_theory.thresholds.units import Threshold

__all__ = [
    "Curve",
    "Dynamics",
    "Effort",
    "Fold",
    "MaskWindow",
    "PlantedEnsemble",
    "RowSpecification",
    "Series",
    "Starts",
    "Sweep",
    "Threshold",
    "Transition",
    "all_subsets_window",
    "compare_starts",
    "factor_jacobian",
    "find_fold",
    "find_transition",
    "kesten_stigum",
    "kesten_stigum_from_jacobian",
    "observations_window",
    "overlap_curve",
    "parity_thresholds",
    "parity_window",
    "planted_ensemble",
    "poisson_degrees",
    "published",
    "run_at_degree",
    "run_at_overlap",
    "slab_capacity",
    "slab_window",
    "threshold_columns",
    "transition_columns",
]
