"""The optional aggregations, asked for on the command line, against the exact table."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import duckdb
import pytest
from flow_frames import made_up_table

from perfmeasure import jsonio
from perfmeasure.cli import run
from perfmeasure.clock import ClockPair
from perfmeasure.flows import aggregations, keys
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.aggregations import Aggregations, Asked
from perfmeasure.flows.keys import Total
from perfmeasure.flows.times import KernelTimes
from perfmeasure.flows.windows import Window

if TYPE_CHECKING:
    from perfmeasure.flows.loader import Program

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

PORTS = 40
ROUNDS = 300

# In a network namespace of its own: starts the command, sends when it is attached, stops it.
SCRIPT = f"""
import ctypes, socket, struct, subprocess, sys, time
from perfmeasure.flows import bpfcall
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
command = [sys.executable, "-m", "perfmeasure", "flows", "-i", "lo", *sys.argv[1:]]
flows = subprocess.Popen(command)
try:
    while flows.poll() is None:
        loopback_ingress = struct.pack("=II", 1, bpfcall.AttachType.TCX_INGRESS)
        query = ctypes.create_string_buffer(loopback_ingress, 64)
        bpfcall.bpf(16, query)  # BPF_PROG_QUERY
        if struct.unpack_from("=I", query, 24)[0]:
            break
        time.sleep(0.05)
    time.sleep(0.5)
    receivers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range({PORTS})]
    for number, receiver in enumerate(receivers):
        receiver.bind((f"127.0.{{number % 4}}.{{number + 1}}", 20000 + number))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind(("127.0.9.9", 30000))
    for turn in range({ROUNDS}):
        for number, receiver in enumerate(receivers):
            if turn % (number + 1) == 0:
                sender.sendto(bytes(number), receiver.getsockname())
        time.sleep(0.004)
    time.sleep(1)
finally:
    flows.terminate()
    status = flows.wait(30)
sys.exit(status)
"""


def sent() -> tuple[Counter[int], Counter[int]]:
    """Return packets and bytes by port, as the script sends them."""
    packets = Counter({20000 + n: len(range(0, ROUNDS, n + 1)) for n in range(PORTS)})
    return packets, Counter({port: count * (42 + port - 20000) for port, count in packets.items()})


@pytest.fixture
def flows(require: Callable[..., None]) -> Callable[..., Any]:
    """Run the command, which says what it counted of the script's traffic."""
    require("root", "bpf", "unshare", "ip")

    def run_in_namespace(*options: str) -> Any:
        ran = subprocess.run(
            ["unshare", "--net", sys.executable, "-c", SCRIPT, *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
        return jsonio.loads(ran.stdout) if "--json" in options else ran.stdout

    return run_in_namespace


def test_all_at_once_against_the_exact_table(flows: Callable[..., Any], tmp_path: Path) -> None:
    options = ["--sketch", "--keep", "8", "--levels", "--window-bounds", "20ms,640ms"]
    found = flows("--json", "--window", "80ms", "--prefix", str(tmp_path), *options)
    packets, sizes = sent()
    assert {flow["dst_port"]: flow["packets"] for flow in found["flows"]} == packets
    assert {flow["dst_port"]: flow["bytes"] for flow in found["flows"]} == sizes

    sketch = found["sketch"]
    assert sketch["flows"] == PORTS
    assert sketch["flows_underestimated_packets"] == sketch["flows_underestimated_bytes"] == 0
    assert sketch["bound_packets"] == pytest.approx(2.718281828 * packets.total() / 65536)

    top = found["top"]
    assert len(top["flows"]) <= 8
    assert top["worst_error_bytes"] <= top["error_bytes"] <= top["bound_bytes"]
    assert top["bound_bytes"] == sizes.total() // 9
    kept = {flow["dst_port"]: flow for flow in top["flows"]}
    assert {port for port, size in sizes.items() if size > top["error_bytes"]} <= set(kept)
    assert top["largest_missing_bytes"] == max(
        size for port, size in sizes.items() if port not in kept
    )
    for port, flow in kept.items():
        assert flow["bytes"] <= sizes[port] <= flow["bytes"] + flow["missed_at_most_bytes"]
    for unit, counted in (("packets", packets), ("bytes", sizes)):
        assert sum(part[unit] for part in [*top["flows"], *top["rest"]]) == counted.total()

    for level in found["levels"]:
        assert (level["packets"], level["bytes"]) == (packets.total(), sizes.total())
        assert level["difference_packets"] == level["difference_bytes"] == 0
        files = str(tmp_path / "kernel/levels" / level["level"] / "*.windows.parquet")
        table = duckdb.read_parquet(files)
        rows = table.aggregate("dst_port, sum(packets), sum(bytes)").fetchall()
        assert {row[0]: row[1] for row in rows} == packets
        assert {row[0]: row[2] for row in rows} == sizes
    assert found["levels"][0]["windows"] >= 3

    lengths = {entry["length_seconds"]: entry["windows"] for entry in found["window_lengths"]}
    assert 0.64 in lengths  # so little was there to count
    assert set(lengths) <= {0.08, 0.16, 0.32, 0.64}


def test_by_prefix_against_the_exact_table(flows: Callable[..., Any]) -> None:
    found = flows("--json", "--prefix-length", "24", "--against-exact")
    packets, sizes = sent()
    wanted: Counter[str] = Counter()
    for port, count in packets.items():
        wanted[f"127.0.{(port - 20000) % 4}.0"] += count
    assert {flow["dst_ip"]: flow["packets"] for flow in found["flows"]} == wanted
    assert {flow["src_ip"] for flow in found["flows"]} == {"127.0.9.0"}
    assert sum(flow["bytes"] for flow in found["flows"]) == sizes.total()
    assert found["prefix_length"] == {
        "ipv4": 24,
        "ipv6": 48,
        "exact_flows": PORTS,
        "prefixes": 4,
        "difference_packets": 0,
        "difference_bytes": 0,
        "bound_packets": 0,
        "bound_bytes": 0,
    }


def test_people_are_told_bounds_and_errors(flows: Callable[..., Any]) -> None:
    said = flows(
        *[
            "--duration",
            "20",
            "--window",
            "100ms",
            "--keep",
            "3",
            "--sketch",
            "--levels",
            "--syscalls",
            "1",
        ],
        *["--prefix-length", "8,0", "--against-exact", "--window-bounds", "100ms,100ms"],
    )
    packets, _ = sent()
    assert "=== Aggregations ===" in said
    assert f"prefixes: /8, /0: 1 pairs of {PORTS} flows; they differ by 0 packets, 0 bytes" in said
    assert "sketch 4 x 65536, packets: at most 0.1 too many for all but 1.8% of the flows" in said
    assert "largest flows: 1 kept, each with at most 0 bytes missed" in said
    assert f"level 1h: 1 windows, {packets.total():,} packets" in said
    assert "windows of 0.1 s: " in said
    assert "=== System Calls ===" in said
    assert "calls: begun " in said


def test_a_run_without_an_end_keeps_the_largest_flows_and_no_others() -> None:
    found = Aggregations(Asked(keep_count=4, is_levels=True), 10**9, None, {0: "lo"})
    tables = [made_up_table(number, 30, of=60) for number in range(90)]
    drained, times = Total(), KernelTimes()
    times.note(ClockPair(0, 0))
    for number, table in enumerate(tables):
        drained = drained.plus(keys.total(table))
        terms = Terms(seen=keys.total(table), drained=keys.total(table))
        found.add(Window(number, 10**9, table, terms, (), ClockPair(0, 0)))
    found.finish()
    program = cast("Program", None)  # which is not asked for what it has not
    fields = found.fields(program, None, drained, times)
    largest = found.largest_flows()
    assert largest is not None
    assert [flow["bytes"] for flow in fields["top"]["flows"]] == largest["bytes"].tolist()
    assert "worst_error_bytes" not in fields["top"]
    assert [level["windows"] for level in fields["levels"]] == [90, 2, 1]
    assert {level["difference_bytes"] for level in fields["levels"]} == {0}
    assert aggregations.lines(fields)[0].endswith(f"(bound {drained.bytes // 5:,})")
    none = Aggregations(Asked(), 10**9, None, {0: "lo"})
    assert none.largest_flows() is None
    assert none.fields(program, None, drained, times) == {}
    assert none.definitions() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prefix-length", "40"], "--prefix-length: '40'; wanted bits of IPv4"),
        (
            ["--prefix-length", "24", "--key", "service"],
            "--prefix-length: given with --key service",
        ),
        (["--against-exact"], "--against-exact: given alone; wanted it with --prefix-length"),
        (["--window-bounds", "1ms,10s"], "--window-bounds: '1ms,10s'; wanted two lengths"),
        (["--window-bounds", "10s"], "--window-bounds: '10s'; wanted two lengths"),
        (["--window-bounds", "2s,10s"], "--window: 1.0 s; wanted one within --window-bounds"),
        (["--levels", "--window", "2s"], "--levels: windows of up to 2.0 s; wanted 1 s at most"),
        (["--levels", "--window-bounds", "1s,4s"], "--levels: windows of up to 4.0 s"),
    ],
)
def test_what_does_not_go_together_is_said(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["flows", "-i", "lo", "--duration", "1", *options]) == 2
    assert message in capsys.readouterr().err
