"""Several processes that are ranks of one another, as torchrun would start them, for tests."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ROOT", "Process", "start_ranks"]

ROOT = Path(__file__).parents[1]
Process = subprocess.Popen[str]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def start_ranks(command: Sequence[str], count: int = 2) -> Iterator[list[Process]]:
    """The command once for each rank; whatever is left of them at the end is killed."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count)}
    where |= {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": str(count)}
    ranks = [
        subprocess.Popen(
            command,
            env={**os.environ, **where, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        yield ranks
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
            rank.communicate()
