from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from perfmeasure import cli, jsonio
from perfmeasure.analysis import graph, topologysource
from perfmeasure.topology import exposition, importer
from perfmeasure.web.connections import Limits
from perfmeasure.web.files import METRICS_NAME
from tests.topology import fleet_rows, tsdb
from tests.web.conftest import Served

BEGIN = fleet_rows.BEGIN
WINDOW = f"{BEGIN:.0f}..{BEGIN + 3600:.0f}"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "series.md"
QUESTIONS = re.findall(r"```promql\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def fleet() -> duckdb.DuckDBPyConnection:
    connection = fleet_rows.fleet(calls=100)
    connection.execute(
        "UPDATE connections SET end_unix_ts = NULL WHERE bytes_sent % 9 = 0;"
        # All of a caller's own loopback reach what listens there under that very address.
        "DELETE FROM connections WHERE service IS NULL"
    )
    return connection


@pytest.fixture(scope="module")
def logs(fleet: duckdb.DuckDBPyConnection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    fleet_rows.write_logs(fleet, folder)
    return folder


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for what a server says of the samples it dropped: test_importer.py does."""
    monkeypatch.setattr(importer, "_METRICS_SECONDS", 0.0)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `perfmeasure topology`; return its status and what it wrote."""

    def ran(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.run(["topology", *map(str, arguments)])
        return status, *capsys.readouterr()

    return ran


def topology(run: Run, *arguments: str | Path) -> dict[str, Any]:
    status, out, err = run(*arguments, "--json")
    assert status == 0, err
    document: dict[str, Any] = jsonio.loads(out)
    return document


def edges(document: dict[str, Any]) -> dict[tuple[str, ...], tuple[int, int]]:
    return {
        (edge["source"], edge["target"], str(edge["port"]), edge["protocol"]): (
            edge["bytes"],
            edge["connections"],
        )
        for edge in document["edges"]
    }


@pytest.mark.parametrize("name", ["victoria-metrics", "prometheus"])
def test_the_topology_of_a_server_is_that_of_the_logs(
    start_server: Callable[..., tsdb.Program], run: Run, logs: Path, name: str
) -> None:
    url = start_server(name).url
    status, _, err = run("export", logs, "--to", url.replace("//", "//user:secret@"))
    assert status == 0, err
    assert re.search(rf"^{url}: has \d+ samples, sent in 1 requests", err)
    assert "secret" not in err
    here = topology(run, logs, "--window", WINDOW)
    there = topology(run, "--from", url, "--window", WINDOW)
    assert edges(there) == edges(here)
    assert there["coverage"] == here["coverage"]
    assert there["nodes"] == here["nodes"]
    _check_questions(url, here)


def _check_questions(url: str, document: dict[str, Any]) -> None:
    """Ask what docs/series.md asks, at the end of the logs."""
    end = BEGIN + 1800
    steps, joined, _ = QUESTIONS
    services, traffic = steps.splitlines()
    found = tsdb.query(url, services, end)
    assert {dict(labels)["name"] for labels in found} == {"nginx", "app", "mysql", "dns"}
    assert set(found.values()) == {1.0}
    [(labels, value)] = tsdb.query(url, traffic, end).items()
    assert (dict(labels)["src_ip"], value) == ("10.0.0.1", 700)
    nodes = {node["id"]: node for node in document["nodes"]}
    expected = {
        (edge["source"], edge["target"], str(edge["port"]), edge["protocol"]): edge["bytes"]
        for edge in document["edges"]
        if nodes[edge["target"]]["kind"] == "service"
    }
    assert {
        (
            f"{one['src_instance_id']}/{one['src_service']}",
            f"{one['dst_instance_id']}/{one['dst_service']}",
            one["dst_port"],
            one["protocol"],
        ): value
        for one, value in ((dict(labels), v) for labels, v in tsdb.query(url, joined, end).items())
    } == expected
    assert tsdb.query(url, QUESTIONS[2], end) == {}
    edge_values = tsdb.query(url, "last_over_time(service_edge[1d])", BEGIN + 3600)
    total = sum(edge["bytes"] for edge in document["edges"])
    assert sum(edge_values.values()) == total == document["coverage"]["input_bytes"]


def test_a_port_of_two_services_is_found_by_the_question_for_them(
    start_server: Callable[..., tsdb.Program], run: Run, tmp_path: Path
) -> None:
    connection = fleet_rows.fleet(hosts=2, calls=10)
    connection.execute(
        "INSERT INTO listeners VALUES ('host-1', 4026531841, 'rival', 'tcp', '10.0.0.2', 3306, "
        "false, 1, ?, NULL)",
        [BEGIN],
    )
    fleet_rows.write_logs(connection, tmp_path)
    url = start_server().url
    assert run("export", tmp_path, "--to", url)[0] == 0
    assert tsdb.query(url, QUESTIONS[2], BEGIN + 1700) == {
        frozenset(
            {"instance_ip": "10.0.0.2", "listen_port": "3306", "protocol": "tcp"}.items()
        ): 2.0
    }


def test_machines_one_by_one_and_again_are_all_machines(
    start_server: Callable[..., tsdb.Program], run: Run, logs: Path
) -> None:
    url = start_server().url
    for host in ("host-2", "host-0", "host-1", "host-0"):
        assert run("export", logs / host, "--to", url)[0] == 0
    here, there = (
        topology(run, *asked, "--window", WINDOW) for asked in ((logs,), ("--from", url))
    )
    assert edges(there) == edges(here)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("export", "{logs}", "--to", "host:1"), 2, "one of http:// or https://"),
        (("export", "{logs}/none", "--to", "http://127.0.0.1:1"), 4, "none"),
        (("--from", "ftp://user:secret@host"), 2, "one of http:// or https://"),
        (("--from", "http://user:secret@127.0.0.1:1"), 1, "http://127.0.0.1:1: nothing listens"),
        (("--from", "http://127.0.0.1:1", "{logs}"), 2, "beside LOGS"),
    ],
)
def test_what_cannot_be_done_is_told(
    run: Run, logs: Path, arguments: tuple[str, ...], status: int, told: str
) -> None:
    ended, _, err = run(*(argument.format(logs=logs) for argument in arguments))
    assert (ended, "secret" in err) == (status, False), err
    assert told in err


def test_prometheus_scrapes_what_a_docroot_shows(
    start_server: Callable[..., tsdb.Program], run: Run, logs: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    topologysource.read_rows([logs], rows, say=print)
    docroot = tmp_path / "docroot"
    docroot.mkdir()
    text = exposition.of_tables(rows, graph.section(rows))
    (docroot / METRICS_NAME).write_bytes(text)
    served = Served(docroot, Limits())
    try:
        status, headers, body = served.ask("/metrics")
        assert (status, body) == (200, text)
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        url = _scraping(start_server, served.port, graph.section(rows))
        # The first that was scraped of a day's counters is what they have grown since 00:00.
        there, here = topology(run, "--from", url), topology(run, logs)
        assert edges(there) == edges(here)
        assert there["coverage"] == here["coverage"]
    finally:
        served.stop()


def _scraping(
    start_server: Callable[..., tsdb.Program], port: int, document: dict[str, Any]
) -> str:
    """Start a Prometheus that scrapes; return its URL once it has all edges."""
    config = (
        "global: {scrape_interval: 1s}\n"
        "scrape_configs: [{job_name: one, static_configs: [{targets: "
        f'["127.0.0.1:{port}"]}}]}}]\n'
    )
    url = start_server("prometheus", config=config).url
    question = "sum by (caller_instance) (service_edge)"
    found = tsdb.wait_for(lambda: tsdb.query(url, question, tsdb.now() + 1))
    expected: dict[frozenset[tuple[str, str]], float] = {}
    for edge in document["edges"]:
        labels = frozenset({"caller_instance": edge["source"].partition("/")[0]}.items())
        expected[labels] = expected.get(labels, 0) + edge["bytes"]
    assert found == expected
    return url
