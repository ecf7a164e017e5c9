"""perfmeasure.tgen.program, run as a person or the harness runs it."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from perfmeasure import __version__
from perfmeasure.tgen.graphml import write_graphml
from perfmeasure.tgen.model import client_model, server_model

Run = Callable[["nx.DiGraph[str]"], Any]
STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (\d+\.\d{6}) \[(\w+)\] \[\S+\] \[\S+\] \S.*")


def client(port: int, **options: Any) -> nx.DiGraph[str]:
    return client_model(
        {"exit": f"127.0.0.1:{port}"},
        **{"socks": None, "size": "5 MiB", "initial_pause_seconds": 0, "pause_seconds": 0.1,
           "num_streams": 2, **options},
    )  # fmt: skip


def test_a_download_through_socks(tgen: Run, socks_server: Callable[..., Any]) -> None:
    server = tgen(server_model(0))
    proxy = socks_server()
    run = tgen(client(server.port, socks=proxy.peer))
    assert run.process.wait(20) == 0
    lines = run.text.splitlines()
    first, end = lines[0].split(), lines[-4:]
    assert f"Initializing perfmeasure-tgen v{__version__} running Python v" in lines[0]
    assert first[17] == socket.gethostname().partition(".")[0]
    assert first[21] == str(run.process.pid)
    assert "TGen will end because we completed 2 streams" in end[-3]
    assert end[-1].endswith("returning 0 from main")
    assert [o["error"] for o in run.outcomes()] == ["NONE", "NONE"]
    assert run.outcomes()[0]["payload-bytes-recv"] == "5242880"
    assert server.stop() == 0
    passive = server.outcomes()
    assert [o["vertexid"] for o in passive] == ["passive-stream:stream_exit"] * 2
    assert server.errors == run.errors == ""
    for program in (server, run):
        stamps = [STAMP.fullmatch(line) for line in program.text.splitlines()]
        assert all(stamps)
        times = [float(stamp[2]) for stamp in stamps if stamp]
        assert times == sorted(times)
        assert all(
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(stamp[2]))) == stamp[1]
            for stamp in stamps
            if stamp
        )


def test_two_hundred_streams_at_once(tgen: Run) -> None:
    server = tgen(server_model(0))
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("start", peers=f"127.0.0.1:{server.port}", sendsize="1 kib", recvsize="100 kib")
    graph.add_node("end", count="200")
    for index in range(200):
        graph.add_edges_from([("start", f"stream{index}"), (f"stream{index}", "end")])
    run = tgen(graph)
    assert run.process.wait(30) == 0
    assert [o["error"] for o in run.outcomes()] == ["NONE"] * 200
    server.stop()
    assert [o["error"] for o in server.outcomes()] == ["NONE"] * 200


def test_a_foreign_client_is_refused_and_the_server_goes_on(tgen: Run) -> None:
    server = tgen(server_model(0))
    with socket.create_connection(("127.0.0.1", server.port), 5) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):  # as good an end as any
            assert browser.recv(100) == b""
    assert tgen(client(server.port)).process.wait(20) == 0
    server.stop()
    assert [o["error"] for o in server.outcomes()] == ["AUTH", "NONE", "NONE"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tgen: Run, number: signal.Signals) -> None:
    server = tgen(server_model(0))
    run = tgen(client(server.port, size="100 GiB", heartbeat_seconds=0.05))
    run.wait_for(r"stream-status.*recvsize=107374182400.*payload-bytes-recv=[1-9]")
    run.process.send_signal(number)
    assert run.process.wait(5) == 0
    assert run.outcomes() == []
    assert f"ending on {number.name}" in run.text
    assert run.text.endswith("returning 0 from main\n")
    assert run.errors == ""
    server.wait_for(r"stream-error.*error=(READ|WRITE|MISC)")


def test_a_reader_that_stops_reading_cannot_keep_it_from_ending(tmp_path: Path) -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("start", serverport="0", heartbeat="100 us")
    write_graphml(graph, tmp_path / "g.xml")
    with subprocess.Popen(
        [sys.executable, "-m", "perfmeasure.tgen", str(tmp_path / "g.xml")], stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        run.stdout.read(1)
        time.sleep(1.0)  # the pipe is full by now
        run.terminate()
        assert run.wait(10) == 0


def test_a_reader_that_goes_away_ends_it(tmp_path: Path) -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("start", serverport="0", heartbeat="50 ms")
    write_graphml(graph, tmp_path / "g.xml")
    with subprocess.Popen(
        [sys.executable, "-m", "perfmeasure.tgen", str(tmp_path / "g.xml")], stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        run.stdout.close()
        assert run.wait(10) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<graphml>", "not XML"),
        (('<graphml><key id="p" for="node" attr.name="peers"/><graph><node id="start">'
         '<data key="p">nobody</data></node></graph></graphml>'),
         "node start, attribute peers: 'nobody' is not a peer; wanted HOST:PORT"),
    ],
)  # fmt: skip
def test_a_graph_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.xml"
    path.write_text(text)
    run = subprocess.run(
        [sys.executable, "-m", "perfmeasure.tgen", str(path)],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert run.returncode == 4
    assert run.stderr.startswith(f"{path}")
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


def test_usage_and_missing_files_and_taken_ports(tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "perfmeasure.tgen", *arguments],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    assert run()[0] == 2
    assert run(str(tmp_path / "none"))[0] == 4
    with socket.create_server(("", 0)) as taken:
        path = tmp_path / "s.xml"
        write_graphml(server_model(taken.getsockname()[1]), path)
        status, message = run(str(path))
    assert status == 1
    assert "cannot listen: Address already in use" in message


@pytest.mark.parametrize("ours", ["client", "server"])
def test_either_end_may_be_the_c_program(
    require: Callable[..., None], tgen: Run, tmp_path: Path, ours: str
) -> None:
    require("tgen")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "theirs.xml"
    server, graph = server_model(port), client(port)
    write_graphml(server if ours == "client" else graph, path)
    with subprocess.Popen(
        [shutil.which("tgen") or "tgen", str(path)], stdout=subprocess.PIPE, text=True
    ) as theirs:
        run = tgen(graph if ours == "client" else server)
        done = run.process if ours == "client" else theirs
        assert done.wait(30) == 0
        theirs.terminate()
        assert theirs.stdout is not None
        text = theirs.stdout.read()
    assert len(re.findall("stream-success", text)) == 2
    assert [o["error"] for o in run.outcomes()] == ["NONE", "NONE"]


def test_ids_have_no_gap(tgen: Run) -> None:
    server = tgen(server_model(0))
    run = tgen(client(server.port, size=100, pause_seconds=0, num_streams=50))
    assert run.process.wait(20) == 0
    assert [int(o["id"]) for o in run.outcomes()] == list(range(50))
    assert run.log.stat().st_size < 50 * 3_000
    assert [int(o["id"]) for o in server.outcomes()] == list(range(50))
