"""Every example of docs/extending.md: it runs, the page quotes it to the letter, and it is held against the truth."""

from __future__ import annotations

import itertools
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lo_theory import (
    ExactPosterior,
    Key,
    LODistribution,
    Posterior,
    decode,
    generated_accuracies,
    losses,
    nae_sat,
    read,
)
from lo_theory.cli import main
from lo_theory.diffusion import OneAtATime, Sums, Uniform, View, vanilla
from lo_theory.lab.frame import from_rows
from lo_theory.lab.kinds import declare
from lo_theory.lab.rows import Row
from lo_theory.posterior.bp_posterior import BPPosterior
from lo_theory.problem import Layout
from lo_theory.testing import chi_square, z_test
from tests.budget import accept, reject
from tests.figures import placeholders

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
SEAMS = ("predicate", "mask_law", "objective", "policy", "schedule", "posterior")
PROBLEM = nae_sat(4, 6, seed=1)
KEY = Key(7).fold("tests of the examples")


def example(seam: str) -> Any:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / f"{seam}.py")))


def blocks(language: str) -> dict[str, list[str]]:
    """Quoted blocks of the page by the example that their first line names."""
    found: dict[str, list[str]] = {}
    for seam, text in re.findall(rf"```{language}\n[#$] (?:python )?examples/(\w+)\.py\n(.*?)```", PAGE, re.DOTALL):
        found.setdefault(seam, []).append(text.strip("\n"))
    return found


# --- the page -------------------------------------------------------------------------------------------------------------------


def test_every_seam_has_an_example_and_the_page_quotes_it_to_the_letter() -> None:
    names = {*SEAMS, "experiment"}
    others = {path.stem for path in (ROOT / "examples").glob("*.py")} - names
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert [name for name in others if f"examples/{name}.py" not in pages] == []
    quoted = blocks("python")
    assert set(quoted) == names
    for seam, parts in quoted.items():
        source = (ROOT / "examples" / f"{seam}.py").read_text()
        assert all(part in source for part in parts), f"docs/extending.md and examples/{seam}.py differ"


@pytest.mark.parametrize("seam", [seam for seam in SEAMS if seam != "objective"])
def test_the_page_shows_what_the_example_prints(seam: str, capsys: pytest.CaptureFixture[str]) -> None:
    example(seam).main()
    assert blocks("text")[seam] == [capsys.readouterr().out.strip("\n")]


# --- predicate ------------------------------------------------------------------------------------------------------------------


def test_the_predicate_is_exactly_one_and_its_problem_goes_into_an_experiment_file(tmp_path: Path) -> None:
    predicate = example("predicate")
    table = predicate.exactly_one(4).table
    assert all(table[bits] == (sum(bits) == 1) for bits in itertools.product((0, 1), repeat=4))
    assert predicate.exactly_one(4).gamma == 4 / 2**4
    predicate.main(str(tmp_path))
    stored = LODistribution.load(tmp_path / "one_in_three.npz")
    assert stored.fingerprint() == predicate.one_in_three(12, 24, seed=0).fingerprint()
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text.replace("one_in_three.npz", str(tmp_path / "one_in_three.npz")))
    assert main(["run", str(tmp_path / "mine.yaml"), "--out", str(tmp_path), "--quiet"]) == 0


# --- experiment -----------------------------------------------------------------------------------------------------------------


def test_the_experiment_learns_the_forward_direction_of_a_small_problem(tmp_path: Path) -> None:
    """After 160 steps an observation is known from its latents; after one step it is not."""
    row = "{problem: {family: nae_sat, N: 6, P: 12}, model: {shape: {layers: 3, heads: 8, width: 96, inner: 192}}"
    training = "steps: 160, batch: 16, final_ratio: 1.0, warmup: 100, learning_rate: 1.e-3"
    sets = f"rows=[{row}, training: {{{training}}}}}]"
    file = str(ROOT / "examples" / "experiment.py")
    with placeholders():
        assert main(["run", file, "--out", str(tmp_path), "--quiet", "--set", sets]) == 0
    (folder,) = [path.parent for path in tmp_path.glob("experiment/*/done.json")]
    frame = read(folder)
    means = frame["sum"] / frame["n"]
    losses = means[frame["metric"] == "loss"].tolist()
    assert losses[0] > 0.9
    assert losses[-1] < 0.2
    reached = [float(means[frame["metric"] == f"to_{share}"].iloc[0]) for share in (0.9, 0.5, 0.1)]
    assert 0 < reached[0] < reached[1] < reached[2] <= 160 * 16


def test_the_tables_and_the_figure_of_the_experiment_take_several_seeds() -> None:
    """A sweep has rows that differ in the seed alone: they are runs of one place."""
    module, experiment = example("experiment"), SimpleNamespace(title="several seeds")
    rows = [
        Row(
            "unit",
            metric,
            Sums.single(value),
            {"kind": kind, "row": seed, "N": 6, "P": 12, "way": "w", "seed": seed} | at,
        )
        for seed in (0, 1)
        for kind, metric, value, at in (
            ("forward", "to_0.5", 100.0 + seed, {}),
            ("forward_loss", "loss", 0.5 + seed / 10, {"step": 20}),
        )
    ]
    declare(module.KINDS)
    frame = from_rows(rows)
    soon, last = module.tables(frame, experiment)
    assert [line.value("to_0.5") for line in soon.lines] == [100.5]
    assert [line.value("loss") for line in last.lines] == [pytest.approx(0.55)]
    assert [panel.numbers()[0] for panel in module.figures(frame, experiment)["figure"].panels] == [pytest.approx(0.55)]


# --- mask law -------------------------------------------------------------------------------------------------------------------


def test_a_block_is_a_block_by_address_and_weighs_every_position_alike() -> None:
    law, layout, n = example("mask_law").Block(), Layout(2, 3, 2, 2), 20_000
    masked, weight = (part[0] for part in law.sample(KEY, np.zeros((n, 5), np.int8), layout))
    again = law.sample(KEY, np.zeros((n - 7, 5), np.int8), layout, start=7)
    np.testing.assert_array_equal(again[0][0], masked[7:])
    np.testing.assert_array_equal(again[1][0], weight[7:])
    edges = (masked != np.roll(masked, 1, axis=1)).sum(axis=1)
    assert (edges[~masked.all(axis=1)] == 2).all()  # one block on the circle of positions
    np.testing.assert_allclose(weight.sum(axis=1), 1, atol=1e-6)
    counts = np.bincount(masked.sum(axis=1), minlength=6)[1:]
    accept("example: block sizes", chi_square(counts, np.full(5, 1 / 5)))
    accept("example: block weights", [z_test(weight[:, i], 1 / 5) for i in range(5)])
    ends = weight * (masked != np.roll(masked, 1, axis=1))  # only where a block begins or ends
    reject("example: block weights", [z_test(ends[:, i], 1 / 5) for i in range(5)])


# --- policy ---------------------------------------------------------------------------------------------------------------------


def test_with_bound_zero_the_policy_keeps_the_law_in_fewer_passes_and_with_a_large_bound_it_does_not() -> None:
    policy, exact, n = example("policy").ExpectedErrors, ExactPosterior(PROBLEM), 8000
    states = np.array(list(itertools.product((0, 1), repeat=4)))
    weights = 2 ** np.arange(3, -1, -1)

    def counts(bound: float) -> np.ndarray:
        decoded = decode(exact, policy(bound), OneAtATime(), key=KEY, n=n)
        assert decoded.step_revealed.max() < PROBLEM.layout.length - 1
        right = generated_accuracies(PROBLEM, decoded.tokens, KEY)["self_consistency"].mean == 1
        assert right == (bound == 0)
        return np.bincount(PROBLEM.layout.split(decoded.tokens)[0] @ weights, minlength=len(states))

    accept("example: expected errors", chi_square(counts(0.0), np.full(16, 1 / 16)))
    counts(5.0)


def test_the_policy_reveals_most_certain_positions_within_the_bound_and_at_least_the_budget() -> None:
    policy, exact = example("policy").ExpectedErrors, ExactPosterior(PROBLEM)
    tokens = np.where(Uniform().sample(KEY, (truth := PROBLEM.sample(KEY, 200)), PROBLEM.layout)[0][0], -1, truth)
    marginals = exact.marginals(tokens)
    errors = 1 - marginals.probs.max(axis=-1)
    view = View(tokens, tokens < 0, marginals, PROBLEM.layout, 0, 10, KEY)
    for bound, least in itertools.product((0.0, 0.7, 1.5), (1, 2)):
        revealed = view.masked & ~policy(bound).plan(view, np.full(len(tokens), least))
        for hidden, row, values in zip(view.masked, revealed, errors, strict=True):
            order = sorted(values[hidden])
            within = sum(sum(order[:count]) <= bound + 1e-9 for count in range(1, len(order) + 1))
            assert row.sum() == max(within, min(least, len(order)))
            assert sorted(values[row]) == pytest.approx(order[: row.sum()])


# --- schedule -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hidden", "steps"), [(32, 8), (100, 10), (5, 9), (7, 1)])
def test_the_cosine_reveals_everything_slowly_first(hidden: int, steps: int) -> None:
    schedule, masked, budgets = example("schedule").Cosine(steps), np.ones((1, hidden), bool), []
    for step in range(schedule.steps(hidden)):
        budgets.append(int(schedule.budget(step, masked, KEY, 0)[0]))
        masked[0, np.flatnonzero(masked[0])[: budgets[-1]]] = False
        assert abs(masked.sum() - hidden * np.cos(np.pi / 2 * (step + 1) / steps)) <= 1.5
    assert (sum(budgets), min(budgets) >= 0) == (hidden, True)
    assert budgets[0] <= hidden / steps <= budgets[-1] or hidden < steps
    assert not (decode(ExactPosterior(PROBLEM), vanilla(), schedule, key=KEY, n=20).tokens < 0).any()


# --- posterior ------------------------------------------------------------------------------------------------------------------


def check_contract(posterior: Posterior, tokens: np.ndarray, impossible: np.ndarray) -> None:
    """What every posterior owes to decoder and evaluation."""
    layout, values = posterior.layout, np.arange(posterior.layout.n_values)
    answer = posterior.marginals(np.concatenate([tokens, impossible]))
    probs = np.asarray(answer.probs, np.float64)
    assert probs.shape == (len(tokens) + len(impossible), layout.length, layout.n_values)
    np.testing.assert_allclose(probs.sum(axis=-1), 1, atol=1e-6)
    assert (probs[:, values >= layout.values[:, None]] == 0).all()
    for row, laws in zip(np.concatenate([tokens, impossible]), probs, strict=True):
        np.testing.assert_array_equal(laws[row >= 0], row[row >= 0, None] == values)
    assert np.isneginf(answer.log_evidence[len(tokens) :]).all()
    for row, laws in zip(impossible, probs[len(tokens) :], strict=True):
        np.testing.assert_allclose(laws[row < 0].max(axis=-1), 1 / layout.values[row < 0], atol=1e-12)
    alone = np.concatenate([np.asarray(posterior.marginals(row[None]).probs) for row in tokens])
    np.testing.assert_array_equal(alone, answer.probs[: len(tokens)])


@pytest.mark.parametrize("name", ["exact", "belief propagation", "memory"])
def test_every_posterior_keeps_the_contract_the_example_too(name: str) -> None:
    memory = example("posterior").Memory
    made = {
        "exact": lambda: ExactPosterior(PROBLEM),
        "belief propagation": lambda: BPPosterior(PROBLEM),
        "memory": lambda: memory(PROBLEM.sample(KEY, 2000), PROBLEM.layout),
    }
    truth = PROBLEM.sample(KEY.fold("truth"), 50)
    contexts = np.where(Uniform().sample(KEY, truth, PROBLEM.layout)[0][0], -1, truth)
    impossible = truth[:1].copy()
    scope = PROBLEM.observations.scopes[0]
    impossible[:, scope] = 0
    impossible[:, 4], impossible[:, 5] = 1, -1  # all equal, and observed not to be
    check_contract(made[name](), contexts, impossible)


def test_memory_counts_and_comes_to_the_exact_posterior() -> None:
    memory, exact = example("posterior").Memory, ExactPosterior(PROBLEM)
    truth = PROBLEM.sample(KEY.fold("truth"), 100)
    contexts = np.where(Uniform().sample(KEY, truth, PROBLEM.layout)[0][0], -1, truth)
    expected = exact.marginals(contexts)
    errors = []
    for size in (100, 10_000):
        answer = memory(PROBLEM.sample(KEY, size), PROBLEM.layout).marginals(contexts)
        known = np.isfinite(answer.log_evidence)
        errors.append(np.abs(answer.probs - expected.probs)[known].max())
    assert errors[1] < 0.1 < errors[0]
    np.testing.assert_allclose(answer.log_evidence, expected.log_evidence, atol=0.25)


# --- objective ------------------------------------------------------------------------------------------------------------------


def test_exact_targets_have_the_loss_of_drawn_ones_on_average_with_less_noise() -> None:
    import torch

    from lo_theory.neural import Masked, Transformer, TransformerConfig

    network = TransformerConfig(layers=1, heads=1, width=16, n_values=2, length=PROBLEM.layout.length)
    model = Transformer(network, seed=0)
    values: dict[str, list[float]] = {}
    for objective in (Masked(PROBLEM, Uniform()), example("objective").ExactTargets(PROBLEM, Uniform())):
        own = values.setdefault(objective.describe()["kind"], [])
        with torch.no_grad():
            for step in range(300):
                batch = {name: torch.from_numpy(part) for name, part in objective.draw(KEY, step, (0, 32)).items()}
                own.append(float(objective.loss(model, batch, {})[0]))
    drawn, targets = (np.array(own) for own in values.values())  # of the same contexts
    accept("example: exact targets", z_test(drawn - targets, 0.0))
    reject("example: exact targets", z_test(1.05 * drawn - targets, 0.0))
    assert targets.std() < drawn.std()


def test_a_network_trained_on_exact_targets_leaves_the_marginals_only_line(capsys: pytest.CaptureFixture[str]) -> None:
    example("objective").main(steps=150)
    drawn, targets = (float(share) for share in re.findall(r"gap closed ([-.\d]+) %", capsys.readouterr().out))
    assert min(drawn, targets) > 10
    assert "exact targets: gap closed" in blocks("text")["objective"][0]


def test_a_block_leaves_less_to_be_known_than_the_uniform_law() -> None:
    """Neighbours are hidden together, so a block leaves less to be known than the uniform law."""
    exact = ExactPosterior(PROBLEM)
    block, uniform = (
        losses(exact, exact, PROBLEM, law, key=KEY, n=4000).exact.mean
        for law in (example("mask_law").Block(), Uniform())
    )
    assert abs(uniform - PROBLEM.entropy() / PROBLEM.layout.length) < 0.02
    assert block > uniform + 0.02
