"""Several processes that are ranks of one another, as torchrun would start them, for tests."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.processes import Process

__all__ = ["start_ranks"]

_PORTS = itertools.cycle(range(500))  # not the same again soon


def _free_port() -> int:
    """A port that nobody has, and nobody is given while the ranks start.

    Below the ports that systems hand out by themselves (from 32768 on Linux, 49152 elsewhere), where another connection
    could take it in the seconds until the first rank listens; parallel processes of the suite look in different places.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = 20_000 + 500 * (int(worker) % 20)
    for port in itertools.islice(_PORTS, 500):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", first + port))
            except OSError:
                continue
            return first + port
    raise OSError(f"no port is free in {first}..{first + 499}")


@contextmanager
def start_ranks(begin: Callable[..., Process], count: int = 2) -> Iterator[list[Process]]:
    """``begin(environment=...)`` once for each rank; whatever is left of them at the end is killed."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count)}
    where |= {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": str(count)}
    with ExitStack() as begun:
        numbers = map(str, range(count))
        yield [begun.enter_context(begin(environment=where | {"RANK": n, "LOCAL_RANK": n})) for n in numbers]
