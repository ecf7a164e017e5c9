from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perfmeasure import jsonio
from perfmeasure.cli import run
from perfmeasure.recorder.catalogue import Catalogue, Transfer
from tests.recorder import made


@pytest.fixture
def store(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    (tmp_path / "in.pcap").write_bytes(made.pcap(made.trace(1, 1000, 60)))
    arguments = ["record", "-r", str(tmp_path / "in.pcap"), "--store", str(tmp_path / "store")]
    assert run(arguments) == 0
    out, err = capfd.readouterr()
    assert out.startswith("1000 packets (")
    assert err == ""
    return tmp_path / "store"


def test_counts_and_files(store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["query", "--store", str(store), "--count", "--json", "proto udp"]) == 0
    counts = jsonio.loads(capfd.readouterr().out)
    wanted = [p for p in made.trace(1, 1000, 60) if made.fields(p.frame).protocol == 17]
    assert list(counts) == ["packets", "bytes", "seconds"]
    assert counts["packets"] == len(wanted)
    assert counts["bytes"] == sum(len(packet.frame) for packet in wanted)
    assert 0 < counts["seconds"] < 60
    out = tmp_path / "out.pcap"
    assert run(["query", "--store", str(store), "proto", "udp", "-w", str(out)]) == 0
    assert capfd.readouterr().out.startswith(f"{len(wanted)} packets, {counts['bytes']} bytes, ")
    ordered = sorted(wanted, key=lambda packet: packet.ts_ns)
    assert out.read_bytes() == made.pcap(ordered)


def test_packets_are_printed(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["query", "--store", str(store), "port 80"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert run(["query", "--store", str(store), "--json", "port 80"]) == 0
    objects = [jsonio.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(lines) == len(objects) > 100
    assert all(80 in (found["src_port"], found["dst_port"]) for found in objects)
    assert all(":80 " in line for line in lines)


def test_standard_output_feeds_other_programs(store: Path) -> None:
    command = [sys.executable, "-m", "perfmeasure", "query", "--store", str(store), "port 80"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "-w", "-"], stdout=pipe, stderr=pipe) as query:
        out, err = query.communicate(timeout=60)
    assert query.returncode == 0
    assert out[:4] == b"\x4d\x3c\xb2\xa1"
    assert b" packets, " in err
    # A reader that has enough hears no complaint.
    for options in (["-w", "-"], ["--json"]):
        with subprocess.Popen([*command, *options], stdout=pipe, stderr=pipe) as query:
            assert query.stdout is not None
            assert query.stderr is not None
            query.stdout.close()
            assert query.stderr.read() == b""


def test_the_packets_of_a_transfer(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    packets = [(p, made.fields(p.frame)) for p in made.trace(1, 1000, 60)]
    packet, found = next((p, f) for p, f in packets if f.protocol == 6 and ":" not in f.src)
    key = f"tcp {found.src}:{found.src_port} {found.dst}:{found.dst_port}"
    ends = {(found.src, found.src_port), (found.dst, found.dst_port)}
    last_ns = packet.ts_ns + 100_000_000
    wanted = sum(
        {(f.src, f.src_port), (f.dst, f.dst_port)} == ends and packet.ts_ns <= p.ts_ns <= last_ns
        for p, f in packets
    )
    catalogue = Catalogue(store, is_writer=True)
    catalogue.put_transfers([Transfer("m", "t:1", "c7", key, packet.ts_ns, last_ns)])
    catalogue.close()
    for expression in ("transfer t:1", "circuit c7"):
        assert run(["query", "--store", str(store), "--count", "--json", expression]) == 0
        assert jsonio.loads(capfd.readouterr().out)["packets"] == wanted > 0
    assert run(["query", "--store", str(store), "transfer t:2"]) == 2
    assert "character 10: no transfer 't:2'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["query", "host nonsense"], 2, "character 6"),
        (["query", "port 80", "--count", "-w", "x.pcap"], 2, "--count"),
        (["record", "-r", "none.pcap"], 4, "none.pcap"),
        (["record"], 2, "no source; wanted either -i or -r"),
        (["record", "-r", "x", "-i", "lo"], 2, "both -i and -r"),
        (["record", "-r", "x", "-f", "prot 7"], 2, "filter 'prot 7'"),
        (["record", "-r", "x", "--config", "none.toml"], 4, "none.toml"),
        (["record", "--config", "x", "--cutoff", "1", "--budget", "2"], 2, "--cutoff, --budget"),
        (["record", "-r", "none.pcap", "--cutoff", "much"], 2, "--cutoff"),
        (["record", "-r", "x", "--budget", "1 MB", "--segment-size", "1 MB"], 2, "disk budget"),
    ],
)
def test_mistakes_are_one_message(
    arguments: list[str], status: int, words: str, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--store", str(store)]) == status
    err = capfd.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_a_folder_that_is_no_store(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["query", "--store", str(tmp_path), "port 80"]) == 4
    assert "no store of packets" in capfd.readouterr().err


def test_what_is_wrong_with_an_input_and_lost_packets_are_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = made.pcap(made.trace(1, 100, 60))
    (tmp_path / "cut.pcap").write_bytes(content[:-5])
    folder = str(tmp_path / "store")
    assert run(["record", "-r", str(tmp_path / "cut.pcap"), "--store", folder]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("99 packets")
    assert "the file ends within a record" in err
    catalogue = Catalogue(tmp_path / "store", is_writer=True)
    (entry,) = catalogue.segments()
    entry.summary.drops = 12
    catalogue.put(entry.summary, is_open=False, file_bytes=entry.file_bytes)
    catalogue.close()
    (tmp_path / "store/segments/all/00000001.npz").unlink()
    assert run(["query", "--store", folder, "not port 1"]) == 0
    err = capfd.readouterr().err
    assert "12 packets were lost" in err
    assert "indexed anew for this query" in err
