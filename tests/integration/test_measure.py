"""The main job on the real tor: transfers by exit and by onion, a database over HTTP."""

from __future__ import annotations

import http.client
import lzma
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import Browser, browsing
from collecting import check_packets_of, packets_of
from packets_on_disk import asked_for, check_packets_of_transfers, check_published_packets
from running import Running, check_logs_are_whole, running, today, transfers_of

from perfmeasure import jsonio

pytestmark = pytest.mark.together("measure", "each has six relays and three programs run")


def fetch(url: str, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def check_services(prefix: Path, transferred: int) -> None:
    """The log of services has the way of the transfers by name, and their bytes."""
    lines = [jsonio.loads(line) for line in
             (prefix / "services" / "services.log").read_bytes().splitlines()]  # fmt: skip
    assert (lines[0]["source"], lines[0]["scope"]) == ("ebpf", "measurement")
    assert lines[0]["instance_id"] == "testhost"
    services = {(line["protocol"], line["listen_port"]): line["name"]
                for line in lines if line["record"] == "service"}  # fmt: skip
    relays = {f"tor-relay {name}" for name in (
        "authority0", "authority1", "authority2", "exit0", "exit1", "exit2",
    )}  # fmt: skip
    assert set(services.values()) == {"tgen-server", "tor-client", "tor-server", *relays}
    ends = {line["id"]: line for line in lines if line["record"] == "service_connection"}
    received: Counter[tuple[str, str]] = Counter()
    for line in ends.values():
        assert (line["source"], line["protocol"]) == ("ebpf", "tcp")
        callee = services.get(("tcp", line["dst_port"]))
        if line["side"] == "active" and callee is not None:
            received[line["service"], callee] += line["bytes_received"]
    assert received["tgen-client", "tor-client"] >= transferred
    from_guards = sum(count for (caller, callee), count in received.items()
                      if caller == "tor-client" and callee in relays)  # fmt: skip
    assert from_guards >= transferred
    assert received["tor-server", "tgen-server"] > 0
    assert received["monitor tor-client", "tor-client"] > 0
    frames = [line for line in lines if line["record"] == "network_traffic"]
    assert {line["dst_port"] for line in frames} & {port for _, port in services}
    assert sum(line["bytes"] for line in frames if line["direction"] == "egress") > transferred
    relay_names = {line["nickname"] for line in lines if line["record"] == "relay"}
    assert {f"tor-relay {name}" for name in relay_names} & relays
    for line in lines:
        assert "torrc" not in jsonio.compact(line)  # which is an argument


def test_measure_from_nothing_to_a_database_over_http(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("root", "bpf", "cgroup2", "tshark")
    prefix = tmp_path / "data"
    # So much that some of what passes to guards is below it, whose connections are old by then.
    packets = ("--record", "lo", "--record-cutoff", "400 KB", "--publish-packets")
    with running(prefix, "--num-transfers", "5", "--flows", "on", *packets) as run:
        url = run.url()
        latest = run.until(
            lambda: (
                (fetch(url, "/latest.json") if run.successes() >= 2 else (0, b""))[0] == 200
                and fetch(url, "/latest.json")[1]
            ),
            170,
            "latest.json",
        )
        assert jsonio.loads(latest)["type"] == "perfmeasure"
        # Packets are found while they are recorded; the end of a connection may have come since.
        ended = [(n, t) for n, t in transfers_of(jsonio.loads(latest)).items() if t["is_success"]]
        assert len(asked_for(prefix, f"transfer {ended[0][0]}")) >= ended[0][1]["packets"]["count"]
        assert ended[0][1]["packets"]["count"] > 0
        assert run.process.wait(170) == 0, run.said()
        summary = run.output.read_text()
    check_run_of_five(run, summary)

    docroot = prefix / "docroot"
    names = [f"{today()}.{kind}.analysis.json.xz" for kind in ("perfmeasure", "onionperf")]
    server = subprocess.Popen(
        [sys.executable, "-m", "perfmeasure", "serve", str(docroot), "--http-port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        match = re.search(r"(http://[0-9.:]+)", server.stderr.readline())
        assert match is not None
        packets_names = check_published_packets(prefix)
        for name in [*names, *packets_names[:1], "latest.json", "index.xml", "index.json"]:
            assert fetch(match[1], f"/{name}") == (200, (docroot / name).read_bytes())
        listing = fetch(match[1], "/")[1].decode()
        pattern = r'.*<a href="([0-9-]{10}\.onionperf\.analysis\.json\.xz)">.*'
        assert [m[1] for m in map(re.compile(pattern).match, listing.splitlines()) if m] == [
            names[1]
        ]
    finally:
        server.terminate()
        server.wait(20)
        assert server.stderr is not None
        server.stderr.close()
    published = lzma.decompress((docroot / names[0]).read_bytes())
    assert published == (docroot / "latest.json").read_bytes()
    assert jsonio.loads(lzma.decompress((docroot / names[1]).read_bytes()))["version"] == "3.1"


def check_run_of_five(run: Running, summary: str) -> None:
    database = run.database()
    transfers = transfers_of(database)
    assert len(transfers) == 10
    succeeded = [t for t in transfers.values() if t["is_success"]]
    assert len(succeeded) >= 9
    for transfer in succeeded:
        links = transfer["links"]
        assert links["status"] == "linked"
        (host,) = database["data"].values()
        stream = host["tor"]["streams"][links["stream"]]
        assert stream["circuit_id"] == links["circuit"]
        assert links["circuit"] in host["tor"]["circuits"]
        assert transfer["endpoint_local"].endswith(stream["source"])
    check_the_time_is_explained(host, succeeded)
    check_the_packets_agree(run.prefix / "kernel", host)
    assert check_packets_of_transfers(run.prefix, host) > 0
    check_services(run.prefix, sum(t["filesize_bytes"] for t in succeeded))
    kinds = [".onion:" in t["endpoint_remote"] for t in transfers.values()]
    assert kinds.count(True) == kinds.count(False) == 5
    for kind in ("exit", "onion"):
        assert f"by {kind}: 5 transfers, " in summary
        assert f"{kind}: 5 transfers, 0 succeeded" not in summary
    assert re.search(r"time to last byte: median \d+\.\d+ s, 95 % \d+\.\d+ s", summary)
    assert str(run.prefix / "docroot") in summary
    check_logs_are_whole(run.prefix)
    check_nothing_is_secret(run.prefix)


def check_the_time_is_explained(host: dict[str, Any], succeeded: list[dict[str, Any]]) -> None:
    """Each transfer has its phases, its connection to tor, and tor's to the guard."""
    unexplained = []
    connections = host["kernel"]["connections"]
    for transfer in succeeded:
        phases = transfer["phases"]
        seconds = transfer["unix_ts_end"] - transfer["unix_ts_start"]
        assert abs(sum(phases.values()) - seconds) < 0.001
        assert {"socket", "greeting", "circuit", "stream", "response", "payload"} <= set(phases)
        unexplained.append(phases.get("rest", 0.0) / seconds)
        assert transfer["links"]["connection"] in connections
        (guard, *_) = transfer["kernel"]["guards"]
        assert guard["connection"] in connections
        assert connections[guard["connection"]]["command"] == "tor"
        circuit = host["tor"]["circuits"][transfer["links"]["circuit"]]
        assert circuit["guard_connection"] in connections
    assert sorted(unexplained)[len(unexplained) // 2] <= 0.05


def check_the_packets_agree(kernel: Path, host: dict[str, Any]) -> None:
    """The windows have the segments that TCP counted, and nothing is unaccounted for."""
    packets = packets_of(kernel / "windows")
    lines = [jsonio.loads(line) for line in (kernel / "connections.log").read_bytes().splitlines()]
    closed = [line for line in lines if line.get("state") == "closed"]
    ends = Counter((line["local_port"], line["remote_port"]) for line in closed)
    once = [line for line in closed if ends[line["local_port"], line["remote_port"]] == 1]
    assert {line["command"] for line in once} >= {"tor"}
    assert len(once) >= 20
    for line in once:
        check_packets_of(line, packets, str(line["cookie"]))
    for day in host["kernel"]["windows_summary"]:
        assert day["seen_packets"] == day["drained_packets"]
        assert day["seen_bytes"] == day["drained_bytes"]
        for unit in ("packets", "bytes"):
            assert day["drained_" + unit] == day["ingress"][unit] + day["egress"][unit]
        assert day["ingress"]["bytes"] > 10 * 50_000


def check_nothing_is_secret(prefix: Path) -> None:
    private = prefix / "private"
    assert private.stat().st_mode & 0o777 == 0o700
    secrets = [p.read_bytes() for p in private.rglob("*") if p.is_file() and p.name != "hostname"]
    secrets = [s for s in secrets if len(s) >= 16]
    assert secrets
    assert (prefix / "packets").stat().st_mode & 0o777 == 0o700
    for path in prefix.rglob("*"):
        inside = path.relative_to(prefix).parts[0]
        if not path.is_file() or inside in ("private", "testnet") or "data" in path.parts[-2:-1]:
            continue
        data = path.read_bytes()
        for secret in secrets:
            assert secret not in data, path
            assert secret.hex().encode() not in data.lower(), path
        if inside == "docroot":
            assert b"SOCKS_PASSWORD" not in data


def test_an_interrupt_stops_in_order_analyses_and_publishes(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("chromium", "chromedriver")
    prefix = tmp_path / "data"
    with (
        browsing() as browser,
        running(prefix, "--onion-only", "--tgen-transfer-size", "50 KiB") as run,
    ):
        browser.open(run.url())
        browser.until("return document.querySelector('#now .state.good')", what="Running")
        browser.run("window.isSame = true")
        run.until(lambda: run.successes() >= 2, 170, "two transfers")
        watch_the_page(browser)
        assert run.stop(signal.SIGTERM) == 0, run.said()
        assert "SIGTERM: stopping" in run.said()
    assert jsonio.loads((prefix / "docroot" / "latest.json").read_bytes())["data"]
    assert jsonio.loads((prefix / "docroot" / "status.json").read_bytes())["state"] == "ended"
    assert not (prefix / "docroot" / "packets").exists(), "nobody asked for that"
    address = (prefix / "private" / "onion" / "hostname").read_text()
    key = prefix / "private" / "onion" / "hs_ed25519_secret_key"
    assert key.stat().st_mode & 0o777 == 0o600
    # The same again in the same place: the same address, the logs go on, both runs are analysed.
    with running(prefix, "--onion-only", "--num-transfers", "1") as again:
        again.url()
        # Not by `running`, which would wait for the processes of the data directory to end.
        second = Running(prefix, "--inet-only")
        try:
            assert second.process.wait(60) == 1
        finally:
            second.process.kill()
            second.process.wait()
        assert f"pid {again.process.pid};" in second.said()
        assert again.process.wait(170) == 0, again.said()
    assert (prefix / "private" / "onion" / "hostname").read_text() == address
    transfers = transfers_of(run.database())
    assert sum(t["is_success"] for t in transfers.values()) >= 3
    assert any(name.endswith("#2") for name in transfers)


def watch_the_page(browser: Browser) -> None:
    """The page follows what runs: its transfers, its programs and, once published, its figures."""
    done = "return Number(document.querySelectorAll('#now dd')[2].innerText.match(/^[0-9]+/)[0])"
    browser.until(f"{done} >= 2", what="two transfers")
    before = browser.run(done)
    browser.until(f"{done} > arguments[0]", before, what="one more transfer")
    text = browser.text("#now")
    for name in ("tgen-client", "tor-client", "monitor tor-server", "relays"):
        assert name in text
    assert "tor-client/perfmeasure.torctl.log" in text
    browser.wait_for_figures("#now")
    assert browser.run("return window.isSame")
    assert browser.console() == []


def test_an_interrupt_while_starting_ends_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "data") as run:
        run.until(lambda: "private network" in run.said(), 60, "start")
        assert run.stop(signal.SIGINT, 30) == 1
        assert "Traceback" not in run.said()
