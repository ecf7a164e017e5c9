from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perfmeasure import jsonio
from perfmeasure.analysis import database, onionperf, pipeline

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
