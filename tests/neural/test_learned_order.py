"""The learned order against integrals and enumeration at L = 4: values, gradients, limits, and broken copies."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lo_theory.diffusion import DecodeOptions, Noise, OneAtATime, Uniform, decode, log_likelihood
from lo_theory.neural import (
    LearnedOrder,
    Masked,
    OrderedTransformer,
    TrainConfig,
    TrainedPosterior,
    Transformer,
    latents_first,
    learned_order,
    load_model,
    train,
)
from lo_theory.posterior import ExactPosterior
from lo_theory.posterior.weak import MarginalsOnly
from lo_theory.problem import MASK, nae_sat
from lo_theory.rng import Key
from lo_theory.testing import chi_square, joint_law, z_test
from tests.budget import accept, reject
from tests.neural.small import KEY, NETWORK, OBJECTIVE, PROBLEM, TRAINING
from tests.neural.test_objectives import on_torch

FOUR = nae_sat(3, 1, seed=0)
SEQUENCES, CHANCES = joint_law(FOUR)
ORDERS = torch.tensor(list(itertools.permutations(range(4))))
GOAL = LearnedOrder(FOUR)


def far_from_uniform(network: type[Transformer] = OrderedTransformer, scale: float = 3.0) -> OrderedTransformer:
    """A network whose predictions and orders are wrong and strong."""
    model = network(replace(NETWORK, length=4), seed=4)
    with torch.no_grad():
        model.head.weight *= 60
        model.orders.weight.normal_(0.0, scale, generator=torch.Generator().manual_seed(5))
    return model  # type: ignore[return-value]


def order_chances(objective: LearnedOrder, model: nn.Module) -> Tensor:
    """Of each sequence, the probabilities [n, 24] of all orders, from the definition."""
    weights = objective.exponents(model(torch.from_numpy(SEQUENCES).long(), orders=True)[1][..., 0])
    chosen = weights[:, ORDERS]
    left = torch.stack([chosen[..., m:].sum(-1) for m in range(4)], dim=-1)
    return (chosen / left).prod(-1)


def every_pair(objective: LearnedOrder, model: nn.Module, second: str = "learned") -> tuple[dict[str, Tensor], Tensor]:
    """All sequences, numbers of known tokens and pairs of orders as one batch, and the probability of each row."""
    place = ORDERS.argsort(dim=-1)
    x, k, one, two = (
        part.flatten()
        for part in torch.meshgrid(*(torch.arange(n) for n in (len(SEQUENCES), 4, 24, 24)), indexing="ij")
    )
    waits = 100.0 ** torch.stack([place[one], place[two]], dim=1)  # so far apart that no exponents change the order
    chances = order_chances(objective, model).detach()
    others = torch.full_like(chances, 1 / 24) if second == "uniform" else chances
    batch = {"tokens": torch.from_numpy(SEQUENCES)[x], "known": k, "waits": waits}
    return batch, torch.from_numpy(CHANCES).float()[x] / 4 * chances[x, one] * others[x, two]


def gradients(value: Tensor, model: nn.Module) -> list[Tensor]:
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, model.parameters(), strict=True)]


def apart(one: list[Tensor], other: list[Tensor]) -> float:
    """Distance of two gradients, relative to the second."""
    squares = [
        (sum(float(g.square().sum()) for g in gs)) for gs in ([a - b for a, b in zip(one, other, strict=True)], other)
    ]
    return float(np.sqrt(squares[0] / squares[1]))


def integral(objective: LearnedOrder, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Both parts of the paper's bound, nats per token: the integral over t of the sum over masks of what is hidden."""
    tokens = torch.from_numpy(SEQUENCES).long()
    e = objective.exponents(model(tokens, orders=True)[1][..., 0]).double()
    nodes, widths = np.polynomial.legendre.leggauss(120)
    v = torch.from_numpy((nodes + 1) / 2)[:, None, None]
    t, dt = v**8, torch.from_numpy(widths / 2)[:, None] * 8 * v[..., 0] ** 7
    main = extra = torch.zeros((), dtype=torch.float64)
    for hidden in itertools.product([False, True], repeat=4):
        if not any(hidden):
            continue
        masked = torch.tensor(hidden).expand(tokens.shape)
        logits, scores = model(torch.where(masked, MASK, tokens), orders=True)
        r = objective.exponents(scores[..., 1]).double()
        entropies = -torch.log_softmax(logits.double(), -1).gather(-1, tokens[..., None])[..., 0]
        chance = torch.where(masked, t**e, 1 - t**e).prod(-1)
        rate, theirs = e / t, r / t
        paid = torch.where(masked, rate * entropies, 0.0).sum(-1)
        mismatch = torch.where(masked, rate * (rate / theirs).log() - rate + theirs, 0.0).sum(-1)
        weights = torch.from_numpy(CHANCES)
        main = main + ((chance * paid * dt).sum(0) * weights).sum() / 4
        extra = extra + ((chance * mismatch * dt).sum(0) * weights).sum() / 4
    return main, extra


@pytest.mark.parametrize(
    "objective", [GOAL, LearnedOrder(FOUR, 1.4, 1.3), LearnedOrder(FOUR, 1.0, 0.4)], ids=lambda goal: goal.label(0)
)
def test_value_and_gradient_in_all_parameters_are_those_of_the_integral_over_time(objective: LearnedOrder) -> None:
    model = far_from_uniform()
    main, extra = integral(objective, model)
    batch, chances = every_pair(objective, model)
    terms = objective.terms(model, batch)
    parts = [float((chances[:, None] * part).sum().detach()) / 2 for part in terms[:2]]
    assert parts == pytest.approx([float(main.detach()), float(extra.detach())], rel=1e-5)
    assert min(parts) > 0.005
    found = gradients((chances * objective.row_losses(*terms)).sum(), model)
    assert apart(found, gradients(main + extra, model)) < 1e-4


def broken_gradient(how: str) -> list[Tensor]:
    """The enumerated gradient of a copy with one mistake."""
    model = far_from_uniform()
    batch, chances = every_pair(GOAL, model, "uniform" if how == "second mask independent" else "learned")
    main, extra, log_order = GOAL.terms(model, batch)
    if how == "second part left out":
        extra = 0 * extra
    if how == "no score":
        log_order = log_order.detach()
    if how == "score of the wrong sign":
        log_order = log_order.flip(1)
    return gradients((chances * GOAL.row_losses(main, extra, log_order)).sum(), model)


def test_broken_copies_have_another_gradient() -> None:
    model = far_from_uniform()
    right = gradients(sum(integral(GOAL, model), torch.zeros(())), model)
    assert apart(broken_gradient("none"), right) < 1e-4
    for how in ("second mask independent", "second part left out", "no score", "score of the wrong sign"):
        assert apart(broken_gradient(how), right) > 0.01, how


def test_without_a_spread_of_exponents_it_is_the_plain_loss() -> None:
    plain, model = LearnedOrder(FOUR, 1.0, 0.0), far_from_uniform()
    batch, chances = every_pair(plain, model)
    main, extra, log_order = plain.terms(model, batch)
    assert (extra == 0).all()
    loss = (chances * plain.row_losses(main, extra, log_order)).sum()
    masks = torch.tensor([mask for mask in itertools.product([False, True], repeat=4) if any(mask)])
    sizes = masks.sum(-1)
    weights = torch.tensor(
        [1 / (4 * float(n) * (4, 6, 4, 1)[int(n) - 1]) for n in sizes]
    )  # uniform size, weight 1/size
    tokens = torch.from_numpy(SEQUENCES).long()
    expected = torch.zeros(())
    for x, chance in zip(tokens, CHANCES, strict=True):
        logits = model(torch.where(masks, MASK, x))
        entropies = -torch.log_softmax(logits, -1).gather(-1, x.expand(masks.shape)[..., None])[..., 0]
        expected = expected + chance * (weights[:, None] * masks * entropies).sum()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found = gradients(loss, model)
    assert apart(found, gradients(expected, model)) < 1e-4
    assert float(found[-1].abs().max()) < 1e-7  # the order heads


def test_only_the_ratio_of_the_two_constants_matters() -> None:
    model, batch = far_from_uniform(), on_torch(GOAL.draw(KEY, 0, (0, 50)))
    twice = LearnedOrder(FOUR, 2 * GOAL.c1, 2 * GOAL.c2)
    for one, other in zip(GOAL.terms(model, batch), twice.terms(model, batch), strict=True):
        torch.testing.assert_close(one, other)


class Known(nn.Module):
    """A posterior in the denoiser's place; scores linear in the tokens, or in the position alone."""

    def __init__(self, posterior: ExactPosterior | MarginalsOnly, *, of_tokens: bool) -> None:
        super().__init__()
        drawn = torch.randn(4, 3, 4, 2, generator=torch.Generator().manual_seed(2))
        self.weight = nn.Parameter(3 * drawn if of_tokens else 3 * drawn[0, 0, :, :1])
        self.posterior, self.of_tokens = posterior, of_tokens

    def forward(self, tokens: Tensor, *, orders: bool) -> tuple[Tensor, Tensor]:
        shown, row = np.unique(tokens.numpy().astype(np.int8), axis=0, return_inverse=True)
        logits = torch.from_numpy(np.log(np.maximum(self.posterior.marginals(shown).probs, 1e-300))).float()[
            row.ravel()
        ]
        if not self.of_tokens:
            return logits, self.weight.expand(*tokens.shape, 2)
        onehot = torch.nn.functional.one_hot(tokens + 1, 3).float()
        return logits, torch.einsum("nav,avio->nio", onehot, self.weight)


def order_gradient(posterior: ExactPosterior | MarginalsOnly, *, of_tokens: bool, parts: int) -> float:
    """The largest entry of the enumerated gradient in the order, of the first part of the loss or of both."""
    model = Known(posterior, of_tokens=of_tokens)
    batch, chances = every_pair(GOAL, model)
    main, extra, log_order = GOAL.terms(model, batch)
    loss = (chances * GOAL.row_losses(main, extra if parts == 2 else 0 * extra.detach(), log_order)).sum()
    return float(gradients(loss, model)[0].abs().max())


def test_with_the_exact_posterior_nothing_can_be_learned_about_the_order() -> None:
    exact, weak = ExactPosterior(FOUR), MarginalsOnly(FOUR)
    assert order_gradient(exact, of_tokens=True, parts=1) < 1e-6  # of the loss proper, whatever the order depends on
    assert order_gradient(exact, of_tokens=False, parts=2) < 1e-6  # of all, where both heads say the same
    assert order_gradient(exact, of_tokens=True, parts=2) > 1e-3  # the second part pulls e to what a context can tell
    assert order_gradient(weak, of_tokens=True, parts=1) < 1e-6  # independent marginals cost the same along all orders
    model = far_from_uniform()
    assert float(gradients(integral(GOAL, model)[0], model)[-1][0].abs().max()) > 1e-3


@torch.no_grad()
def drawn_losses(objective: LearnedOrder, model: nn.Module, *, blind: bool = False) -> np.ndarray:
    """Losses of drawn rows; ``blind``: orders drawn uniformly, as if the exponents were all one."""
    batch = on_torch(objective.draw(Key(3), 0, (0, 12000)))
    if blind:
        e = objective.exponents(model(batch["tokens"].long(), orders=True)[1][..., 0])
        batch["waits"] = batch["waits"] * e[:, None]
    return objective.row_losses(*objective.terms(model, batch)).double().numpy()


def test_drawn_losses_have_the_mean_of_the_integral() -> None:
    model = far_from_uniform()
    expected = float(sum(integral(GOAL, model)).detach())  # type: ignore[union-attr]
    accept("learned order", z_test(drawn_losses(GOAL, model), expected))
    reject("learned order", z_test(drawn_losses(GOAL, model, blind=True), expected))


def test_slices_of_a_step_put_together_are_the_step_and_data_are_those_of_masked() -> None:
    whole = GOAL.draw(KEY, 2, (0, 10))
    parts = [GOAL.draw(KEY, 2, rows) for rows in ((0, 3), (3, 7))]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
    np.testing.assert_array_equal(whole["tokens"], Masked(FOUR, Uniform()).draw(KEY, 2, (0, 10))["tokens"])
    assert not np.array_equal(whole["waits"], GOAL.draw(KEY, 3, (0, 10))["waits"])


class Stopped(Exception):
    """The run ends here."""


def stop(step: int, values: object) -> None:
    if step == 5:
        raise Stopped


@pytest.mark.parametrize("change", [{}, {"ema": 0.9, "microbatch": 3, "optimiser": "muon", "prefetch": 0}], ids=str)
def test_a_broken_run_continues_to_the_same_bytes_with_its_heads(change: dict[str, object], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    config, objective = replace(TRAINING, **change), LearnedOrder(PROBLEM)
    first = train(NETWORK, config, objective, KEY, checkpoint=whole).model
    with pytest.raises(Stopped):
        train(NETWORK, config, objective, KEY, checkpoint=broken, checkpoint_seconds=0, on_log=stop)
    assert train(NETWORK, config, objective, KEY, checkpoint=broken).resumed_from == 4
    assert whole.read_bytes() == broken.read_bytes()
    tokens = torch.from_numpy(PROBLEM.sample(KEY, 5)).long()
    with torch.no_grad():
        plain, ordered = load_model(whole), load_model(whole, network=OrderedTransformer)
        assert type(plain) is Transformer
        assert torch.equal(plain(tokens), first(tokens))
        assert torch.equal(ordered(tokens, orders=True)[1], first(tokens, orders=True)[1])
        assert float(ordered.orders.weight.abs().max()) > 0  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"its objective.c1 is 0.7, expected None"):
        train(NETWORK, config, OBJECTIVE, KEY, checkpoint=whole)


def test_one_pass_more_is_counted_and_weights_start_as_those_of_a_plain_network() -> None:
    one = TrainConfig(steps=1, batch=8, warmup=1, learning_rate=1e-30, threads=1)
    learned, plain = train(NETWORK, one, LearnedOrder(PROBLEM), KEY), train(NETWORK, one, OBJECTIVE, KEY)
    assert learned.flops == 3 * plain.flops
    own = plain.model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in learned.model.state_dict().items() if name in own)
    for given, objective in ((plain.model, LearnedOrder(PROBLEM)), (learned.model, OBJECTIVE)):  # each from the other
        again = train(given, one, objective, KEY).model.state_dict()
        assert all(torch.equal(again[name], value) for name, value in own.items())


def test_latents_first_is_the_share_of_orders_that_have_them_first() -> None:
    model, layout = far_from_uniform(), FOUR.layout
    place = ORDERS.argsort(dim=-1).numpy()
    pairs = [(i, j) for i in layout.latent_positions for j in layout.observation_positions]
    before = np.mean([place[:, i] < place[:, j] for i, j in pairs], axis=0)  # by order
    with torch.no_grad():
        expected = (order_chances(GOAL, model).double().numpy() @ before).mean()
        reverse = GOAL.exponents(model(torch.full((1, 4), MASK), orders=True)[1][0, :, 1]).double().numpy()
    found = latents_first(GOAL, model, SEQUENCES)
    assert found[0] == pytest.approx(expected, abs=1e-6)
    assert found[1] == pytest.approx(np.mean([reverse[i] / (reverse[i] + reverse[j]) for i, j in pairs]), abs=1e-6)
    assert abs(found[0] - 0.5) > 0.005
    assert latents_first(GOAL, OrderedTransformer(model.config, seed=4), SEQUENCES) == (0.5, 0.5)


def test_decoding_along_the_learned_order_draws_positions_with_the_exponents() -> None:
    model = far_from_uniform(scale=1.0)
    policy, posterior = learned_order(GOAL, model), TrainedPosterior(model, FOUR.layout)
    drawn = decode(
        posterior, policy, OneAtATime(), key=KEY, n=4000, options=DecodeOptions(noise=Noise(1.0, logarithmic=True))
    )
    counts = np.bincount(drawn.step_revealed.argmin(axis=1), minlength=4)
    with torch.no_grad():
        r = GOAL.exponents(model(torch.full((1, 4), MASK), orders=True)[1][0, :, 1]).double().numpy()
    assert np.ptp(r) > 0.2
    accept("learned order", chi_square(counts, r / r.sum()))
    reject("learned order", chi_square(counts, np.full(4, 0.25)))
    every = np.array(list(itertools.product([0, 1], repeat=4)), np.int8)
    total = np.exp(log_likelihood(posterior, policy, OneAtATime(), every, key=KEY)).sum()
    assert total == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="got a Transformer: load_model"):
        learned_order(GOAL, Transformer(NETWORK, seed=0))


@pytest.mark.parametrize(("c1", "c2"), [(0.5, 0.5), (1.0, -0.1), (0.0, 0.0), (np.inf, 0.1)])
def test_exponents_that_could_be_zero_are_refused(c1: float, c2: float) -> None:
    with pytest.raises(ValueError, match="positive for 0 <= c2 < c1"):
        LearnedOrder(FOUR, c1, c2)
