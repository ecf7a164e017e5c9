"""``perfmeasure flows`` as a process: what it prints, how it ends, what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfmeasure import cli, jsonio
from perfmeasure.flows import interfaces

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

PORT = 29998
COMMAND = [sys.executable, "-m", "perfmeasure", "flows"]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def wait_until_attached(process: subprocess.Popen[str]) -> None:
    """Return when the process holds a link."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                name = str(entry.readlink())
            except OSError:
                continue
            if "bpf_link" in name or "bpf-link" in name:
                time.sleep(0.2)
                return
        time.sleep(0.02)
    pytest.fail(f"not attached: {process.communicate()}")


def exchange(connections: int) -> None:
    """Make TCP connections on loopback, one after another, and close them."""
    with socket.create_server(("127.0.0.1", PORT)) as server:
        for _ in range(connections):
            with socket.create_connection(("127.0.0.1", PORT)) as client:
                accepted, _ = server.accept()
                client.sendall(b"x" * 1000)
                client.shutdown(socket.SHUT_WR)
                while accepted.recv(4096):
                    pass
                accepted.close()
                client.recv(1)


def test_json_is_one_object_with_all_flows(require: Callable[..., None], tmp_path: Path) -> None:
    require("root", "bpf")
    process = start("-i", "lo", "--json", "--duration", "3 s", "--window", "100 ms",
                    "--prefix", str(tmp_path))  # fmt: skip
    wait_until_attached(process)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        for _ in range(500):
            sock.sendto(bytes(100), ("127.0.0.1", PORT))
        source_port = sock.getsockname()[1]
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    document: dict[str, Any] = jsonio.loads(out)
    accounting = document["accounting"]
    for unit in ("packets", "bytes"):
        parts = ("drained", "full", "late", "unparsed")
        assert accounting[f"seen_{unit}"] == sum(accounting[f"{part}_{unit}"] for part in parts)
        in_flows = sum(flow[unit] for flow in document["flows"])
        assert in_flows == accounting[f"drained_{unit}"]
    (flow,) = (flow for flow in document["flows"] if flow["src_port"] == source_port)
    assert {name: flow[name] for name in list(flow)[:10]} == {
        "interface": "lo", "direction": "ingress", "src_ip": "127.0.0.1",
        "src_port": source_port, "dst_ip": "127.0.0.1", "dst_port": PORT, "protocol": 17,
        "packets": 500, "bytes": 500 * 142, "segments": 500,
    }  # fmt: skip
    assert abs(flow["first_seen_unix_ts"] - time.time()) < 30
    assert document["programs"][0]["ns_per_run"] > 0
    assert document["reduction"]["packets"] == accounting["drained_packets"]
    assert 3 <= document["duration_seconds"] < 10
    files = sorted((tmp_path / "kernel" / "windows").iterdir())
    assert {path.name.split(".", 2)[2] for path in files} == {
        "windows.parquet",
        "accounting.parquet",
    }


def test_rights_that_are_not_needed_any_more_are_given_up(require: Callable[..., None]) -> None:
    require("root", "bpf")
    process = start("-i", "lo", "--json")
    wait_until_attached(process)
    (line,) = (
        line
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("CapEff")
    )
    assert int(line.split()[1], 16) & ~(1 << 1 | 1 << 39) == 0
    process.terminate()
    status, _, err = finish(process)
    assert (status, err) == (0, "")


def test_an_interrupt_ends_with_a_last_sweep(require: Callable[..., None]) -> None:
    """A window of an hour: without the last sweep there would be nothing."""
    require("root", "bpf")
    process = start("-i", "lo", "--json", "--window", "1 hour", "--key", "service", "--top", "1000")
    wait_until_attached(process)
    exchange(50)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    document = jsonio.loads(out)
    (service,) = (entry for entry in document["services"] if entry["service_port"] == PORT)
    assert (service["client_ip"], service["service_ip"]) == ("127.0.0.1", "127.0.0.1")
    assert service["connects"] == service["closes_by_client"] == service["closes_by_service"] == 50
    assert (
        len([flow for flow in document["flows"] if PORT in (flow["src_port"], flow["dst_port"])])
        == 2
    )


def test_people_get_a_report(require: Callable[..., None]) -> None:
    require("root", "bpf")
    process = start("-i", "lo", "--duration", "2", "--window", "100ms", "--key", "service")
    wait_until_attached(process)
    exchange(10)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert f"TCP connects: 127.0.0.1 → 127.0.0.1:{PORT} (count: 10), closes 10," in out
    for title in ("Aggregated Flow Summary", "Event Reduction", "Accounting"):
        assert f"=== {title} ===" in out


def test_a_terminal_shows_the_last_second(require: Callable[..., None]) -> None:
    require("root", "bpf")
    import pty

    controlling, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "-i", "lo", "--duration", "3", "--top", "3"],
        stdout=terminal,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "60"},
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controlling, 65536):
            shown += chunk
    except OSError:
        pass  # the other end was closed
    finally:
        os.close(controlling)
        process.kill()
        _, err = process.communicate()
    assert err == b""
    assert shown.count(b"=== Top 3 Flows by Packets ===") >= 2


def test_nothing_is_left_when_it_is_killed(require: Callable[..., None]) -> None:
    """Loopback has one hook for XDP: another program can only have it when it is free."""
    require("root", "bpf")
    arguments = ("-i", "lo", "--hook", "xdp", "--json", "--duration", "0.2")
    process = start(*arguments[:-2])
    wait_until_attached(process)
    status, _, err = finish(start(*arguments))
    assert status == 3
    assert "another program has its XDP hook" in err
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while status and time.monotonic() < deadline:
        status, _, err = finish(start(*arguments))
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["-i", "no-such-if"], 2, "there is no interface 'no-such-if'"),
        (["-i", "lo", "--window", "1 ms"], 2, "10 ms to 1 hour"),
        (["-i", "lo", "--window", "soon"], 2, "is not a duration"),
        (["-i", "lo", "--duration", "soon"], 2, "is not a duration"),
        (["-i", "lo", "--direction", "up"], 2, "--direction"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["flows", *arguments]) == status
    assert said in capsys.readouterr().err


def test_without_interfaces_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interfaces, "up_interfaces", lambda: ())
    assert cli.run(["flows"]) == 2
    assert "no interface is up" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("sys.modules['bcc'] = None", "python3-bpfcc"),
        ("os.environ['BCC_KERNEL_SOURCE'] = '/nowhere'", "has no folder include"),
        ("os.setgroups([]); os.setuid(65534)", "CAP_BPF"),
    ],
)
def test_what_the_machine_lacks_is_one_message(
    setting: str, said: str, require: Callable[..., None]
) -> None:
    require("root", "bpf")
    code = (
        "import os, sys\n"
        "import perfmeasure.cli, perfmeasure.flows.commands, rich.live, encodings.idna\n"
        f"{setting}\n"
        "sys.exit(perfmeasure.cli.run(['flows', '-i', 'lo', '--duration', '1']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 3
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""
