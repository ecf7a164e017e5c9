from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmeasure.recorder import absence
from perfmeasure.recorder.catalogue import NAME, Catalogue, Transfer
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.recorder import Recorder
from perfmeasure.recorder.transfers import add_packets, connections_of
from tests.recorder import made

BEGIN = made.START_NS // 10**9
DAY = "2023-11-14"
SOCKS, GUARD = "tcp 127.0.0.1:4000 127.0.0.1:9050", "tcp 192.0.2.1:5000 198.51.100.1:443"
LEG = "tcp 192.0.2.1:5001 198.51.100.2:443"


def connection(key: str, **fields: Any) -> dict[str, Any]:
    ends = [end.rpartition(":") for end in key.split()[1:]]
    (local_ip, _, local_port), (remote_ip, _, remote_port) = ends
    return {
        "local_ip": local_ip, "local_port": int(local_port), "remote_ip": remote_ip,
        "remote_port": int(remote_port), "unix_ts_start": BEGIN + 1.0, **fields,
    }  # fmt: skip


def node(**links: str) -> dict[str, Any]:
    """A nickname's part of a database with one transfer, from second 1 to 3."""
    return {
        "tgen": {
            "transfers": {
                "t:1": {
                    "endpoint_local": "localhost:127.0.0.1:4000",
                    "endpoint_proxy": "localhost:127.0.0.1:9050",
                    "endpoint_remote": "x.onion:0.0.0.0:80",
                    "links": {"status": "linked", **links},
                    "unix_ts_start": BEGIN + 1.0,
                    "unix_ts_end": BEGIN + 3.0,
                }
            }
        },
        "tor": {
            "circuits": {
                "7": {
                    "conflux_circuits": ["7", "8"], "guard_connection": "12",
                    "unix_ts_start": BEGIN + 0.5, "unix_ts_end": BEGIN + 9.0,
                },
                "8": {
                    "conflux_circuits": ["7", "8"], "guard_connection": "13",
                    "unix_ts_start": BEGIN + 0.5, "elapsed_seconds": [["BUILT", 0.25]],
                },
                "9": {"unix_ts_start": BEGIN + 0.5, "unix_ts_end": BEGIN + 9.0},
            }
        },
        "kernel": {
            "connections": {
                "11": connection(SOCKS, unix_ts_end=BEGIN + 3.5),
                "12": connection(GUARD),
                "13": connection("tcp 198.51.100.2:443 192.0.2.1:5001"),
            }
        },
    }  # fmt: skip


def row(name: str, circuit: str, key: str, first: float, last: float) -> Transfer:
    first_ns, last_ns = (made.START_NS + round(at * 1e9) for at in (first, last))
    return Transfer(DAY, name, circuit, key, first_ns, last_ns)


def test_a_transfer_has_its_connection_and_those_to_the_guards_of_its_circuits() -> None:
    assert list(connections_of(node(circuit="7", connection="11"))) == [
        row("t:1", "7", SOCKS, 0.95, 3.55),
        row("t:1", "7", GUARD, 1, 3),
        row("t:1", "8", LEG, 1, 3),
        row("", "7", GUARD, 0.5, 9),
        row("", "8", LEG, 0.5, 0.75),
    ]


def test_without_the_kernel_the_generators_endpoints_are_what_there_is() -> None:
    found = node(circuit="7")
    del found["kernel"]
    assert list(connections_of(found)) == [row("t:1", "7", SOCKS, 0.95, 3.05)]
    transfer = found["tgen"]["transfers"]["t:1"]
    transfer["endpoint_proxy"] = "localhost:0.0.0.0:9050"
    assert list(connections_of(found)) == []
    transfer.update(endpoint_proxy="NULL:0.0.0.0:0", endpoint_remote="x:[2001:db8::1]:80")
    transfer["endpoint_local"] = "y:[2001:db8::2]:81"
    key = "tcp [2001:db8::1]:80 [2001:db8::2]:81"
    assert list(connections_of(found)) == [row("t:1", "7", key, 0.95, 3.05)]


def test_a_transfer_that_did_not_end_lasts_as_long_as_is_known() -> None:
    found = node()
    del found["kernel"]
    transfer = found["tgen"]["transfers"]["t:1"]
    del transfer["unix_ts_end"]
    transfer["elapsed_seconds"] = {
        "socket_create": 0.1, "payload_bytes": {"10240": 0.5, "20480": 0.75}
    }  # fmt: skip
    assert list(connections_of(found)) == [row("t:1", "", SOCKS, 0.95, 1.8)]
    transfer["elapsed_seconds"] = {}
    assert list(connections_of(found)) == [row("t:1", "", SOCKS, 0.95, 1.05)]


# ---- with a store -------------------------------------------------------------------------------


def sent(at: float, key: str, size: int = 10) -> made.Timed:
    (src, _, src_port), (dst, _, dst_port) = (end.rpartition(":") for end in key.split()[1:])
    packet = made.tcp(src, int(src_port), dst, int(dst_port), size)
    return made.Timed(made.START_NS + round(at * 1e9), made.ethernet(packet))


PACKETS = [
    sent(0.9, SOCKS), sent(0.96, SOCKS), sent(1, GUARD), sent(1.5, SOCKS, 20), sent(2, LEG),
    sent(3.1, GUARD), sent(3.54, SOCKS), sent(3.6, SOCKS), sent(4, GUARD),
]  # fmt: skip
SIZES = (54 + 10, 54 + 10, 54 + 20, 54 + 10, 54 + 10)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A measurement whose packets are in a segment that is closed and one that is open."""
    (tmp_path / "in.pcap").write_bytes(made.pcap(PACKETS[:4]))
    recorder = Recorder(tmp_path / "packets", Setup(), print)
    recorder.read([tmp_path / "in.pcap"])
    recorder.close()
    return tmp_path


def test_packets_are_counted_and_the_catalogue_knows_the_transfer(root: Path) -> None:
    (root / "more.pcap").write_bytes(made.pcap(PACKETS[4:]))
    recorder = Recorder(root / "packets", Setup(), print)
    try:
        recorder.read([root / "more.pcap"])
        recorder.writer.add_drops(3)
        found = node(circuit="7", connection="11")
        assert add_packets(found, [str(root), ""]) == []
    finally:
        recorder.close()
    packets = found["tgen"]["transfers"]["t:1"]["packets"]
    assert packets == {"count": 5, "bytes": sum(SIZES), "lost": 3}
    catalogue = Catalogue(root / "packets")
    assert {r.connection4 for r in catalogue.transfers("id", "t:1")} == {SOCKS, GUARD, LEG}
    assert len(catalogue.transfers("circuit", "7")) == 3


def test_a_transfer_without_packets_has_none_on_disk(root: Path) -> None:
    found = node()
    found["tgen"]["transfers"]["t:1"]["endpoint_local"] = "localhost:127.0.0.1:4001"
    del found["kernel"]
    assert add_packets(found, [str(root)]) == []
    assert found["tgen"]["transfers"]["t:1"]["packets"] == {"count": 0, "bytes": 0}
    assert add_packets({}, [str(root)]) == []


def test_what_is_missing_has_its_reason(root: Path, tmp_path: Path) -> None:
    found = node()
    assert add_packets(found, [str(tmp_path / "elsewhere")]) == ["no packets/ beside the logs"]
    assert add_packets(found, ["s3:/bucket/logs"]) == ["no packets/ beside the logs"]
    absence.note(tmp_path / "other" / "packets", "turned off (--record off)")
    assert add_packets(found, [str(tmp_path / "other")]) == ["turned off (--record off)"]
    assert "packets" not in found["tgen"]["transfers"]["t:1"]
    # Recorded at first, and then no more.
    absence.note(root / "packets", "from here on: it died")
    assert add_packets(found, [str(root)]) == ["from here on: it died"]
    assert found["tgen"]["transfers"]["t:1"]["packets"]["count"] > 0


def test_a_store_that_cannot_be_written_can_be_counted(root: Path) -> None:
    (root / "packets" / NAME).write_bytes(b"nonsense" * 1000)
    (root / "packets" / "absent.json").write_bytes(b"[1]")
    found = node()
    assert add_packets(found, [str(root)]) == [
        "packets/absent.json: no reason in it",
        "packets/catalogue.sqlite: cannot be used (file is not a database)",
    ]
    assert found["tgen"]["transfers"]["t:1"]["packets"]["count"] == 2


def test_what_cannot_be_read_is_not_counted(root: Path) -> None:
    (path,) = (root / "packets").glob("segments/*/*.pcap")
    content = bytearray(path.read_bytes())
    content[24 + 80 + 8 : 24 + 80 + 12] = b"\xff" * 4  # the length of the second packet
    path.write_bytes(content)
    found = node()
    (reason,) = add_packets(found, [str(root)])
    assert reason.startswith("packets/00000001.pcap: no whole record at offset ")
    assert "packets" not in found["tgen"]["transfers"]["t:1"]
