"""What the optional aggregations cost: in the kernel by packet, in user space by window.

The kernel runs its counting program on one frame over and over (BPF_PROG_TEST_RUN); a line put in
front of it writes another source address into the frame each time, so that packets spread at random
over so many flows. The kinds alternate; each figure is the median of its rounds. Needs root::

    python bench/aggregations.py [--packets 1000000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import struct
import tempfile
import time
from pathlib import Path

import numpy as np

from perfmeasure.clock import ClockPair
from perfmeasure.flows import bpfcall, keys, prefixes, sketch
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.levels import Levels
from perfmeasure.flows.loader import BPF_FOLDER
from perfmeasure.flows.prefixes import PrefixLengths
from perfmeasure.flows.topk import TopFlows
from perfmeasure.flows.windows import Window, Windows

LONG_NS = 3600 * 10**9
ROOM = 131072
FLOWS = (1, 1_000, 64_000)
ENTRY = "int count_xdp(struct xdp_md *context)\n{\n"
SPREAD = """
static inline __attribute__((always_inline)) void spread(struct xdp_md *context)
{
    u8 *data = (u8 *)(long)context->data, *end = (u8 *)(long)context->data_end;

    if (data + 30 <= end)
        *(u32 *)(data + 26) = htonl(0x0a000000 | bpf_get_prandom_u32() % FLOWS);
}

"""


def main() -> None:
    """Run the benchmark and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=1_000_000, help="packets a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each kind")
    arguments = parser.parse_args()
    in_kernel(arguments.packets, arguments.rounds)
    in_user_space(arguments.rounds)


def in_kernel(packets: int, rounds: int) -> None:
    """Print the nanoseconds a packet of each kind."""
    lengths = PrefixLengths(24, 48)
    kinds: dict[str, dict[str, int]] = {
        "flows": {},
        "flows, windows of changing length": {"ADAPTIVE": 1},
        "flows and sketch": {"SKETCH_SEED": sketch.new_seed()},
        "prefixes /24": lengths.definitions(),
        "prefixes /24 and exact table": {
            **lengths.definitions(),
            "EXACT_FLOWS": prefixes.EXACT_FLOWS,
        },
    }
    frame = bytes(12) + struct.pack(">HBBHHHBBH", 0x0800, 0x45, 0, 50, 0, 0, 64, 17, 0)
    frame += bytes([10, 0, 0, 1, 10, 9, 9, 9]) + struct.pack(">HHHH", 1024, 53, 30, 0) + bytes(22)
    print(f"{'ns a packet over so many flows':36}" + "".join(f"{n:>10,}" for n in FLOWS))
    medians: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(BPF_FOLDER, folder, dirs_exist_ok=True)
        source = (BPF_FOLDER / "flows.bpf.c").read_text()
        assert source.count(ENTRY) == 1
        path = Path(folder) / "spread.bpf.c"
        path.write_text(source.replace(ENTRY, SPREAD + ENTRY + "    spread(context);\n"))
        for flows in FLOWS:
            programs = {
                kind: started(path, {**extra, "FLOWS": flows}) for kind, extra in kinds.items()
            }
            found: dict[str, list[int]] = {kind: [] for kind in kinds}
            for turn in range(rounds + 1):
                for kind, windows in programs.items():
                    ran = bpfcall.test_run(windows.program.fd("count_xdp"), frame, packets)
                    if turn:  # the first makes the flows
                        found[kind].append(ran.duration_ns)
            for kind, windows in programs.items():
                medians[kind].append(statistics.median(found[kind]))
                (window,) = windows.finish()
                assert window.terms.drained.packets == packets * (rounds + 1)
                windows.program.table.cleanup()
    for kind, values in medians.items():
        print(f"{kind:36}" + "".join(f"{value:10.0f}" for value in values))


def started(path: Path, definitions: dict[str, int]) -> Windows:
    """Load the program and begin to count."""
    is_adaptive = "ADAPTIVE" in definitions
    others = {name: value for name, value in definitions.items() if name != "ADAPTIVE"}
    windows = Windows(
        LONG_NS, ROOM, is_adaptive=is_adaptive, definitions=others,
        functions=["count_xdp"], file_name=str(path),
    )  # fmt: skip
    windows.begin()
    return windows


def in_user_space(rounds: int) -> None:
    """Print what a window of 64,000 flows costs, when as many as that are known already."""
    draw = np.random.default_rng(1)
    tables = []
    for _ in range(rounds + 1):
        table = np.zeros(FLOWS[-1], keys.TABLE)
        table["src_port"] = draw.permutation(65536)[: len(table)]
        table["packets"] = 1 + draw.pareto(1.1, len(table)).astype(np.uint64)
        table["bytes"] = table["packets"] * 100
        tables.append(table)
    top, levels = TopFlows(1000), Levels()
    spent: dict[str, list[float]] = {"the 1,000 largest flows": [], "levels": []}
    for number, table in enumerate(tables):
        terms = Terms(seen=keys.total(table), drained=keys.total(table))
        window = Window(number, 10**9, table, terms, (), ClockPair(0, 0))
        began = time.thread_time()
        top.add(table)
        middle = time.thread_time()
        levels.add(window)
        ended = time.thread_time()
        if number:
            spent["the 1,000 largest flows"].append(middle - began)
            spent["levels"].append(ended - middle)
    for kind, values in spent.items():
        milliseconds = statistics.median(values) * 1e3
        print(f"{kind}: {milliseconds:.1f} ms of processor time a window of {FLOWS[-1]:,} flows")


if __name__ == "__main__":
    main()
