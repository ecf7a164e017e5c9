from __future__ import annotations

import contextlib
import logging
import socket
import sys
from typing import TYPE_CHECKING, Any

import distributed
import pytest
from dask import config

from perfmeasure.analysis import cluster
from perfmeasure.analysis.cluster import Cluster
from perfmeasure.errors import ExitStatus, MissingError, PerfmeasureError
from tests.analysis import killing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def local_cluster(workers: int, threads: int) -> distributed.LocalCluster:
    """Return a real scheduler and workers, processes of their own, over TCP on loopback."""
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=True,
        host="127.0.0.1",
        protocol="tcp://",
        dashboard_address=":0",
        worker_dashboard_address=":0",
        silence_logs=True,
    )


@pytest.fixture(scope="module")
def dask() -> Iterator[distributed.LocalCluster]:
    with config.set({"distributed.scheduler.allowed-failures": 1}), local_cluster(2, 1) as local:
        yield local


@pytest.fixture(scope="module")
def strict() -> Iterator[distributed.LocalCluster]:
    """One that gives up all the tasks of a worker as soon as that is killed."""
    with (
        config.set({"distributed.scheduler.allowed-failures": 0}),
        local_cluster(1, 3) as local,
    ):
        yield local


def test_each_task_is_done_once_though_a_worker_is_killed(
    dask: distributed.LocalCluster, tmp_path: Path
) -> None:
    with Cluster(dask.scheduler_address) as workers:
        killed = killing.OneIsKilled(workers, tmp_path)
        assert sorted(killed.run(killing.double, range(20), [""] * 20)) == [
            (number, 2 * number) for number in range(20)
        ]
        assert killed.attempts() > 20


def test_a_task_that_kills_each_worker_is_named(dask: distributed.LocalCluster) -> None:
    names = [f"log {number}" for number in range(9)]
    with (
        Cluster(dask.scheduler_address) as workers,
        pytest.raises(PerfmeasureError, match="log 7: the worker that read it was killed"),
    ):
        list(workers.run(killing.die, range(9), names))


def test_who_only_shared_its_worker_is_not_blamed(
    strict: distributed.LocalCluster, tmp_path: Path
) -> None:
    tasks = [(number, str(tmp_path)) for number in range(3)]
    names = ["log 0", "log 1", "log 2"]
    with (
        Cluster(strict.scheduler_address) as workers,
        pytest.raises(PerfmeasureError, match="log 1: the worker that read it was killed"),
    ):
        list(workers.run(killing.die_among, tasks, names))


def test_who_only_shared_its_worker_is_done(
    strict: distributed.LocalCluster, tmp_path: Path
) -> None:
    with Cluster(strict.scheduler_address) as workers:
        killed = killing.OneIsKilled(workers, tmp_path)
        found = sorted(killed.run(killing.double, range(9), [""] * 9))
    assert found == [(number, 2 * number) for number in range(9)]
    assert killed.attempts() > 9


def test_what_a_worker_cannot_do_is_said(dask: distributed.LocalCluster) -> None:
    with (
        Cluster(dask.scheduler_address) as workers,
        pytest.raises(
            PerfmeasureError, match=r"log 1: .*ValueError: never 1.*Install this version"
        ),
    ):
        list(workers.run(killing.fail, [1], ["log 1"]))


def test_no_scheduler_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with (
        pytest.raises(PerfmeasureError, match="no Dask scheduler answers") as caught,
        Cluster(f"tcp://127.0.0.1:{port}"),
    ):
        pass
    assert caught.value.exit_status is ExitStatus.FAILED
    with pytest.raises(PerfmeasureError, match="no Dask scheduler answers"), Cluster("nowhere://x"):
        pass


@contextlib.contextmanager
def scheduler(**workers: Any) -> Iterator[distributed.SpecCluster]:
    options = {"host": "127.0.0.1", "port": 0, "dashboard": False}
    with distributed.SpecCluster(
        scheduler={"cls": distributed.Scheduler, "options": options},
        workers=workers,
        silence_logs=logging.CRITICAL,
    ) as started:
        yield started


def test_a_scheduler_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "WORKER_SECONDS", 0.5)
    monkeypatch.setattr(cluster, "_LOOK_SECONDS", 0.25)
    with (
        scheduler() as empty,
        Cluster(empty.scheduler_address) as workers,
        pytest.raises(PerfmeasureError, match="had no worker"),
    ):
        list(workers.run(killing.double, [1], ["log 1"]))


def test_a_scheduler_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 2.0)
    worker = {"cls": distributed.Worker, "options": {"nthreads": 1, "dashboard": False}}
    with scheduler(only=worker) as started, Cluster(started.scheduler_address) as workers:
        found = workers.run(killing.double, range(9), [""] * 9)
        next(found)
        started.close()
        with pytest.raises(PerfmeasureError, match=r"--scheduler tcp://.*: went away"):
            list(found)


def test_without_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(MissingError, match=r"pip install 'perfmeasure\[fleet\]'"),
        Cluster("tcp://x"),
    ):
        pass
