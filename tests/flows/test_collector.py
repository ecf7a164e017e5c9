"""The collector as its user runs it: every way a connection ends, and every way it does itself."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from collecting import Collector, check_packets_of, collecting, inside_a_cgroup, packets_of

from perfmeasure import jsonio
from perfmeasure.flows import bpfcall
from perfmeasure.flows.bpfcall import Command
from perfmeasure.flows.cgroup import mount_point

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time: close sends a reset
_MAP_GET_FD_BY_ID = 14
_MAPS = {"storage", "records", "lost", "wants_all", "handshakes", "new_listeners"}
_PROGRAMS = {"on_socket_opera", "on_sent", "on_received", "on_state", "on_io", "on_snapshot"}
_WITHOUT_CGROUP = ("unshare", "-m", "sh", "-c", 'umount "$0" && exec "$@"')


@pytest.fixture(autouse=True)
def _needs_bpf(require: Callable[..., None]) -> None:
    require("root", "bpf")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "kernel").mkdir()
    return tmp_path / "kernel" / "connections.log"


# ---- connections --------------------------------------------------------------------------------


class Pairs:
    """Makes connections over loopback and remembers them by their ports."""

    def __init__(self) -> None:
        self.ports: dict[str, tuple[int, int]] = {}

    def make(
        self, name: str, family: int = socket.AF_INET, host: str = "127.0.0.1"
    ) -> tuple[socket.socket, socket.socket]:
        with socket.socket(family) as listener:
            listener.bind((host, 0))
            listener.listen()
            client = socket.socket(family)
            client.connect(listener.getsockname()[:2])
            server, _ = listener.accept()
        self.note(name, client, server)
        return client, server

    def note(self, name: str, client: socket.socket, other: socket.socket) -> None:
        self.ports[name] = client.getsockname()[1], other.getsockname()[1]

    def found(self, collector: Collector) -> dict[str, dict[str, Any]]:
        """Return the closed records: ``NAME client`` and ``NAME server``."""
        names = {}
        for name, (client, server) in self.ports.items():
            names[client, server], names[server, client] = f"{name} client", f"{name} server"
        return {
            names[ports]: record
            for record in collector.connections()
            if (ports := (record["local_port"], record["remote_port"])) in names
        }


def settle() -> None:
    """Let what is on its way over loopback arrive."""
    time.sleep(0.02)


def end_in_every_way(pairs: Pairs) -> int:  # noqa: PLR0915 - one after the other, all of them
    """Make connections that end in all the ways there are; return the pid of a child in one."""
    client, server = pairs.make("ordinary")
    client.sendall(b"x" * 10)
    server.recv(10)
    server.sendall(b"y" * 20)
    client.recv(20)
    client.close()
    server.recv(1)
    server.close()

    client, server = pairs.make("half closed")
    client.sendall(b"x" * 10)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(99) + server.recv(1) == b"x" * 10
    server.sendall(b"y" * 20)
    server.close()
    client.recv(99)
    client.recv(1)
    client.close()

    client, server = pairs.make("unread")
    server.sendall(b"y" * 20)
    settle()
    client.close()
    settle()
    server.close()

    client, server = pairs.make("reset")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.sendall(b"x" * 10)
    server.recv(99)
    client.close()
    settle()
    server.close()

    client, server = pairs.make("reset after a fin")
    client.shutdown(socket.SHUT_WR)
    server.recv(9)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    server.close()
    settle()
    client.close()

    client, server = pairs.make("too late")
    client.close()
    settle()
    server.sendall(b"y")
    settle()
    server.close()

    for name, family, host in (("v6", socket.AF_INET6, "::1"), ("mapped", socket.AF_INET6, "::")):
        if name == "v6":
            client, server = pairs.make(name, family, host)
        else:
            listener = socket.create_server((host, 0), family=family, dualstack_ipv6=True)
            client = socket.create_connection(("127.0.0.1", listener.getsockname()[1]))
            server, _ = listener.accept()
            listener.close()
            pairs.note(name, client, server)
        client.sendall(b"x" * 10)
        server.recv(10)
        server.close()
        client.recv(1)
        client.close()

    with socket.socket() as bound, socket.socket() as client:
        bound.bind(("127.0.0.1", 0))
        client.bind(("127.0.0.1", 0))
        pairs.note("refused", client, bound)
        with pytest.raises(ConnectionRefusedError):
            client.connect(bound.getsockname())

    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    pairs.note("never accepted", client, listener)
    client.sendall(b"abc")
    settle()
    listener.close()
    settle()
    client.close()

    client, server = pairs.make("inherited")
    code = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).recv(9)"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(server.fileno())], pass_fds=[server.fileno()]
    )
    client.sendall(b"hi")
    assert child.wait(30) == 0
    server.close()
    client.close()

    # The listener's queue is full: a SYN is not answered.
    with socket.socket() as busy, socket.socket() as filler:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        filler.connect(busy.getsockname())
        settle()
        with socket.socket() as client:
            client.bind(("127.0.0.1", 0))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
            pairs.note("unanswered", client, busy)
            with pytest.raises(TimeoutError):
                client.connect(busy.getsockname())
        with socket.socket() as client:
            client.bind(("127.0.0.1", 0))
            client.settimeout(0.05)
            pairs.note("abandoned", client, busy)
            with pytest.raises(TimeoutError):
                client.connect(busy.getsockname())
    return child.pid


_HANDSHAKE = {"connect", "syn_ack", "established"}
_SENT, _RECEIVED = {"first_sent", "last_sent"}, {"first_received", "last_received"}


def seen(record: dict[str, Any]) -> set[str]:
    """Return the names of the times in a record."""
    suffix = "_monotonic_ns"
    return {name.removesuffix(suffix) for name in record if name.endswith(suffix)} - {"closed"}


def check_ends(found: dict[str, dict[str, Any]]) -> None:
    """Compare how each connection ended, and its bytes, with what was done."""
    told = {
        name: (record["end"], record.get("error"), record["bytes_sent"], record["bytes_received"])
        for name, record in found.items()
    }
    assert told == {
        "ordinary client": ("fin_local", None, 10, 20),
        "ordinary server": ("fin_remote", None, 20, 10),
        "half closed client": ("fin_local", None, 10, 20),
        "half closed server": ("fin_remote", None, 20, 10),
        "unread client": ("reset_local", None, 0, 20),
        "unread server": ("reset_remote", "ECONNRESET", 20, 0),
        "reset client": ("reset_local", None, 10, 0),
        "reset server": ("reset_remote", "ECONNRESET", 0, 10),
        "reset after a fin client": ("reset_remote", "ECONNRESET", 0, 0),
        "reset after a fin server": ("reset_local", None, 0, 0),
        "too late client": ("fin_local", None, 0, 0),
        "too late server": ("reset_remote", "EPIPE", 0, 0),
        "v6 client": ("fin_remote", None, 10, 0),
        "v6 server": ("fin_local", None, 0, 10),
        "mapped client": ("fin_remote", None, 10, 0),
        "mapped server": ("fin_local", None, 0, 10),
        "refused client": ("refused", "ECONNREFUSED", 0, 0),
        "never accepted client": ("reset_remote", "ECONNRESET", 3, 0),
        "never accepted server": ("reset_local", None, 0, 3),
        "inherited client": ("fin_remote", None, 2, 0),
        "inherited server": ("fin_local", None, 0, 2),
        "unanswered client": ("timeout", "ETIMEDOUT", 0, 0),
        "abandoned client": ("unknown", None, 0, 0),
    }
    for name in ("refused", "unanswered", "abandoned"):
        assert found[f"{name} client"]["last_tcp_state"] == "SYN_SENT"
    for name, record in found.items():
        assert record["side"] == ("active" if name.endswith("client") else "passive")
        assert not record["existed_before_start"]
    assert found["unanswered client"]["retransmitted_segments"] >= 1
    assert (found["v6 server"]["family"], found["v6 server"]["local_ip"]) == (6, "::1")
    assert (found["mapped server"]["family"], found["mapped server"]["local_ip"]) == (
        4, "127.0.0.1",
    )  # fmt: skip


def test_every_way_to_end_is_told_apart(log: Path) -> None:
    pairs = Pairs()
    with inside_a_cgroup() as group, collecting(log, "--cgroup", str(group)) as collector:
        child = end_in_every_way(pairs)
        collector.until(lambda: len(pairs.found(collector)) == 23)
        assert collector.stop() == (0, "")
    found = pairs.found(collector)
    check_ends(found)
    start = collector.records()[0]
    assert (start["source"], start["scope"]) == ("sockops", "cgroup")
    for name, record in found.items():
        asked = "inherited server" not in name
        assert (record["pid"] == os.getpid()) == asked, name
        assert record["command"]
        expected = _HANDSHAKE
        if record["end"] in ("refused", "timeout", "unknown"):
            expected = {"connect"}
        if record["bytes_sent"] or name == "too late server":
            expected = expected | _SENT
        if record["bytes_received"]:
            expected = expected | _RECEIVED
        assert seen(record) == expected, name
    assert found["inherited server"]["pid"] == child
    assert found["inherited server"]["process_seen_at"] == "first_io"
    assert found["never accepted server"]["process_seen_at"] == "listen"
    assert found["ordinary client"]["process_seen_at"] == "connect"
    assert found["unanswered client"]["retransmission_timeouts"] >= 1
    assert not [line for line in collector.records() if line["record"] == "lost"]
    cookies = [record["cookie"] for record in found.values()]
    assert len(set(cookies)) == len(cookies)


def test_without_cgroup_v2_tracepoints_tell_the_same_ends(log: Path) -> None:
    root = mount_point()
    assert root is not None
    pairs = Pairs()
    with collecting(log, wrapper=(*_WITHOUT_CGROUP, str(root))) as collector:
        end_in_every_way(pairs)
        collector.until(lambda: len(pairs.found(collector)) == 23)
    found = pairs.found(collector)
    check_ends(found)
    start = collector.records()[0]
    assert (start["source"], start["scope"]) == ("tracepoints", "machine")
    assert seen(found["ordinary client"]) == {"connect", "established"} | _RECEIVED
    assert seen(found["ordinary server"]) == {"established"} | _RECEIVED
    assert "retransmission_timeouts" not in found["unanswered client"]


def test_a_first_segment_that_completes_the_handshake_counts(log: Path) -> None:
    with inside_a_cgroup() as group, collecting(log, "--cgroup", str(group)) as collector:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
            with socket.create_connection(listener.getsockname()) as client:
                settle()
                client.sendall(b"hello")
                server, _ = listener.accept()
                server.recv(9)
                server.close()
        collector.until(lambda: len(collector.connections()) == 2)
    (record,) = (one for one in collector.connections() if one["side"] == "passive")
    assert seen(record) == _HANDSHAKE | _RECEIVED


def test_a_socket_that_connects_again_is_another_connection(log: Path) -> None:
    with inside_a_cgroup() as group, collecting(log, "--cgroup", str(group)) as collector:
        with socket.socket() as bound, socket.create_server(("127.0.0.1", 0)) as listener:
            bound.bind(("127.0.0.1", 0))
            with socket.socket() as client:
                with pytest.raises(ConnectionRefusedError):
                    client.connect(bound.getsockname())
                client.connect(listener.getsockname())
                client.sendall(b"abc")
        collector.until(lambda: len(collector.connections()) == 3)
    first, second = (one for one in collector.connections() if one["side"] == "active")
    assert (first["end"], first["bytes_sent"]) == ("refused", 0)
    assert second["bytes_sent"] == 3
    assert second["cookie"] == first["cookie"]  # it is the socket's
    assert second["connect_monotonic_ns"] > first["closed_monotonic_ns"]


def test_sockets_that_were_there_before_are_included(log: Path) -> None:
    pairs = Pairs()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client, server = pairs.make("old")
        client.sendall(b"x" * 5000)
        server.recv(5000, socket.MSG_WAITALL)
        server.sendall(b"y" * 3)
        client.recv(9)
        with collecting(log) as collector:
            client.sendall(b"x" * 7)
            server.recv(9999)
            young = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
            pairs.note("young", young, accepted)
            collector.until(
                lambda: {"open"} == {
                    one["state"] for one in collector.records()
                    if one.get("local_port") == client.getsockname()[1]
                }
            )  # fmt: skip
            for sock in (client, server, young, accepted):
                sock.close()
            collector.until(lambda: len(pairs.found(collector)) == 4)
    found = pairs.found(collector)
    old = found["old client"]
    assert old["existed_before_start"]
    assert (old["side"], old["bytes_sent"], old["bytes_received"]) == ("active", 5007, 3)
    assert (old["pid"], old["process_seen_at"]) == (os.getpid(), "scan")
    assert seen(old) == {"last_sent"}
    assert found["old server"]["side"] == "passive"
    assert found["old server"]["bytes_received"] == 5007
    # The listener was there before; what comes of it was not.
    young_server = found["young server"]
    assert not young_server["existed_before_start"]
    assert (young_server["pid"], young_server["process_seen_at"]) == (os.getpid(), "listen")
    assert collector.records()[0]["scope"] == "machine"


def test_live_connections_are_told_of_in_windows_and_at_the_end(log: Path) -> None:
    pairs = Pairs()
    with inside_a_cgroup() as group:
        options = ("--cgroup", str(group), "--snapshot-seconds", "0.3")
        with collecting(log, *options) as collector:
            client, server = pairs.make("alive")
            for _ in range(6):
                client.sendall(b"x" * 100)
                server.recv(100)
                time.sleep(0.3)
            busy = len(collector.connections("open"))
            time.sleep(0.7)
            settled = len(collector.connections("open"))
            time.sleep(0.7)
            # With nothing new there is nothing to tell.
            assert len(collector.connections("open")) == settled
            assert collector.stop() == (0, "")
        told = [record for record in collector.connections("open") if record["side"] == "active"]
        client.close()
        server.close()
    assert busy >= 6
    assert len(collector.connections("open")) == settled + 2
    counts = [record["bytes_sent"] for record in told]
    assert counts == sorted(counts)
    assert counts[-1] == 600
    assert told[-1]["tcp_state"] == "ESTABLISHED"
    assert collector.records()[-1]["record"] == "stop"
    assert collector.records()[-1]["reason"] == "SIGTERM"


# ---- packets ------------------------------------------------------------------------------------


def test_packets_agree_with_the_connections(log: Path) -> None:
    pairs = Pairs()
    windows = log.with_name("windows")
    with inside_a_cgroup() as group:
        options = ("--cgroup", str(group), "--windows", str(windows), "--window", "200 ms")
        with collecting(log, *options) as collector:
            threads = list(Path(f"/proc/{collector.process.pid}/task").iterdir())
            assert len(threads) == 1
            end_in_every_way(pairs)
            client, server = pairs.make("bulk")
            for _ in range(50):
                client.sendall(b"x" * 100_000)
                assert len(server.recv(100_000, socket.MSG_WAITALL)) == 100_000
            client.close()
            server.close()
            collector.until(lambda: len(pairs.found(collector)) == 25)
            time.sleep(0.3)
            assert collector.stop() == (0, "")
    packets = packets_of(windows)
    for name, record in pairs.found(collector).items():
        check_packets_of(record, packets, name)
    accounting = duckdb.read_parquet(f"{windows}/*.accounting.parquet")
    broken = "seen_packets <> drained_packets OR seen_bytes <> drained_bytes"
    assert len(accounting.filter(broken)) == len(accounting.filter("window_seconds <> 0.2")) == 0
    assert len(accounting) >= 5


def test_it_writes_windows_as_the_owner_of_the_folder(log: Path) -> None:
    os.chown(log.parent, 65534, 65534)
    for parent in (log.parent.parent, *log.parent.parent.parents[:2]):
        parent.chmod(0o755)
    with inside_a_cgroup() as group:
        options = ("--cgroup", str(group), "--windows", str(log.with_name("windows")))
        with collecting(log, *options) as collector:
            Pairs().make("any")
            assert collector.stop() == (0, "")
    written = list(log.with_name("windows").glob("*.parquet"))
    assert len(written) == 2
    assert {path.stat().st_uid for path in written} == {65534}


def test_packets_that_are_not_accounted_for_end_it_with_a_message(
    log: Path, tmp_path: Path
) -> None:
    """A kernel program that forgets every third packet it drains."""
    code = (
        "import sys\n"
        "from perfmeasure import cli\n"
        "from perfmeasure.flows import collector, keys\n"
        "honest = keys.total\n"
        "keys.total = lambda table: keys.Total(honest(table).packets * 2 // 3, 0)\n"
        "sys.exit(cli.run(sys.argv[1:], collector.collector_command))\n"
    )
    program = tmp_path / "forgetful.py"
    program.write_text(code)
    with inside_a_cgroup() as group:
        argv = [sys.executable, str(program), "--log", str(log), "--cgroup", str(group)]
        argv += ["--windows", str(log.with_name("windows"))]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "READY\n"
            pairs = Pairs()
            client, server = pairs.make("any")
            said = process.communicate(timeout=30)[1]
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 1
    assert "packets are not accounted for: seen" in said
    assert said.count("\n") == 1
    lines = [jsonio.loads(line) for line in log.read_bytes().splitlines()]
    assert (lines[-1]["record"], lines[-1]["reason"]) == ("stop", "error")
    assert {line.get("local_port") for line in lines} >= set(pairs.ports["any"])
    client.close()
    server.close()


# ---- the collector itself -----------------------------------------------------------------------


def ours(maps: set[int], programs: set[int]) -> set[tuple[str, int]]:
    """Return which of these ids are a collector's maps and programs."""
    found = set()
    for number in programs:
        try:
            fd = bpfcall.program_by_id(number)
        except OSError:
            continue
        name = bpfcall.program_name(fd)
        os.close(fd)
        if name in _PROGRAMS:
            found.add((name, number))
    for number in maps:
        try:
            fd = bpfcall.bpf(_MAP_GET_FD_BY_ID, struct.pack("=I", number).ljust(128, b"\0"))
        except OSError:
            continue
        info = ctypes.create_string_buffer(80)  # struct bpf_map_info: name at 24
        attributes = struct.pack("=IIQ", fd, len(info), ctypes.addressof(info))
        bpfcall.bpf(Command.OBJ_GET_INFO_BY_FD, attributes.ljust(128, b"\0"))
        os.close(fd)
        name = info.raw[24:40].partition(b"\0")[0].decode()
        if name in _MAPS:
            found.add((name, number))
    return found


def loaded() -> set[tuple[str, int]]:
    """Return the maps and programs of all collectors."""
    return ours(bpfcall.ids(Command.MAP_GET_NEXT_ID), bpfcall.ids(Command.PROG_GET_NEXT_ID))


def test_after_sigkill_nothing_stays_in_the_kernel(log: Path) -> None:
    before = loaded()
    with collecting(log) as collector:
        new = loaded() - before
        assert {name for name, _ in new} == _MAPS | _PROGRAMS
        tasks = Path(f"/proc/{collector.process.pid}/task").iterdir()
        effective = [task.joinpath("status").read_text().split("CapEff:")[1] for task in tasks]
        assert [int(text.split()[0], 16) for text in effective] == [0]
        collector.stop(signal.SIGKILL)
    for _ in range(200):  # the kernel frees them after a grace period
        if not loaded() & new:
            return
        time.sleep(0.05)
    raise AssertionError(loaded() & new)


@pytest.fixture
def orphan(log: Path) -> tuple[int, Path]:
    """A collector whose parent was killed, writing into a folder of another user: its pid, log."""
    for folder in (log.parent, *log.parents[1:4]):
        folder.chmod(0o755)
    os.chown(log.parent, 65534, 65534)
    code = (
        "import os, signal, subprocess, sys; from perfmeasure.tether import tethered\n"
        "argv = tethered([sys.executable, '-m', 'perfmeasure.flows.collector', '--log',"
        " sys.argv[1]], signal.SIGTERM)\n"
        "child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)\n"
        "print(child.stdout.readline().strip(), child.pid, flush=True)\n"
        "print(open(f'/proc/{child.pid}/status').read().split('Uid:')[1].split()[0], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(log)], capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    ready, pid, uid = ran.stdout.split()
    assert (ready, uid) == ("READY", "65534")
    return int(pid), log


def test_it_ends_in_order_when_its_parent_is_killed(orphan: tuple[int, Path]) -> None:
    pid, log = orphan
    for _ in range(200):
        if b'"record":"stop"' in log.read_bytes():
            break
        time.sleep(0.05)
    assert b'"reason":"SIGTERM"' in log.read_bytes().splitlines()[-1]
    assert log.stat().st_uid in (0, 65534)
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    raise AssertionError("the collector outlived its parent")


def refused(log: Path, *arguments: str, wrapper: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run a collector that cannot work; return its status and its one line."""
    collector = Collector(log, *arguments, wrapper=wrapper)
    assert not collector.is_ready
    status, said = collector.stop()
    assert said.count("\n") == 1, said
    return status, said


def test_what_the_machine_lacks_is_said_in_one_line(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"')
    status, said = refused(log, wrapper=(*hidden, "/sys/kernel/btf"))
    assert status == 3
    assert "CONFIG_DEBUG_INFO_BTF" in said
    status, said = refused(log, "--cgroup", str(tmp_path))
    assert status == 3
    assert "not a cgroup v2" in said
    monkeypatch.setenv("BCC_KERNEL_SOURCE", "/nonexistent")
    status, said = refused(log)
    assert status == 3
    assert "kernel headers" in said


def test_without_rights_the_message_names_them(log: Path) -> None:
    for folder in (log.parent, *log.parents[1:4]):
        folder.chmod(0o755)
    log.parent.chmod(0o777)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    cache = ("env", f"XDG_CACHE_HOME={log.parent}")
    status, said = refused(log, wrapper=(*nobody, *cache))
    assert status == 3
    assert "CAP_BPF" in said


def test_wrong_options_are_a_usage_error(log: Path) -> None:
    for options in (["--snapshot-seconds", "0"], ["--rotate-every", "2 days"]):
        collector = Collector(log, *options)
        assert collector.stop()[0] == 2
