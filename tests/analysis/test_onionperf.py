from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from perfmeasure import jsonio
from perfmeasure.analysis import database, onionperf, pipeline, validation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.analysis.conftest import Lines

SAMPLES = (
    "client-direct-success", "client-proxy-refused", "client-socks-status1",
    "client-socks-success", "client-socks-timeout", "client-transfer-cut",
    "client-transfer-timeout", "client-upstream-web",
)  # fmt: skip


def test_equal_to_onionperfs_own_for_a_whole_run(fixtures: Path) -> None:
    run = fixtures / "onionperf-run"
    document = pipeline.analyze([run], nickname="testnet", measurement_ip="127.0.0.1")
    expected = database.load(run / "expected.onionperf-3.1.json")
    assert onionperf.to_3_1(document) == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_equal_to_onionperfs_own_for_a_generators_log(fixtures: Path, name: str) -> None:
    log = fixtures / "tgen" / f"{name}.tgen.log"
    found = onionperf.to_3_1(pipeline.analyze([log], measurement_ip="192.0.2.1"))
    # OnionPerf leaves out this part, without which its own schema refuses the document.
    assert found["data"]["vm"].pop("tor") == {"circuits": {}, "guards": [], "streams": {}}
    assert found == database.load(log.with_name(f"{name}.onionperf-3.1.json"))


def test_a_stored_database_gives_the_same_numbers(fixtures: Path, tmp_path: Path) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run"])
    path = tmp_path / "db.json.xz"
    database.save(document, path)
    assert jsonio.canonical(onionperf.to_3_1(database.load(path))) == jsonio.canonical(
        onionperf.to_3_1(document)
    )


def test_guards_are_not_lost_without_a_network(fixtures: Path) -> None:
    # OnionPerf's B8: each guard needed a look-up of its country on the Internet.
    document = pipeline.analyze([fixtures / "torctl/sample_400lines.torctl.log"])
    tor = onionperf.to_3_1(document)["data"]["vm"]["tor"]
    assert {guard["nickname"] for guard in tor["guards"]} >= {"exit2", "auth1", "exit4"}
    assert all(set(circuit) >= {"cbt_set", "filtered_out"} for circuit in tor["circuits"].values())


def test_an_id_that_comes_again_hides_nothing(
    tmp_path: Path, lines: type[Lines], log_of: Callable[..., object]
) -> None:
    log_of(lines.outcome(1, 2, 0, 5000) + lines.initializing(3) + lines.outcome(4, 5, 0, 5000))
    streams = onionperf.to_3_1(pipeline.analyze([tmp_path / "a.log"]))["data"]["vm"]["tgen"]
    base = "0:7:localhost:127.0.0.1:5000:localhost:127.0.0.1:8080"
    assert list(streams["streams"]) == [base, f"{base}#2"]


@pytest.mark.parametrize("version", onionperf.VERSIONS)
def test_every_version_follows_its_schema(fixtures: Path, version: str) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run", fixtures / "torctl"])
    losses: Counter[str] = Counter()
    written = onionperf.written(document, version, losses)
    assert list(validation.errors(written, "db")) == []
    assert losses["circuits not seen from launch to end"] > 0
    assert isinstance(written["version"], float if version == "1.0" else str)
    for node in written["data"].values():
        assert ("guards" in node["tor"]) == (version == "3.1")
        assert ("bandwidth_summary" in node["tor"]) == (version < "3")
        for circuit in node["tor"]["circuits"].values():
            assert ("filtered_out" in circuit) == (version in {"3.1", "4.0"})
            assert ("cbt_set" in circuit) == (version == "3.1")


def test_a_transfer_of_the_seed(fixtures: Path) -> None:
    log = fixtures / "tgen/client-socks-success.tgen.log"
    document = pipeline.analyze([log])
    transfers = onionperf.written(document, "2.0", Counter())["data"]["vm"]["tgen"]["transfers"]
    for name, transfer in transfers.items():
        source = document["data"]["vm"]["tgen"]["transfers"][name]
        assert set(transfer) == set(onionperf.TRANSFER_FIELDS)
        assert transfer["elapsed_seconds"].items() <= source["elapsed_seconds"].items()
        assert not any(name.endswith("_send") for name in transfer["elapsed_seconds"])


def test_what_a_version_cannot_hold_is_counted(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "tgen/client-socks-success.tgen.log"])
    first, *_ = document["data"]["vm"]["tgen"]["transfers"].values()
    document["filters"] = {"tor/circuits": [{"name": "exits", "value": "x"}]}
    first["filtered_out"] = True
    losses: Counter[str] = Counter()
    old = onionperf.written(document, "2.0", losses)["data"]["vm"]["tgen"]
    assert losses == {"transfers that were filtered out": 1, "filters of circuits": 1}
    assert first["transfer_id"] not in old["transfers"]
    count = sum(len(v) for by in old["transfers_summary"]["errors"].values() for v in by.values())
    for by_second in old["transfers_summary"]["time_to_last_byte"].values():
        count += sum(map(len, by_second.values()))
    assert count == len(old["transfers"])
    del first["filtered_out"], first["time_info"]
    losses.clear()
    newer = onionperf.written(document, "3.1", losses)
    assert losses == {"transfers without the generator's own line": 1}
    assert newer["filters"] == {"tor/circuits": [{"name": "exits"}]}


def test_the_kernel_s_connections_are_left_out_and_counted(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "kernel-run"], nickname="n")
    for version in onionperf.VERSIONS:
        losses: Counter[str] = Counter()
        written = onionperf.written(document, version, losses)
        assert list(validation.errors(written, "db")) == []
        assert losses["connections of the kernel"] == len(
            document["data"]["n"]["kernel"]["connections"]
        )


def test_a_relay_without_a_time_is_not_given_one(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run"], nickname="n")
    document["data"]["n"]["tor"]["circuits"]["16"]["path"][1:2] = [["$" + "A" * 40]]
    losses: Counter[str] = Counter()
    circuits = onionperf.written(document, "3.1", losses)["data"]["n"]["tor"]["circuits"]
    assert "path" not in circuits["16"]
    assert losses["paths with a relay whose time was not seen"] == 1
