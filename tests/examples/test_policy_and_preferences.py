"""Learned plans and preference bounds: docs/proposals.md shows what the example prints, and it says what is known."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from lo_theory.diffusion import decode_cost, fixed_order
from lo_theory.rng import Key

ROOT = Path(__file__).parents[2]
EXAMPLE: dict[str, Any] = runpy.run_path(str(ROOT / "examples" / "policy_and_preferences.py"))
PROBLEM, EXACT, PLANS = (EXAMPLE[name] for name in ("PROBLEM", "EXACT", "PLANS"))


def test_the_page_shows_what_the_example_prints(capsys: pytest.CaptureFixture[str]) -> None:
    EXAMPLE["main"]()
    page = (ROOT / "docs" / "proposals.md").read_text()
    (shown,) = re.findall(r"```text\n\$ python examples/policy_and_preferences\.py\n(.*?)```", page, re.DOTALL)
    assert shown == capsys.readouterr().out


def test_a_learned_order_comes_near_the_best_and_sizes_in_random_order_do_not() -> None:
    """Latents, then observations, which are independent given them, cost nothing: the least there is."""
    costs = EXAMPLE["plan_costs"]()
    (order, sizes, both) = costs.values()
    best = decode_cost(EXACT, fixed_order(), PLANS["order, four tokens a step"][1], PROBLEM, key=Key(3), n=50)
    assert best.total.mean == pytest.approx(0, abs=1e-9)
    assert all(0 <= after < before for before, after in costs.values())
    assert order[1] < 0.05 < both[1] < sizes[1]
    assert order[0] < sizes[0] == pytest.approx(both[0], rel=0.1)  # uniform sizes cost more than equal ones


def test_of_all_ways_one_mask_a_rate_with_shared_draws_varies_least() -> None:
    """The variances themselves are held against draws in tests/diffusion/test_elbo.py."""
    ways = EXAMPLE["allocations"]()
    assert [(way.rates, way.masks) for way in ways] == [(8, 1), (4, 2), (2, 4), (1, 8)] * 2
    for shared in (True, False):
        variances = [way.variance for way in ways if way.shared == shared]
        assert variances == sorted(variances)
        assert variances[0] < variances[-1] / 2
    assert ways[3].variance < ways[4].variance  # eight masks of one rate, shared, and the best that is not
