"""The transformer: tokens with masks in, logits over the token values out.

RMSNorm before each block and once at the end, SwiGLU, no biases, an untied output head; attention to both sides, or
causal; rotary positions, learned ones, or both. Uses torch only and no global random state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lo_theory.problem.layout import MASK
from lo_theory.problem.seams import checked

__all__ = ["NORM_EPSILON", "SHAPES", "VECTOR", "Shape", "Transformer", "TransformerConfig"]

_POSITIONS = ("learned", "rope", "both")
NORM_EPSILON = 1e-5
_HEAD_SCALE = 0.02
VECTOR = 32
"""bfloat16 numbers in a 512-bit register: the keys of the CPU's attention are filled up to a multiple of it."""


class Shape(NamedTuple):
    """Depth, heads, width and inner width of a network: all that its size depends on apart from embeddings and head."""

    layers: int
    heads: int
    width: int
    inner: int


SHAPES: dict[str, Shape] = {
    "19M": Shape(layers=8, heads=6, width=384, inner=1536),
    "6M": Shape(layers=6, heads=4, width=256, inner=1024),
    "small": Shape(layers=2, heads=4, width=96, inner=384),
}
"""The paper's two networks (18,880,896 and 6,294,784 parameters outside embeddings and head) and one for a laptop."""


@checked
@dataclass(frozen=True)
class TransformerConfig:
    """Everything a network's form depends on.

    ``n_values`` V and ``length`` L are those of the problem's layout. ``inner`` is 4 * width when left out.
    ``positions``: "learned" (one vector a position, at the scale of the token embeddings), "rope" (rotations of
    base ``rope_base``; knows only differences of positions, which is not enough for data that tie meaning to places)
    or "both". With ``pad_to`` every sequence is filled up to that length with a pad token of its own, whose logits
    are never returned. ``embedding_scale``: standard deviation of the initial embeddings of tokens and positions.
    """

    layers: int
    heads: int
    width: int
    n_values: int
    length: int
    inner: int | None = None
    positions: str = "learned"
    causal: bool = False
    rope_base: float = 1e4
    pad_to: int | None = None
    embedding_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.embedding_scale < math.inf:
            raise ValueError(f"embedding_scale must be positive and finite, got {self.embedding_scale}")
        for name, least in (("layers", 1), ("heads", 1), ("width", 1), ("n_values", 2), ("length", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.inner is not None and self.inner < 1:
            raise ValueError(f"inner must be at least 1, got {self.inner}")
        if self.positions not in _POSITIONS:
            raise ValueError(f"positions must be one of {', '.join(_POSITIONS)}, got {self.positions!r}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads = {self.heads}")
        if self.positions != "learned" and (self.width // self.heads) % 2:
            raise ValueError(f"rotary positions need an even width a head, got {self.width} / {self.heads}")
        if not self.rope_base > 0:
            raise ValueError(f"rope_base must be positive, got {self.rope_base}")
        if self.pad_to is not None and self.pad_to < self.length:
            raise ValueError(f"pad_to must be at least the length {self.length}, got {self.pad_to}")

    @classmethod
    def of(cls, shape: str, *, n_values: int, length: int, **settings: Any) -> TransformerConfig:
        """Take depth, heads and widths from ``SHAPES`` by name; ``settings`` are the other fields."""
        if shape not in SHAPES:
            raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")
        return cls(**{**SHAPES[shape]._asdict(), "n_values": n_values, "length": length, **settings})

    @property
    def inner_width(self) -> int:
        """Inner width of SwiGLU."""
        return 4 * self.width if self.inner is None else self.inner

    @property
    def places(self) -> int:
        """Positions the network computes on: ``pad_to``, or L without it."""
        return self.length if self.pad_to is None else self.pad_to

    @property
    def token_ids(self) -> int:
        """Rows of the token embedding: V values, the mask, and with ``pad_to`` the pad."""
        return self.n_values + 1 + (self.pad_to is not None)


class _Normalise(torch.autograd.Function):
    """RMSNorm over [..., width] with its gradient, on a CPU faster than torch's (tests/bench/test_step_bench.py)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """n w with n = x / sqrt(mean(x**2) + 1e-5), in float32 or wider."""
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        scale = norm.square_().div_(x.shape[-1]).add_(NORM_EPSILON).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """(g w - n mean(g w n)) / sqrt(mean(x**2) + 1e-5) for x, and the sum of g n over the rows for w."""
        x, weight, scale = ctx.saved_tensors
        normal = x * scale
        product = gradient * normal
        along = (product @ weight).div_(x.shape[-1]).unsqueeze(-1)
        change = (gradient * weight).addcmul_(normal, along, value=-1).mul_(scale)
        return change.to(x.dtype), product.flatten(0, -2).sum(0)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x**2) + 1e-5) along the width, times a learned scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            result: Tensor = _Normalise.apply(x, self.weight)
            return result
        return functional.rms_norm(x, (x.shape[-1],), self.weight, NORM_EPSILON)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the pairs (x[i], x[i + d/2]) of the last axis by the angles of their position: the rotary embedding.

    ``x`` [..., L, d]; ``cosine`` and ``sine`` [L, d/2]. A scalar product of two rotated vectors depends on the
    difference of their positions only.
    """
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return turned.to(x.dtype)


def rotary_tables(places: int, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32[places, head_width / 2], of position times base**(-2 i / head_width)."""
    rates = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angles = torch.arange(places, dtype=torch.float64)[:, None] * rates
    return angles.cos().float(), angles.sin().float()


def attend(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Scaled dot-product attention over [B, heads, L, d]."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        return _attend_in_products(query, key, value, causal)
    return functional.scaled_dot_product_attention(query, key, value, is_causal=causal)


def _attend_in_products(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Attention as two products and a softmax: on a CPU in bfloat16 several times faster than torch's fused kernel.

    Keys are filled up to a multiple of the vector width, which nothing attends to: the softmax is slow on ragged rows.
    """
    length, fill = query.shape[-2], -query.shape[-2] % VECTOR
    place = torch.arange(length + fill)
    shut = (place > torch.arange(length)[:, None]) if causal else (place >= length)
    bias = torch.zeros(shut.shape, dtype=query.dtype).masked_fill_(shut, -torch.inf)
    key, value = (functional.pad(part, (0, 0, 0, fill)) for part in (key, value))
    with torch.autocast("cpu", enabled=False):  # autocast would take the softmax to float32 and back
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return torch.softmax(scores.add_(bias), dim=-1) @ value


class Attention(nn.Module):
    """Multi-head self-attention: four matrices width x width, query, key and value stored as one."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.causal = config.heads, config.causal
        self.query_key_value = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Map [B, L, width] to [B, L, width]."""
        batch, length, width = x.shape
        parts = self.query_key_value(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        mixed = attend(query, key, value, self.causal)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return result


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)): three matrices width x inner."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, L, width] to [B, L, width]."""
        result: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return result


class Block(nn.Module):
    """x + attention(norm(x)), then x + swiglu(norm(x))."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config)
        self.feedforward_norm = RMSNorm(config.width)
        self.feedforward = SwiGLU(config.width, config.inner_width)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Map [B, L, width] to [B, L, width]."""
        x = x + self.attention(self.attention_norm(x), rotation)
        result: Tensor = x + self.feedforward(self.feedforward_norm(x))
        return result


@checked
class Transformer(nn.Module):
    """Logits over the V token values at every position of a partly masked sequence.

    ``seed`` (below 2**63, e.g. ``key.torch_seed()``) alone decides the initial weights: embeddings at
    ``embedding_scale``, matrices at 1/sqrt(fan-in), those that write into the residual stream smaller by
    sqrt(2 layers), the head small, so that the first loss is about ln V.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: TransformerConfig, *, seed: int) -> None:
        super().__init__()
        self.config = config
        self._build(config)
        self.to_empty(device="cpu")
        if config.positions != "learned":
            cosine, sine = rotary_tables(config.places, config.width // config.heads, config.rope_base)
            self.register_buffer("cosine", cosine, persistent=False)
            self.register_buffer("sine", sine, persistent=False)
        self._initialise(torch.Generator().manual_seed(seed))

    @classmethod
    def shapes(cls, config: TransformerConfig) -> dict[str, list[int]]:
        """Shapes of a network's parameters by their names, without memory for them; costs 0.3 ms a layer."""
        bare = cls.__new__(cls)
        nn.Module.__init__(bare)
        bare._build(config)
        return {name: list(parameter.shape) for name, parameter in bare.named_parameters()}

    def _build(self, config: TransformerConfig) -> None:
        """Make all parts, without memory: torch's own initialisation would draw from the global generator."""
        with torch.device("meta"):
            self.tokens = nn.Embedding(config.token_ids, config.width)
            self.positions = nn.Embedding(config.places, config.width) if config.positions != "rope" else None
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
            self.norm = RMSNorm(config.width)
            self.head = nn.Linear(config.width, config.n_values, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map int64[B, L] with MASK = -1 where hidden to float32 logits [B, L, V].

        No check of the values is made here (on a GPU it would cost a wait); ``Layout.check_tokens`` makes it.
        """
        x = self.features(tokens)
        # In float32 even under autocast: the bfloat16 grid is too coarse to rank margins near 1.
        with torch.autocast(x.device.type, enabled=False):
            result: Tensor = self.head(x.float())
        return result

    def features(self, tokens: Tensor) -> Tensor:
        """What the head reads, [B, L, width]: the last block's output, normalised."""
        if tokens.ndim != 2 or tokens.shape[1] != self.config.length:
            raise ValueError(f"tokens must have shape [B, {self.config.length}], got {list(tokens.shape)}")
        x = self.embed(self.ids(tokens))
        for block in self.blocks:
            x = block(x, self.rotation)
        result: Tensor = self.norm(x[:, : self.config.length])
        return result

    def ids(self, tokens: Tensor) -> Tensor:
        """Rows of the token embedding, int64[B, places], of int64[B, L]: the mask after the values, then the pad."""
        ids = torch.where(tokens == MASK, self.config.n_values, tokens)
        if self.config.pad_to is not None:
            ids = functional.pad(ids, (0, self.config.pad_to - self.config.length), value=self.config.n_values + 1)
        return ids

    def embed(self, ids: Tensor) -> Tensor:
        """What the first block reads, float32[B, places, width]."""
        x: Tensor = self.tokens(ids)
        return x if self.positions is None else x + self.positions.weight

    @property
    def rotation(self) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines of the rotary positions; None without them."""
        return (self.cosine, self.sine) if self.config.positions != "learned" else None

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        into_residual = (".out.weight", ".down.weight")
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0)
                continue
            scale = parameter.shape[1] ** -0.5
            if name.startswith(("tokens.", "positions.")):
                scale = self.config.embedding_scale
            elif name.startswith("head."):
                scale = _HEAD_SCALE
            elif name.endswith(into_residual):
                scale /= math.sqrt(2 * self.config.layers)
            parameter.normal_(0.0, scale, generator=generator)

    def core_parameters(self) -> int:
        """Count the parameters outside embeddings and head, the paper's way of counting."""
        return sum(parameter.numel() for part in (self.blocks, self.norm) for parameter in part.parameters())
