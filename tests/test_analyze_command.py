from __future__ import annotations

from pathlib import Path

import pytest

from perfmeasure import jsonio
from perfmeasure.cli import run
from perfmeasure.recorder import absence
from perfmeasure.recorder.transfers import connections_of
from tests.recorder import made


def test_it_tells_of_the_packets_beside_the_logs(
    tmp_path: Path, fixtures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    log = root / "tgen-client" / "perfmeasure.tgen.log"
    log.parent.mkdir(parents=True)
    log.write_bytes((fixtures / "tgen" / "client-direct-success.tgen.log").read_bytes())
    absence.note(root / "packets", "turned off (--record off)")
    output = tmp_path / "db.json"
    for path in (root, log.parent):
        assert run(["analyze", str(path), "-o", str(output), "-n", "vm"]) == 0
        (source,) = jsonio.loads(output.read_bytes())["meta"]["sources"].values()
        reason = {"what": "packets", "reason": "turned off (--record off)"}
        assert reason in source["absent"]
        assert run(["validate", str(output)]) == 0
    assert "transfers on disk" not in capfd.readouterr().err


def test_it_counts_the_packets_of_a_store(
    tmp_path: Path, fixtures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    log = root / "tgen-client" / "perfmeasure.tgen.log"
    log.parent.mkdir(parents=True)
    log.write_bytes((fixtures / "tgen" / "client-direct-success.tgen.log").read_bytes())
    output = tmp_path / "db.json"
    assert run(["analyze", str(root), "-o", str(output), "-n", "vm"]) == 0
    before = jsonio.loads(output.read_bytes())
    name, transfer = next(iter(before["data"]["vm"]["tgen"]["transfers"].items()))
    row = next(row for row in connections_of(before["data"]["vm"]) if row.id == name)
    ends = [end.rpartition(":") for end in row.connection4.split()[1:]]
    (src, _, src_port), (dst, _, dst_port) = ends
    frame = made.ethernet(made.tcp(src, int(src_port), dst, int(dst_port), 100))
    between_ns = round((transfer["unix_ts_start"] + transfer["unix_ts_end"]) / 2 * 1e9)
    times = [between_ns, between_ns, between_ns + 10**12]
    (tmp_path / "in.pcap").write_bytes(made.pcap([made.Timed(at, frame) for at in times]))
    assert run(["record", "-r", str(tmp_path / "in.pcap"), "--store", str(root / "packets")]) == 0
    assert run(["analyze", str(root), "-o", str(output), "-n", "vm"]) == 0
    assert "vm: packets of 1 of 5 transfers on disk" in capfd.readouterr().err
    found = jsonio.loads(output.read_bytes())["data"]["vm"]["tgen"]["transfers"][name]
    assert found["packets"] == {"count": 2, "bytes": 2 * len(frame)}
    query = ["query", "--prefix", str(root), "--count", "--json", f"transfer {name}"]
    assert run(query) == 0
    assert jsonio.loads(capfd.readouterr().out)["packets"] == 2
