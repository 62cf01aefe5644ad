"""Addressed randomness: a key names a place, and what is drawn there depends on nothing else.

A stream of random numbers depends on who drew before; an address does not. ``Key(7).fold("data").fold(31)`` is the
data of step 31 under seed 7, whoever asks, in whatever order, on any number of threads, workers or ranks. Three exits
turn an address into numbers: ``words`` (two 64-bit words that key the Philox kernels below), ``generator`` (numpy) and
``torch_seed``. Nothing here holds state.

The kernels are Philox4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
Their convention: counter word 0 is the number of the draw, counter word 1 the row; one call gives four 64-bit words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types, uint64
from numba.core import config
from numba.extending import intrinsic

from lo_theory.jit import jit

__all__ = ["Key", "below", "fill_words", "philox", "shuffle", "unit"]

_VERSION = b"lo_theory key 1"

_MULTIPLIER_0 = np.uint64(0xD2E7470EE14C6C93)
_MULTIPLIER_1 = np.uint64(0xCA5A826395121157)
_WEYL_0 = np.uint64(0x9E3779B97F4A7C15)
_WEYL_1 = np.uint64(0xBB67AE8584CAA73B)
_ROUNDS = 10


def _encode(part: str | int) -> bytes:
    """Give one part of an address a prefix-free spelling, so that ("a", "b") and ("ab",) never meet."""
    if isinstance(part, str):
        raw, kind = part.encode(), b"s"
    elif isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        raw, kind = str(int(part)).encode(), b"i"
    else:
        raise ValueError(f"a key folds strings and integers, not {part!r} ({type(part).__name__})")
    return kind + len(raw).to_bytes(8, "little") + raw


@dataclass(frozen=True)
class Key:
    """An address for randomness.

    ``Key(seed)`` is a root, ``key.fold(part)`` a place below it; equal addresses give equal numbers on every machine,
    and different addresses independent ones (their 128-bit words are BLAKE2b digests of the whole address, so a
    collision among 2**40 addresses has probability below 1e-14).
    """

    seed: int
    path: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)):
            raise ValueError(f"seed must be an integer, got {self.seed!r}")
        for part in self.path:
            _encode(part)
        # Plain integers, whatever kind they came as: equal addresses look the same, in files too.
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "path", tuple(part if isinstance(part, str) else int(part) for part in self.path))

    def fold(self, part: str | int) -> Key:
        """Return the address ``part`` below this one; ``part`` is a string or an integer of any size."""
        return Key(self.seed, (*self.path, part))

    def _digest(self, exit_name: bytes) -> np.ndarray:
        digest = hashlib.blake2b(_VERSION, digest_size=16, person=exit_name)
        for part in (self.seed, *self.path):
            digest.update(_encode(part))
        return np.frombuffer(digest.digest(), dtype="<u8")

    def words(self) -> tuple[np.uint64, np.uint64]:
        """Return the two 64-bit key words of this address for the Philox kernels."""
        first, second = self._digest(b"kernel")
        return np.uint64(first), np.uint64(second)

    def generator(self) -> np.random.Generator:
        """Return a fresh numpy Generator (Philox) at this address; its methods may change between numpy versions."""
        first, second = (int(word) for word in self._digest(b"numpy"))
        return np.random.Generator(np.random.Philox(key=first | second << 64))

    def torch_seed(self) -> int:
        """Return a seed in [0, 2**63) for ``torch.Generator.manual_seed``."""
        return int(self._digest(b"torch")[0] >> np.uint64(1))


@intrinsic
def _multiply_high_intrinsic(typing_context: Any, a: Any, b: Any) -> tuple[Any, Callable[..., Any]]:
    """Upper 64 bits of a 64 x 64-bit product: one machine instruction that numba has no name for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        left, right = (builder.zext(argument, wide) for argument in arguments)
        product = builder.lshr(builder.mul(left, right), ir.Constant(wide, 64))
        return builder.trunc(product, ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


def _multiply_high_interpreted(a: np.uint64, b: np.uint64) -> np.uint64:
    return np.uint64(int(a) * int(b) >> 64)


# Numba passes the typing context itself, which a type checker cannot know.
_interpreted: bool = config.DISABLE_JIT  # type: ignore[attr-defined]
_multiply_high: Any = _multiply_high_interpreted if _interpreted else _multiply_high_intrinsic


@jit(inline="always")
def philox(counter0, counter1, key0, key1):  # type: ignore[no-untyped-def]
    """Four 64-bit words of Philox4x64-10 at counter (counter0, counter1, 0, 0): (draw, row) in our convention."""
    c0, c1, c2, c3 = uint64(counter0), uint64(counter1), uint64(0), uint64(0)
    k0, k1 = uint64(key0), uint64(key1)
    for _ in range(_ROUNDS):
        high0, low0 = _multiply_high(_MULTIPLIER_0, c0), _MULTIPLIER_0 * c0
        high1, low1 = _multiply_high(_MULTIPLIER_1, c2), _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += _WEYL_0
        k1 += _WEYL_1
    return c0, c1, c2, c3


@jit()
def fill_words(out, row, key0, key1):  # type: ignore[no-untyped-def]
    """Fill uint64 ``out`` with words 0, 1, 2, ... of ``row``: word w is lane w % 4 of draw w // 4."""
    size = out.shape[0]
    for draw in range((size + 3) // 4):
        first = 4 * draw
        w0, w1, w2, w3 = philox(uint64(draw), uint64(row), key0, key1)
        out[first] = w0
        if first + 1 < size:
            out[first + 1] = w1
        if first + 2 < size:
            out[first + 2] = w2
        if first + 3 < size:
            out[first + 3] = w3


@jit(inline="always")
def below(word, bound):  # type: ignore[no-untyped-def]
    """Integer in [0, bound) from one 64-bit word, floor(word * bound / 2**64); no value is off by more than 2**-64."""
    return np.int64(_multiply_high(uint64(word), uint64(bound)))


@jit(inline="always")
def unit(word):  # type: ignore[no-untyped-def]
    """Float64 in [0, 1) from the upper 53 bits of one 64-bit word."""
    return np.float64(uint64(word) >> uint64(11)) * (1.0 / 9007199254740992.0)


@jit()
def shuffle(items, count, words):  # type: ignore[no-untyped-def]
    """Bring ``count`` uniformly chosen items, in uniform order, to the front of ``items`` (partial Fisher-Yates).

    Uses ``words[:count]``; the whole of ``items`` stays a permutation of what it was.
    """
    size = items.shape[0]
    for i in range(count):
        j = i + below(words[i], size - i)
        items[i], items[j] = items[j], items[i]
