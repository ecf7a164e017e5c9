from __future__ import annotations

import copy
from pathlib import Path

from perfmeasure.analysis import topology
from perfmeasure.analysis.topologymerge import merge
from tests.analysis import topologies
from tests.analysis.topologies import addresses, call, listener


def test_the_same_twice_is_one(tmp_path: Path) -> None:
    found = topologies.small(tmp_path)
    assert merge([found, copy.deepcopy(found)]) == found


def test_two_days_add_up(tmp_path: Path) -> None:
    first = topologies.small(tmp_path)
    second = topologies.section(
        tmp_path,
        addresses=addresses(m1="10.0.0.1", m2="10.0.0.2", m3="10.0.0.3"),
        listeners=[listener("m2", "db", "10.0.0.2", 3307)],
        connections=[
            call("m1", "web", ("10.0.0.1", 5000, "10.0.0.2", 3307), 7),
            call("m1", "web", ("10.0.0.1", 5001, "192.0.2.1", 7000), 50, source="polling",
                 start_unix_ts=2000.0, end_unix_ts=2001.0),
        ],
        lost={"lines": 2},
    )  # fmt: skip
    found = merge([first, second])
    assert found == merge([second, first])
    assert [(edge["target"], edge["port"], edge["bytes"]) for edge in found["edges"]] == [
        ("m2/db", 3306, 2048),
        ("external/192.0.2.1:7000", 7000, 150),
        ("m2/db", 3307, 7),
    ]
    outside = found["edges"][1]
    assert outside["sources"] == ["ebpf", "polling"]
    assert outside["is_inferred"]
    assert (outside["first_unix_ts"], outside["last_unix_ts"]) == (1000.0, 2001.0)
    assert found["window"] == {"start_unix_ts": 1000.0, "end_unix_ts": 2001.0}
    [db] = [node for node in found["nodes"] if node["id"] == "m2/db"]
    assert [place["port"] for place in db["ports"]] == [3306, 3307]
    coverage = found["coverage"]
    assert coverage["lost"] == {"lines": 2}
    assert coverage["share_bytes"] == 1.0
    terms = sum(coverage[f"{name}_bytes"] for name in topology.CATEGORIES)
    assert coverage["input_bytes"] == terms == sum(edge["bytes"] for edge in found["edges"])
