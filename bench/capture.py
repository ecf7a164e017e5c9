"""What recording a line costs: run as root, `python bench/capture.py`.

A veth pair between two network namespaces; a sender of its own process puts frames of 64 to 1514
bytes (fixed seed, 630 bytes in the mean, 2,000 TCP connections) on it as fast as this machine can,
a bounded number of them. CPU is that of the recorder's process, user and system, from before the
first packet until the last is stored; the copy into the ring happens in the sender's time, where
one machine does both.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from perfmeasure.flows import bpfcall
from perfmeasure.recorder.classes import PacketClass
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.recorder import Recorder
from perfmeasure.recorder.writer import Limits

MODES = {
    "all": "everything is kept",
    "user": "cutoff of 15 KB, in user space",
    "kernel": "cutoff of 15 KB, in the kernel",
}
CONNECTIONS = 2000
FRAMES = 16384
BATCH = 256
_SOL_PACKET, _QDISC_BYPASS = 263, 20
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_SECONDS = 60.0


def frame(rng: random.Random) -> bytes:
    """Return a frame of one of the connections, in either direction."""
    number = rng.randrange(CONNECTIONS)
    # A few connections have most of the packets.
    number = int(number * rng.random() ** 3)
    size = min(1514, max(64, round(rng.expovariate(1 / 630))))
    a, b = bytes([10, 0, number >> 8, number & 255]), bytes([10, 1, 0, 1])
    ports = 1024 + number, 443
    if rng.random() < 0.5:
        a, b, ports = b, a, ports[::-1]
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, 6, 0, a, b)
    tcp = struct.pack(">HHIIBBHHH", *ports, 0, 0, 0x50, 16, 0, 0, 0)
    return (b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0" + ip + tcp).ljust(size, b"\0")


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    """``struct mmsghdr`` on machines of 64 bits."""

    _fields_ = [
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t), ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t), ("flags", ctypes.c_int), ("sent", ctypes.c_uint),
    ]  # fmt: skip


def send(interface: str, count: int) -> None:
    """Put ``count`` frames on an interface with sendmmsg(2)."""
    rng = random.Random(630)
    frames = [frame(rng) for _ in range(FRAMES)]
    vectors = (_Vector * FRAMES)(*(_Vector(each, len(each)) for each in frames))
    messages = (_Message * FRAMES)()
    for number in range(FRAMES):
        messages[number].vectors = ctypes.addressof(vectors[number])
        messages[number].vector_count = 1
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        out.bind((interface, 0))
        out.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
        done = 0
        begun = time.monotonic()
        while done < count:
            at = done % FRAMES
            wanted = min(BATCH, FRAMES - at, count - done)
            sent = libc.sendmmsg(out.fileno(), ctypes.byref(messages[at]), wanted, 0)
            if sent < 0:
                raise OSError(ctypes.get_errno(), "sendmmsg")
            done += sent
    print(time.monotonic() - begun)


def record(mode: str, store: Path, interface: str) -> None:
    """Record until SIGTERM, then print what was counted."""
    limits = Limits(segment_bytes=64 << 20, budget_bytes=512 << 20)
    cutoff_bytes = None if mode == "all" else 15_000
    setup = Setup(classes=(PacketClass("all", cutoff_bytes=cutoff_bytes, limits=limits),))
    recorder = Recorder(store, setup, lambda text: print(text, file=sys.stderr))
    signal.signal(signal.SIGTERM, lambda *_: recorder.stop())
    recorder.submit(lambda _: print("ready", flush=True))
    timing = bpfcall.enable_statistics()
    recorder.capture(interface, is_cut_in_kernel=mode == "kernel")
    recording = recorder.recording
    assert recording is not None
    kept = int(recorder.writer.stored["all"][0])
    filter_ns = 0
    if recording.kernel is not None:
        runs, run_time_ns = bpfcall.program_statistics(recording.kernel.program_fd)
        filter_ns = round(run_time_ns / runs)
    os.close(timing)
    print(recording.seen()[0], recording.totals.packets, recorder.losses.dropped, kept, filter_ns)
    recorder.close()


@dataclass
class Figures:
    """Of one run."""

    packets: int
    copied: int
    dropped: int
    kept: int
    cpu_seconds: float
    send_seconds: float
    peak_bytes: int
    filter_ns: int
    """A run of the kernel's program; 0 where there is none."""


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def run(mode: str, count: int, near: str, far: str) -> Figures:
    """Record ``count`` packets in one mode."""
    here = [sys.executable, __file__]
    with tempfile.TemporaryDirectory() as folder:
        command = ["ip", "netns", "exec", near, *here, "--record", mode, folder]
        recorder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert recorder.stdout is not None
            assert recorder.stdout.readline() == "ready\n"
            before = cpu_seconds(recorder.pid)
            command = ["ip", "netns", "exec", far, *here, "--send", str(count)]
            patience = _PATIENCE_SECONDS + count / 10_000
            sent = subprocess.run(command, check=True, capture_output=True, timeout=patience)
            last = -1.0
            while (now := cpu_seconds(recorder.pid)) - last > 0.02:
                last = now
                time.sleep(0.5)
            status = Path(f"/proc/{recorder.pid}/status").read_text("ascii")
            peak_bytes = int(status.partition("VmHWM:")[2].split()[0]) << 10
            recorder.send_signal(signal.SIGTERM)
            counted = recorder.communicate(timeout=_PATIENCE_SECONDS)[0].split()
        finally:
            recorder.kill()
    packets, copied, dropped, kept, filter_ns = map(int, counted)
    return Figures(
        packets, copied, dropped, kept, now - before, float(sent.stdout), peak_bytes, filter_ns
    )


def main() -> None:
    """Run the modes that were asked for and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--send", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--record", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send is not None:
        send("there", options.send)
        return
    if options.record is not None:
        record(options.record[0], Path(options.record[1]), "here")
        return
    near = f"bench{secrets.token_hex(3)}"
    far = f"{near}f"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    try:
        for name in (near, far):
            ip("netns", "add", name)
        ip("-n", near, "link", "add", "here", "type", "veth", "peer", "there", "netns", far)
        ip("-n", near, "link", "set", "here", "up")
        ip("-n", far, "link", "set", "there", "up")
        for mode in options.mode or MODES:
            for _ in range(options.rounds):
                done = run(mode, options.packets, near, far)
                print(
                    f"{MODES[mode]}: {done.packets} packets at "
                    f"{done.packets / done.send_seconds:,.0f}/s, {done.dropped} dropped, "
                    f"{done.copied} copied, {done.kept} kept, "
                    f"{done.cpu_seconds / done.packets * 1e6:.2f} CPU us a packet, "
                    f"peak {done.peak_bytes / 2**20:.0f} MiB"
                    + (f", {done.filter_ns} ns a run of the filter" if done.filter_ns else ""),
                    flush=True,
                )
    finally:
        for name in (near, far):
            subprocess.run(["ip", "netns", "del", name], check=False)


if __name__ == "__main__":
    main()
