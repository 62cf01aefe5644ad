"""Where the engine's jobs are computed, apart from the calling thread: threads, local processes, a Dask cluster.

The one file that loads ``distributed``. Starts processes, and ends its own.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from lo_theory.lab.engine import Job, Pool, Result, Stop, attempt, failure

_SECONDS_TO_END = 10.0
_ORPHANED = 3  # exit code of a worker whose driver is gone
_SECONDS_TO_ANSWER = 10  # of a cluster
_SECONDS_WITHOUT_WORKERS = 60  # until a cluster that has lost all of them is given up
_SECONDS_BETWEEN_LOOKS = 2.0
_JOBS_PER_THREAD = 2  # of a cluster: one to compute and one that is already there


class Threads(Pool):
    """Threads of this process: for work in compiled code, which releases the interpreter's lock.

    After an error the others are asked to stop, and waited for, for ten seconds.
    """

    def __init__(self, workers: int, stop: Stop) -> None:
        self._workers, self._stop, self._executor = workers, stop, ThreadPoolExecutor(workers)
        self._running: dict[Future[Result], Job] = {}

    def capacity(self, gpu: bool) -> int:
        """See Pool."""
        return self._workers

    def submit(self, job: Job) -> None:
        """See Pool."""
        self._running[self._executor.submit(attempt, job.work, here=True)] = job

    def wait(self, timeout: float | None = None) -> Sequence[tuple[Job, Result]]:
        """See Pool."""
        done = wait(self._running, timeout, FIRST_COMPLETED).done
        return [(self._running.pop(future), future.result()) for future in done]

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._stop.set()
        self._executor.shutdown(wait=False, cancel_futures=True)
        # One that is cancelled before a thread takes it never counts as done for ``wait``.
        wait([future for future in self._running if not future.cancelled()], _SECONDS_TO_END)


# --- processes --------------------------------------------------------------------------------------------------------


def _thread_settings(threads: int) -> dict[str, str]:
    """Environment under which numerical libraries, once loaded, use ``threads`` threads."""
    libraries = ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "NUMBA_NUM", "VECLIB_MAXIMUM")
    return {f"{library}_THREADS": str(threads) for library in libraries}


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Lay settings over the environment while a process starts, which has them before it loads anything."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end_with_the_driver() -> None:
    """End this process as soon as the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(_ORPHANED)  # every file is written whole or not at all


def _serve(pipe: Connection) -> None:
    """Compute the jobs that come through a pipe: what a worker process does. Ctrl-C is left to the driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    while True:
        try:
            result = attempt(pipe.recv())
        except (EOFError, OSError):
            return
        except Exception as error:  # of reading: what it names is not installed here
            result = failure(error)
        try:
            pipe.send(result)
        except OSError:
            return
        except Exception as error:  # rows that no other process can read
            pipe.send(failure(error))


class _Worker:
    """One process, started with its first job, and again when it died: its death costs no other job anything."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._process: Any = None
        self.pipe: Any = None
        self.job: Job | None = None

    def submit(self, job: Job) -> None:
        """Send it a job; start it first where there is no process."""
        self.job = job
        if self.pipe is not None:
            with contextlib.suppress(OSError):
                self.pipe.send(job.work)
                return
            self.end()  # it died since its last job
        # Spawn and never fork: threads and CUDA do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        with other, _environment(self._settings):
            self._process = context.Process(target=_serve, args=(other,))
            self._process.start()
        with contextlib.suppress(OSError):  # it died as it began, which ``receive`` finds out
            self.pipe.send(job.work)

    def receive(self) -> Result:
        """The result of its job, once there is one or it died."""
        self.job = None  # first, so that nothing is read a second time after an interrupt in the middle
        try:
            result: Result = self.pipe.recv()
        except (EOFError, OSError):
            self.end()
            return Result(died=True)
        except Exception as error:
            return failure(error)
        return result

    def end(self) -> None:
        """End the process at once: every file is written whole or not at all."""
        if self.pipe is not None:
            self.pipe.close()
            self._process.kill()
            self._process.join(_SECONDS_TO_END)
        self.pipe = self._process = None


class Processes(Pool):
    """``workers`` processes of this machine, each with ``threads`` threads, and one for each of ``devices``.

    ``devices``: values of CUDA_VISIBLE_DEVICES, one for each process that computes jobs on a GPU. A process begins with
    its first job (two to three seconds), ignores Ctrl-C, and ends with this one, however that ends.
    """

    def __init__(self, workers: int, threads: int, devices: Sequence[str] = ()) -> None:
        settings = _thread_settings(threads)
        self._workers = {
            False: [_Worker(settings) for _ in range(workers)],
            True: [_Worker(settings | {"CUDA_VISIBLE_DEVICES": device}) for device in devices],
        }

    def capacity(self, gpu: bool) -> int:
        """See Pool."""
        return len(self._workers[gpu])

    def submit(self, job: Job) -> None:
        """See Pool."""
        next(worker for worker in self._workers[job.gpu] if worker.job is None).submit(job)

    def wait(self, timeout: float | None = None) -> Sequence[tuple[Job, Result]]:
        """See Pool."""
        every = [worker for workers in self._workers.values() for worker in workers]
        busy = {worker.pipe: (worker.job, worker) for worker in every if worker.job is not None}
        ended = [busy[pipe] for pipe in connection.wait(busy, timeout)]
        return [(job, worker.receive()) for job, worker in ended]

    def __exit__(self, *error: object) -> None:
        for workers in self._workers.values():
            for worker in workers:
                worker.end()


# --- a cluster --------------------------------------------------------------------------------------------------------


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the driver: what Dask calls in a fresh worker of a cluster on this machine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
            "--dask local needs the package cryptography (pip install cryptography): without it every user of "
            "this machine could run code in the workers; without --dask the cells go to processes of this machine"
        ) from error


def _local_cluster(dask: Any, distributed: Any, workers: int, threads: int) -> Any:
    security = _own_key(distributed)
    settings = {f"distributed.nanny.pre-spawn-environ.{name}": n for name, n in _thread_settings(threads).items()}
    try:
        with dask.config.set(settings):
            return distributed.LocalCluster(
                security=security,
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                silence_logs=logging.ERROR,
                preload=__name__,  # its ``dask_setup``
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


class Dask(Pool):
    """The workers of a Dask cluster. Dask begins a job anew when its worker dies, three times.

    ``address``: of a scheduler, or ``local`` for ``workers`` processes on this machine with ``threads`` threads each.
    Jobs that need a GPU go to workers that offer the resource ``GPU``, one for each unit of it. Errors: ValueError
    without the packages, or where no scheduler answers, or no worker is there, within ten seconds. OSError, later, if
    the scheduler is lost, or there has been no worker for a minute.
    """

    def __init__(self, address: str, workers: int, threads: int) -> None:
        try:
            import dask
            import distributed
        except ImportError as error:
            raise ValueError(
                "--dask needs the packages of the extra cluster: pip install dask distributed cryptography"
            ) from error
        self.address = address
        self._running: dict[Any, Job] = {}
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with contextlib.ExitStack() as started:
            started.enter_context(_quiet())
            cluster: Any = address
            if address == "local":
                cluster = started.enter_context(_local_cluster(dask, distributed, workers, threads))
            self._client: Any = started.enter_context(_connect(distributed, cluster, address))
            try:
                self._client.wait_for_workers(1, timeout=_SECONDS_TO_ANSWER)
            except TimeoutError:
                raise ValueError(f"the Dask cluster at {address} has no workers: start some, then this sweep") from None
            self._look()
            self._started = started.pop_all()

    @property
    def workers(self) -> int:
        """Jobs that it computes at a time, of those that need no GPU."""
        return self._capacity[False] // _JOBS_PER_THREAD

    def _look(self) -> None:
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        self._capacity = {
            False: _JOBS_PER_THREAD * sum(int(worker["nthreads"]) for worker in workers),
            True: _JOBS_PER_THREAD * sum(int(worker["resources"].get("GPU", 0)) for worker in workers),
        }
        self._looked = time.monotonic()

    def _look_again(self, *, patient: bool) -> None:
        """See what workers there are; where all are lost, wait for new ones if ``patient``."""
        try:
            self._look()
            if patient and not self._capacity[False]:
                self._client.wait_for_workers(1, timeout=_SECONDS_WITHOUT_WORKERS)
                self._look()
        except TimeoutError as error:
            words = f"the Dask cluster at {self.address} has lost all its workers, and no new one has come in"
            raise OSError(errno.ECONNRESET, f"{words} {_SECONDS_WITHOUT_WORKERS} seconds") from error
        except OSError as error:
            words = f"the scheduler of the Dask cluster at {self.address} does not answer any more"
            raise OSError(errno.ECONNRESET, words) from error

    def capacity(self, gpu: bool) -> int:
        """See Pool."""
        return self._capacity[gpu]

    def submit(self, job: Job) -> None:
        """See Pool."""
        resources = {"GPU": 1} if job.gpu else None
        future = self._client.submit(attempt, job.work, pure=False, resources=resources)
        self._running[future] = job
        future.add_done_callback(self._ended.put)

    def wait(self, timeout: float | None = None) -> Sequence[tuple[Job, Result]]:
        """See Pool."""
        found = []
        with contextlib.suppress(queue.Empty):
            found.append(self._ended.get(timeout=_SECONDS_BETWEEN_LOOKS if timeout is None else timeout))
            while True:
                found.append(self._ended.get_nowait())
        if timeout is None and time.monotonic() - self._looked >= _SECONDS_BETWEEN_LOOKS:
            self._look_again(patient=not found)
        return [(self._running.pop(future), self._result(future)) for future in found]

    def _result(self, future: Any) -> Result:
        try:
            result: Result = future.result()
        except CancelledError as error:
            raise OSError(
                errno.ECONNRESET, "the cluster has dropped the cells under way: is its scheduler gone?"
            ) from error
        except Exception as error:  # of Dask: its worker died four times, or the job cannot be sent
            return failure(error)
        return result

    def __exit__(self, *error: object) -> None:
        self._started.close()  # jobs under way on another machine run to their end, unheard
