from __future__ import annotations

from collections.abc import Callable, Iterator

import duckdb
import pytest

from perfmeasure.errors import InputError, MeasurementError
from perfmeasure.topology import families, importer, series
from perfmeasure.topology.batches import Batch, batches
from perfmeasure.topology.importer import Importer
from perfmeasure.topology.server import Server
from tests.topology import fleet_rows, tsdb


@pytest.fixture(scope="module")
def fleet() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = fleet_rows.fleet(hosts=2, calls=50)
    series.build(connection)
    yield connection
    connection.close()


@pytest.fixture
def said() -> list[str]:
    return []


def send(
    url: str, fleet: duckdb.DuckDBPyConnection, said: list[str], **more: float
) -> importer.Imported:
    server = Server(url, timeout_seconds=more.get("timeout_seconds", 60.0))
    try:
        return Importer(
            server, say=said.append, give_up_seconds=more.get("give_up_seconds", 60.0)
        ).send(batches(fleet, families.RAW, batch_samples=200))
    finally:
        server.close()


def test_a_real_server_has_every_sample_once_however_often_it_was_sent(
    start_server: Callable[..., tsdb.Program],
    fleet: duckdb.DuckDBPyConnection,
    said: list[str],
) -> None:
    url = start_server().url
    expected = tsdb.made(fleet, families.RAW)
    for _ in range(2):
        done = send(url, fleet, said)
        assert done.samples == sum(map(len, expected.values()))
        assert tsdb.exported(url) == expected
    assert said == []


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_nothing_is_lost_or_doubled_when_the_server_is_started_again_meanwhile(
    start_server: Callable[..., tsdb.Program],
    fleet: duckdb.DuckDBPyConnection,
    said: list[str],
    *,
    is_killed: bool,
) -> None:
    program = start_server()
    made = list(batches(fleet, families.RAW, batch_samples=200))

    def interrupted() -> Iterator[Batch]:
        for number, batch in enumerate(made):
            if number in {3, len(made) - 1}:
                program.stop(is_killed=is_killed)
                program.start()
            yield batch

    server = Server(program.url)
    done = Importer(server, say=said.append).send(interrupted())
    server.close()
    assert tsdb.exported(program.url) == tsdb.made(fleet, families.RAW)
    assert done.samples == sum(batch.count for batch in made)
    assert done.failures == 2
    assert len([line for line in said if "takes samples again" in line]) == 2


BUSY: list[tsdb.Order] = [
    (429, {"Retry-After": "1"}, b"slow down"),
    (503, {}, b"starting"),
    "reset",
    "slow",
    "drip",
    (500, {}, b""),
]


@pytest.mark.parametrize("order", BUSY, ids=lambda order: str(order)[:6])
def test_a_server_that_fails_for_a_moment_has_all_in_the_end(
    misbehaving: tsdb.Misbehaving,
    fleet: duckdb.DuckDBPyConnection,
    said: list[str],
    order: tsdb.Order,
) -> None:
    misbehaving.orders = [(204, {}, b""), order, (204, {}, b""), order]
    is_silent = order in ("slow", "drip")
    done = send(misbehaving.url, fleet, said, timeout_seconds=1.0 if is_silent else 60.0)
    assert misbehaving.samples == tsdb.made(fleet, families.RAW)
    assert done.failures >= 2
    problem, again, *_ = said
    assert problem.startswith(f"{misbehaving.url}: ")
    assert "trying for up to 60 s" in problem
    assert "takes samples again, after" in again
    assert misbehaving.headers[0]["Content-Encoding"] == "snappy"


REFUSED = [
    (400, b"out of bounds", "only takes what is new: have it scrape /metrics"),
    (401, b"", "user:password"),
    (404, b"404 page not found", "enable-remote-write-receiver"),
    (422, b"cannot be processed", "own log"),
]


@pytest.mark.parametrize("answer", REFUSED, ids=lambda answer: str(answer[0]))
def test_a_server_that_does_not_want_them_is_not_asked_again(
    misbehaving: tsdb.Misbehaving,
    fleet: duckdb.DuckDBPyConnection,
    said: list[str],
    answer: tuple[int, bytes, str],
) -> None:
    status, body, next_step = answer
    misbehaving.orders = [(status, {}, body)]
    with pytest.raises(InputError, match=f"HTTP {status}") as raised:
        send(misbehaving.url, fleet, said)
    assert body.decode() in str(raised.value)
    assert next_step in str(raised.value)
    assert len(misbehaving.headers) == 1


def test_a_server_that_does_not_come_back_is_given_up(
    misbehaving: tsdb.Misbehaving, fleet: duckdb.DuckDBPyConnection, said: list[str]
) -> None:
    misbehaving.orders = [(204, {}, b""), *[(429, {}, b"no")] * 1000]
    with pytest.raises(MeasurementError, match="200 samples were acknowledged before") as raised:
        send(misbehaving.url, fleet, said, give_up_seconds=0.6)
    assert "HTTP 429: no, for 0.6 s" in str(raised.value)
    assert len(said) == 1


def test_a_server_that_drops_old_samples_or_keeps_twice_is_told_on(
    start_server: Callable[..., tsdb.Program], said: list[str]
) -> None:
    program = start_server(arguments={"-retentionPeriod": "1d", "-dedup.minScrapeInterval": "0s"})
    old = fleet_rows.fleet(hosts=1, calls=3, begin=fleet_rows.BEGIN - 30 * 86400)
    series.build(old)
    with pytest.raises(MeasurementError, match=r"it dropped \d+ samples"):
        send(program.url, old, said)
    (line,) = said
    assert line.endswith("start it with -dedup.minScrapeInterval=1ms")


def test_prometheus_takes_what_is_new_to_it_and_the_message_says_what_to_do_with_what_is_old(
    start_server: Callable[..., tsdb.Program],
    fleet: duckdb.DuckDBPyConnection,
    said: list[str],
) -> None:
    program = start_server("prometheus")
    send(program.url, fleet, said)
    expected = tsdb.made(fleet, families.RAW)
    assert tsdb.raw(program.url, ".+", fleet_rows.BEGIN + 3600) == expected
    old = fleet_rows.fleet(hosts=1, calls=3, begin=fleet_rows.BEGIN - 30 * 86400)
    series.build(old)
    with pytest.raises(InputError, match="have it scrape /metrics"):
        send(program.url, old, said)
