# ruff: noqa: S104, S608 - the statements are made of what stands here

from __future__ import annotations

from collections import defaultdict

import duckdb
import pytest

from perfmeasure.errors import InputError
from perfmeasure.topology import families, series
from perfmeasure.topology.families import OTHER
from tests.topology import fleet_rows, tsdb

BEGIN = fleet_rows.BEGIN
BEGIN_MS = int(BEGIN * 1000)
DAY = 86400.0


def labels_of(connection: duckdb.DuckDBPyConnection, group: families.Group) -> list[dict[str, str]]:
    rows = connection.table(group.series_table).order("id").fetchall()
    return [dict(zip(group.labels, row[1:], strict=True)) for row in rows]


def listens(
    service: str, ip: str, port: int, begin: float, end: float | None, **more: object
) -> tuple[object, ...]:
    netns, protocol = more.get("netns", 1), more.get("protocol", "tcp")
    return ("a", netns, service, protocol, ip, port, more.get("v6only", False), 1, begin, end)


def rows(
    listeners: list[tuple[object, ...]] = [],  # noqa: B006 - none changes them
    connections: list[tuple[object, ...]] = [],  # noqa: B006
) -> duckdb.DuckDBPyConnection:
    made = fleet_rows.empty()
    for ip in ("10.0.0.1", "fe80::1", "127.0.0.1", "::1"):
        made.execute("INSERT INTO addresses VALUES ('a', 1, ?)", [ip])
    for table, lines in (("listeners", listeners), ("connections", connections)):
        for line in lines:
            made.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(line))})", line)
    return made


def called(end: float | None, sent: int, received: int, **more: object) -> tuple[object, ...]:
    ip, side = more.get("ip", "10.0.0.2"), more.get("side", "active")
    service = more.get("service", "app")
    start = more.get("start", BEGIN + 1)
    return (
        *(
            "a",
            1,
            service,
            7,
            side,
            "tcp",
            "10.0.0.1",
            more.get("src_port", 40000),
            ip,
            more.get("port", 3306),
        ),
        *(sent, received, start, end, "ebpf"),
    )


def test_a_service_has_a_series_for_each_port_and_address_with_the_whole_list() -> None:
    connection = rows(
        [listens("web", "::", 443, BEGIN, None), listens("web", "::", 80, BEGIN, None)]
    )
    series.build(connection)
    found = labels_of(connection, families.SERVICES)
    assert {(one["instance_ip"], one["listen_port"]) for one in found} == {
        (ip, port) for ip in ("10.0.0.1", "fe80::1") for port in ("80", "443")
    }
    assert {one["listen_ports"] for one in found} == {"80,443"}
    local = labels_of(connection, families.LOCAL_SERVICES)
    assert {(one["netns"], one["listen_ip"]) for one in local} == {("1", "127.0.0.1"), ("1", "::1")}


def test_what_listens_where() -> None:
    connection = rows(
        [
            listens("six", "::", 1, BEGIN, None, v6only=True),
            listens("four", "0.0.0.0", 2, BEGIN, None),
            listens("mapped", "::ffff:10.0.0.1", 3, BEGIN, None),
            listens("elsewhere", "0.0.0.0", 4, BEGIN, None, netns=2),
            listens("local", "127.0.0.1", 5, BEGIN, None),
        ]
    )
    series.build(connection)
    found = labels_of(connection, families.SERVICES)
    assert {(one["name"], one["instance_ip"]) for one in found} == {
        ("six", "fe80::1"),
        ("four", "10.0.0.1"),
        ("mapped", "10.0.0.1"),
    }
    local = labels_of(connection, families.LOCAL_SERVICES)
    assert {(one["name"], one["listen_ip"]) for one in local} == {
        ("six", "::1"),
        ("four", "127.0.0.1"),
        ("elsewhere", "127.0.0.1"),
        ("local", "127.0.0.1"),
    }


def test_a_service_says_one_while_it_listens_however_many_processes_do() -> None:
    connection = rows(
        [
            listens("web", "10.0.0.1", 80, BEGIN + 10.5, BEGIN + 100),
            listens("web", "10.0.0.1", 80, BEGIN + 50, BEGIN + 130),
            listens("web", "10.0.0.1", 80, BEGIN + 300, None),
        ],
        [called(BEGIN + 330, 1, 1)],
    )
    series.build(connection)
    (found,) = tsdb.made(connection, [families.SERVICES]).values()
    assert [at - BEGIN_MS for at, _ in found] == [
        *(10_500, 60_000, 120_000, 129_999),
        *(300_000, 330_000),
    ]
    assert {value for _, value in found} == {1.0}


def test_a_service_that_moves_to_another_port_has_the_list_of_its_time() -> None:
    connection = rows(
        [
            listens("app", "10.0.0.1", 8080, BEGIN, BEGIN + 60),
            listens("app", "10.0.0.1", 9090, BEGIN + 60, None),
        ],
        [called(BEGIN + 90, 1, 1)],
    )
    series.build(connection)
    found = labels_of(connection, families.SERVICES)
    assert [(one["listen_port"], one["listen_ports"]) for one in found] == [
        ("8080", "8080"),
        ("9090", "9090"),
    ]


def test_a_listener_older_than_the_rows_begins_with_their_day() -> None:
    connection = rows(
        [listens("web", "10.0.0.1", 80, BEGIN - 30 * DAY, None)], [called(BEGIN + 90, 1, 1)]
    )
    series.build(connection)
    (found,) = tsdb.made(connection, [families.SERVICES]).values()
    assert [at - BEGIN_MS for at, _ in found] == [0, 60_000, 90_000]


def test_a_counter_grows_and_begins_anew_each_day() -> None:
    connection = rows(
        connections=[
            called(BEGIN + 10.001, 1, 2),
            called(BEGIN + 59.9994, 10, 20),
            called(BEGIN + 61, 100, 200),
            called(BEGIN + DAY + 0.5, 1000, 2000),
            called(BEGIN + DAY + 500, 5, 5, service="other", port=1),
        ]
    )
    series.build(connection)
    found = tsdb.made(connection, [families.CONNECTIONS])
    labels = {
        ("src_service", "app"),
        ("src_instance_id", "a"),
        ("dst_ip", "10.0.0.2"),
        ("dst_port", "3306"),
        ("protocol", "tcp"),
        ("source", "ebpf"),
    }
    expected = {
        "service_connection": (0, 33, 333, 333, 0, 3000, 3000),
        "service_connection_sent": (0, 11, 111, 111, 0, 1000, 1000),
        "service_connection_count": (0, 2, 3, 3, 0, 1, 1),
    }
    times = (0, 59_999, 61_000, 86_399_999, 86_400_000, 86_400_500, 86_900_000)
    for name, values in expected.items():
        samples = found[frozenset({("__name__", name), *labels})]
        assert samples == [(BEGIN_MS + at, v) for at, v in zip(times, values, strict=True)]


def test_the_two_ends_of_a_connection_are_two_families_and_open_ones_are_apart() -> None:
    connection = rows(
        connections=[
            called(BEGIN + 10, 1, 2),
            called(None, 50, 60),
            called(BEGIN + 10, 7, 8, side="passive", ip="10.0.0.9", port=51234, service="web"),
            called(BEGIN + 12, 7, 8, side="passive", ip="10.0.0.9", port=51235, service="web"),
            called(None, 3, 4, side="passive", ip="10.0.0.9", port=51236, service="web"),
        ]
    )
    series.build(connection)
    (accepted,) = labels_of(connection, families.ACCEPTED)
    assert accepted == {
        "dst_service": "web",
        "dst_instance_id": "a",
        "dst_ip": "10.0.0.1",
        "dst_port": "40000",
        "src_ip": "10.0.0.9",
        "protocol": "tcp",
        "source": "ebpf",
        "netns": "",
    }
    totals: dict[str, float] = defaultdict(float)
    for labels, samples in tsdb.made(connection, families.RAW).items():
        totals[dict(labels)["__name__"]] += samples[-1][1]
    del totals["instance_address"]
    assert totals == {
        "service_connection": 3,
        "service_connection_sent": 1,
        "service_connection_count": 1,
        "service_connection_open": 110,
        "service_connection_open_sent": 50,
        "service_connection_open_count": 1,
        "service_accepted": 30,
        "service_accepted_sent": 14,
        "service_accepted_count": 2,
        "service_accepted_open": 7,
        "service_accepted_open_sent": 3,
        "service_accepted_open_count": 1,
    }


def test_who_does_not_say_whether_it_called_is_judged_by_its_ports() -> None:
    connection = rows(
        [listens("web", "0.0.0.0", 40000, BEGIN, None)],
        [
            called(BEGIN + 1, 1, 0, side="unknown"),
            called(BEGIN + 1, 2, 0, side="unknown", src_port=50000),
            called(BEGIN + 1, 4, 0, side="unknown", src_port=70, port=71),
        ],
    )
    series.build(connection)
    made = tsdb.made(connection, [families.CONNECTIONS, families.ACCEPTED])
    assert {
        (dict(labels)["__name__"], dict(labels)["dst_port"]): samples[-1][1]
        for labels, samples in made.items()
        if "_sent" not in dict(labels)["__name__"] and "_count" not in dict(labels)["__name__"]
    } == {
        ("service_connection", "3306"): 2,
        ("service_accepted", "40000"): 1,
        ("service_accepted", "70"): 4,
    }


def test_what_is_bound_more_closely_answers_while_it_is_there() -> None:
    connection = rows(
        [
            listens("all", "::", 80, BEGIN, None),
            listens("one", "10.0.0.1", 80, BEGIN + 100, BEGIN + 200),
        ],
        [called(BEGIN + 300, 1, 1)],
    )
    series.build(connection)
    found = {
        dict(labels)["name"]: [at - BEGIN_MS for at, _ in samples]
        for labels, samples in tsdb.made(connection, [families.SERVICES]).items()
        if dict(labels)["instance_ip"] == "10.0.0.1"
    }
    assert found == {
        "all": [0, 60_000, 99_999, 200_000, 240_000, 300_000],
        "one": [100_000, 120_000, 180_000, 199_999],
    }


def test_what_is_beyond_the_bound_is_put_together_and_counted() -> None:
    connection = rows(
        [listens("web", "10.0.0.1", port, BEGIN, None) for port in range(1, 31)],
        [called(BEGIN + 10, 0, size, port=size, service=f"s{size}") for size in range(1, 31)],
    )
    assert series.build(connection, most_series=10) == {"services": 20, "connections": 20}
    assert len(labels_of(connection, families.SERVICES)) == 11
    found = {
        labels["dst_port"]: samples[-1][1]
        for labels, samples in (
            (dict(labels), samples)
            for labels, samples in tsdb.made(connection, [families.CONNECTIONS]).items()
        )
        if labels["__name__"] == "service_connection"
    }
    assert found == {
        OTHER: sum(range(1, 21)),
        **{str(size): size for size in range(21, 31)},
    }


def test_the_same_rows_with_others_give_the_same_samples() -> None:
    alone = fleet_rows.fleet(hosts=1, calls=50)
    day = fleet_rows.fleet(hosts=3, calls=50)
    first = alone.execute("SELECT * FROM connections").fetchall()
    day.execute("DELETE FROM connections WHERE instance_id = 'host-0'")
    day.executemany(f"INSERT INTO connections VALUES ({', '.join('?' * 15)})", first)
    later = [(*row[:12], row[12] + DAY, row[13] + DAY, row[14]) for row in first]
    day.executemany(f"INSERT INTO connections VALUES ({', '.join('?' * 15)})", later)
    for connection in (alone, day):
        series.build(connection)
    small, large = (tsdb.made(one, [families.CONNECTIONS]) for one in (alone, day))
    for labels, samples in small.items():
        have = dict(large[labels])
        assert all(have.get(at, value) == value for at, value in samples)
        assert sum(at in have for at, _ in samples) >= len(samples) - 1


@pytest.mark.parametrize("end", [2.0, 5e9, BEGIN + 500 * DAY])
def test_a_clock_that_was_not_set_is_told(end: float) -> None:
    connection = rows(connections=[called(end, 1, 1, start=1.0), called(BEGIN, 1, 1)])
    with pytest.raises(InputError, match=r"the rows of a: are from Unix times \d+ to \d+"):
        series.build(connection)
