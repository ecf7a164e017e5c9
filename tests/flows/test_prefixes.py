"""Aggregation by prefix: cut in the kernel, cut here, and cut by the standard library."""

from __future__ import annotations

import ipaddress
import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from flow_frames import INGRESS, address, feed, random_datagrams

from perfmeasure.errors import UsageError
from perfmeasure.flows import keys, prefixes
from perfmeasure.flows.keys import Total
from perfmeasure.flows.prefixes import PrefixLengths
from perfmeasure.flows.windows import Windows

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

LONG_NS = 3600 * 10**9
FLOWS = 400


def test_lengths_are_read() -> None:
    assert PrefixLengths.parse("24") == (24, 48)
    assert PrefixLengths.parse("16,32") == (16, 32)
    assert PrefixLengths.parse("/24,/48") == (24, 48)
    assert PrefixLengths.parse("0,128") == (0, 128)
    for text in ("", "33", "24,129", "-1", "24,48,64", "a", "24,", "٢٤"):
        with pytest.raises(UsageError, match="--prefix-length"):
            PrefixLengths.parse(text)


def network(text: str, lengths: PrefixLengths) -> str:
    version = ipaddress.ip_address(text).version
    bits = lengths.ipv4 if version == 4 else lengths.ipv6
    return str(ipaddress.ip_network(f"{text}/{bits}", strict=False).network_address)


@pytest.mark.parametrize("text", ["24,48", "0,0", "32,128", "20,57", "9,33"])
def test_prefixes_are_the_sum_of_their_flows_to_the_byte(
    require: Callable[..., None], text: str
) -> None:
    require("root", "bpf")
    lengths = PrefixLengths.parse(text)
    windows = Windows(
        LONG_NS,
        1024,
        definitions={**lengths.definitions(), "EXACT_FLOWS": 1024},
        functions=[INGRESS],
    )
    windows.begin()
    draw = random.Random(text)
    packets: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for flow in random_datagrams(7, FLOWS):
        repeat = draw.randrange(1, 50)
        feed(windows, flow, repeat)
        pair = network(flow.source, lengths), network(flow.destination, lengths)
        packets[pair] += repeat
        sizes[pair] += repeat * len(flow.frame())
    (window,) = windows.finish()

    window.terms.check(text)
    by_prefix = window.flows
    assert not by_prefix["src_port"].any()
    assert not by_prefix["dst_port"].any()
    ours = {(address(row, "src"), address(row, "dst")): row for row in by_prefix}
    assert {pair: row["packets"] for pair, row in ours.items()} == packets
    assert {pair: row["bytes"] for pair, row in ours.items()} == sizes

    exact, unchecked = prefixes.exact_flows(windows.program)
    assert len(exact) == FLOWS
    assert keys.total(exact) == keys.total(by_prefix)
    found = prefixes.compare(lengths, by_prefix, exact, unchecked)
    assert found == (FLOWS, len(packets), 0, 0, Total())
    # What is compared can differ: a packet moved from one pair to another is found twice.
    if len(by_prefix) > 1:
        moved = by_prefix.copy()
        moved["packets"][0] += 1
        moved["packets"][1] -= 1
        assert prefixes.compare(lengths, moved, exact, unchecked).packets == 2


def test_what_the_exact_table_has_no_room_for_bounds_the_difference(
    require: Callable[..., None],
) -> None:
    require("root", "bpf")
    lengths = PrefixLengths(24, 48)
    windows = Windows(
        LONG_NS,
        4096,
        definitions={**lengths.definitions(), "EXACT_FLOWS": 64},
        functions=[INGRESS],
    )
    windows.begin()
    for flow in random_datagrams(3, FLOWS):
        feed(windows, flow, 2)
    (window,) = windows.finish()
    exact, unchecked = prefixes.exact_flows(windows.program)
    assert unchecked.packets > 0
    assert keys.total(exact).plus(unchecked) == keys.total(window.flows)
    found = prefixes.compare(lengths, window.flows, exact, unchecked)
    assert found.packets == unchecked.packets
    assert found.bytes == unchecked.bytes
    assert found.fields()["bound_bytes"] == unchecked.bytes


def test_nothing_cut_is_nothing() -> None:
    empty = np.zeros(0, keys.TABLE)
    assert len(PrefixLengths(24, 48).cut(empty)) == 0
    assert prefixes.compare(PrefixLengths(24, 48), empty, empty, Total()).packets == 0
