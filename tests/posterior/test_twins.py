"""Every kernel from ``rng`` to ``thresholds`` has a slow, obvious twin: which test compares it, and none left out.

A kernel that only kernels call has no way in from Python; what is named is then the test of what it
is for. Kernels whose names begin with an underscore are parts of one of these. A new kernel needs a line here.
"""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from numba.core.dispatcher import Dispatcher

FLOORS = ("lo_theory.rng", "lo_theory.problem", "lo_theory.posterior", "lo_theory.thresholds")

FLOODING, SWEEPS = (
    "posterior.test_bp:test_flooding_is_its_slow_twin",
    "posterior.test_bp:test_sweeps_are_their_slow_twin",
)
BETHE = "posterior.test_bp_kernels:test_beliefs_and_bethe_free_entropy_are_their_slow_twin"
RESIDUALS = "posterior.test_bp_kernels:test_residuals_of_flooding_are_their_slow_twin"
CLOSED_FORMS = "posterior.test_bp:test_closed_forms_are_the_general_kernel"
ELIMINATION = "posterior.test_elimination:test_agrees_with_brute_force"
SPANNING = "posterior.test_elimination:test_scopes_that_span_a_chain"
ORDERS = "posterior.test_orders:test_orders_and_cliques_of_large_components"
PROPAGATION = "posterior.test_kernels:test_propagation_and_placement"
COMPONENT = "posterior.test_kernels:test_enumeration_of_one_component"
SAMPLERS = "problem.test_sampler:test_rows_are_those_of_the_slow_twin"
GRIDS = "problem.test_sudoku:test_there_are_288_grids_of_four"
TECHNIQUES = "problem.test_sudoku:test_techniques_find_what_they_find_on_sets"
COVER = "problem.test_sudoku:test_solutions_are_those_of_an_exact_cover"
PUZZLES = "problem.test_sudoku:test_a_thousand_puzzles_have_one_solution_and_no_clue_too_many"
ZEBRA = "problem.test_zebra:test_solutions_are_those_of_all_assignments"
ZEBRA_TECHNIQUES = "problem.test_zebra:test_propagation_finds_what_all_combinations_find"
PLANTED = "problem.test_planted:test_constraints_are_those_of_the_slow_twin"

TWINS: dict[str, dict[str, str]] = {
    "rng": {
        "philox": "test_rng:test_the_kernel_is_its_slow_twin",
        "fill_words": "test_rng:test_fill_words_numbers_words_by_draw_and_lane_and_stops_at_the_end",
        "below": "test_rng:test_below_is_the_integer_part_of_the_share",
        "unit": "test_rng:test_unit_keeps_53_bits",
        "shuffle": "test_rng:test_shuffle_is_the_partial_fisher_yates_of_its_words",
    },
    "problem._kernels": {
        "draw_scopes": "problem.test_families:test_scopes_come_from_the_words_of_their_address",
        "sample_bits": SAMPLERS,
        "sample_tables": SAMPLERS,
        "sample_slabs": SAMPLERS,
        "log_prob_tables": "problem.test_distribution:test_log_prob_is_the_joint_law",
    },
    "problem._planted_kernels": {
        "uniform_values": PLANTED,
        "poisson_candidates": PLANTED,
        "fixed_constraints": PLANTED,
    },
    "problem._list_kernels": {
        "draw_entries": "posterior.test_lists:test_rows_are_addressed_and_follow_the_slow_twin",
        "draw_values": "posterior.test_lists:test_values_of_laws_follow_the_slow_twin",
    },
    "problem._sudoku_kernels": {
        "count_bits": GRIDS,
        "propagate": TECHNIQUES,
        "deduce": TECHNIQUES,
        "search": COVER,
        "count_rows": COVER,
        "remove_clues": PUZZLES,
        "draw_rows": PUZZLES,
    },
    "problem._zebra_kernels": {
        "propagate": ZEBRA_TECHNIQUES,
        "search": ZEBRA,
        "draw_choices": "posterior.test_zebra_law:test_choices_come_from_the_words_of_their_rows",
    },
    "posterior._matching_kernels": {
        "match_rows": "posterior.test_lists:test_the_kernel_of_matching_is_its_slow_twin",
    },
    "posterior._sudoku_unit_kernels": {
        "unit_messages": "posterior.test_sudoku_units:test_a_factor_sums_over_permutations",
        "answer_rows": "posterior.test_sudoku_units:test_rounds_are_their_slow_twin",
    },
    "posterior._answer_kernels": {
        "find_fault": "posterior.test_answer:test_the_first_fault_is_that_of_the_slow_twin",
        "fault_of_law": "posterior.test_answer:test_the_first_fault_is_that_of_the_slow_twin",
    },
    "posterior._propagation_kernels": {
        "restrict": PROPAGATION,
        "gather": COMPONENT,
        "next_state": PROPAGATION,
        "propagate": PROPAGATION,
        "place": PROPAGATION,
    },
    "posterior._contraction_kernels": {
        "contract": "posterior.test_elimination:test_classes_agree_in_every_solution",
    },
    "posterior._plan_kernels": {
        "bind_factors": COMPONENT,
        "bind_parts": COMPONENT,
        "prepare": "posterior.test_kernels:test_sizes_of_components",
    },
    "posterior._enumeration_kernels": {
        "scaled_product": "posterior.test_kernels:test_scaled_product",
        "enumerate_component": COMPONENT,
    },
    "posterior._order_kernels": {"find_order": ORDERS, "clique_states": ORDERS, "write_cliques": ORDERS},
    "posterior._table_kernels": dict.fromkeys(
        ("multiply", "add", "project", "smallest_positive"), "posterior.test_elimination:test_tables_with_fewer_axes"
    ),
    "posterior._elimination_kernels": dict.fromkeys(
        ("span_clique", "separator_axes", "within_clique", "forward", "backward"), ELIMINATION
    ),
    "posterior._joint_kernels": {"lies_in_clique": SPANNING, "join_part": SPANNING},
    "posterior._kernels": {
        "write_impossible": "posterior.test_kernels:test_impossible_rows_are_uniform_by_role",
        "answer_rows": "posterior.test_exact:test_agrees_with_brute_force",
    },
    "posterior._slab_kernels": {"marginals_of_rows": "posterior.test_exact:test_slabs_agree_with_brute_force"},
    "posterior._bp_kernels": {
        "hold": "posterior.test_bp_deep:test_a_floor_under_small_numbers_changes_no_answer",
        "variable_pass": FLOODING,
        "copy": FLOODING,
        "largest_difference": RESIDUALS,
        "compare": RESIDUALS,
        "flood": FLOODING,
        "sweep": SWEEPS,
    },
    "posterior._bp_deep_kernels": dict.fromkeys(
        ("deep_run", "deep_close"), "posterior.test_bp_deep:test_both_ways_agree"
    ),
    "posterior._bp_form_kernels": {
        "normalise": FLOODING,
        "all_equal_pass": CLOSED_FORMS,
        "parity_pass": CLOSED_FORMS,
        "table_pass": FLOODING,
        "all_equal_message": CLOSED_FORMS,
        "parity_message": CLOSED_FORMS,
        "table_message": SWEEPS,
    },
    "posterior._bp_closing_kernels": {
        "random_messages": FLOODING,
        "scatter": FLOODING,
        "gather": BETHE,
        "beliefs": BETHE,
        "close": BETHE,
        "pass_once": FLOODING,
        "take_normalised": BETHE,
        "observation_laws": "posterior.test_bp_kernels:test_laws_of_masked_observations_are_their_slow_twin",
    },
    "thresholds._kernels": {"sweep_blocks": "thresholds.test_population:test_kernel_equals_its_twin"},
}


def modules() -> list[str]:
    found = ["lo_theory.rng"]
    for floor in FLOORS[1:]:
        package = importlib.import_module(floor)
        found += [module.name for module in pkgutil.walk_packages(package.__path__, f"{floor}.")]
    return found


def kernels(module: str) -> set[str]:
    """Public kernels that a module defines."""
    content = vars(importlib.import_module(module))
    mine = {name for name, value in content.items() if isinstance(value, Dispatcher) and value.__module__ == module}
    return {name for name in mine if not name.startswith("_")}


def test_every_kernel_is_named_with_its_twin() -> None:
    found = {module.removeprefix("lo_theory."): kernels(module) for module in modules()}
    assert {module: names for module, names in found.items() if names} == {
        module: set(names) for module, names in TWINS.items()
    }
    assert sum(map(len, TWINS.values())) > 50


@pytest.mark.parametrize("twin", sorted({twin for names in TWINS.values() for twin in names.values()}))
def test_the_tests_named_are_there(twin: str) -> None:
    module, name = twin.split(":")
    assert callable(getattr(importlib.import_module(f"tests.{module}"), name))


def test_a_kernel_left_out_is_seen() -> None:
    assert "flood" in kernels("lo_theory.posterior._bp_kernels")
    assert "_rescale" not in kernels("lo_theory.posterior._bp_kernels")
    assert not kernels("lo_theory.posterior.bp")
