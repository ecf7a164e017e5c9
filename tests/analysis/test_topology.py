from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from perfmeasure.analysis import graph, services, topology
from perfmeasure.analysis.topology import Window
from perfmeasure.errors import PerfmeasureError
from tests.analysis.topology_reference import Reference, Row, worlds


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds())
def test_random_worlds_as_in_plain_python(world: dict[str, list[Row]]) -> None:
    wanted = Reference(**world)
    with tempfile.TemporaryDirectory() as place:
        services.write(Path(place), world)
        found = graph.section(Path(place), most_external=1000)
    edges = {
        (edge["source"], edge["target"], edge["protocol"], edge["port"]): {
            name: edge[name] for name in ("bytes_sent", "bytes_received", "connections")
        }
        for edge in found["edges"]
    }
    assert len(edges) == len(found["edges"])
    assert edges == wanted.edges
    for category in topology.CATEGORIES:
        for unit in ("connections", "bytes"):
            told = found["coverage"][f"{category}_{unit}"]
            assert told == wanted.categories[category, unit], (category, unit)


def row(**fields: Any) -> Row:
    told = {
        "instance_id": "m1", "netns": 1, "service": "app", "pid": 1, "side": "active",
        "protocol": "tcp", "src_ip": "10.0.0.1", "src_port": 40000, "dst_ip": "10.0.0.2",
        "dst_port": 80, "bytes_sent": 100, "bytes_received": 1000, "start_unix_ts": 1000.0,
        "end_unix_ts": 1010.0, "source": "ebpf",
    }  # fmt: skip
    return {**told, **fields}


def coverage(
    tmp_path: Path, *connections: Row, window: Window | float | None = None
) -> dict[str, Any]:
    services.write(tmp_path, {"connections": connections})
    with topology.join(tmp_path, window=window) as joined:
        return joined.coverage


def test_of_nothing_there_is_no_share(tmp_path: Path) -> None:
    found = coverage(tmp_path)
    assert found["input_connections"] == found["input_bytes"] == 0
    assert "share_bytes" not in found
    with topology.join(tmp_path) as joined:
        assert joined.window is None


@pytest.mark.parametrize(
    ("window", "counted", "estimated"),
    [
        (Window(1000.0, 1010.5), 1100, 0),
        (Window(1002.5, 1005.0), 275, 275),  # a quarter of its life
        (Window(990.0, 1001.0), 110, 110),
        (Window(1010.0, 1020.0), 0, 0),
        (5.0, 550, 550),
    ],
)
def test_a_window_takes_its_part(
    tmp_path: Path, window: Window | float, counted: int, estimated: int
) -> None:
    found = coverage(tmp_path, row(), window=window)
    assert (found["input_bytes"], found["estimated_bytes"]) == (counted, estimated)


def test_a_moment_counts_in_the_window_that_begins_there(tmp_path: Path) -> None:
    moment = row(start_unix_ts=1005.0, end_unix_ts=1005.0)
    for window, count in ((Window(1000.0, 1005.0), 0), (Window(1005.0, 1010.0), 1)):
        assert coverage(tmp_path, moment, window=window)["input_connections"] == count


def test_what_is_open_goes_on_to_the_last_moment_known(tmp_path: Path) -> None:
    still_open = row(end_unix_ts=None, start_unix_ts=1000.0)
    found = coverage(tmp_path, still_open, row(end_unix_ts=1020.0), window=Window(1010.0, 1020.5))
    assert found["input_bytes"] == 550 + 550


def test_bytes_that_nobody_counted_are_told_of(tmp_path: Path) -> None:
    found = coverage(tmp_path, row(bytes_sent=None, source="polling"), row())
    assert found["without_bytes_connections"] == found["polled_connections"] == 1
    assert found["input_bytes"] == 1000 + 1100


def test_a_result_that_does_not_add_up_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = topology._EDGE.replace(
        "FROM read_parquet({path}) f",
        "FROM (FROM read_parquet({path}) UNION ALL FROM read_parquet({path})) f",
    )
    monkeypatch.setattr(topology, "_EDGE", twice)
    with pytest.raises(PerfmeasureError, match="1 connections of the input are not the sum"):
        coverage(tmp_path, row())


def test_a_path_with_a_quote(tmp_path: Path) -> None:
    folder = tmp_path / "it's"
    folder.mkdir()
    assert coverage(folder, row())["input_bytes"] == 1100


def test_of_127_8_only_who_is_bound_there_or_everywhere_answers(tmp_path: Path) -> None:
    listener = {
        "instance_id": "m1", "netns": 1, "service": "web", "protocol": "tcp",
        "listen_ip": "127.0.0.1", "listen_port": 80, "pid": 1, "valid_from_unix_ts": 900.0,
    }  # fmt: skip
    calls = [row(src_ip="127.0.0.1", dst_ip=ip) for ip in ("127.0.0.1", "127.0.0.9", "127.1.2.3")]
    everywhere = {**listener, "listen_ip": "0.0.0.0", "service": "all"}  # noqa: S104 - not bound
    for listeners, matched in (([listener], 1), ([listener, everywhere], 3)):
        services.write(tmp_path, {"listeners": listeners, "connections": calls})
        with topology.join(tmp_path) as joined:
            assert joined.coverage["matched_connections"] == matched
