"""The samplers of examples/foreign_sampler.py, as docs/testing.md tests them; the page quotes what is here and there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from hypothesis import Phase, find, given, settings

from lo_theory.problem import nae_sat
from lo_theory.testing import assert_same_law, same_law
from lo_theory.testing.strategies import table_problems

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text()
EXAMPLE = runpy.run_path(str(ROOT / "examples" / "foreign_sampler.py"))
ancestral, sweep = EXAMPLE["ancestral"], EXAMPLE["sweep"]
SOME = settings(max_examples=30)


@SOME
@given(table_problems(largest=200))
def test_rows_have_the_law_of_the_problem(problem):
    assert_same_law(lambda key, n: ancestral(problem, key.generator(), n), problem, n=2_000, level=1e-9)


def wrong_in_fortran_order(problem):
    return not same_law(lambda key, n: ancestral(problem, key.generator(), n, fault=True), problem, n=2_000).ok


def test_states_read_in_fortran_order_pass_on_symmetric_predicates_and_fail_on_others():
    assert not wrong_in_fortran_order(nae_sat(4, 3, seed=0, noise=0.1))
    found = find(
        table_problems(largest=200),
        wrong_in_fortran_order,
        settings=settings(phases=[Phase.generate], derandomize=True),
    )
    tables = found.observations.tables
    assert (tables != tables[0, 0]).any()
    assert found.observations.k >= 2


def test_latents_redrawn_one_after_another_keep_the_law_and_all_at_once_do_not():
    problem = nae_sat(4, 3, seed=0, noise=0.1)
    assert_same_law(lambda key, n: sweep(problem, key.generator(), n), problem)
    with pytest.raises(AssertionError, match="ANOTHER LAW"):
        assert_same_law(lambda key, n: sweep(problem, key.generator(), n, fault=True), problem)


def test_the_page_quotes_the_example_and_this_test_to_the_letter():
    sources = {
        path: (ROOT / path).read_text()
        for path in ("examples/foreign_sampler.py", "tests/testing/test_foreign_sampler.py")
    }
    quoted = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, re.DOTALL)
    assert {path for path, _ in quoted} == set(sources)
    for path, text in quoted:
        assert text.strip("\n") in sources[path]
