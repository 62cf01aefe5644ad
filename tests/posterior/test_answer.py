"""The check of a posterior's answer: which law it finds wrong first, and what it says of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lo_theory.posterior import _answer_kernels
from lo_theory.posterior._answer_kernels import ELSEWHERE, NO_NUMBER, NOT_ONE, TOLERANCE

FAULTS = (
    (NO_NUMBER, lambda law, size: law * math.nan),
    (NO_NUMBER, lambda law, size: np.where(np.arange(len(law)) == 0, -1e-9, law)),
    (NO_NUMBER, lambda law, size: np.where(np.arange(len(law)) == len(law) - 1, math.inf, law)),
    (NOT_ONE, lambda law, size: law * (1 + 2 * TOLERANCE)),
    (NOT_ONE, lambda law, size: np.zeros_like(law)),
    (ELSEWHERE, lambda law, size: (np.arange(len(law)) == size) * 1.0),
)


def slow_twin(probs: np.ndarray, values: np.ndarray) -> tuple[int, int, int]:
    for row, laws in enumerate(probs):
        for position, law in enumerate(laws):
            if not all(0 <= p < math.inf for p in law.tolist()):
                return row, position, NO_NUMBER
            if abs(math.fsum(law.tolist()) - 1) > TOLERANCE:
                return row, position, NOT_ONE
            if not sum(law[: values[position]].tolist()) > 0:
                return row, position, ELSEWHERE
    return 0, 0, 0


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_values", [2, 3, 5])
def test_the_first_fault_is_that_of_the_slow_twin(n_values: int, dtype: type) -> None:
    """One or two faults anywhere in a batch, among them the first and the last law, and laws on few of the values."""
    generator = np.random.Generator(np.random.Philox(key=n_values))
    found = set()
    for trial in range(200):
        values = generator.integers(1, n_values + 1, 7)
        probs = generator.dirichlet(np.ones(n_values), (4, 7)).astype(dtype)
        for _ in range(trial % 3):
            row, position = (0, 0) if trial < 20 else (3, 6) if trial < 40 else generator.integers((4, 7))
            kind, spoil = FAULTS[trial % len(FAULTS)]
            if kind != ELSEWHERE or values[position] < n_values:
                probs[row, position] = spoil(probs[row, position], values[position])
        answer = tuple(map(int, _answer_kernels.find_fault(probs, values)))
        assert answer == slow_twin(probs, values)
        found.add(answer[2])
        row, position = generator.integers((4, 7))
        alone = _answer_kernels.fault_of_law(probs, row, position, values[position])
        assert alone == slow_twin(probs[row : row + 1, position : position + 1], values[position : position + 1])[2]
    assert found == {0, NO_NUMBER, NOT_ONE, ELSEWHERE}
