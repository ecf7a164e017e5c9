from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.flows import keys
from perfmeasure.flows.loader import BPF_FOLDER


def mapped(text: str) -> bytes:
    return bytes(10) + b"\xff\xff" + socket.inet_aton(text)


def make_table(*rows: tuple[int, int]) -> keys.Array:
    """Return rows with a source port and packets; all else follows from these."""
    table = np.zeros(len(rows), keys.TABLE)
    for row, (port, packets) in zip(table, rows, strict=True):
        row["src_ip"], row["dst_ip"] = np.void(mapped("10.0.0.1")), np.void(mapped("10.0.0.2"))
        row["src_port"], row["dst_port"], row["protocol"] = port, 80, 6
        row["packets"], row["bytes"], row["segments"] = packets, packets * 100, packets
        row["first_ns"], row["last_ns"] = 1000 + packets, 2000 + packets
        row["tcp_flags"], row["connects"], row["closes"] = packets & 0xFF, 1, 2
    return table


def test_the_types_are_the_structures_of_records_h(
    require: Callable[..., None], tmp_path: Path
) -> None:
    """Sizes, offsets and constants, as the C compiler has them."""
    require("cc")
    structures = {"flow_key": keys.KEY, "flow_value": keys.VALUE, "totals": keys.TOTALS}
    structures["window_totals"] = keys.WINDOW_TOTALS
    lines = []
    for name, dtype in structures.items():
        lines.append(f'printf("%zu ", sizeof(struct {name}));')
        lines += [f'printf("%zu ", offsetof(struct {name}, {f}));' for f in dtype.names or ()]
    constants = {
        "FLOW_SLOTS": keys.SLOTS,
        "CONTROL_BEGIN_NS": keys.CONTROL_BEGIN_NS,
        "WINDOW_RING": keys.WINDOW_RING,
        "HOOK_INTERFACES": keys.HOOK_INTERFACES,
        "PROTOCOLS": keys.PROTOCOLS,
        "ERROR_NUMBERS": keys.ERROR_NUMBERS,
        "FLOW_INGRESS": keys.INGRESS,
        "FLOW_EGRESS": keys.EGRESS,
        "PACKET_VERDICTS": len(keys.UNPARSED_REASONS),
    }
    lines += [f'printf("%d ", {name});' for name in constants]
    source = tmp_path / "sizes.c"
    source.write_text(
        '#include <stddef.h>\n#include <stdio.h>\n#include "packet.h"\n'
        f"int main(void) {{ {' '.join(lines)} return 0; }}\n"
    )
    subprocess.run(["cc", f"-I{BPF_FOLDER}", "-o", tmp_path / "sizes", source], check=True)
    said = subprocess.run([tmp_path / "sizes"], capture_output=True, text=True, check=True).stdout
    wanted = []
    for dtype in structures.values():
        assert dtype.fields is not None
        wanted += [dtype.itemsize, *(field[1] for field in dtype.fields.values())]
    assert [int(word) for word in said.split()] == wanted + list(constants.values())


def test_the_reasons_have_the_names_of_packet_h() -> None:
    text = (BPF_FOLDER / "packet.h").read_text()
    body = text[text.index("enum packet_verdict {") :].partition("}")[0]
    for number, reason in enumerate(keys.UNPARSED_REASONS[1:], 1):
        assert re.search(rf"PACKET_{reason.upper()} = {number}\b", body)


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "255.255.255.255", "::1", "2001:db8::1", "::", "64:ff9b::a00:1"]
)
def test_addresses_have_their_usual_text(text: str) -> None:
    packed = socket.inet_pton(socket.AF_INET6, text) if ":" in text else mapped(text)
    assert keys.address_text(packed) == text


def test_processors_are_summed_and_those_without_packets_have_no_times() -> None:
    found_keys = np.zeros(1, keys.KEY)
    found_keys["src_port"] = 7
    values = np.zeros((1, 3), keys.VALUE)
    for processor, (packets, first, last, flags) in enumerate([(2, 50, 60, 2), (0, 0, 0, 0)]):
        values[0, processor]["packets"] = values[0, processor]["segments"] = packets
        values[0, processor]["bytes"] = packets * 10
        values[0, processor]["first_ns"], values[0, processor]["last_ns"] = first, last
        values[0, processor]["tcp_flags"] = flags
    values[0, 2] = (3, 30, 9, 40, 90, 16, 1, 1, 0)
    (row,) = keys.sum_processors(found_keys, values)
    assert row["src_port"] == 7
    assert (row["packets"], row["bytes"], row["segments"]) == (5, 50, 11)
    assert (row["first_ns"], row["last_ns"], row["tcp_flags"]) == (40, 90, 18)
    assert (row["connects"], row["closes"]) == (1, 1)


def test_nothing_can_be_summed_and_merged() -> None:
    empty = keys.sum_processors(np.zeros(0, keys.KEY), np.zeros((0, 2), keys.VALUE))
    assert keys.total(empty) == keys.Total(0, 0)
    assert len(keys.merge([])) == len(keys.merge([empty])) == 0


@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=8), max_size=4))
def test_merging_sums_each_flow(tables: list[list[tuple[int, int]]]) -> None:
    wanted: dict[int, int] = {}
    for rows in tables:
        for port, packets in rows:
            wanted[port] = wanted.get(port, 0) + packets
    merged = keys.merge([make_table(*rows) for rows in tables])
    assert {int(row["src_port"]): int(row["packets"]) for row in merged} == wanted
    for row in merged:
        counts = [p for rows in tables for port, p in rows if port == row["src_port"]]
        assert row["bytes"] == 100 * sum(counts)
        assert (row["first_ns"], row["last_ns"]) == (1000 + min(counts), 2000 + max(counts))
        assert (row["connects"], row["closes"]) == (len(counts), 2 * len(counts))
        assert row["tcp_flags"] == np.bitwise_or.reduce(counts)


def test_rows_with_one_hash_are_still_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_table((1, 1), (2, 1), (1, 1))
    found_keys = np.zeros(3, keys.KEY)
    found_keys["src_port"] = rows["src_port"]
    monkeypatch.setattr(keys, "_hashes", lambda words: np.zeros(len(words), "u8"))
    first, groups = keys.group(found_keys)
    assert groups[0] == groups[2] != groups[1]
    assert found_keys["src_port"][first][groups].tolist() == [1, 2, 1]
