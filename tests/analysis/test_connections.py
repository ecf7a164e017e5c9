from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perfmeasure.analysis import connections, source
from tests.analysis import kernel_lines as kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perfmeasure.analysis.source import Input

OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


def test_snapshots_and_close_are_one_connection() -> None:
    stamps = {"connect": 1.0, "established": 1.001, "first_sent": 1.002}
    log, _ = kernel.assembled(
        kernel.start(0)
        + kernel.clock(0)
        + kernel.connection(2, 7, stamps={**stamps, "last_sent": 1.9}, bytes_sent=10, pid=5)
        + kernel.connection(3, 7, stamps={**stamps, "last_sent": 2.9}, bytes_sent=20, command="x")
        + kernel.connection(
            4, 7, end="fin_remote", stamps={"closed": 3.5}, bytes_sent=30, smoothed_rtt_us=40
        )
    )
    [found] = log.connections
    assert found.stamps == {
        name: kernel.monotonic_ns(at)
        for name, at in {**stamps, "last_sent": 2.9, "closed": 3.5}.items()
    }
    assert found.numbers == {"bytes_sent": 30, "pid": 5, "smoothed_rtt_us": 40}
    assert (found.end, found.command) == ("fin_remote", "x")
    assert (found.start_ts, found.end_ts) == (kernel.DAY + 1, kernel.DAY + 3.5)


def test_what_is_open_at_the_end_stays_open() -> None:
    log, _ = kernel.assembled(kernel.start(0) + kernel.connection(2, 7))
    [found] = log.connections
    assert (found.end, found.start_ts, found.end_ts) == ("", None, None)
    assert found.last_ts == kernel.DAY + 2


def test_cookies_come_again_after_a_reboot_and_in_another_namespace() -> None:
    log, _ = kernel.assembled(
        kernel.start(0) + kernel.connection(1, 7) + kernel.connection(1, 7, netns=2),
        kernel.start(5, OTHER_BOOT) + kernel.connection(6, 7),
    )
    assert [(c.collector.boot_id, c.netns) for c in log.connections] == [
        (kernel.BOOT, 1),
        (kernel.BOOT, 2),
        (OTHER_BOOT, 1),
    ]


def test_a_collector_that_comes_back_finds_the_same_connection() -> None:
    log, _ = kernel.assembled(
        kernel.start(0) + kernel.connection(1, 7, stamps={"connect": 0.5, "first_sent": 0.6}),
        kernel.start(5) + kernel.connection(6, 7, existed_before_start=True, bytes_sent=3),
    )
    [found] = log.connections
    assert not found.existed_before_start
    assert found.stamps["first_sent"] == kernel.monotonic_ns(0.6)
    assert found.numbers == {"bytes_sent": 3}
    assert [(run.begin - kernel.DAY, run.end - kernel.DAY) for run in log.collectors] == [
        (0, 1),
        (5, 6),
    ]


def test_a_log_that_continues_another() -> None:
    whole = kernel.start(0) + kernel.clock(0) + kernel.connection(1, 7, stamps={"connect": 0.5})
    rest = kernel.connection(9, 7, end="fin_local", stamps={"closed": 8.0})
    log, _ = kernel.assembled(whole, rest)
    assert [c.end_ts for c in log.connections] == [kernel.DAY + 8]
    log, _ = kernel.assembled(rest)  # the beginning is lost
    [found] = log.connections
    assert (found.collector.started, found.end_ts) == (None, kernel.DAY + 9)


def test_a_socket_that_connects_again_keeps_its_cookie() -> None:
    log, counts = kernel.assembled(
        kernel.start(0)
        + kernel.connection(1, 7, end="refused", stamps={"connect": 1, "closed": 1.1})
        + kernel.connection(1, 7, end="refused", stamps={"connect": 1, "closed": 1.1})
        + kernel.connection(
            2, 7, ends=("127.0.0.1", 5001, "127.0.0.1", 9050), stamps={"connect": 1.5}
        )
    )
    assert [(c.ends.local_port, c.end) for c in log.connections] == [(5000, "refused"), (5001, "")]
    assert counts.rejected == {"a connection after its end": 1}


def test_what_cannot_be_of_the_same_connection_is_taken_back() -> None:
    log, counts = kernel.assembled(
        kernel.start(0)
        + kernel.connection(1, 7, end="fin_local")
        + kernel.connection(2, 7)
        + kernel.connection(2, 8)
        + kernel.connection(3, 8, ends=("127.0.0.1", 5001, "127.0.0.1", 9050))
    )
    assert len(log.connections) == 2
    assert counts.rejected == {
        "a connection after its end": 1,
        "a connection whose ends are not those it had": 1,
    }


def test_losses_and_absence() -> None:
    log, _ = kernel.assembled(
        kernel.start(0)
        + kernel.line("lost", 1, count=2, what="storage")
        + kernel.line("lost", 2, count=3, what="storage")
        + kernel.start(5)
    )
    assert [run.lost for run in log.collectors] == [{"storage": 5}, {}]
    assert (log.host, log.absent) == ("vm", [])
    log, _ = kernel.assembled(kernel.line("absent", 1, reason="--flows off") * 2)
    assert (log.absent, log.collectors, log.host) == (["--flows off"], [], "")


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_times_are_by_the_clock_as_it_was_at_the_end(step: float) -> None:
    """The pair before a moment holds, though the one after the step is nearer."""
    log, _ = kernel.assembled(
        kernel.start(0)
        + kernel.clock(0)
        + kernel.connection(50, 1, end="fin_local", stamps={"connect": 10, "closed": 49})
        + kernel.clock(50, step, "step")
        + kernel.connection(60, 2, end="fin_local", stamps={"connect": 45, "closed": 55})
    )
    spans = [(c.start_ts, c.end_ts) for c in log.connections]
    assert spans == [
        (kernel.DAY + 10, kernel.DAY + 49),
        (kernel.DAY + 45 + step, kernel.DAY + 55 + step),
    ]
    assert [found.seconds for found in log.clock_steps] == [step]


def test_without_a_clock_pair_the_arrivals_stand_for_the_times() -> None:
    log, _ = kernel.assembled(
        kernel.start(0) + kernel.connection(2, 1, end="refused", stamps={"connect": 1, "closed": 1})
    )
    assert [(c.start_ts, c.end_ts) for c in log.connections] == [(kernel.DAY + 2, kernel.DAY + 2)]


def test_a_real_log(fixtures: Path) -> None:
    [log] = source.find([fixtures / "kernel-run/kernel"])
    assert (log.kind, log.name) == (source.Kind.CONNECTIONS, "kernel/connections.log.xz")
    found = connections.read_logs([log])
    assert log.counts.rejected == {}
    assert log.first_unix_ts == found.collectors[0].begin
    assert found.host == "vm"
    for connection in found.connections:
        assert connection.end
        assert connection.start_ts is not None
        assert connection.end_ts is not None
        assert log.first_unix_ts < connection.start_ts <= connection.end_ts <= log.last_unix_ts


def test_archives_and_the_live_log_are_one(log_of: Callable[..., Input], tmp_path: Path) -> None:
    first = kernel.start(0) + kernel.clock(0) + kernel.connection(1, 7, stamps={"connect": 0.5})
    log_of(first, "log_archive/2026-11-22/kernel/perfmeasure_2026-11-22_23:59:59.connections.log")
    log_of(kernel.connection(2, 7, end="fin_local") + "cut", "kernel/connections.log")
    logs = source.find([tmp_path])
    assert [log.kind for log in logs] == [source.Kind.CONNECTIONS] * 2
    assert len({log.root for log in logs}) == 1
    [found] = connections.read_logs(logs).connections
    assert found.end == "fin_local"
    assert logs[1].counts.examples == [(2, "line is cut")]
