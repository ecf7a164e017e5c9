from __future__ import annotations

import lzma
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.analysis import (
    database,
    filters,
    onionperf,
    pipeline,
    records,
    rows,
    source,
    torctl,
    validation,
)
from perfmeasure.units import log_stamp
from tests.analysis import downstream, onionperf_rules

if TYPE_CHECKING:
    from perfmeasure.analysis.source import Input
    from tests.analysis.conftest import Lines

SAMPLES = (
    "client-direct-success", "client-proxy-refused", "client-socks-status1",
    "client-socks-success", "client-socks-timeout", "client-transfer-cut",
    "client-transfer-timeout", "client-upstream-web",
)  # fmt: skip


def test_equal_to_onionperfs_own_for_a_whole_run(fixtures: Path) -> None:
    run = fixtures / "onionperf-run"
    document = pipeline.analyze([run], nickname="testnet", measurement_ip="127.0.0.1")
    expected = database.load(run / "expected.onionperf-3.1.json")
    assert onionperf.to_3_1(document) == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_equal_to_onionperfs_own_for_a_generators_log(fixtures: Path, name: str) -> None:
    log = fixtures / "tgen" / f"{name}.tgen.log"
    found = onionperf.to_3_1(pipeline.analyze([log], measurement_ip="192.0.2.1"))
    # OnionPerf leaves out this part, without which its own schema refuses the document.
    assert found["data"]["vm"].pop("tor") == {"circuits": {}, "guards": [], "streams": {}}
    assert found == database.load(log.with_name(f"{name}.onionperf-3.1.json"))


@pytest.mark.parametrize(
    "name",
    [
        "onionperf-run/tor-client.onionperf.torctl.log.xz",
        "onionperf-run/tor-server.onionperf.torctl.log.xz",
        "torctl/sample_400lines.torctl.log",
    ],
)
def test_real_control_ports_by_the_rules(fixtures: Path, log_of: Any, name: str) -> None:
    stored = (fixtures / name).read_bytes()
    text = (lzma.decompress(stored) if name.endswith(".xz") else stored).decode()
    assert tor_of(log_of(text)) == onionperf_rules.tor_of(text)


@given(st.randoms(use_true_random=False), st.sampled_from([2, 6]))
def test_made_up_control_ports_by_the_rules(
    tmp_path_factory: pytest.TempPathFactory, random: Random, decimals: int
) -> None:
    text = made_up_control_port(random, decimals)
    path = tmp_path_factory.getbasetemp() / "x.torctl.log"
    path.write_text(text, newline="")
    assert tor_of(source.find([path])[0]) == onionperf_rules.tor_of(text)


_STEPS = (
    "socket-create", "socket-connect", "proxy-init", "proxy-choice", "proxy-request",
    "proxy-response", "command", "response", "first-byte-recv", "last-byte-recv", "checksum-recv",
    "first-byte-send", "last-byte-send", "checksum-send",
)  # fmt: skip
_ENDS_OF_STREAMS = [
    # kind of line, error of the transport, its state, error of the stream
    ("success", "NONE", "SUCCESS_EOF", "NONE"),
    ("success", "NONE", "SUCCESS_OPEN", "NONE"),
    ("error", "STATUS", "ERROR", "PROXY"),
    ("error", "CONNECT", "ERROR", "PROXY"),
    ("error", "AUTH", "ERROR", "PROXY"),
    ("error", "VERSION", "ERROR", "PROXY"),
    ("error", "STALLOUT", "RESPONSE_STATUS", "PROXY"),
    ("error", "TIMEOUT", "RESPONSE_STATUS", "PROXY"),
    *(
        ("error", "NONE", "SUCCESS_OPEN", error)
        for error in (
            "AUTH",
            "HEADER",
            "CHECKSUM",
            "READ",
            "WRITEEOF",
            "TIMEOUT",
            "STALLOUT",
            "MISC",
        )
    ),
]


@given(st.randoms(use_true_random=False), st.booleans())
def test_made_up_generators_by_the_rules(
    tmp_path_factory: pytest.TempPathFactory, random: Random, is_packed: bool
) -> None:
    text = made_up_generator(random)
    path = tmp_path_factory.getbasetemp() / "x.tgen.log"
    path.write_bytes(lzma.compress(text.encode()) if is_packed else text.encode())
    document = pipeline.analyze([path])
    assert [log["lines"]["rejected"] for log in document["meta"]["inputs"]] == [{}]
    node = onionperf.to_3_1(document)["data"]["op-nl"]
    assert node["tgen"]["streams"] == onionperf_rules.streams_of(text)


def made_up_generator(random: Random) -> str:
    """Return a generator's log of some days, with streams of every outcome side by side."""
    lines = []
    for number in range(random.randrange(1, 12)):
        start = 1795305600.0 + random.randrange(3) * 86400 + random.random() * 20
        remote = random.choice(["example.com:192.0.2.7:443", "abcdefgh.onion:0.0.0.0:8080"])
        proxy = random.choice(["localhost:127.0.0.1:9050", "NULL:0.0.0.0:0"])
        transport = (
            f"fd={random.randrange(5, 9)},local=localhost:127.0.0.1:{40000 + number},"
            f"proxy={proxy},remote={remote}"
        )
        sizes = random.choice([(0, 5242880), (0, 1048576), (1048576, 0), (51200, 51200), (0, 0)])
        vertex = random.choice(["stream", "stream5m"])
        stream = (
            f"id={number},vertexid={vertex},name=op-nl,peername=(null),sendsize={sizes[0]},"
            f"recvsize={sizes[1]},sendstate=SEND_SUCCESS,recvstate=RECV_SUCCESS"
        )
        moved = [0, 0]
        now = start
        for _ in range(random.randrange(6)):
            now += 0.001 + random.random()
            moved = [
                m + random.randrange(1 + (s or 9999999) - m)
                for m, s in zip(moved, sizes, strict=True)
            ]
            if sizes != (0, 0):
                moved = [min(m, s) for m, s in zip(moved, sizes, strict=True)]
            lines.append(
                (
                    now,
                    "stream-status",
                    transport,
                    "SUCCESS_OPEN,error=NONE",
                    stream,
                    "NONE",
                    moved,
                    sizes,
                    "",
                )
            )
        if random.random() < 0.2:
            continue  # it goes on when the log ends
        kind, transport_error, state, error = random.choice(_ENDS_OF_STREAMS)
        now += 0.001 + random.random()
        created = random.randrange(10**9, 10**10)
        lived = round((now - start) * 1e6) + random.randrange(5)
        steps = ",".join(
            f"usecs-to-{step}={random.choice([-1, random.randrange(lived + 1)])}" for step in _STEPS
        )
        times = f" times [created-ts={created},{steps},now-ts={created + lived}]"
        outcome = f"{state},error={transport_error}"
        lines.append(
            (now, f"stream-{kind}", transport, outcome, stream, error, moved, sizes, times)
        )
    text = (
        "2026-11-22 00:00:00 1795305600.000000 [message] [tgen-main.c:43] [_tgenmain_run] "
        "Initializing TGen v1.1.2 running GLib v2.74.6 and IGraph v0.10.2 on host op-nl with "
        "process id 14529\n"
    )
    for ts, kind, transport, outcome, stream, error, (sent, received), sizes, times in sorted(
        lines
    ):
        progress = [
            f"{100 * done / size:.2f}%" if size else random.choice(["?", "100.00%"])
            for done, size in ((received, sizes[1]), (sent, sizes[0]))
        ]
        text += (
            f"{log_stamp(ts)} [message] [tgen-stream.c:1721] [_tgenstream_log] [{kind}] transport "
            f"[{transport},state={outcome}] stream [{stream},error={error}] bytes "
            f"[total-bytes-recv={received + 99},total-bytes-send={sent + 99},"
            f"payload-bytes-recv={received},payload-bytes-send={sent},"
            f"payload-progress-recv={progress[0]},payload-progress-send={progress[1]}]{times}\n"
        )
    return text


def tor_of(log: Input) -> dict[str, Any]:
    """Return what is written as ``tor`` of a torctl log, also of a server's."""
    measurement = database.Measurement("unknown", tor=torctl.read_logs([log]))
    measurement.link()
    assert not log.counts.rejected
    document = database.build({"n": measurement}, {})
    tor: dict[str, Any] = onionperf.to_3_1(document)["data"]["n"]["tor"]
    return tor


def made_up_control_port(random: Random, decimals: int) -> str:
    """Return a torctl log of circuits, streams, guards and timeouts, all mixed."""
    relays = [f"${index:040X}" + random.choice(["", f"~r{index}"]) for index in range(4)]
    now = 1795305600.0
    text = ""
    circuits: dict[int, tuple[str, list[str]]] = {}
    streams: dict[int, str] = {}
    for number in range(1, random.randrange(5, 60)):
        now += random.choice([0, 0.004, 0.01, 1.5])
        stamp = f"2026-11-22 00:00:00 {now:.{decimals}f}"
        kind = random.choice(["circuit", "circuit", "stream", "stream", "guard", "timeout"])
        if kind == "guard":
            status = random.choice(["NEW", "UP", "UP", "DOWN", "DROPPED", "BAD", "GOOD_L2"])
            event = f"GUARD ENTRY ${random.randrange(3):040X}~guard {status}"
        elif kind == "timeout":
            event = (
                f"BUILDTIMEOUT_SET {random.choice(['COMPUTED', 'RESET', 'SUSPENDED'])} "
                f"TOTAL_TIMES=7 TIMEOUT_MS={random.randrange(9999)} XM=225 ALPHA=2.060204 "
                "CUTOFF_QUANTILE=0.800000 TIMEOUT_RATE=0.009804 CLOSE_MS=60000 CLOSE_RATE=0.0"
            )
        elif kind == "circuit":
            event = _circuit_event(random, number, relays, circuits)
        else:
            event = _stream_event(random, number, streams)
        text += f"{stamp} 650 {event}\r\n"
    return text


def _circuit_event(
    random: Random, number: int, relays: list[str], circuits: dict[int, tuple[str, list[str]]]
) -> str:
    if not circuits or random.random() < 0.3:
        purpose = random.choice(["GENERAL", "HS_CLIENT_REND", "CONFLUX_UNLINKED"])
        circuits[number] = purpose, []
        began = random.choice(["LAUNCHED", "LAUNCHED", "BUILT $" + "F" * 40])
        if began != "LAUNCHED":
            circuits[number][1].append("$" + "F" * 40)
        return f"CIRC {number} {began} PURPOSE={purpose}{_state_of(purpose)}"
    number = random.choice(list(circuits))
    purpose, path = circuits[number]
    status = random.choice(["EXTENDED", "EXTENDED", "BUILT", "CLOSED", "FAILED", "minor"])
    if status == "minor":
        old, purpose = purpose, random.choice([purpose, "HS_VANGUARDS", "HS_CLIENT_INTRO"])
        circuits[number] = purpose, path
        change = random.choice(["PURPOSE_CHANGED", "CANNIBALIZED"])
        words = f"CIRC_MINOR {number} {change}{_path_of(path)} PURPOSE={purpose}"
        return f"{words}{_state_of(purpose)} OLD_PURPOSE={old}"
    if status == "EXTENDED":
        path.append(random.choice(relays))
    words = f"CIRC {number} {status}{_path_of(path)} PURPOSE={purpose}{_state_of(purpose)}"
    if status in {"CLOSED", "FAILED"}:
        del circuits[number]
        words += " REASON=" + random.choice(["TIMEOUT", "FINISHED", "DESTROYED REMOTE_REASON=NONE"])
    return words


def _path_of(path: list[str]) -> str:
    return f" {','.join(path)}" if path else ""


def _state_of(purpose: str) -> str:
    is_hidden = purpose in {"HS_CLIENT_REND", "HS_CLIENT_INTRO"}
    return " HS_STATE=HSCR_CONNECTING REND_QUERY=abcdefgh" if is_hidden else ""


def _stream_event(random: Random, number: int, streams: dict[int, str]) -> str:
    if not streams or random.random() < 0.3:
        streams[number] = random.choice(["192.0.2.7:80", "abcdefgh.onion:80", "[2001:db8::1]:80"])
        new = random.choice(["NEW 0", "NEWRESOLVE 0", "SENTCONNECT 7"])
        source = "" if new.startswith("SENT") else " SOURCE_ADDR=127.0.0.1:5000 PURPOSE=USER"
        return f"STREAM {number} {new} {streams[number]}{source}"
    number = random.choice(list(streams))
    target = streams[number]
    circuit = random.choice([0, 4, 5])
    status = random.choice(
        ["SENTCONNECT", "SUCCEEDED", "DETACHED", "XOFF_RECV", "CLOSED", "FAILED"]
    )
    if status in {"CLOSED", "FAILED"}:
        del streams[number]
    reason = {
        "CLOSED": " REASON=END REMOTE_REASON=DONE",
        "FAILED": random.choice([" REASON=TIMEOUT", " REASON=END REMOTE_REASON=MISC"]),
        "DETACHED": " REASON=TIMEOUT",
    }.get(status, "")
    return f"STREAM {number} {status} {circuit} {target}{reason}"


def test_a_stored_database_gives_the_same_numbers(fixtures: Path, tmp_path: Path) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run"])
    path = tmp_path / "db.json.xz"
    database.save(document, path)
    assert jsonio.canonical(onionperf.to_3_1(database.load(path))) == jsonio.canonical(
        onionperf.to_3_1(document)
    )


def test_guards_are_not_lost_without_a_network(fixtures: Path) -> None:
    # OnionPerf's B8: each guard needed a look-up of its country on the Internet.
    document = pipeline.analyze([fixtures / "torctl/sample_400lines.torctl.log"])
    tor = onionperf.to_3_1(document)["data"]["vm"]["tor"]
    assert {guard["nickname"] for guard in tor["guards"]} >= {"exit2", "auth1", "exit4"}
    assert all(set(circuit) >= {"cbt_set", "filtered_out"} for circuit in tor["circuits"].values())


def test_an_id_that_comes_again_hides_nothing(
    tmp_path: Path, lines: type[Lines], log_of: Callable[..., object]
) -> None:
    log_of(lines.outcome(1, 2, 0, 5000) + lines.initializing(3) + lines.outcome(4, 5, 0, 5000))
    streams = onionperf.to_3_1(pipeline.analyze([tmp_path / "a.log"]))["data"]["vm"]["tgen"]
    base = "0:7:localhost:127.0.0.1:5000:localhost:127.0.0.1:8080"
    assert list(streams["streams"]) == [base, f"{base}#2"]


@pytest.mark.parametrize("version", onionperf.VERSIONS)
def test_progress_with_a_part_unknown_is_left_out(
    log_of: Callable[..., object], tmp_path: Path, lines: type[Lines], version: str
) -> None:
    log_of(
        (
            lines.created(1, 0, 5000)
            + lines.status(2, 0, 5000, 850)
            + lines.status(603, 0, 5000, 900)  # the clock was set
            + lines.outcome(601, 604, 0, 5000)
        ).replace("recvsize=1000", "recvsize=5242880")
    )
    written = onionperf.written(pipeline.analyze([tmp_path / "a.log"]), version, Counter())
    [row] = downstream.visualize_rows(written, "x").values()
    assert "mbps" not in row
    assert list(validation.errors(written, "db")) == []


@pytest.mark.parametrize("version", onionperf.VERSIONS)
def test_every_version_follows_its_schema(fixtures: Path, version: str) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run", fixtures / "torctl"])
    losses: Counter[str] = Counter()
    written = onionperf.written(document, version, losses)
    assert list(validation.errors(written, "db")) == []
    assert losses["circuits not seen from launch to end"] > 0
    assert isinstance(written["version"], float if version == "1.0" else str)
    for node in written["data"].values():
        assert ("guards" in node["tor"]) == (version == "3.1")
        assert ("bandwidth_summary" in node["tor"]) == (version < "3")
        if version < "3" and "tgen" in node:
            assert set(node["tgen"]["transfers_summary"]) == set(onionperf.TRANSFERS_SUMMARY)
        for circuit in node["tor"]["circuits"].values():
            assert ("filtered_out" in circuit) == (version in {"3.1", "4.0"})
            assert ("cbt_set" in circuit) == (version == "3.1")


def test_a_transfer_of_the_seed(fixtures: Path) -> None:
    log = fixtures / "tgen/client-socks-success.tgen.log"
    document = pipeline.analyze([log])
    transfers = onionperf.written(document, "2.0", Counter())["data"]["vm"]["tgen"]["transfers"]
    for name, transfer in transfers.items():
        source = document["data"]["vm"]["tgen"]["transfers"][name]
        assert set(transfer) == set(onionperf.TRANSFER_FIELDS)
        assert transfer["elapsed_seconds"].items() <= source["elapsed_seconds"].items()
        assert not any(name.endswith("_send") for name in transfer["elapsed_seconds"])


def test_what_a_version_cannot_hold_is_counted(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "tgen/client-socks-success.tgen.log"])
    first, *_ = document["data"]["vm"]["tgen"]["transfers"].values()
    first["filtered_out"] = True
    losses: Counter[str] = Counter()
    old = onionperf.written(document, "2.0", losses)["data"]["vm"]["tgen"]
    assert losses == {"transfers that were filtered out": 1}
    assert first["transfer_id"] not in old["transfers"]
    count = sum(len(v) for by in old["transfers_summary"]["errors"].values() for v in by.values())
    for by_second in old["transfers_summary"]["time_to_last_byte"].values():
        count += sum(map(len, by_second.values()))
    assert count == len(old["transfers"])
    del first["filtered_out"], first["time_info"]
    document["filters"] = {"tor/circuits": [{"name": "exits", "value": "x"}]}
    losses.clear()
    onionperf.written(document, "2.0", losses)
    # Of none the circuit is known: they cannot be said to pass.
    assert losses == {"transfers that were filtered out": 3, "filters of circuits": 1}
    losses.clear()
    newer = onionperf.written(document, "3.1", losses)
    assert losses == {"transfers without the generator's own line": 1}
    assert newer["filters"] == {"tor/circuits": [{"name": "exits"}]}


def test_what_a_filter_of_circuits_took_out(fixtures: Path, tmp_path: Path) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run"], nickname="n")
    relays = tmp_path / "relays"
    relays.write_text("18C349E710AB0C714624C02528B0848DE6726302\n")
    marked = filters.apply(document, filters.Filter(exclude=relays, guards=True))
    for version in onionperf.VERSIONS:
        tgen = onionperf.written(marked, version, Counter())["data"]["n"]["tgen"]
        counts = {len(part) for name, part in tgen.items() if name != "transfers_summary"}
        assert counts == {12 if version in {"3.1", "4.0"} else 10}, version


def test_the_kernel_s_connections_are_left_out_and_counted(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "kernel-run"], nickname="n")
    for version in onionperf.VERSIONS:
        losses: Counter[str] = Counter()
        written = onionperf.written(document, version, losses)
        assert list(validation.errors(written, "db")) == []
        assert losses["connections of the kernel"] == len(
            document["data"]["n"]["kernel"]["connections"]
        )


def test_a_relay_without_a_time_is_not_given_one(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run"], nickname="n")
    document["data"]["n"]["tor"]["circuits"]["16"]["path"][1:2] = [["$" + "A" * 40]]
    losses: Counter[str] = Counter()
    circuits = onionperf.written(document, "3.1", losses)["data"]["n"]["tor"]["circuits"]
    assert "16" not in circuits
    assert losses["circuits with a relay whose time was not seen"] == 1


@pytest.mark.parametrize("version", onionperf.VERSIONS)
@pytest.mark.parametrize("name", ["onionperf-run", "torctl", *SAMPLES])
def test_what_the_fields_programs_read(fixtures: Path, name: str, version: str) -> None:
    place = (
        fixtures / name if (fixtures / name).is_dir() else fixtures / "tgen" / f"{name}.tgen.log"
    )
    document = pipeline.analyze([place], nickname="n")
    # Only what these versions hold: their readers see no circuit that was open at the end.
    tor = document["data"]["n"].get("tor", {"circuits": {}})
    tor["circuits"] = {n: c for n, c in tor["circuits"].items() if records.is_whole_circuit(c)}
    written = jsonio.loads(jsonio.canonical(onionperf.written(document, version, Counter())), "db")
    found = downstream.visualize_rows(written, "n")
    expected = {}
    for row in rows.rows(document, Counter()):
        transfer = document["data"]["n"]["tgen"]["transfers"][row["id"]]
        if version >= "3":
            end, local = transfer["unix_ts_end"], transfer["transport_info"]
            keys = (transfer["stream_info"]["id"], local["fd"], local["local"], local["remote"])
            row["id"] = ":".join(keys)
            assert end == written["data"]["n"]["tgen"]["streams"][row["id"]]["unix_ts_end"]
        expected[row["id"]] = {name: value for name, value in row.items() if value is not None}
    assert found == expected
    if version < "4":
        whole = tor["circuits"].values()
        assert downstream.collector_reads(written) == len(list(whole))
