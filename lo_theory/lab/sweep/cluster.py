"""Cells on a Dask cluster, by its address or started on this machine. The one file that loads ``distributed``."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from lo_theory.lab.sweep.worker import Order, Report, compute, thread_settings

__all__ = ["DaskCrew"]

_SECONDS_TO_ANSWER = 10
_SECONDS_BETWEEN_LOOKS = 2.0
_CELLS_PER_THREAD = 2  # one to compute and one that is already there


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's client from filling the screen with what one line of ours says."""
    logger = logging.getLogger("distributed.client")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _own_key(distributed: Any) -> Any:
    """A key made for one cluster, kept in memory: whoever does not have it cannot speak to scheduler or workers."""
    try:
        return distributed.Security.temporary()
    except ImportError as error:
        raise ValueError(
            "--dask local needs the package cryptography (pip install 'lo_theory[cluster]'): without it every user of "
            "this machine could run code in the workers; without --dask the cells go to processes of this machine"
        ) from error


def _local_cluster(distributed: Any, workers: int) -> Any:
    security = _own_key(distributed)
    try:
        return distributed.LocalCluster(
            security=security,
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.ERROR,
            preload="lo_theory.lab.sweep.worker",  # its ``dask_setup``
        )
    except (RuntimeError, AssertionError) as error:  # a worker died before it had begun; a thread began too late
        reason = str(error) or "its event loop did not start within 10 seconds"
        raise RuntimeError(f"the local Dask cluster could not be started ({reason}): try again") from error


def _connect(distributed: Any, cluster: Any, address: str) -> Any:
    try:
        return distributed.Client(cluster, timeout=_SECONDS_TO_ANSWER)
    except Exception as error:  # whatever answers there, such as a web server, whose bytes Dask takes for sizes
        reason = " ".join(str(error).split())
        raise ValueError(
            f"no Dask scheduler answers at {address} ({reason}): is it running there, and is the address right?"
        ) from error


class DaskCrew:
    """The workers of a Dask cluster; see Crew. Dask begins a cell anew when its worker dies, three times.

    ``address``: of a scheduler, or ``local`` for ``workers`` processes on this machine with ``threads`` threads each.
    Cells that need a GPU go to workers that offer the resource ``GPU``, one for each unit of it. Errors: ValueError
    without the packages, or where no scheduler answers, or no worker is there, within ten seconds.
    """

    def __init__(self, address: str, workers: int, threads: int, work: Callable[[Order], Report] = compute) -> None:
        try:
            import dask
            import distributed
        except ImportError as error:
            raise ValueError(
                "--dask needs the packages of the extra cluster: pip install 'lo_theory[cluster]'"
            ) from error
        self.address, self._work = address, work
        with contextlib.ExitStack() as started:
            started.enter_context(_quiet())
            cluster: Any = address
            if address == "local":
                settings = thread_settings(threads).items()
                with dask.config.set(
                    {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in settings}
                ):
                    cluster = started.enter_context(_local_cluster(distributed, workers))
            self._client: Any = started.enter_context(_connect(distributed, cluster, address))
            self._executors = {
                False: self._client.get_executor(pure=False),
                True: self._client.get_executor(pure=False, resources={"GPU": 1}),
            }
            self._looked, self._capacity = 0.0, {False: 0, True: 0}
            self._wait_for_workers()
            self._started = started.pop_all()

    def _wait_for_workers(self) -> None:
        end = time.monotonic() + _SECONDS_TO_ANSWER
        while not self.capacity(False):
            if time.monotonic() > end:
                raise ValueError(f"the Dask cluster at {self.address} has no workers: start some, then this sweep")
            time.sleep(0.1)
            self._looked = 0.0

    @property
    def workers(self) -> int:
        """Cells that it computes at a time, of those that need no GPU."""
        return self.capacity(False) // _CELLS_PER_THREAD

    @property
    def offers_gpu(self) -> bool:
        """Whether a worker offers the resource GPU."""
        return self.capacity(True) > 0

    def capacity(self, gpu: bool) -> int:
        """See Crew."""
        if time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
            self._capacity = {
                False: _CELLS_PER_THREAD * sum(int(worker["nthreads"]) for worker in workers),
                True: _CELLS_PER_THREAD * sum(int(worker["resources"].get("GPU", 0)) for worker in workers),
            }
            self._looked = time.monotonic()
        return self._capacity[gpu]

    def submit(self, order: Order, gpu: bool) -> Future[Report]:
        """See Crew."""
        future: Future[Report] = self._executors[gpu].submit(self._work, order)
        return future

    def __enter__(self) -> DaskCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for executor in self._executors.values():
            executor.shutdown(wait=False)  # cells under way on another machine run to their end, unheard
        self._started.close()
