"""perfmeasure.tor.monitor as the process that it is, on a real tor where that can be had."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from perfmeasure.errors import UsageError
from perfmeasure.logfile import LogFile
from perfmeasure.tor.control import ControlAddress, ControlConnection
from perfmeasure.tor.monitor import parse_events
from perfmeasure.tor.reader import DEFAULT_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMAND = [sys.executable, "-m", "perfmeasure.tor.monitor"]
LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \d+\.\d{6} \S")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a monitor; the arguments are its own."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        started.append(subprocess.Popen([*COMMAND, *map(str, arguments)], **options))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Stop a monitor in order and return what it said."""
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    return out, err


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # not yet there, or a process that has ended
        return b""


# ---- a real tor ---------------------------------------------------------------------------------


def test_a_real_tor_its_refusals_and_its_events(
    make_tor: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None],
    tmp_path: Path,
) -> None:  # fmt: skip
    tor = make_tor("CookieAuthentication 1")
    log = tmp_path / "tor-client" / "perfmeasure.torctl.log"
    process = start(
        "-p", tor.port, "-l", log, "-n", "phlox", "-e", "signal", "NO_SUCH", "TB_EMPTY",
        "-e", "BW", "--custom-events", "CONF_CHANGED",
    )  # fmt: skip
    until(lambda: b"650 BW " in read(log), "the first event")
    start("-p", tor.port, "-e", "SIGNAL")  # a second one does not disturb the first
    with ControlConnection.connect(ControlAddress(port=tor.port)) as connection:
        connection.authenticate()
        assert connection.command("SIGNAL CLEARDNSCACHE").status == 250
        assert connection.command("SETCONF Socks5Proxy=127.0.0.1:1 Socks5ProxyUsername=u "
                                  "Socks5ProxyPassword=geheim").status == 250  # fmt: skip
    until(lambda: b"CONF_CHANGED" in read(log) and b"CLEARDNS" in read(log), "both events")
    _, err = end(process)
    content = read(log)
    assert err == b""
    lines = content.split(b"\n")
    assert b"Starting torctl program on host phlox using Tor version 0.4" in lines[0]
    assert b"NOTICE BOOTSTRAP PROGRESS=" in lines[1]
    for name in (b"NO_SUCH", b"TB_EMPTY"):
        assert b"[WARNING] event %s is recognized by perfmeasure but not by tor\n" % name in content
    assert b" 650 SIGNAL CLEARDNSCACHE\r\n" in content
    changed = content[content.index(b"650-CONF_CHANGED") :].split(b"650 OK\r\n")[0]
    assert b'650-Socks5ProxyPassword="[redacted]"\r\n' in changed
    assert b"650-Socks5ProxyUsername=u\r\n" in changed
    assert b"geheim" not in content
    assert content.endswith(b"\n")


def test_every_default_event_is_known_to_tor(
    make_tor: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None],
    tmp_path: Path,
) -> None:  # fmt: skip
    tor = make_tor("CookieAuthentication 1")
    log = tmp_path / "torctl.log"
    process = start("--control", f"127.0.0.1:{tor.port}", "--log", log)
    until(lambda: b"650 BW " in read(log), "the first event")
    time.sleep(0.2)
    end(process)
    assert b"[WARNING]" not in read(log)


def test_the_socks_password_in_a_real_stream_event_is_not_written(
    make_tor: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None],
    tmp_path: Path,
) -> None:  # fmt: skip
    tor = make_tor("CookieAuthentication 1")
    log = tmp_path / "torctl.log"
    process = start("-p", tor.port, "-l", log)
    until(lambda: b"650 BW " in read(log), "the first event")
    with ControlConnection.connect(ControlAddress(port=tor.port)) as connection:
        connection.authenticate()
        assert connection.command("RESETCONF DisableNetwork SocksPort=auto").status == 250
        listener = connection.get_info("net/listeners/socks")["net/listeners/socks"]
    user, password = b'me "too"', b'ge\\h"ei m\xff'
    with socket.create_connection(("127.0.0.1", int(listener.strip('"').split(":")[1]))) as socks:
        socks.sendall(b"\x05\x01\x02")
        assert socks.recv(2) == b"\x05\x02"
        socks.sendall(b"\x01%c%b%c%b" % (len(user), user, len(password), password))
        assert socks.recv(2) == b"\x01\x00"
        socks.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50")
        until(lambda: b"650 STREAM " in read(log), "the stream")
    end(process)
    (stream,) = [line for line in read(log).splitlines() if b" NEW 0 127.0.0.1:80 " in line]
    assert rb'SOCKS_USERNAME="me \"too\"" SOCKS_PASSWORD="[redacted]" ' in stream
    assert b"ei m" not in read(log)


def test_a_killed_tor_leaves_a_gap_and_the_next_one_is_followed(
    make_tor: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None],
    tmp_path: Path,
) -> None:  # fmt: skip
    tor = make_tor("CookieAuthentication 1")
    log = tmp_path / "torctl.log"
    process = start("-p", tor.port, "-l", log)
    until(lambda: b"650 BW " in read(log), "the first event")
    old_cookie = tor.cookie.read_bytes()
    tor.kill()
    until(lambda: b"[GAP] control connection lost" in read(log), "the gap")
    killed = len(read(log))
    time.sleep(0.5)
    tor.start()
    until(lambda: b"650 BW " in read(log)[killed:], "an event of the next tor")
    assert tor.cookie.read_bytes() != old_cookie
    _, err = end(process)
    texts = [line.split(b" ", 3)[3] for line in read(log)[killed:].splitlines()]
    match = re.match(rb"\[GAP\] control connection back after (\d+\.\d{6}) seconds", texts[0])
    assert match
    assert 0.5 <= float(match[1]) < 15
    assert texts[1].startswith(b"Starting torctl program")
    assert b"trying again" in err
    assert b"connected again" in err


def test_waiting_for_a_tor_that_comes_later(
    make_tor: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None],
    tmp_path: Path,
) -> None:  # fmt: skip
    tor = make_tor("CookieAuthentication 1")
    tor.kill()
    log = tmp_path / "torctl.log"
    process = start("-p", tor.port, "-l", log, "--wait", "-e", "BW")
    time.sleep(1)
    assert process.poll() is None
    tor.start()
    until(lambda: b"650 BW " in read(log), "an event")
    end(process)
    assert b"[GAP]" not in read(log)
    assert b"Starting torctl" in read(log).split(b"\n")[0]


def test_the_password_comes_from_a_file_or_the_environment(
    make_port: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None],
    tmp_path: Path,
) -> None:  # fmt: skip
    secret = tmp_path / "password"
    secret.write_text("geheim\n")
    environment = {**os.environ, "PERFMEASURE_CONTROL_PASSWORD": "geheim"}
    for arguments, env in ((("--password-file", secret), None), ((), environment)):
        port = make_port({"PROTOCOLINFO": b"250-AUTH METHODS=HASHEDPASSWORD\r\n250 OK\r\n"})
        process = start("-p", port.port, "-e", "BW", *arguments, env=env)
        until(lambda port=port: "SETEVENTS BW" in port.commands, "the subscription")
        assert 'AUTHENTICATE "geheim"' in port.commands
        out, err = end(process)
        assert b"geheim" not in out + err


# ---- ends and errors ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_flood_loses_nothing_that_had_come(
    make_port: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None],
    tmp_path: Path, number: int,
) -> None:  # fmt: skip
    port = make_port()
    log = tmp_path / "torctl.log"
    process = start("-p", port.port, "-l", log, "-e", "BW")
    until(lambda: "SETEVENTS BW" in port.commands, "the subscription")
    process.send_signal(signal.SIGSTOP)
    port.send(b"".join(b"650 BW %d 0\r\n" % number for number in range(20_000)))
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == b""
    numbers = [int(found) for found in re.findall(rb" 650 BW (\d+) 0\r\n", read(log))]
    assert numbers == list(range(20_000))


def test_a_killed_monitor_leaves_whole_lines_and_at_most_one_that_is_cut(
    make_port: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None],
    tmp_path: Path,
) -> None:  # fmt: skip
    port = make_port()
    log = tmp_path / "torctl.log"
    process = start("-p", port.port, "-l", log, "-e", "BW")
    until(lambda: "SETEVENTS BW" in port.commands, "the subscription")
    port.send(b"650 BW 1 1\r\n" * 100_000)
    until(lambda: len(read(log)) > 1_000_000, "a part of the flood")
    process.kill()
    process.wait()
    # The kernel may end a write between two pages; the next start ends the cut line.
    LogFile(log).close()
    assert read(log).endswith(b"\n")
    assert all(LINE.match(line) for line in read(log).splitlines()[:-1])


def test_a_monitor_whose_harness_is_killed_ends_in_order(
    make_port: Callable[..., Any], until: Callable[..., None], tmp_path: Path
) -> None:
    port = make_port()
    log = tmp_path / "torctl.log"
    code = (
        "import signal, subprocess, sys, time; from perfmeasure.tether import tethered\n"
        "child = subprocess.Popen(tethered(sys.argv[1:], signal.SIGTERM))\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    monitor = ["-m", "perfmeasure.tor.monitor", "-p", str(port.port), "-l", str(log), "-e", "BW"]
    harness = subprocess.Popen(
        [sys.executable, "-c", code, sys.executable, *monitor], stdout=subprocess.PIPE, text=True
    )
    assert harness.stdout is not None
    with harness.stdout:
        pid = int(harness.stdout.readline())
    until(lambda: "SETEVENTS BW" in port.commands, "the subscription")
    port.send(b"650 BW 1 1\r\n" * 100_000)
    until(lambda: len(read(log)) > 1_000_000, "a part of the flood")
    harness.kill()
    harness.wait()
    # A process that has ended has no command line, reaped or not.
    until(lambda: not read(Path(f"/proc/{pid}/cmdline")), "the end of the monitor")
    assert read(log).endswith(b" 650 BW 1 1\r\n")
    assert all(LINE.match(line) for line in read(log).splitlines())


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-p", "1"], 1, "127.0.0.1:1: cannot connect (Connection refused)"),
        (["--control", "nowhere"], 2, "'nowhere' is not an address"),
        (["-e", "BW\r\nSIGNAL HALT"], 2, "is not an event"),
        (["--rotate-every", "2 days"], 2, "1 second to 1 day"),
        (["--rotate-every", "0.5"], 2, "1 second to 1 day"),
        (["--password-file", "/nonexistent"], 2, "/nonexistent cannot be read"),
        (["-l", "/proc/none/x"], 1, "cannot be written"),
        (["--no-such-option"], 2, "No such option"),
    ],
)
def test_errors_are_one_message(
    start: Callable[..., Any], arguments: list[str], status: int, message: str
) -> None:
    process = start(*arguments)
    out, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert message in err.decode()
    assert b"Traceback" not in err
    assert out == b""


def test_no_tor_on_the_port(make_port: Callable[..., Any], start: Callable[..., Any]) -> None:
    process = start("-p", make_port(greeting=b"SSH-2.0-OpenSSH_9.2p1\r\n").port)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"not the control protocol" in err
    assert b"ControlPort" in err
    assert out == b""


def test_whoever_read_the_output_has_gone(
    make_port: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None]
) -> None:
    port = make_port()
    process = start("-p", port.port, "-e", "BW")
    until(lambda: "SETEVENTS BW" in port.commands, "the subscription")
    process.stdout.close()
    process.stdout = None
    port.send(b"650 BW 1 1\r\n")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == b""


# ---- the log ------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_and_empties(
    make_port: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None],
    tmp_path: Path,
) -> None:  # fmt: skip
    # The kernel's limit on the size of a file cuts a write(2) short and then refuses the next
    # one, as a full disk does; and it can be lifted again.
    port = make_port()
    log = tmp_path / "torctl.log"
    process = start("-p", port.port, "-l", log, "-e", "BW")
    until(lambda: "SETEVENTS BW" in port.commands, "the subscription")
    until(lambda: b"[CLOCK]" in read(log), "the first lines")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (len(read(log)) + 10_000, -1))
    said = b""
    for number in range(1000):
        port.send(b"650 BW %d 0\r\n" % number)
        if number % 50 == 0:
            time.sleep(0.01)
    said = os.read(process.stderr.fileno(), 65536)
    full = read(log)
    assert full.endswith(b"\r\n")  # never a part of an entry
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (-1, -1))
    port.send(b"650 BW 1000 0\r\n")
    until(lambda: b" 650 BW 1000 0\r\n" in read(log), "the event after it")
    _, err = end(process)
    assert said.count(b"the log cannot be written") == 1
    assert b"entries were lost" in said + err
    after = read(log)[len(full) :].splitlines()
    assert b"[LOST] " in after[0]
    lost = re.findall(rb"\[LOST\] (\d+) entries were not written: File too large\n", read(log))
    assert sum(map(int, lost)) + read(log).count(b"650 BW") == 1001


def test_a_full_device_as_standard_output(
    make_port: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None]
) -> None:
    port = make_port()
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - not a path of ours
        process = start("-p", port.port, "-e", "BW", stdout=full)
        until(lambda: "SETEVENTS BW" in port.commands, "the subscription")
        port.send(b"650 BW 1 1\r\n" * 10)
        time.sleep(0.2)
        _, err = end(process)
    first, last = err.decode().splitlines()
    assert "No space left on device" in first
    assert "13 entries were not written" in last


def test_rotation_every_second_keeps_every_event(
    make_port: Callable[..., Any], start: Callable[..., Any], until: Callable[..., None],
    tmp_path: Path,
) -> None:  # fmt: skip
    port = make_port()
    log = tmp_path / "tor-client" / "perfmeasure.torctl.log"
    archive = tmp_path / "log_archive"
    process = start(
        "-p", port.port, "-l", log, "--archive", archive, "--rotate-every", "1 second", "-e", "BW"
    )
    until(lambda: "SETEVENTS BW" in port.commands, "the subscription")
    count = 0
    until_ts = time.monotonic() + 3.5
    while time.monotonic() < until_ts:
        port.send(b"".join(b"650 BW %d 0\r\n" % (count + n) for n in range(100)))
        count += 100
        time.sleep(0.005)
    end(process)
    files = [*sorted(archive.glob("*/tor-client/perfmeasure_*.torctl.log")), log]
    assert len(files) >= 4
    numbers = []
    for file in files:
        content = file.read_bytes()
        assert len({line.split()[2].split(b".")[0] for line in content.splitlines()}) == 1
        numbers += [int(found) for found in re.findall(rb" 650 BW (\d+) 0\r\n", content)]
    assert numbers == list(range(count))


# ---- names of events ----------------------------------------------------------------------------


def test_names_of_events() -> None:
    assert parse_events([]) == DEFAULT_EVENTS
    assert parse_events(["circ,Stream", "BW", "CIRC"]) == ("CIRC", "STREAM", "BW")
    assert parse_events([], ["circ_bw,CIRC"]) == (*DEFAULT_EVENTS, "CIRC_BW")
    assert parse_events(["BW"], ["NS"]) == ("BW", "NS")
    for wrong in ("A B", "1X", "X-Y", "X\n"):
        with pytest.raises(UsageError, match="names such as"):
            parse_events([wrong])
