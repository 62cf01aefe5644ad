"""The rows of one tiny run of every task are pinned: units, keys in their order, metrics, counts, and every exact number.

``pinned_rows/<task>.yaml`` is run and its rows are compared with ``pinned_rows/<task>.txt``: a line for each unit and
set of keys, below it a line ``metric n sum squared_deviations`` for each quantity. Names of units and labels are
addresses of randomness: where one changes, so do data, masks and draws, and the numbers here show it.

Numbers of trained networks differ between processors and numbers of threads: of them name, keys, place and count
are pinned, and ``~`` stands for the rest; so it does for seconds. All other numbers, those of exact posteriors, belief
propagation, decoding by the exact posterior and population dynamics, must agree within 1e-9. To see a difference in
the last bit on one machine, and after a change on purpose, write the files anew and look at the difference::

    python -m tests.lab.test_pinned_rows
"""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import lo_theory.lab.execute
from lo_theory.lab.config import resolve
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.task import TASKS
from tests.lab.conftest import TINY, make_run
from tests.lab.test_contract import outline, read_outline

SECONDS = {"seconds", "processor_seconds", "training_seconds"}
JUDGES = ("denoiser", "posterior", "learner")
"""Keys that name what is judged; a row of losses that has none of them is of a network."""
NO_NETWORKS = {"exact", "bp", "marginals", "data", "few_rounds(1)", "few_rounds(2)", "mixed(0.3)", "propagation"}
OF_NETWORKS = {"losses", "class_losses", "held_out"}
EXACT_ANYWAY = {
    "bias_count", "converged", "core_parameters", "data_observation_mean", "deterministic", "distinct_expected",
    "exact", "excluded", "forwards", "pair_count", "parameters", "passes", "rows_tested", "threshold",
    "total_variation_deviation", "total_variation_expected",
}  # fmt: skip
"""Metrics of a network's rows in which its weights have no part."""
AGAINST_A_NETWORK = {"kl_above", "proxy_log_ratio"}
"""Metrics of Figure 2 that compare with the network trained longest, whoever is judged."""


def is_pinned(row: Row, task: str) -> bool:
    """Whether a row's sums are the same on every machine."""
    if row.metric in SECONDS or (task == "figure2" and row.metric in AGAINST_A_NETWORK):
        return False
    judged = [row.keys[name] for name in JUDGES if name in row.keys]
    of_network = not NO_NETWORKS.issuperset(judged) if judged else row.keys["kind"] in OF_NETWORKS
    return not of_network or row.metric in EXACT_ANYWAY


def lines_of(rows: Sequence[Row], task: str) -> list[str]:
    """Rows as the pinned files hold them, in their order."""
    lines = []
    for (unit, keys), part in itertools.groupby(rows, key=lambda row: (row.unit, json.dumps(dict(row.keys)))):
        lines.append(f"{unit} {keys}")
        for row in part:
            numbers = f"{row.sums.total!r} {row.sums.deviations!r}" if is_pinned(row, task) else "~"
            lines.append(f"  {row.metric} {row.sums.n} {numbers}")
    return lines


def agree(found: str, pinned: str) -> bool:
    """Whether two lines say the same, numbers within 1e-9."""
    if found == pinned or not (found.startswith("  ") and pinned.startswith("  ")):
        return found == pinned
    ours, theirs = found.split(), pinned.split()
    if ours[:2] != theirs[:2] or len(ours) != len(theirs) or "~" in ours + theirs:
        return False
    pairs = zip(map(float, ours[2:]), map(float, theirs[2:]), strict=True)
    return all(math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) for one, other in pairs)


def differences(found: Sequence[str], pinned: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """The lines that do not agree, found and pinned."""
    pairs = itertools.zip_longest(found, pinned)
    return [pair for pair in pairs if None in pair or not agree(*pair)]


def read_pinned(task: str) -> list[str]:
    """The lines of a pinned file."""
    return (TINY / f"{task}.txt").read_text().splitlines()


def test_rows_are_those_that_are_pinned(tiny_run: FinishedRun) -> None:
    task = resolve(tiny_run.config).task
    assert differences(lines_of(tiny_run.rows, task), read_pinned(task))[:10] == []


def test_every_task_is_pinned_and_most_of_its_numbers_are() -> None:
    assert {path.stem for path in TINY.glob("*.yaml")} == {path.stem for path in TINY.glob("*.txt")} == set(TASKS)
    for task in set(TASKS) - {"recipes", "proposals"}:  # which train and judge networks, nothing else
        quantities = [line for line in read_pinned(task) if line.startswith("  ")]
        assert sum(not line.endswith("~") for line in quantities) > len(quantities) / 3, task


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("row0/one_pass/exact", "row0/one-pass/exact"),  # a unit renamed
        (
            '"denoiser": "exact", "policy": "vanilla"',
            '"policy": "vanilla", "denoiser": "exact"',
        ),  # keys in another order
        ('"N": 5', '"N": 5.0'),  # a key of another type
        ("  core_parameters 1 ", "  core_parameters 2 "),  # another count
        ("  floor 1 0.2", "  floor 1 0.20000001"),  # another number
        ("  kl 16 ~", "  kl 15 ~"),  # another count of a network's losses
        ("  kl 16 ~\n", ""),  # a row lost
    ],
)
def test_a_difference_is_seen(old: str, new: str) -> None:
    pinned = read_pinned("table1")
    text = "\n".join(pinned)
    assert old in text
    assert differences(text.replace(old, new, 1).splitlines(), pinned)
    assert not differences(pinned, pinned)


def test_the_last_bits_may_differ() -> None:
    assert agree("  kl 3 0.30000000000000004 1e-17", "  kl 3 0.3 0.0")
    assert not agree("  kl 3 0.300000001 0.0", "  kl 3 0.3 0.0")


@pytest.mark.soak
@pytest.mark.parametrize("task", sorted(set(TASKS) - {"figure4", "thresholds"}))
def test_no_pinned_number_depends_on_a_training(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained at quite another rate, a network leaves all that is pinned as it is, counts of its own rows included."""
    monkeypatch.setattr(lo_theory.lab.execute, "write_outputs", lambda *_: None)
    for rate in ("0.001", "0.3"):
        run = make_run(task, tmp_path, [f"training.learning_rate={rate}"])
        assert differences(lines_of(run.rows, task), read_pinned(task))[:10] == [], rate
        assert outline(run) == read_outline(task), rate


def write() -> None:
    """Write every file anew."""
    for task in TASKS:
        with tempfile.TemporaryDirectory() as folder:
            lines = lines_of(make_run(task, Path(folder)).rows, task)
        (TINY / f"{task}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write()
