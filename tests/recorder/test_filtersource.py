"""Filters as a part of the kernel's program, against libpcap on the same frames."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from perfmeasure.flows import bpfcall
from perfmeasure.recorder.cutoff import KernelCutoff
from perfmeasure.recorder.filtersource import filter_source
from perfmeasure.recorder.libpcap import Filter
from perfmeasure.recorder.records import FRAME, LINK_ETHERNET
from tests.recorder import made

EXPRESSIONS = (
    "tcp", "udp or icmp or ip6", "tcp port 80 and not host 10.0.0.7", "net 10.0.0.0/9",
    "greater 100", "tcp[tcpflags] & (tcp-push|tcp-ack) = 0 or udp",
    "ip[2:2] - (ip[0] & 15) * 4 > 60", "len % 3 = 1",
)  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_kernel_decides_as_libpcap(expression: str, require: Callable[..., None]) -> None:
    require("root", "bpf")
    compiled = Filter(expression, LINK_ETHERNET, "filter")
    source = filter_source(compiled.instructions)
    assert source
    kernel = KernelCutoff(LINK_ETHERNET, 60, lambda: 0, source)
    frames = [p.frame for p in made.trace(81, 300, connections=40) if len(p.frame) <= 1500]
    places = np.zeros(len(frames), FRAME)
    places["captured"] = places["original"] = [len(frame) for frame in frames]
    places["at"] = np.cumsum(places["captured"]) - places["captured"]
    wanted = compiled.matches(b"".join(frames), places)
    # A test run takes a frame's Ethernet header away first.
    runs = [bpfcall.test_run(kernel.program_fd, frame[:14] + frame) for frame in frames]
    assert [run.return_value > 0 for run in runs] == wanted.tolist()
    assert 0 < wanted.sum() < len(frames)
    assert kernel.seen()[0] == wanted.sum(), "what is not wanted is not counted"


def test_every_instruction_has_a_statement_or_none() -> None:
    instructions = [
        (0x80, 0, 0, 0), (0x07, 0, 0, 0), (0x02, 0, 0, 3), (0x61, 0, 0, 3), (0x3C, 0, 0, 0),
        (0x84, 0, 0, 0), (0x05, 0, 0, 1), (0x15, 0, 1, 7), (0x1D, 1, 0, 0), (0x16, 0, 0, 0),
        (0x87, 0, 0, 0), (0x06, 0, 0, 5), (0x20, 0, 0, 0xFFFFF000 + 44), (0xB1, 0, 0, 14),
    ]  # fmt: skip
    source = filter_source(b"".join(struct.pack("=HBBI", *each) for each in instructions))
    assert source == (
        "L0: A = skb->len; L1: X = A; L2: M[3] = A; L3: X = M[3]; L4: if (!X) return 0; A = A / X; "
        "L5: A = -A; L6: goto L8; L7: if (A == 7u) goto L8; else goto L9; "
        "L8: if (A == X) goto L10; else goto L9; L9: return A; L10: A = X; L11: return 5u; "
        "L12: A = skb->vlan_tci; L13: X = (load_byte(skb, 14u) & 15) << 2;"
    )
    loop = Filter("ip6 protochain 6", LINK_ETHERNET, "filter")
    assert filter_source(loop.instructions) is None
    for unknown in ((0x20, 0, 0, 0xFFFFF000 + 24), (0xB4, 0, 0, 0), (0x55, 0, 0, 0)):
        assert filter_source(struct.pack("=HBBI", *unknown)) is None
