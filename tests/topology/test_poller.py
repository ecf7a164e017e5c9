"""The poller as `measure` starts it, with a parent and a child of that."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perfmeasure import jsonio

_LISTENER = """
import socket, sys
made = socket.create_server(("127.0.0.1", 0))
print(made.getsockname()[1], flush=True)
with made.accept()[0] as caller:
    caller.sendall(b"x" * 1000)
    caller.recv(1)
sys.stdin.read()
"""


def test_it_tells_of_what_its_parent_started(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "perfmeasure.topology.poller", "--prefix", str(tmp_path)]
    argv += ["--archive", str(tmp_path / "log_archive"), "--instance-id", "here"]
    folder = str(tmp_path / "tgen-server" / "tgen.graphml.xml")
    server = subprocess.Popen(
        [sys.executable, "-c", _LISTENER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    poller = subprocess.Popen(argv, stderr=subprocess.PIPE)
    log = tmp_path / "services" / "services.log"

    def lines(kind: str) -> list[dict[str, Any]]:
        found = map(jsonio.loads, log.read_bytes().splitlines())
        return [line for line in found if line["record"] == kind]

    try:
        assert server.stdout is not None
        assert poller.stderr is not None
        port = int(server.stdout.readline())
        assert select.select([poller.stderr], [], [], 60)[0]
        assert poller.stderr.readline() == b"READY\n"
        with socket.create_connection(("127.0.0.1", port)) as ours:
            assert len(ours.recv(1000, socket.MSG_WAITALL)) == 1000
            while not any(line["src_port"] == port for line in lines("service_connection")):
                assert poller.poll() is None
                select.select([], [], [], 0.05)
    finally:
        server.communicate()
        poller.send_signal(signal.SIGTERM)
        assert poller.wait(60) == 0
    (start,) = lines("start")
    assert (start["source"], start["scope"], start["instance_id"]) == (
        "polling", "measurement", "here",
    )  # fmt: skip
    (service,) = {line["name"] for line in lines("service") if line["listen_port"] == port}
    assert service == "tgen-server"
    told = lines("service_connection")
    # Our own end is not one of its processes': we are its parent.
    assert {line["src_port"] for line in told if port in (line["src_port"], line["dst_port"])} == {
        port
    }
    assert {line["service"] for line in told if line["src_port"] == port} == {"tgen-server"}


@pytest.mark.parametrize("period", ["0", "2 days"])
def test_a_period_that_cannot_be_is_refused(tmp_path: Path, period: str) -> None:
    argv = [sys.executable, "-m", "perfmeasure.topology.poller", "--prefix", str(tmp_path)]
    argv += ["--archive", str(tmp_path), "--instance-id", "here", "--rotate-every", period]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2
    assert "--rotate-every" in ran.stderr
