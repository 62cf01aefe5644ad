"""Keys: an address depends on its parts and on nothing else, no two meet, and the exits are the promised digests."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lo_theory.rng import Key

ADDRESSES = [
    Key(0),
    Key(1),
    Key(-1),
    Key(0).fold(0),
    Key(0).fold("0"),
    Key(0).fold(""),
    Key(0).fold("").fold(""),
    Key(0).fold("ab"),
    Key(0).fold("a").fold("b"),
    Key(0).fold("b").fold("a"),
    Key(0).fold("a").fold(1),
    Key(0).fold("a1"),
    Key(0).fold(1).fold(2),
    Key(0).fold(12),
    Key(0).fold(2**70),
    Key(0).fold("i\x01"),
    Key(12).fold("a"),
]


def outside(key):
    """The address as its three exits show it."""
    return (*(int(word) for word in key.words()), key.torch_seed(), int(key.generator().integers(2**63)))


def test_different_addresses_never_meet():
    shown = [outside(key) for key in ADDRESSES]
    assert all(len(set(column)) == len(ADDRESSES) for column in zip(*shown, strict=True))


parts = st.lists(st.one_of(st.text(max_size=4), st.integers(-3, 300)), max_size=4)


@given(parts, parts)
def test_addresses_are_equal_exactly_when_their_parts_are(first, second):
    one, two = Key(0), Key(0)
    for part in first:
        one = one.fold(part)
    for part in second:
        two = two.fold(part)
    same = [(type(part), part) for part in first] == [(type(part), part) for part in second]
    assert (one.words() == two.words()) == same


def test_an_address_depends_on_nothing_but_itself():
    key = Key(7).fold("data")
    before = outside(key)
    key.generator().random(1000)
    Key(7).fold("data").fold(3).words()
    assert outside(Key(7).fold("data")) == before
    assert Key(np.int64(7)).fold(np.int32(3)).words() == Key(7).fold(3).words()


def derived(key, exit_name):
    """The promised derivation, spelt out.

    BLAKE2b-128 of version and parts, each with its kind and its length before it.
    """
    message = b"lo_theory key 1"
    for part in (key.seed, *key.path):
        raw = part.encode() if isinstance(part, str) else str(part).encode()
        message += (b"s" if isinstance(part, str) else b"i") + len(raw).to_bytes(8, "little") + raw
    digest = hashlib.blake2b(message, digest_size=16, person=exit_name).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


@pytest.mark.parametrize("key", ADDRESSES, ids=str)
def test_exits_are_the_promised_digests(key):
    assert tuple(int(word) for word in key.words()) == derived(key, b"kernel")
    assert key.torch_seed() == derived(key, b"torch")[0] // 2
    first, second = derived(key, b"numpy")
    assert (
        key.generator().random(3).tolist()
        == np.random.Generator(np.random.Philox(key=first | second << 64)).random(3).tolist()
    )


def test_addresses_are_the_same_in_another_process():
    code = "from lo_theory.rng import Key; print(*Key(3).fold('a').words(), Key(3).fold('a').torch_seed())"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "99"}
    )
    key = Key(3).fold("a")
    assert shown.stdout.split() == [str(int(x)) for x in (*key.words(), key.torch_seed())]


def test_torch_seeds_fit_63_bits():
    seeds = [Key(seed).torch_seed() for seed in range(2_000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # not merely 32 bits


@pytest.mark.parametrize("part", [1.0, None, True, b"a", ("a",)])
def test_a_part_that_is_no_string_or_integer_is_refused(part):
    with pytest.raises(ValueError, match="strings and integers"):
        Key(0).fold(part)


@pytest.mark.parametrize("seed", [1.5, "1", None, True])
def test_a_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be an integer"):
        Key(seed)


def test_keys_are_frozen():
    with pytest.raises(AttributeError):
        Key(0).seed = 1
