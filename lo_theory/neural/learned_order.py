"""A learned order: an objective with two heads beside the denoiser, and the policy that decodes along it.

Hide position i at time t with probability t**e_i, t uniform: then positions are revealed in a Plackett-Luce order with
weights e, and the loss is the mean autoregressive loss along it (arXiv 2511.19152). Here e is a function of the
sequence, which the decoder, who does not see it, pays for (LoMDM, arXiv 2602.02112).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lo_theory.diffusion import TopK, View, _kernels, row_integers
from lo_theory.neural.model import Transformer, TransformerConfig
from lo_theory.neural.objectives import Batch, State, Stretches, check_form, cross_entropy
from lo_theory.problem import Distribution
from lo_theory.problem.layout import MASK
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["LearnedOrder", "OrderedTransformer", "latents_first", "learned_order"]

_FORWARD, _REVERSE = 0, 1
_ROWS = 256  # sent through a network at once by the policy


class OrderedTransformer(Transformer):
    """A ``Transformer`` with two order heads, each one linear map of the features that its own head reads.

    ``model(tokens)`` is as without them; ``model(tokens, orders=True)`` also gives scores float32[B, L, 2], of the
    forward head (meant for complete sequences) and of the reverse head (for masked ones). Both begin at zero, and the
    initial weights are those of a ``Transformer`` of the same seed. The paper's heads are a block and a perceptron
    each; one map keeps the operations of a pass as they are.
    """

    def _build(self, config: TransformerConfig) -> None:
        super()._build(config)
        with torch.device("meta"):
            self.orders = nn.Linear(config.width, 2, bias=False)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        super()._initialise(generator)
        self.orders.weight.zero_()

    def forward(self, tokens: Tensor, *, orders: bool = False) -> Any:
        """Logits [B, L, V] of int64[B, L], and with ``orders`` the scores beside them: a pair."""
        if not orders:
            return super().forward(tokens)
        x = self.features(tokens)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.float()), self.orders(x.float())


@checked
@dataclass(frozen=True)
class LearnedOrder:
    """LoMDM's loss: E of [sum over hidden i of e_i CE_i + e_i ln(e_i/r_i) - e_i + r_i] / (sum over hidden i of e_i).

    Nats per token, an upper bound of -ln p(x)/L. e = c1 + c2 (sigmoid(s) - mean of sigmoid(s)), s the forward head's
    scores of the sequence; r likewise of the reverse head's scores of the context. An order has probability
    prod_m e_(m)/sum_{j >= m} e_(j), first revealed first; k uniform on 0..L-1 tokens of it are revealed. That is the
    paper's integral over t of A CE + A ln(A/A') - A + A', A = e/t and A' = r/t, with the time spent in a context
    integrated out: 1/t, which makes the variance infinite wherever e <= 1, is gone, and only c2/c1 matters. With
    c2 = 0 it is the plain loss (``Masked`` with ``Uniform``), and the second part 0. With the exact posterior as
    denoiser the first part is -ln p(x)/L for every order: its gradient in the order is exactly zero, so a learned
    order follows the denoiser's errors, and the second part alone pulls e to what the context can tell.

    Two orders a sequence, k the same for both; the gradient of their law is the leave-one-out score gradient
    (l_1 - l_2) grad (ln q_1 - ln q_2)/2, unbiased in all parameters, those of the network that the heads share
    included. (The paper's q is the law of the mask given t, here it is that of the revealed tokens in order.) Data at
    ``key.fold("data").fold(step)``, orders at ``key.fold("masks").fold(step)``. Cost: three passes a sequence, one on
    the complete sequence, all kept for the backward pass. Errors: ValueError unless 0 <= c2 < c1.
    """

    distribution: Distribution
    c1: float = 0.7
    c2: float = 0.65
    network = OrderedTransformer

    def __post_init__(self) -> None:
        if not 0 <= self.c2 < self.c1 < np.inf:
            raise ValueError(f"exponents are positive for 0 <= c2 < c1, got c1 = {self.c1} and c2 = {self.c2}")

    def describe(self) -> dict[str, Any]:
        """See Objective."""
        problem = self.distribution.fingerprint()
        return {"kind": "learned order", "problem": problem, "c1": float(self.c1), "c2": float(self.c2)}

    def label(self, step: int) -> str:
        """``learned_order(c1,c2)``."""
        return f"learned_order({self.c1:g},{self.c2:g})"

    def passes(self, steps: int) -> Stretches:
        """See Objective: the complete row, and it masked by two orders."""
        return [(steps, 3)]

    def check(self, model: Transformer) -> None:
        """See Objective."""
        check_form(model, self.distribution.layout, causal=False)

    def initial_state(self) -> State:
        """Return no tensors."""
        return {}

    def draw(self, key: Key, step: int, rows: tuple[int, int]) -> Batch:
        """Draw tokens int8[n, L], known int64[n] = k, and waits float32[n, 2, L], exponential, that become orders."""
        (start, count), length = rows, self.distribution.layout.length
        tokens = self.distribution.sample(key.fold("data").fold(step), count, start=start)
        place, units = key.fold("masks").fold(step), np.empty((count, 2 * length))
        _kernels.draw_rows_of_units(units, start, *place.fold("orders").words())
        waits = -np.log1p(-units).astype(np.float32).reshape(count, 2, length)
        known = row_integers(place.fold("known"), count, length, start=start)
        return {"tokens": tokens, "known": known, "waits": waits}

    def loss(self, model: Transformer, batch: Mapping[str, Tensor], state: State) -> tuple[Tensor, State]:
        """See Objective; the value is the mean of both orders' losses."""
        return self.row_losses(*self.terms(model, batch)).mean(), state

    def row_losses(self, main: Tensor, extra: Tensor, log_order: Tensor) -> Tensor:
        """Losses [n] of what ``terms`` answers, with the gradient of the law of the orders (it adds 0 to them)."""
        losses = main + extra
        apart = (losses[:, 0] - losses[:, 1]).detach()
        score = apart * (log_order[:, 0] - log_order[:, 1]) / 2
        return losses.mean(dim=1) + (score - score.detach())

    def terms(self, model: Transformer, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Of both orders of each row, [n, 2]: first and second part of the loss, and ln q of what is revealed."""
        tokens, waits, known = batch["tokens"].long(), batch["waits"], batch["known"][:, None, None]
        shape = waits.shape
        forward = self.exponents(model(tokens, orders=True)[1][..., _FORWARD])[:, None].expand(shape)
        order = (waits / forward.detach()).argsort(dim=-1)
        masked = order.argsort(dim=-1) >= known
        contexts = torch.where(masked, MASK, tokens[:, None]).flatten(0, 1)
        logits, scores = model(contexts, orders=True)
        reverse = self.exponents(scores[..., _REVERSE]).view(shape)
        entropies = cross_entropy(logits, tokens[:, None].expand(shape).flatten(0, 1)).view(shape)
        hidden = torch.where(masked, forward, 0.0)
        total = hidden.sum(dim=-1)
        main = (hidden * entropies).sum(dim=-1) / total
        mismatch = forward * (forward / reverse).log() - forward + reverse
        extra = torch.where(masked, mismatch, 0.0).sum(dim=-1) / total
        in_order = forward.gather(-1, order)
        left = in_order.flip(-1).cumsum(-1).flip(-1)
        chosen = torch.arange(shape[-1], device=known.device) < known
        log_order = torch.where(chosen, in_order.log() - left.log(), 0.0).sum(dim=-1)
        return main, extra, log_order

    def exponents(self, scores: Tensor) -> Tensor:
        """c1 + c2 (sigmoid(scores) - their mean over the last axis)."""
        share = torch.sigmoid(scores)
        return self.c1 + self.c2 * (share - share.mean(dim=-1, keepdim=True))


@torch.inference_mode()
def _exponents(objective: LearnedOrder, model: Transformer, tokens: NDArray[np.int8], head: int) -> NDArray[np.float64]:
    """Exponents float64[n, L] that a head gives int8[n, L]."""
    device = next(model.parameters()).device
    parts = torch.from_numpy(np.array(tokens)).long().split(_ROWS)
    scores = [model(part.to(device), orders=True)[1][..., head] for part in parts]
    found: NDArray[np.float64] = objective.exponents(torch.cat(scores)).cpu().double().numpy()
    return found


@checked
def latents_first(objective: LearnedOrder, model: Transformer, tokens: NDArray[np.int8]) -> tuple[float, float]:
    """P(a latent is revealed before an observation), the mean of e_i/(e_i + e_j) over their pairs: of both heads.

    First of the forward head over complete ``tokens`` int8[n, L], second of the reverse head where all is hidden. 1/2:
    neither comes first. All latents first would be 1, which no exponents between c1 - c2 and c1 + c2 reach. Cost: n + 1
    passes. Errors: ValueError for a problem without latents or without observations.
    """
    layout = objective.distribution.layout
    if not (layout.n_latents and layout.n_observations):
        raise ValueError(
            f"nothing comes first with {layout.n_latents} latents and {layout.n_observations} observations"
        )
    hidden = np.full((1, layout.length), MASK, np.int8)
    found = []
    for rows, head in ((layout.check_tokens(tokens, complete=True), _FORWARD), (hidden, _REVERSE)):
        exponents = _exponents(objective, model, rows, head)
        latents = exponents[:, layout.latent_positions, None]
        observations = exponents[:, None, layout.observation_positions]
        found.append(float((latents / (latents + observations)).mean()))
    return found[0], found[1]


@dataclass(frozen=True)
class _ReverseHead:
    """The reverse head's exponents of a view's contexts."""

    objective: LearnedOrder
    model: Transformer

    def __call__(self, view: View) -> NDArray[np.float64]:
        return _exponents(self.objective, self.model, np.asarray(view.tokens), _REVERSE)


@checked
def learned_order(objective: LearnedOrder, model: Transformer) -> TopK:
    """Reveal the positions of largest r_i, r the exponents that the reverse head gives the context (arXiv 2602.02112).

    With ``DecodeOptions(noise=Noise(1.0, logarithmic=True))`` positions are drawn with probabilities proportional to r,
    one after another: the process that the objective bounds. ``model``: what training with ``objective`` returned, or
    ``load_model(path, network=OrderedTransformer)``. Cost: one pass of the network a step. ValueError for a network
    without order heads.
    """
    if not isinstance(model, OrderedTransformer):
        raise ValueError(
            f"a learned order needs a network with order heads, got a {type(model).__name__}: "
            "load_model(path, network=OrderedTransformer)"
        )
    return TopK("learned_order", _ReverseHead(objective, model.eval()))
