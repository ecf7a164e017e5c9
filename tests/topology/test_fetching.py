from __future__ import annotations

import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from perfmeasure import jsonio
from perfmeasure.errors import InputError, MeasurementError, PerfmeasureError
from perfmeasure.topology import families, fetching, series
from perfmeasure.topology.batches import batches
from perfmeasure.topology.importer import Importer
from perfmeasure.topology.server import Server
from tests.topology import fleet_rows, tsdb


@pytest.mark.parametrize("name", ["victoria-metrics", "prometheus"])
def test_what_was_imported_comes_back(
    start_server: Callable[..., tsdb.Program],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
) -> None:
    monkeypatch.setattr(fetching, "_LINE_SAMPLES", 7)
    connection = fleet_rows.fleet(hosts=2, calls=30)
    series.build(connection)
    server = Server(start_server(name).url)
    Importer(server, say=print).send(batches(connection, families.RAW))
    begin = fleet_rows.BEGIN
    fetching.fetch(server, begin - 600, begin + 3600, tmp_path / "series")
    found: tsdb.Samples = {}
    for line in (tmp_path / "series").read_text().splitlines():
        one = jsonio.loads(line)
        assert len(one["values"]) <= 7
        pairs = zip(one["timestamps"], map(float, one["values"]), strict=True)
        found.setdefault(frozenset(one["metric"].items()), []).extend(pairs)
    server.close()
    groups = [group for group in families.RAW if group is not families.TRAFFIC]
    assert {labels: sorted(samples) for labels, samples in found.items()} == tsdb.made(
        connection, groups
    )


ANSWERS: list[tuple[int, bytes, type[PerfmeasureError], str]] = [
    (429, b"", MeasurementError, "Try again later"),
    (503, b"starting", MeasurementError, "HTTP 503: starting"),
    (401, b"", InputError, "user:password"),
    (422, b"too many series", InputError, "too many series.*shorter --window"),
    (404, b"", InputError, "URL's path"),
    (200, b'{"data": 5}', InputError, "another form"),
    (200, b"<html>", InputError, "not JSON"),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: f"{answer[0]} {answer[1][:6]!r}")
def test_an_answer_that_is_none_is_told(
    tmp_path: Path, answer: tuple[int, bytes, type[PerfmeasureError], str]
) -> None:
    status, body, error, told = answer

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            is_export = self.path.startswith("/api/v1/export")
            self.send_response(404 if is_export else status)
            self.end_headers()
            self.wfile.write(b"" if is_export else body)

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        server = Server(f"http://127.0.0.1:{listening.server_port}")
        try:
            with pytest.raises(error, match=told):
                fetching.fetch(server, 0, 1, tmp_path / "series")
        finally:
            server.close()
            listening.shutdown()
            thread.join()


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        server = Server(f"http://127.0.0.1:{one.getsockname()[1]}")
        with pytest.raises(MeasurementError, match="nothing listens there"):
            fetching.fetch(server, 0, 1, tmp_path / "series")
