"""A sender that makes millions of frames a second: the kernel's own test runs with live frames.

``BPF_PROG_TEST_RUN`` with ``BPF_F_TEST_XDP_LIVE_FRAMES`` (Linux 5.18) hands a frame to an XDP
program again and again, and does with it what the program says. This program gives each one the
address and port of the next flow and sends it out of a veth interface. The other end takes frames
of this kind only while it has an XDP program of its own. A process of its own: ``live_frames.py
INTERFACE FLOWS PACKETS CPU``, which says READY, waits for a line, sends, and says how many.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from namespaces import FRAME_BYTES, Cable, inside, udp_frames

from perfmeasure.flows import bpfcall
from perfmeasure.flows.counter import FlowCounter
from perfmeasure.flows.loader import Program
from perfmeasure.flows.windows import Window

_LIVE_FRAMES = 1 << 1
_PORTS = 50_000
_PATIENCE_SECONDS = 240
_BATCH = 16  # frames that are made before they are sent; the other end's ring has 256
_PER_CALL = 250_000  # between two calls the kernel pauses for some milliseconds, and others run

# Flow n has the address and port that namespaces.udp_frames gives it.
_SOURCE = """
#include <uapi/linux/bpf.h>
BPF_ARRAY(flow, u32, 1);
BPF_ARRAY(sent, u64, 1);
int send(struct xdp_md *context)
{
    u8 *data = (u8 *)(long)context->data, *end = (u8 *)(long)context->data_end;
    int zero = 0;
    u32 *next = flow.lookup(&zero);
    u64 *count = sent.lookup(&zero);
    u32 number;

    if (data + 42 > end || !next || !count)
        return XDP_ABORTED;
    number = *next;
    *next = number + 1 < FLOWS ? number + 1 : 0;
    data[28] = number / PORTS;
    *(u16 *)(data + 34) = bpf_htons(1024 + number % PORTS);
    *count += 1;
    return bpf_redirect(INTERFACE, 0);
}
"""


def flood(made: Cable, counter: FlowCounter, flows: int, packets: int) -> tuple[list[Window], int]:
    """Send from the left end, from all processors at once, while ``counter`` is swept.

    Each processor's sender goes round the same flows. Return the windows that were swept and how
    many frames were sent.
    """
    processors = os.cpu_count() or 1
    windows: list[Window] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(_before_others())
        senders = [_start(made, flows, packets // processors, cpu) for cpu in range(processors)]
        for process in senders:
            stack.enter_context(process)
            stack.callback(process.kill)
        deadline = time.monotonic() + _PATIENCE_SECONDS

        def line(process: subprocess.Popen[str]) -> str:
            assert process.stdout is not None
            while not select.select([process.stdout], [], [], 0)[0]:
                assert time.monotonic() < deadline
                time.sleep(max(counter.windows.wait_ns() / 1e9, 0))
                windows.extend(counter.sweep())
            return process.stdout.readline()

        assert [line(process) for process in senders] == ["READY\n"] * processors
        for process in senders:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        sent = sum(int(line(process)) for process in senders)
        assert sent == packets // processors * processors
    time.sleep(0.05)  # what is on its way
    return windows, sent


@contextlib.contextmanager
def _before_others() -> Iterator[None]:
    """Have the scheduler prefer this session to others on the machine for a while."""
    autogroup = Path("/proc/self/autogroup")
    words = autogroup.read_text().split() if autogroup.exists() else []
    if not words:
        yield
        return
    autogroup.write_text("-20")
    try:
        yield
    finally:
        autogroup.write_text(words[-1])  # "/autogroup-NUMBER nice VALUE"


def _start(made: Cable, flows: int, packets: int, cpu: int) -> subprocess.Popen[str]:
    argv = [sys.executable, __file__, made.left_interface, str(flows), str(packets), str(cpu)]
    with inside(made.left):
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _send(interface: str, flows: int, packets: int, cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    definitions = {"FLOWS": flows, "PORTS": _PORTS, "INTERFACE": socket.if_nametoindex(interface)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "send.bpf.c"
        path.write_text(_SOURCE)
        program = Program(str(path), {"send": "XDP"}, definitions)
    print("READY", flush=True)  # noqa: T201
    sys.stdin.readline()
    frame = ctypes.create_string_buffer(udp_frames(1, 0), FRAME_BYTES)
    # struct xdp_md: the frame's beginning and end, the rest is 0: the namespace's loopback.
    context = ctypes.create_string_buffer(struct.pack("=6I", 0, FRAME_BYTES, 0, 0, 0, 0), 24)
    while packets:
        count = min(packets, _PER_CALL)
        attributes = struct.pack(
            "=IIIIQQIIIIQQIII",
            program.fd("send"), 0, FRAME_BYTES, 0, ctypes.addressof(frame), 0,
            count, 0, len(context), 0, ctypes.addressof(context), 0,
            _LIVE_FRAMES, 0, _BATCH,
        )  # fmt: skip
        bpfcall.bpf(bpfcall.Command.PROG_TEST_RUN, attributes.ljust(128, b"\0"))
        packets -= count
    print(int(program.table[b"sent"][0].value))  # noqa: T201


if __name__ == "__main__":
    _send(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
