"""Real servers, a server that misbehaves on purpose, and the samples that they should hold."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cramjam
import duckdb

from perfmeasure import jsonio
from perfmeasure.topology.families import Group

Samples = dict[frozenset[tuple[str, str]], list[tuple[int, float]]]
"""Of each series, by its labels with ``__name__``, times in milliseconds and values."""

Order = tuple[int, dict[str, str], bytes] | str
"""What a `Misbehaving` server does with a request."""

NOTHING = b"\x00"
"""A remote write without samples."""

_READY_SECONDS = 60.0
_PATH = "/usr/bin:/usr/local/bin:/bin"


class Program:
    """A server on loopback in a process of its own, with a folder of its own."""

    def __init__(self, arguments: Callable[[int, Path], list[str]], folder: Path) -> None:
        self._arguments = arguments
        self._folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers; on another port should this one be taken first."""
        for _ in range(5):
            port = self.port or _free_port()
            with (self._folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    self._arguments(port, self._folder), stdout=log, stderr=log, cwd=self._folder
                )
            if self._is_ready(port):
                self.port = port
                return
            self.stop()
        raise AssertionError((self._folder / "log").read_text()[-2000:])

    def _is_ready(self, port: int) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                url = f"http://127.0.0.1:{port}/api/v1/query?query=1"
                with urllib.request.urlopen(url, timeout=5):
                    return True
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
        return False

    def stop(self, *, is_killed: bool = False) -> None:
        """End it, in order or at once."""
        if self._process is None:
            return
        if is_killed:
            self._process.kill()
        else:
            self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def victoria_metrics(port: int, folder: Path) -> list[str]:
    """Return the command for a VictoriaMetrics that removes what was sent twice."""
    return [
        shutil.which("victoria-metrics", path=_PATH) or "victoria-metrics",
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
        "-dedup.minScrapeInterval=1ms",
        "-search.latencyOffset=0s",
        "-memory.allowedBytes=200MB",
    ]


def write_series(found: Samples, path: Path) -> None:
    """Write samples as a server exports them."""
    with path.open("w") as file:
        for labels, samples in found.items():
            line = {
                "metric": dict(labels),
                "timestamps": [at for at, _ in samples],
                "values": [value for _, value in samples],
            }
            file.write(jsonio.compact(line) + "\n")


def prometheus(port: int, folder: Path) -> list[str]:
    """Return the command for a Prometheus that takes remote write, and scrapes what it is told."""
    config = folder / "prometheus.yml"
    if not config.exists():
        config.write_text("global: {}\n")
    return [
        shutil.which("prometheus", path=_PATH) or "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
    ]


def ask(url: str, path: str, **parameters: str) -> Any:
    """Return what a server's API says, as JSON."""
    with urllib.request.urlopen(f"{url}{path}?{urllib.parse.urlencode(parameters)}") as answer:
        return jsonio.loads(answer.read())


def query(url: str, text: str, unix_ts: float) -> dict[frozenset[tuple[str, str]], float]:
    """Return the value of each series of an instant query, by its labels."""
    answer = ask(url, "/api/v1/query", query=text, time=f"{unix_ts:.3f}")
    found = answer["data"]["result"]
    return {frozenset(one["metric"].items()): float(one["value"][1]) for one in found}


def exported(url: str) -> Samples:
    """Return all samples that a VictoriaMetrics has of a topology."""
    urllib.request.urlopen(f"{url}/internal/force_flush").close()
    parameters = urllib.parse.urlencode({"match[]": '{__name__=~".+"}', "start": "0"})
    found: Samples = {}
    with urllib.request.urlopen(f"{url}/api/v1/export?{parameters}") as answer:
        for line in answer:
            one = jsonio.loads(line)
            pairs = zip(one["timestamps"], map(float, one["values"]), strict=True)
            # One series may come in several lines, one for each block of it.
            found.setdefault(frozenset(one["metric"].items()), []).extend(pairs)
    return {labels: sorted(samples) for labels, samples in found.items()}


def raw(url: str, names: str, unix_ts: float) -> Samples:
    """Return the samples of a day before a time, as any of the servers answers a query."""
    answer = ask(url, "/api/v1/query", query=f'{{__name__=~"{names}"}}[1d]', time=f"{unix_ts:.3f}")
    return {
        frozenset(one["metric"].items()): [
            (round(at * 1000), float(value)) for at, value in one["values"]
        ]
        for one in answer["data"]["result"]
    }


def now() -> float:
    """Return the Unix time of the last full second."""
    return float(int(time.time()))


def wait_for(look: Callable[[], dict[Any, Any]]) -> dict[Any, Any]:
    """Return what ``look`` finds, as soon as that is something."""
    deadline = time.monotonic() + _READY_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def made(connection: duckdb.DuckDBPyConnection, groups: Iterable[Group]) -> Samples:
    """Return the samples in the tables of the groups."""
    found: Samples = {}
    for group in groups:
        series = {
            row[0]: {n: v for n, v in zip(group.labels, row[1:], strict=True) if v}
            for row in connection.table(group.series_table).fetchall()
        }
        for row in connection.table(group.samples_table).order("id, at_ms").fetchall():
            for family, value in zip(group.families, row[2:], strict=True):
                labels = frozenset({"__name__": family.name, **series[row[0]]}.items())
                found.setdefault(labels, []).append((row[1], value))
    return found


class Misbehaving:
    """A server that keeps what it takes by remote write, and does as it is told.

    Attributes:
        orders: what it does with the next requests to write, one after the other: an HTTP status
            with headers, ``"reset"`` (take it and break off), ``"slow"`` (answer too late) or
            ``"drip"`` (answer byte by byte). When none is left, it takes what it is sent.
        requests: the samples of each request that it has taken or that it broke off.
        headers: of each request to write.
    """

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.requests: list[list[tuple[frozenset[tuple[str, str]], int, float]]] = []
        self.headers: list[dict[str, str]] = []
        self.ended = threading.Event()
        self.metrics = b""
        self.url = ""

    @property
    def samples(self) -> Samples:
        """What it has, each sample once."""
        found: dict[frozenset[tuple[str, str]], dict[int, float]] = {}
        for request in self.requests:
            for labels, at_ms, value in request:
                kept = found.setdefault(labels, {}).setdefault(at_ms, value)
                assert kept == value, "one time, two values"
        return {labels: sorted(samples.items()) for labels, samples in found.items()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Misbehaving

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(200, {}, self.state.metrics if self.path == "/metrics" else b"")

    def do_POST(self) -> None:
        state = self.state
        body = self.rfile.read(int(self.headers["Content-Length"]))
        state.headers.append(dict(self.headers.items()))
        order = state.orders.pop(0) if state.orders else (204, {}, b"")
        if not isinstance(order, str):
            if order[0] < 300:
                state.requests.append(written(body))
            self._answer(*order)
            return
        self.close_connection = True
        if order == "slow":
            state.ended.wait(30)
        elif order == "drip":
            self._drip()
        else:
            assert order == "reset"
            state.requests.append(written(body))
            self.connection.shutdown(socket.SHUT_RDWR)

    def _drip(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(OSError):
            while not self.state.ended.wait(0.05):
                self.wfile.write(b"x")

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def misbehaving() -> Iterator[Misbehaving]:
    """Run a `Misbehaving` on a free port of loopback."""
    state = Misbehaving()
    handler = type("_Told", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield state
    finally:
        state.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def written(body: bytes) -> list[tuple[frozenset[tuple[str, str]], int, float]]:
    """Return the samples in the body of a remote write, read by the wire format's own rules."""
    found = []
    for _, series in _fields(bytes(cramjam.snappy.decompress_raw(body))):
        labels: list[tuple[str, str]] = []
        samples: list[tuple[int, float]] = []
        for number, content in _fields(series):
            parts = dict(_fields(content))
            if number == 1:
                labels.append((parts[1].decode(), parts[2].decode()))
            else:
                at_ms = int.from_bytes(parts[2], "little")
                samples.append((at_ms, _double(parts[1])))
        assert labels == sorted(labels)
        assert len(dict(labels)) == len(labels)
        found += [(frozenset(labels), at_ms, value) for at_ms, value in samples]
    return found


def _double(content: bytes) -> float:
    """Return the IEEE 754 number of eight bytes."""
    value: float = struct.unpack("<d", content)[0]
    return value


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each field; a varint as little-endian bytes."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            digit = message[place]
            place += 1
            value |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                return value

    while place < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint().to_bytes(10, "little")
            continue
        size = 8 if key & 7 == 1 else varint()
        assert key & 7 in {1, 2}
        yield key >> 3, message[place : place + size]
        place += size
    assert place == len(message)
