"""What is drawn: predicates, observation laws, layouts and L&O distributions."""

from lo_theory.problem.distribution import LODistribution
from lo_theory.problem.enumerated import Enumerated
from lo_theory.problem.families import (
    all_k_subsets,
    nae_sat,
    predicate_observations,
    random_scopes,
    random_slab,
    sparse_parity,
)
from lo_theory.problem.layout import MASK, Layout
from lo_theory.problem.observations import SlabObservations, TableObservations, flip
from lo_theory.problem.predicates import Predicate, colouring, from_array, from_function, nae, pair_channels, sat, xor
from lo_theory.problem.protocol import Distribution

__all__ = [
    "MASK",
    "Distribution",
    "Enumerated",
    "LODistribution",
    "Layout",
    "Predicate",
    "SlabObservations",
    "TableObservations",
    "all_k_subsets",
    "colouring",
    "flip",
    "from_array",
    "from_function",
    "nae",
    "nae_sat",
    "pair_channels",
    "predicate_observations",
    "random_scopes",
    "random_slab",
    "sat",
    "sparse_parity",
    "xor",
]
