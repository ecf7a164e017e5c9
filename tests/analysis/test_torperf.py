from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfmeasure.analysis import filters, pipeline, torperf

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
EVERY_LINE = (
    "CONNECT DATACOMPLETE DATAPERC10 DATAPERC20 DATAPERC30 DATAPERC40 DATAPERC50 DATAPERC60 "
    "DATAPERC70 DATAPERC80 DATAPERC90 DATAREQUEST DATARESPONSE DIDTIMEOUT ENDPOINTLOCAL "
    "ENDPOINTPROXY ENDPOINTREMOTE FILESIZE HOSTNAMELOCAL HOSTNAMEREMOTE LAUNCH NEGOTIATE READBYTES "
    "REQUEST RESPONSE SOCKET SOURCE SOURCEADDRESS START WRITEBYTES"
)
NAME = "testnet-5242880-2026-11-22.tpf"


@pytest.fixture
def document(fixtures: Path) -> dict[str, Any]:
    run = fixtures / "onionperf-run"
    return pipeline.analyze([run], nickname="testnet", measurement_ip="192.0.2.1")


def fields_of(line: str) -> dict[str, str]:
    return dict(field.split("=", 1) for field in line.split(" "))


def test_a_run(document: dict[str, Any], golden: Callable[[Path, str], None]) -> None:
    files = torperf.files(document, Counter())
    assert list(files) == [NAME]
    text = files[NAME].decode()
    assert text.count("\r\n") == text.count("\n") == 24
    golden(GOLDEN / NAME, text.replace("\r\n", "\n"))


def test_every_second_line_is_the_annotation_and_keys_are_sorted(document: dict[str, Any]) -> None:
    lines = torperf.files(document, Counter())[NAME].decode().split("\r\n")
    assert set(lines[:-1:2]) == {"@type torperf 1.1"}
    for line in lines[1::2]:
        keys = list(fields_of(line))
        assert keys == sorted(keys)
        assert {*EVERY_LINE.split(), "USED_BY"} <= set(keys)


def test_a_step_that_was_not_reached_is_zero(document: dict[str, Any]) -> None:
    lines = torperf.files(document, Counter())[NAME].decode().split("\r\n")[1::2]
    [failed] = [fields for fields in map(fields_of, lines) if fields["DIDTIMEOUT"] == "1"]
    assert failed["RESPONSE"] == failed["DATACOMPLETE"] == failed["DATAPERC50"] == "0.0"
    assert float(failed["REQUEST"]) > float(failed["START"]) - 0.01
    assert "DATAPERC100" not in failed


def test_a_file_for_each_size_and_day(document: dict[str, Any]) -> None:
    transfers = document["data"]["testnet"]["tgen"]["transfers"]
    transfers["stream:0"]["filesize_bytes"] = 51200
    transfers["stream:1"]["unix_ts_start"] -= 86400
    transfers["stream:2"]["is_complete"] = False
    transfers["stream:3"]["filtered_out"] = True
    transfers["stream:4"]["hostname_remote"] = "two words"
    losses: Counter[str] = Counter()
    files = torperf.files(document, losses)
    assert sorted(files) == [
        "testnet-51200-2026-11-22.tpf",
        "testnet-5242880-2026-11-21.tpf",
        NAME,
    ]
    assert b"HOSTNAMEREMOTE=two_words " in files[NAME]
    assert losses == {"transfers that were filtered out": 1, "transfers that had not ended": 1}
    marked = filters.apply(document, filters.Filter(destination="exit"))
    assert b".onion:" not in b"".join(torperf.files(marked, losses).values())


def test_without_tor(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "tgen/client-direct-success.tgen.log"])
    for data in torperf.files(document, Counter()).values():
        for line in data.decode().split("\r\n")[1::2]:
            assert fields_of(line)["LAUNCH"] == "0.0"
            assert not {"PATH", "CIRC_ID", "USED_BY"} & set(fields_of(line))
