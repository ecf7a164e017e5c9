from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perfmeasure.cli import run
from perfmeasure.recorder.catalogue import Catalogue, Transfer
from tests.recorder import made

_TCP = [
    made.Timed(made.START_NS + at * 10**9, made.ethernet(made.tcp(*ends, 10)))
    for at, ends in enumerate(
        [
            ("10.0.0.2", 4000, "10.0.0.1", 80),
            ("10.0.0.1", 80, "10.0.0.2", 4000),
            ("10.0.0.1", 80, "10.0.0.2", 4001),
            ("10.0.0.2", 4000, "10.0.0.1", 80),
        ]
    )
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "in.pcap").write_bytes(made.pcap(_TCP))
    assert run(["record", "-r", str(tmp_path / "in.pcap"), "--store", str(tmp_path / "s")]) == 0
    return tmp_path / "s"


def comments(path: Path) -> list[str]:
    argv = ["tshark", "-r", str(path), "-T", "fields", "-e", "frame.comment"]
    ran = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    return ran.stdout.splitlines()


def test_packets_name_their_transfers_and_circuits(
    store: Path, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("tshark")
    key = "tcp 10.0.0.1:80 10.0.0.2:4000"
    first, second = made.START_NS, made.START_NS + 10**9
    catalogue = Catalogue(store, is_writer=True)
    catalogue.put_transfers(
        [
            Transfer("m", "t:1", "7", key, first, second),
            Transfer("m", "t:2", "", key, second, second),
            Transfer("m", "", "7", key, first, second),
            Transfer("m", "", "8", key, first, first),
        ]
    )
    catalogue.close()
    out = tmp_path / "x.pcapng"
    assert run(["query", "--store", str(store), "proto tcp", "-w", str(out)]) == 0
    assert comments(out) == [
        "circuit 8\\ntransfer t:1 circuit 7", "transfer t:1 circuit 7\\ntransfer t:2", "", ""
    ]  # fmt: skip
    # The console's files, too.
    asked = f"find to_file y.pcapng proto tcp and before {second / 1e9:.0f}".encode()
    console = ["console", "--store", str(store)]
    argv = [sys.executable, "-m", "perfmeasure", *console]
    subprocess.run(argv, input=asked, check=True, timeout=60)
    assert comments(store / "queries" / "y.pcapng") == ["circuit 8\\ntransfer t:1 circuit 7"]


def test_without_a_catalogue_there_are_none(store: Path, tmp_path: Path) -> None:
    for path in store.glob("catalogue.*"):
        path.unlink()
    out = tmp_path / "x.pcapng"
    assert run(["query", "--store", str(store), "proto tcp", "-w", str(out)]) == 0
    assert out.stat().st_size > 200
