"""The law of clues and cells against its list of all sequences; its posterior against that of the list."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest

from lo_theory.diffusion import OneAtATime, TwoRates, decode, losses, vanilla
from lo_theory.neural import Masked, TrainConfig, TrainedPosterior, TransformerConfig, train
from lo_theory.posterior import BPPosterior, EnumeratedPosterior, ExactPosterior, PropagationOnly, exact_posterior
from lo_theory.posterior.by_puzzle import ByPuzzle
from lo_theory.posterior.zebra import ZebraPosterior
from lo_theory.problem import MASK, Enumerated, zebra
from lo_theory.problem._zebra_kernels import draw_choices
from lo_theory.problem.zebra_law import CluesAndCells
from lo_theory.rng import Key
from tests.problem.test_zebra import RULES, brute, everything
from tests.problem.twins import words

SMALL = CluesAndCells(3, 2, 1, kinds=("same", "next_to", "at", "between"))
LAW = CluesAndCells(3, 3, 6)
NOT_AT = zebra.Clue("not_at", (1,), 2)


def listed(law: CluesAndCells) -> np.ndarray:
    """All sequences of a law of one clue: every clue of every kind with every solution that makes it true."""
    rows = []
    for solution in everything(law.houses, law.attributes):
        for kind, name in enumerate(law.kinds):
            arity = {"at": 1, "between": 3}.get(name, 2)
            for names in itertools.permutations(range(len(solution)), arity):
                for house in range(law.houses) if name == "at" else [0]:
                    if RULES[name](*solution[list(names)], *[house][: name == "at"]):
                        rows.append([kind, *names, *[0] * (3 - arity), house, *solution])
    return np.array(rows, np.int8)


ROWS = listed(SMALL)
TRUTH = Enumerated(ROWS, np.exp(SMALL.log_prob(ROWS)), SMALL.layout)


def test_the_law_is_that_of_the_list_of_all_its_sequences() -> None:
    kinds = np.bincount(ROWS[:, 0]) / 36  # clues of each kind that a solution makes true
    assert np.allclose(TRUTH.probabilities, 1 / (36 * 4 * kinds[ROWS[:, 0]]), rtol=1e-12)
    assert SMALL.entropy() == pytest.approx(TRUTH.entropy(), abs=1e-12)
    assert np.allclose(SMALL.token_marginals, TRUTH.token_marginals, rtol=0, atol=1e-12)
    assert SMALL.marginal_entropy() == pytest.approx(TRUTH.marginal_entropy(), abs=1e-12)


def test_no_other_sequence_has_a_probability() -> None:
    changed = np.repeat(ROWS[::7], 11 * 6, axis=0)
    places = np.arange(len(changed))
    changed[places, places % 11] = places // 11 % np.where(places % 11 < 5, SMALL.layout.r, 3)
    assert np.array_equal(np.isfinite(SMALL.log_prob(changed)), np.isfinite(TRUTH.log_prob(changed)))
    assert 0.02 < np.isfinite(SMALL.log_prob(changed)).mean() < 0.98


def test_rows_are_addressed_possible_and_all_come() -> None:
    rows = SMALL.sample(Key(1), 8 * len(ROWS))
    assert np.array_equal(SMALL.sample(Key(1), 9, start=30), rows[30:39])
    assert len(np.unique(rows, axis=0)) > 0.95 * len(ROWS)
    many = LAW.sample(Key(2), 200)
    assert np.isfinite(LAW.log_prob(many)).all()
    for row in many[:40]:
        puzzle = LAW.puzzle(row)
        assert row[LAW.layout.latent_positions].tolist() in brute(puzzle).tolist()
    assert LAW.log_prob(LAW.sample(Key(0), 0)).shape == (0,)


def test_choices_come_from_the_words_of_their_rows() -> None:
    out, key, edges = np.empty((5, 2 + 3), np.int64), Key(3), np.array([0, 7, 9, 30])
    draw_choices(out, 2, 11, *key.words(), 6, edges)
    for row in range(5):
        own = words(key, 0, 11 + row) + words(key, 1, 11 + row)
        expected = [own[a] * 6 >> 64 for a in range(2)]
        for clue in range(3):
            kind = own[2 + 2 * clue] * 3 >> 64
            expected.append(int(edges[kind] + (own[3 + 2 * clue] * int(edges[kind + 1] - edges[kind]) >> 64)))
        assert out[row].tolist() == expected


def test_the_posterior_is_that_of_the_list_where_clues_are_shown() -> None:
    rows = SMALL.sample(Key(4), 60)
    rows[:, 5:][np.random.default_rng(0).random((60, 6)) < 0.6] = MASK
    rows[0, 0], rows[1, 5:7], rows[2, :5] = (
        5,
        0,
        [2, 1, 1, 0, 0],
    )  # no kind, two values in a house, filler that is not 0
    ours, theirs = ZebraPosterior(SMALL).marginals(rows), EnumeratedPosterior(TRUTH).marginals(rows)
    assert np.allclose(ours.probs, theirs.probs, rtol=0, atol=1e-12)
    assert np.allclose(ours.log_evidence, theirs.log_evidence, rtol=0, atol=1e-9)
    assert np.isneginf(ours.log_evidence[:3]).all()


def test_a_puzzle_becomes_a_sequence_that_names_it() -> None:
    wide = CluesAndCells(3, 3, 9)
    for number in range(20):
        puzzle, solution = zebra.draw_puzzle(Key(number), 3, 3)
        row = wide.tokens(puzzle)
        assert wide.puzzle(row) == puzzle
        assert (row[wide.layout.latent_positions] == MASK).all()
        row[wide.layout.latent_positions] = solution
        assert np.isfinite(wide.log_prob(row)).all()
    seen = LAW.layout.split(LAW.tokens(zebra.Puzzle(3, 3, puzzle.clues[:2])))[1].reshape(6, 5)
    assert (seen == seen[[0, 1, 0, 1, 0, 1]]).all()


def test_a_posterior_of_the_problem_of_each_puzzle_is_one_of_the_law() -> None:
    rows = np.repeat(LAW.sample(Key(8), 12), 3, axis=0)
    rows[:, LAW.layout.latent_positions] = np.where(
        np.random.default_rng(1).random((36, 9)) < 0.7, MASK, rows[:, LAW.layout.latent_positions]
    )
    rows[0, LAW.layout.latent_positions[:2]], rows[1, :5] = 0, [0, 1, 2, 3, 0]  # two values in a house, no clue
    rows[2, LAW.layout.observation_positions] = np.tile([[2, 0, 3, 0, 0], [2, 3, 0, 0, 0]], (3, 1)).ravel()  # a circle
    truth = exact_posterior(LAW).marginals(rows)
    for bind, exact in ((ExactPosterior, True), (BPPosterior, False), (PropagationOnly, False)):
        weak = ByPuzzle(LAW, bind, keep=2)
        answer = weak.marginals(rows)
        assert np.array_equal(copy.copy(weak).marginals(rows[::-1]).probs[::-1], answer.probs)
        assert np.isneginf(answer.log_evidence[:3]).all()
        assert np.allclose(answer.probs.sum(axis=2), 1)
        assert np.allclose(answer.probs, truth.probs, rtol=0, atol=1e-9) == exact
        assert (answer.probs[3:][truth.probs[3:] > 0] > 0).all()


def test_puzzles_are_decoded_and_a_network_is_trained_and_judged_on_them() -> None:
    shown = LAW.sample(Key(5), 30)
    shown[:, LAW.layout.latent_positions] = MASK
    decoded = decode(ZebraPosterior(LAW), vanilla(), OneAtATime(), key=Key(6), n=30, given=shown).tokens
    assert np.isfinite(LAW.log_prob(decoded)).all()
    form, cells_only = TransformerConfig(layers=1, heads=2, width=16, n_values=9, length=39), TwoRates(0.5, 0.0)
    trained = train(form, TrainConfig(steps=2, batch=4, warmup=1), Masked(LAW, cells_only), Key(0))
    model = TrainedPosterior(trained.model, LAW.layout)
    measured = losses(model, ZebraPosterior(LAW), LAW, cells_only, key=Key(7), n=40)
    assert measured.kl.mean > 0.1
    assert measured.model.mean > measured.exact.mean


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CluesAndCells(3, 3, 0), "at least 1 clue, got 0"),
        (lambda: CluesAndCells(10, 3, 4), "2 to 9 houses, got 10"),
        (lambda: CluesAndCells(3, 3, 4, kinds=("near",)), r"each once, got \('near',\)"),
        (lambda: CluesAndCells(3, 3, 4, kinds=()), "each once"),
        (lambda: CluesAndCells(2, 3, 4), "with 2 houses and 3 attributes no clue between is true: leave it out"),
        (lambda: LAW.sample(3, 1), r"key must be an address"),
        (lambda: LAW.sample(Key(0), -1), "n >= 0"),
        (lambda: LAW.puzzle(np.full(39, MASK)), r"the tokens \[-1, -1, -1, -1, -1\] of clue 0 name no clue"),
        (lambda: ZebraPosterior(LAW).marginals(np.full(39, MASK)), "row 0 hides a token of a clue: show all clues"),
        (lambda: ByPuzzle(LAW, ExactPosterior).marginals(np.full(39, MASK)), "row 0 hides a token of a clue: show all"),
        (lambda: ByPuzzle(LAW, ExactPosterior, keep=0), "at least 1 puzzle is kept, got 0"),
        (lambda: LAW.tokens(zebra.Puzzle(3, 3)), "1 to 6 clues, got a puzzle of 3, 3 and 0"),
        (lambda: LAW.tokens(zebra.draw_puzzle(Key(0), 3, 2)[0]), "3 houses, 3 attributes and 1 to 6 clues, got a puz"),
        (
            lambda: SMALL.tokens(zebra.Puzzle(3, 2, (NOT_AT,))),
            "kinds are same, next_to, at, between, got a clue not_at",
        ),
        (lambda: ZebraPosterior(LAW, limit=0), "limit must be at least 1, got 0"),
        (
            lambda: copy.copy(ZebraPosterior(SMALL, limit=1)).marginals([0, 0, 3, 0, 0, *[MASK] * 6]),
            "row 0 has more than 1 sol",
        ),
    ],
)
def test_bad_input_is_named(make, words) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_sizes_are_those_of_the_tokens() -> None:
    assert LAW.layout.length == 39
    assert LAW.entropy() == pytest.approx(3 * math.log(6) + 6 * -LAW._log_weights().mean())
    assert LAW.fingerprint() != CluesAndCells(3, 3, 7).fingerprint()
    assert LAW.fingerprint() == copy.copy(LAW).fingerprint()
