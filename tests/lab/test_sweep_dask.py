"""Sweeps on a Dask cluster: the same rows, cells placed by resources, a cluster that does not answer.

All but the first test need the packages of the extra ``cluster`` and are skipped without them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lo_theory.cli import main
from lo_theory.lab.engine import Job, Keeper, run_jobs
from lo_theory.lab.pools import Dask
from tests.lab.grids import SLOW, a_job, name_the_worker, results, sleep_long, words, worker_processes, write_grid
from tests.lab.test_sweep_pool import begun, finished, keys, kill
from tests.processes import wait_until

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None,
    reason="dask and distributed are not installed: pip install '.[cluster]'",
)

needs_key = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None or importlib.util.find_spec("cryptography") is None,
    reason="dask or cryptography is not installed: pip install '.[cluster]'",
)


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "dask", None)
    file = write_grid(tmp_path / "grid.yaml")
    assert main(["sweep", str(file), "--out", str(tmp_path), "--dask", "local"]) == 2
    assert capsys.readouterr().err == (
        "lo-theory: --dask needs the packages of the extra cluster: pip install dask distributed cryptography\n"
    )


def local_cluster(**options: Any) -> Any:
    """A cluster here; Dask gives its event loop ten seconds to start, too few on a busy machine, and then asserts.

    Clients of refused connections are collected first: Dask closes them under the lock that the new loop holds.
    """
    distributed = pytest.importorskip("distributed")
    gc.collect()
    with contextlib.suppress(AssertionError):
        return distributed.LocalCluster(dashboard_address=None, **options)
    return distributed.LocalCluster(dashboard_address=None, **options)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two workers, of which the one called ``gpu`` offers a GPU."""
    with local_cluster(n_workers=1, threads_per_worker=1, resources={"GPU": 1}) as local:
        plain = [sys.executable, "-m", "distributed.cli.dask_worker", local.scheduler_address]
        options = ["--nthreads", "1", "--name", "plain", "--no-dashboard"]
        with subprocess.Popen([*plain, *options], stderr=subprocess.DEVNULL) as second:
            wait_until(lambda: len(local.scheduler.workers) == 2)
            yield local
            second.terminate()


@needs_dask
def test_cells_that_need_a_gpu_go_to_workers_that_offer_one(cluster: Any) -> None:
    with Dask(cluster.scheduler_address, 1, 1) as pool:
        assert (pool.workers, pool.capacity(True), pool.capacity(False)) == (2, 2, 4)
        found = keys(pool, [a_job(number, name_the_worker, gpu=number < 6) for number in range(12)])
    workers = [found[f"{number:016x}"]["worker"] for number in range(12)]
    assert set(workers[:6]) == {"0"}
    assert set(workers[6:]) <= {"0", "plain"}


@needs_dask
def test_a_cluster_by_its_address_computes_the_same_rows(cluster: Any, tmp_path: Path, slow_sweep: Path) -> None:
    assert main(words(tmp_path, "--dask", cluster.scheduler_address)) == 0
    assert results(tmp_path) == results(slow_sweep)


@needs_key
@pytest.mark.soak
def test_a_local_cluster_survives_a_killed_worker_and_a_killed_driver_leaves_none(
    tmp_path: Path, slow_sweep: Path
) -> None:
    with begun(tmp_path, "--dask", "local", endless=True) as process:
        wait_until(lambda: finished(tmp_path) >= 1)
        workers = worker_processes(process.pid)
        assert len(workers) == 2
        kill(workers[:1])
        wait_until(lambda: set(worker_processes(process.pid)) - set(workers))  # Dask has begun a new one
        seen = finished(tmp_path)
        wait_until(lambda: finished(tmp_path) > seen)
        left = worker_processes(process.pid)
        process.kill()
        wait_until(lambda: not set(left) & set(worker_processes()))
    with begun(tmp_path, "--dask", "local") as process:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    assert results(tmp_path) == results(slow_sweep)


@needs_key
def test_a_local_cluster_answers_only_who_has_its_key() -> None:
    import distributed

    with Dask("local", 1, 1) as pool:
        address = str(pool._client.scheduler.address)
        assert address.startswith("tls://127.0.0.1:")
        assert [found["worker"] for found in keys(pool, [a_job(0, name_the_worker)]).values()] == ["0"]
        for other, security in (
            (address.replace("tls:", "tcp:"), None),
            (address, distributed.Security.temporary()),
        ):
            with pytest.raises(OSError):  # noqa: PT011 (whichever Dask chooses)
                distributed.Client(other, security=security, timeout=3)


@needs_dask
def test_without_a_way_to_make_a_key_no_local_cluster_is_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    import distributed

    def absent() -> None:
        raise ImportError("no cryptography")

    monkeypatch.setattr(distributed.Security, "temporary", absent)
    file = write_grid(tmp_path / "grid.yaml")
    assert main(["sweep", str(file), "--out", str(tmp_path), "--dask", "local"]) == 2
    assert "--dask local needs the package cryptography" in capsys.readouterr().err
    assert not (tmp_path / "grid").exists()


@needs_dask
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_an_address_that_nobody_answers_is_one_clear_line(
    address: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lo_theory.lab.pools._SECONDS_TO_ANSWER", 1)
    began = time.monotonic()
    assert main(words(tmp_path, "--dask", address)) == 2
    assert time.monotonic() - began < 9  # one, and the start of a busy machine
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1, said
    assert said.startswith(f"lo-theory: no Dask scheduler answers at {address} (")
    assert not (tmp_path / "grid").exists()


@needs_dask
def test_an_address_where_something_else_answers_is_one_clear_line(tmp_path: Path, capsys: Any) -> None:
    """Such as a web server: Dask takes its bytes for the sizes of what follows, and asks for exabytes."""

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor = server.accept()[0]
                visitor.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)
                visitor.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert main(words(tmp_path, "--dask", address)) == 2
        assert capsys.readouterr().err.startswith(f"lo-theory: no Dask scheduler answers at {address} (")
        server.shutdown(socket.SHUT_RDWR)
    assert not (tmp_path / "grid").exists()


@needs_dask
def test_a_cluster_without_workers_or_without_gpus_is_refused(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lo_theory.lab.pools._SECONDS_TO_ANSWER", 1)
    with local_cluster(n_workers=0) as empty:
        assert main(words(tmp_path, "--dask", empty.scheduler_address)) == 2
        assert "has no workers: start some, then this sweep" in capsys.readouterr().err
    over = SLOW | {"training": {"steps": 5}, "model": {"shape": {"layers": 1, "heads": 1, "width": 8}}}
    write_grid(tmp_path / "grid.yaml", **over)
    with local_cluster(n_workers=1, processes=False) as plain:
        assert main(words(tmp_path, "--dask", plain.scheduler_address, "--device", "cuda")) == 2
        assert "offers the resource GPU: start them with --resources GPU=1" in capsys.readouterr().err


@needs_dask
def test_a_cluster_that_loses_all_its_workers_or_its_scheduler_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of waiting for ever: the cells under way are never finished."""
    monkeypatch.setattr("lo_theory.lab.pools._SECONDS_WITHOUT_WORKERS", 1)
    monkeypatch.setattr("lo_theory.lab.pools._SECONDS_BETWEEN_LOOKS", 0.2)
    lost = (r"has lost all its workers, and no new one has come in 1 seconds", r"does not answer|has dropped the cells")
    for complaint in lost:
        with (
            local_cluster(n_workers=1, threads_per_worker=1) as local,
            Dask(local.scheduler_address, 1, 1) as pool,
            pytest.raises(OSError, match=complaint),
        ):
            run_jobs([a_job(number, sleep_long) for number in range(2)], pool, Losing(local, complaint))


class Losing(Keeper):
    """Takes the workers or the scheduler from a cluster as the second job begins."""

    def __init__(self, cluster: Any, complaint: str) -> None:
        self.cluster, self.complaint = cluster, complaint

    def start(self, job: Job) -> None:
        if job.name.endswith("1"):
            loses(self.cluster, self.complaint)


def loses(local: Any, complaint: str) -> None:
    """Take the workers from a cluster, or the scheduler."""
    if "workers" in complaint:
        wait_until(lambda: any(worker.processing for worker in local.scheduler.workers.values()))
        local.scale(0)
        wait_until(lambda: not local.scheduler.workers)
    else:
        local.close(timeout=5)


@needs_dask
def test_a_local_cluster_that_does_not_start_says_so(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    def fail(**options: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("distributed.LocalCluster", fail)
    monkeypatch.setattr("lo_theory.lab.pools._own_key", lambda distributed: None)
    write_grid(tmp_path / "grid.yaml")
    assert main(words(tmp_path, "--dask", "local")) == 2
    assert "its event loop did not start within 10 seconds): try again" in capsys.readouterr().err


@needs_key
@pytest.mark.soak
def test_two_hundred_cells_on_two_dask_workers(tmp_path: Path) -> None:
    seeds = list(range(20))
    noises = [0, 0.05, 0.1, 0.15, 0.2]
    over = {"axes": [{"problem.P": [10, 15]}, {"problem.noise": noises}, {"problem.seed": seeds, "seed": seeds}]}
    for name, crew in (("serial", ["--serial"]), ("pool", []), ("dask", ["--dask", "local"])):
        (tmp_path / name).mkdir()
        write_grid(tmp_path / name / "grid.yaml", **over)
        with begun(tmp_path / name, *crew) as process:
            said = process.communicate(600)[1]
            assert process.returncode == 0, said
    assert results(tmp_path / "serial") == results(tmp_path / "pool") == results(tmp_path / "dask")
