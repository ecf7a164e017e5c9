from __future__ import annotations

from typing import Any

import duckdb
import pytest

from perfmeasure.analysis import endpoints

ANY = "0.0.0.0"  # noqa: S104 - nothing is bound here


def resolved(
    *listeners: tuple[Any, ...], addresses: tuple[tuple[str, int, str], ...] = ()
) -> list[tuple[Any, ...]]:
    """Return ``endpoint`` of (instance, service, ip, port, from, to, pid) in namespace 1."""
    with duckdb.connect() as cursor:
        cursor.execute(
            "CREATE TABLE listeners (instance_id VARCHAR, netns BIGINT, service VARCHAR, "
            "protocol VARCHAR, listen_ip VARCHAR, listen_port INTEGER, is_v6only BOOLEAN, "
            "pid BIGINT, valid_from_unix_ts DOUBLE, valid_to_unix_ts DOUBLE)"
        )
        cursor.execute("CREATE TABLE addresses (instance_id VARCHAR, netns BIGINT, ip VARCHAR)")
        for instance, service, ip, port, begin, end, pid in listeners:
            cursor.execute(
                "INSERT INTO listeners VALUES (?, 1, ?, 'tcp', ?, ?, false, ?, ?, ?)",
                [instance, service, ip, port, pid, begin, end],
            )
        for address in addresses:
            cursor.execute("INSERT INTO addresses VALUES (?, ?, ?)", list(address))
        endpoints.make(cursor)
        return cursor.execute(
            "SELECT scope, ip, begin_ts, end_ts, instance_id, service, pid, candidates "
            "FROM endpoint ORDER BY scope, ip, begin_ts"
        ).fetchall()


def test_a_wildcard_is_every_address_of_its_namespace() -> None:
    found = resolved(
        ("m1", "web", "::", 80, 100.0, 200.0, 1),
        addresses=(("m1", 1, "10.0.0.1"), ("m1", 1, "fd00::1"), ("m1", 2, "10.9.9.9")),
    )
    assert [(scope, ip) for scope, ip, *_ in found] == [
        ("", "10.0.0.1"),
        ("", "fd00::1"),
        ("m1/1", "127.0.0.0"),
        ("m1/1", "127.0.0.1"),
        ("m1/1", "::1"),
    ]
    assert {row[2:4] for row in found} == {(98.0, 202.0)}


def test_a_port_that_changes_hands_has_each_at_its_time() -> None:
    found = resolved(
        ("m1", "old", "10.0.0.1", 80, 100.0, 110.0, 1),
        ("m1", "new", "10.0.0.1", 80, 111.0, None, 2),
        ("m1", "old", "10.0.0.1", 80, 50.0, 60.0, 1),
    )
    assert [row[2:6] for row in found] == [
        (48.0, 62.0, "m1", "old"),
        (98.0, 110.0, "m1", "old"),
        (110.0, 1e11, "m1", "new"),
    ]


def test_two_of_one_service_are_one_and_two_services_are_candidates() -> None:
    found = resolved(
        ("m1", "web", "10.0.0.1", 80, 100.0, None, 1),
        ("m1", "web", "10.0.0.1", 80, 100.0, None, 2),
        ("m1", "other", "10.0.0.1", 80, 200.0, 300.0, 3),
    )
    assert [row[2:] for row in found] == [
        (98.0, 200.0, "m1", "web", None, None),
        (200.0, 300.0, None, None, None, ["m1/other", "m1/web"]),
        (300.0, 1e11, "m1", "web", None, None),
    ]


def test_what_is_bound_more_closely_answers() -> None:
    found = resolved(
        ("m1", "all", ANY, 80, 100.0, None, 1),
        ("m1", "one", "10.0.0.1", 80, 100.0, None, 2),
        addresses=(("m1", 1, "10.0.0.1"), ("m1", 1, "10.0.0.2")),
    )
    assert {ip: service for scope, ip, _, _, _, service, *_ in found if not scope} == {
        "10.0.0.1": "one",
        "10.0.0.2": "all",
    }


def test_an_address_of_two_instances_is_each_ones_own() -> None:
    found = resolved(
        ("m1", "a", "172.17.0.2", 80, 100.0, None, 1),
        ("m2", "b", "172.17.0.2", 80, 100.0, None, 1),
    )
    assert [(scope, service, candidates) for scope, *_, service, _, candidates in found] == [
        ("", None, ["m1/a", "m2/b"]),
        ("m1", "a", None),
        ("m2", "b", None),
    ]


@pytest.mark.parametrize(
    ("address", "wanted"),
    [("::ffff:10.0.0.1", "10.0.0.1"), ("::ffff:0:1", "::ffff:0:1"), ("fd00::1", "fd00::1")],
)
def test_mapped_addresses(address: str, wanted: str) -> None:
    with duckdb.connect() as cursor:
        query = f"SELECT {endpoints.unmapped('ip')} FROM (SELECT ? AS ip)"  # noqa: S608
        assert cursor.execute(query, [address]).fetchall() == [(wanted,)]
