from __future__ import annotations

from typing import Any

from perfmeasure.analysis.kernelrecords import KernelPart
from perfmeasure.analysis.torlog import Circuit, TorLog
from perfmeasure.analysis.transfers import Transfer
from tests.analysis import kernel_lines as kernel

FINGERPRINT = "A" * 40
SOCKS = ("127.0.0.1", 5000, "127.0.0.1", 9050)
GUARD = ("10.0.0.1", 40000, "192.0.2.7", 9001)
OTHER_GUARD = ("10.0.0.1", 40001, "192.0.2.8", 9001)


def part(scope: str = "cgroup", *more: str) -> tuple[KernelPart, list[Transfer], TorLog]:
    """A transfer from 10 to 20 over a conflux set with two guards, and a stranger's connection."""
    snapshots = "".join(
        kernel.connection(
            at, cookie, ends=ends, pid=900, stamps={"connect": 2.0}, bytes_sent=at,
            bytes_received=at * 100, retransmitted_segments=at // 10, smoothed_rtt_us=at * 1000,
        )
        for cookie, ends in ((5, GUARD), (6, OTHER_GUARD))
        for at in (9, 15, 21, 30)
    )  # fmt: skip
    log, _ = kernel.assembled(
        kernel.start(0, scope=scope)
        + kernel.clock(0)
        + kernel.connection(
            20, 1, ends=SOCKS, end="fin_local", pid=800, command="tgen",
            stamps={"connect": 10.001, "established": 10.002, "closed": 20.0},
        )
        + kernel.connection(
            20, 2, ends=(*SOCKS[2:], *SOCKS[:2]), end="fin_remote", pid=900, side="passive",
            stamps={"connect": 10.001, "closed": 20.0},
        )
        + snapshots
        + kernel.connection(9, 7, ends=("10.0.0.1", 22, "198.51.100.9", 4711), pid=1)
        + "".join(more)
    )  # fmt: skip
    record = {"endpoint_proxy": "NAME:127.0.0.1:9050", "endpoint_remote": ""}
    transfers = [Transfer("stream:0", record, kernel.DAY + 10, kernel.DAY + 20, 5000)]
    tor = TorLog(relays={FINGERPRINT: {GUARD[2:]}, "B" * 40: {OTHER_GUARD[2:]}})
    for number, fingerprint in ((4, FINGERPRINT), (5, "B" * 40)):
        at = kernel.DAY + 3
        path: list[tuple[str, float | None]] = [(f"${fingerprint}~a", at)]
        tor.circuits.append(Circuit(number, at, at, path=path, conflux_id="set"))
    return KernelPart(log, transfers, tor), transfers, tor


def test_the_section() -> None:
    section = part()[0].section()
    assert section["connections"].keys() == {"1", "2", "5", "6", "7"}
    assert section["connections"]["1"] == {
        "boot_id": kernel.BOOT, "command": "tgen", "netns": 1, "pid": 800, "side": "active",
        "family": 4, "local_ip": "127.0.0.1", "local_port": 5000, "remote_ip": "127.0.0.1",
        "remote_port": 9050, "existed_before_start": False, "is_complete": True,
        "end": "fin_local", "peer": "2", "unix_ts_start": kernel.DAY + 10.001,
        "unix_ts_end": kernel.DAY + 20,
        "elapsed_seconds": {"connect": 0.0, "established": 0.001, "closed": 9.999},
    }  # fmt: skip
    still_open = section["connections"]["5"]
    assert (still_open["is_complete"], still_open["unix_ts_last"]) == (False, kernel.DAY + 30)
    assert (still_open["received_bytes"], still_open["smoothed_rtt_seconds"]) == (3000, 0.03)
    assert section["accounting"] == [
        {
            "boot_id": kernel.BOOT, "version": "0.1.0", "kernel": "6.1.0", "source": "sockops",
            "scope": "cgroup", "snapshot_seconds": 1.0, "lost": {}, "others_connections": 0,
            "unix_ts_start": kernel.DAY, "unix_ts_end": kernel.DAY + 9,
        }
    ]  # fmt: skip


def test_of_a_whole_machine_strangers_are_counted_and_not_told() -> None:
    section = part("machine")[0].section()
    assert section["connections"].keys() == {"1", "2", "5", "6"}
    assert section["accounting"][0]["others_connections"] == 1
    assert "198.51.100.9" not in str(section)


def test_a_transfer_has_what_passed_over_each_guard_of_its_conflux_set() -> None:
    found, transfers, tor = part()
    records: list[dict[str, Any]] = [{"links": {"status": "linked"}}]
    found.add_to_transfers(records, transfers, [tor.circuits[1]])
    assert records[0]["links"]["connection"] == "1"
    expected = {
        "unix_ts_start": kernel.DAY + 9, "unix_ts_end": kernel.DAY + 21, "sent_bytes": 12,
        "received_bytes": 1200, "retransmitted_segments": 2, "smoothed_rtt_seconds": 0.021,
    }  # fmt: skip
    assert records[0]["kernel"]["guards"] == [
        {"connection": "6", **expected},
        {"connection": "5", **expected},
    ]


def test_circuits_name_the_connection_to_their_guard() -> None:
    found, _, tor = part()
    record: dict[str, Any] = {"circuits": {"4": {}, "5": {}}, "or_connections": {}}
    found.add_to_tor(record, tor)
    assert [circuit["guard_connection"] for circuit in record["circuits"].values()] == ["5", "6"]


def test_a_day_keeps_what_is_linked_to_what_is_kept() -> None:
    later = kernel.connection(90, 8, ends=("10.0.0.1", 1, "10.0.0.2", 2), end="fin_local")
    found, _, tor = part("cgroup", later)
    found.cut_to(kernel.DAY + 12, kernel.DAY + 40, [0], tor)
    assert found.section()["connections"].keys() == {"1", "2", "5", "6"}
    found, _, _ = part("cgroup", later)
    found.cut_to(kernel.DAY + 80, kernel.DAY + 99, [], TorLog())
    assert found.section()["connections"].keys() == {"8"}
    assert found.section()["links"]["transfers"] == {"linked": 0, "ambiguous": 0, "unmatched": 0}
