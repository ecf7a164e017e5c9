"""Children and the harness killed in the middle of a transfer: nothing is lost, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import check_logs_are_whole, running, transfers_of

from perfmeasure import jsonio
from perfmeasure.flows import cgroup

pytestmark = pytest.mark.together("measure", "each has six relays and three programs run")

OPTIONS = ("--inet-only", "--tgen-transfer-size", "30 MiB")


@pytest.mark.parametrize("part", ["tor-client/torrc", "tgen-client/", "tgen-server/"])
def test_a_killed_child_is_replaced_and_what_was_cut_is_counted(tmp_path: Path, part: str) -> None:
    prefix = tmp_path / "data"
    with running(prefix, *OPTIONS) as run:
        run.wait_mid_transfer()
        before = run.successes()
        (pid,) = run.pids(part)
        os.kill(pid, signal.SIGKILL)
        run.wait_success_after(before)
        (new_pid,) = run.pids(part)
        assert new_pid != pid
        assert f"{part.partition('/')[0]} was killed by SIGKILL" in run.said()
        assert run.stop() == 0, run.said()
    check_logs_are_whole(prefix)
    transfers = transfers_of(run.database())
    cut = [t for t in transfers.values() if not t["is_success"]]
    assert cut, "the transfer that was under way is in the database"
    if part == "tgen-client/":
        # Nobody was left to say how it ended.
        assert any(not t["is_complete"] for t in cut)
    else:
        assert any(t["is_error"] for t in cut)
    assert sum(t["is_success"] for t in transfers.values()) >= before + 1
    if part == "tor-client/torrc":
        torctl = (prefix / "tor-client" / "perfmeasure.torctl.log").read_text()
        assert "[GAP] control connection lost" in torctl
        assert "[GAP] control connection back after" in torctl


def test_a_killed_collector_is_replaced_and_goes_on_with_the_sockets_there_are(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("root", "bpf", "cgroup2")
    prefix = tmp_path / "data"
    with running(prefix, *OPTIONS, "--flows", "on") as run:
        run.wait_mid_transfer()
        (pid,) = run.pids("kernel/")
        os.kill(pid, signal.SIGKILL)
        log = prefix / "kernel" / "connections.log"
        run.until(lambda: log.read_bytes().count(b'"record":"start"') == 2, 30, "second start")
        run.wait_success_after(run.successes() + 1)
        assert "flows was killed by SIGKILL" in run.said()
        assert run.stop() == 0, run.said()
    records = [jsonio.loads(line, "connections.log") for line in log.read_bytes().splitlines()]
    starts = [at for at, record in enumerate(records) if record["record"] == "start"]
    assert len(starts) == 2
    assert records[-1]["record"] == "stop"
    later = [record for record in records[starts[1] :] if record["record"] == "connection"]
    # Tor's connection to its guard, say, which had been there before.
    assert any(r["existed_before_start"] and r["command"] == "tor" for r in later)
    assert any(not r["existed_before_start"] for r in later)


def test_a_killed_recorder_is_replaced_and_keeps_what_there_was(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("root")
    prefix = tmp_path / "data"
    with running(prefix, "--inet-only", "--tgen-transfer-size", "100 KiB", "--flows", "off") as run:
        run.wait_success_after(0)
        (pid,) = run.pids("packets")
        os.kill(pid, signal.SIGKILL)
        run.until(lambda: run.pids("packets") not in ([], [pid]), 30, "another recorder")
        run.until(lambda: "indexed anew" in run.said(), 30, "recovery")
        run.wait_success_after(run.successes() + 2)
        assert "packets was killed by SIGKILL; starting it again in 1 s" in run.said()
        assert run.stop() == 0, run.said()
        assert "kept in" in run.said()
    transfers = [t for t in transfers_of(run.database()).values() if t["is_success"]]
    counts = [transfer["packets"]["count"] for transfer in transfers]
    assert counts[0] > 5
    assert counts[-1] > 5


def test_a_full_disk_pauses_the_packets_and_not_the_measurement(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("root", "mount")
    prefix = tmp_path / "data"
    store = prefix / "packets"
    store.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "none", str(store)]
    subprocess.run(command, check=True, timeout=30)
    try:
        (store / "other").write_bytes(bytes(12 << 20))
        options = ("--record", "lo", "--record-cutoff", "1 MB", "--tgen-pause-between", "0.1 s")
        with running(prefix, "--inet-only", "--flows", "off", *options) as run:
            run.until(lambda: "Recording pauses until there is room" in run.said(), 170, "pause")
            run.wait_success_after(run.successes() + 1)
            (store / "other").unlink()
            run.until(lambda: "recording goes on" in run.said(), 30, "end of the pause")
            run.wait_success_after(run.successes() + 1)  # one that began after it
            assert run.stop() == 0, run.said()
        assert "cannot be written (No space left on device)" in run.said()
        found = [t for t in transfers_of(run.database()).values() if t["is_success"]]
        assert found[0]["packets"]["count"] > 0
        assert found[-1]["packets"]["count"] > 0
        assert any(t["packets"].get("lost") for t in found), "the gap is told"
    finally:
        subprocess.run(["umount", "-l", store], check=True, timeout=30)


def test_a_killed_harness_takes_all_its_children_along(tmp_path: Path) -> None:
    prefix = tmp_path / "data"
    with running(prefix, *OPTIONS) as run:
        run.wait_mid_transfer()
        assert len(run.pids()) >= 6
        run.process.kill()
        run.process.wait()
        end = time.monotonic() + 30
        while run.pids():
            assert time.monotonic() < end, f"left: {run.pids()}"
            time.sleep(0.05)
    check_logs_are_whole(prefix)
    transfers = transfers_of(run.database())
    assert [t["is_complete"] for t in transfers.values()].count(False) == 1
    # The data directory can be used again at once; a control group that was left is removed then.
    with running(prefix, "--inet-only", "--num-transfers", "1") as again:
        assert again.process.wait(170) == 0, again.said()
    group = cgroup.mount_point()
    assert group is None or not list(group.glob(f"perfmeasure-{run.process.pid}-*"))
    assert sum(t["is_success"] for t in transfers_of(again.database()).values()) >= 1
