from __future__ import annotations

from typing import Any

from perfmeasure.analysis import outliers
from tests.analysis import simulated


def _row(index: int, seconds: float | None, relays: str, **more: Any) -> dict[str, Any]:
    return simulated.row(index, seconds, seconds, fingerprints=list(relays) or None, **more)


ROWS = [
    _row(0, 1.0, "ABC"),
    _row(1, 2.0, "ABD"),
    _row(2, 3.0, "AED"),
    _row(3, 4.0, "FED"),
    _row(4, 9.0, ""),  # no path is known
    _row(5, 1.0, "XYD", server="onion"),
    _row(6, 2.0, "XZD", server="onion"),
    _row(7, None, "QD"),
]


def test_slow() -> None:
    found = outliers.slow(ROWS, "time_to_first_byte", 75)
    assert {server: [e["fingerprints"] for e in entries] for server, entries in found.items()} == {
        "public": ["F", "E", "D"],
        "onion": ["X", "Z", "D"],
    }
    assert {each["id"] for each in found["public"]} == {"stream:3"}


def test_common_to_all_servers() -> None:
    found = outliers.slow(ROWS, "time_to_last_byte", 75)
    assert [(e["fingerprints"], e["server"]) for e in outliers.common(found)] == [
        ("D", "onion"),
        ("D", "public"),
    ]
    assert outliers.common({}) == []


def test_failed() -> None:
    found = outliers.failed(ROWS)
    assert [entry["fingerprints"] for entry in found["public"]] == ["Q", "D"]
    assert "onion" not in found


def test_top() -> None:
    entries = [{"fingerprints": name} for name in "BABCAD"]
    assert outliers.top(entries, 3) == ["A", "B", "C"]
