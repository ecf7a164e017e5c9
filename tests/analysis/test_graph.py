from __future__ import annotations

from pathlib import Path

from perfmeasure.analysis import graph
from tests.analysis import topologies
from tests.analysis.topologies import addresses, call, listener, section


def test_nodes_say_what_they_are(tmp_path: Path) -> None:
    found = section(
        tmp_path,
        addresses=addresses(m1="10.0.0.1", m2="10.0.0.2"),
        listeners=[
            listener("m2", "db", "10.0.0.2", 3306),
            listener("m2", "db", "10.0.0.2", 3307, pid=2),
            listener("m2", "a", "10.0.0.2", 80),
            listener("m2", "b", "10.0.0.2", 80),
            listener("m2", "idle", "10.0.0.2", 81),
            listener("m2", "gone", "10.0.0.2", 82, valid_to_unix_ts=950.0),
        ],
        connections=[
            call("m1", "web", ("10.0.0.1", 5000, "10.0.0.2", 3306)),
            call("m1", "web", ("10.0.0.1", 5001, "10.0.0.2", 80)),
            call("m1", None, ("10.0.0.1", 5002, "fd00::9", 9001)),
            call("m1", "web", ("127.0.0.1", 5003, "127.0.0.1", 9)),
        ],
        relays=[{"fingerprint": "A" * 40, "nickname": "guard", "ip": "fd00::9", "port": 9001}],
    )
    m1 = {"instance": "m1", "instance_ips": ["10.0.0.1"]}
    m2 = {"instance": "m2", "instance_ips": ["10.0.0.2"], "kind": "service"}
    http, https = ({"port": port, "protocol": "tcp"} for port in (80, 81))
    mysql = [{"port": port, "protocol": "tcp"} for port in (3306, 3307)]
    assert found["nodes"] == [
        {"id": "ambiguous/10.0.0.2:80", "kind": "ambiguous", "candidates": ["m2/a", "m2/b"]},
        {"id": "external/[fd00::9]:9001", "kind": "external", "ip": "fd00::9", "port": 9001,
         "fingerprint": "A" * 40, "nickname": "guard"},
        {"id": "external/m1/127.0.0.1:9", "kind": "external", "ip": "127.0.0.1", "port": 9},
        {"id": "m1/unattributed", "kind": "unattributed", **m1},
        {"id": "m1/web", "kind": "service", "service": "web", **m1},
        {"id": "m2/a", "service": "a", "ports": [http], **m2},
        {"id": "m2/b", "service": "b", "ports": [http], **m2},
        {"id": "m2/db", "service": "db", "ports": mysql, **m2},
        {"id": "m2/idle", "service": "idle", "ports": [https], **m2},
    ]  # fmt: skip


def test_the_two_processes_of_a_service(tmp_path: Path) -> None:
    ends = ("10.0.0.1", 5000, "10.0.0.2", 3306)
    accepted = call("m2", "db", (*ends[2:], *ends[:2]), side="passive", pid=8)
    found = section(
        tmp_path,
        addresses=addresses(m1="10.0.0.1", m2="10.0.0.2"),
        listeners=[listener("m2", "db", "10.0.0.2", 3306, pid=pid) for pid in (7, 8)],
        connections=[
            call("m1", "web", ends, pid=3),
            accepted,
            call("m1", "web", ("10.0.0.1", 5001, *ends[2:]), pid=4),
        ],
        group_by="process",
    )
    # Which of them answered is known of the one that tells of it.
    assert [(edge["source"], edge["target"]) for edge in found["edges"]] == [
        ("m1/web/3", "m2/db/8"),
        ("m1/web/4", "m2/db"),
    ]
    assert [node.get("pid") for node in found["nodes"]] == [3, 4, None, 7, 8]


def test_of_machines_who_did_it_is_no_matter(tmp_path: Path) -> None:
    found = section(
        tmp_path,
        addresses=addresses(m1="10.0.0.1", m2="10.0.0.2"),
        listeners=[listener("m2", "db", "10.0.0.2", 3306)],
        connections=[
            call("m1", "web", ("10.0.0.1", 5000, "10.0.0.2", 3306)),
            call("m1", None, ("10.0.0.1", 5001, "10.0.0.2", 3306), 50),
        ],
        group_by="instance",
    )
    [edge] = found["edges"]
    assert (edge["source"], edge["target"], edge["bytes"]) == ("m1", "m2", 150)
    assert [(node["id"], node["kind"]) for node in found["nodes"]] == [
        ("m1", "instance"),
        ("m2", "instance"),
    ]
    assert found["coverage"]["unattributed_bytes"] == 50


def test_peers_outside_are_bounded(tmp_path: Path) -> None:
    calls = [
        call("m1", "web", ("10.0.0.1", 5000 + n, f"192.0.2.{n}", 443), 10 * n) for n in range(1, 9)
    ]
    found = section(tmp_path, connections=calls, most_external=2)
    assert [(edge["target"], edge["bytes"], edge["connections"]) for edge in found["edges"]] == [
        ("external/other", 210, 6),
        ("external/192.0.2.8:443", 80, 1),
        ("external/192.0.2.7:443", 70, 1),
    ]
    [other] = [node for node in found["nodes"] if node["id"] == "external/other"]
    assert other["peers"] == 6
    assert found["coverage"]["external_bytes"] == 360


def test_an_edge_is_inferred_where_only_the_ports_say_who_called(tmp_path: Path) -> None:
    found = topologies.small(tmp_path)
    assert [edge["is_inferred"] for edge in found["edges"]] == [False, True]
    assert found["window"] == {"start_unix_ts": 1000.0, "end_unix_ts": 1010.0}


def test_an_envelope_says_what_is_inside(tmp_path: Path) -> None:
    found = graph.enveloped(topologies.small(tmp_path))
    assert (found["type"], found["version"], found["group_by"]) == (
        "perfmeasure-topology", "1.0", "service",
    )  # fmt: skip
