"""Things made once, whoever asks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lo_theory.lab.subject import Once


def test_it_is_made_once_while_another_key_is_not_held_up() -> None:
    once = Once()
    made: list[str] = []
    begun, other = threading.Event(), threading.Event()

    def slowly() -> str:
        begun.set()
        assert other.wait(10), "the other key waited for this one"
        made.append("slow")
        return "slow"

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(once.get, 1, slowly) for _ in range(2)]
        assert begun.wait(10)
        assert once.get(2, lambda: "quick") == "quick"
        other.set()
        assert [one.result() for one in asked] == ["slow", "slow"]
    assert made == ["slow"]


def test_a_failure_leaves_nothing() -> None:
    once = Once()
    with pytest.raises(ZeroDivisionError):
        once.get("a", lambda: 1 // 0)
    assert once.get("a", lambda: 7) == 7
