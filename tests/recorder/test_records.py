"""The numpy types against the structures of core.h, as the compiler lays them out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from perfmeasure.recorder import records

ROOT = Path(__file__).resolve().parent.parent.parent
STRUCTURES = {
    "frame": records.FRAME,
    "packet": records.PACKET,
    "index_row": records.INDEX_ROW,
    "connection": records.CONNECTION,
}
NUMBERS = {
    "CORE_CONNECTION_IDENTITY": records.CONNECTION_IDENTITY,
    "CORE_ROW_IDENTITY": records.ROW_IDENTITY,
    "CORE_MAX_CAPTURED": records.MAX_CAPTURED_BYTES,
    "CORE_PCAP_RECORD": records.PCAP_RECORD_BYTES,
    "CONNECTION_FIN_A": records.FIN_A,
    "CONNECTION_FIN_B": records.FIN_B,
    "CONNECTION_RST": records.RST,
    "CONNECTION_FROM_B": records.FROM_B,
    "CONNECTION_NO_CUTOFF": records.CUTOFF_SUSPENDED,
    "CONNECTION_NO_TIMEOUT": records.TIMEOUT_SUSPENDED,
    "CONNECTION_ENDED": records.ENDED,
    "LINK_UNKNOWN": records.UNKNOWN_LINK,
    "PACKET_EXTENSIONS": records.EXTENSIONS,
    "WALK_OTHER": records.WALK_OTHER,
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, require: Callable[..., None]) -> list[int]:
    """What a program that includes core.h prints: for each structure size and offsets, numbers."""
    require("gcc")
    folder = tmp_path_factory.mktemp("layout")
    wanted = []
    for name, dtype in STRUCTURES.items():
        wanted.append(f"sizeof(struct {name})")
        wanted += [f"offsetof(struct {name}, {field})" for field in dtype.names or ()]
    lines = "".join(f'printf("%zu\\n", (size_t){what});\n' for what in [*wanted, *NUMBERS])
    (folder / "layout.c").write_text(
        f'#include <stdio.h>\n#include "core.h"\nint main(void) {{ {lines} return 0; }}\n'
    )
    subprocess.run(
        ["gcc", f"-I{ROOT / 'bpf'}", f"-I{ROOT / 'perfmeasure/recorder'}", "-o", folder / "layout",
         folder / "layout.c"],
        check=True, capture_output=True,
    )  # fmt: skip
    ran = subprocess.run([folder / "layout"], check=True, capture_output=True, text=True)
    return [int(line) for line in ran.stdout.split()]


def test_structures_and_numbers_are_the_same(compiled: list[int]) -> None:
    known = []
    for dtype in STRUCTURES.values():
        assert dtype.fields
        known += [dtype.itemsize, *(dtype.fields[name][1] for name in dtype.names or ())]
    assert [*known, *NUMBERS.values()] == compiled


def test_an_identity_is_the_beginning_of_a_packet() -> None:
    assert records.IDENTITY.itemsize == records.ROW_IDENTITY
    packet, identity = records.PACKET.fields, records.IDENTITY.fields
    assert packet
    assert identity
    assert all(identity[name] == packet[name] for name in identity)
