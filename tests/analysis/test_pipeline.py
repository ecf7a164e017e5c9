from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.analysis import pipeline, validation
from perfmeasure.errors import ExitStatus, InputError, UsageError
from tests.analysis import kernel_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.analysis.conftest import Lines

ADDRESS = "192.0.2.1"


def node_of(document: dict[str, Any]) -> dict[str, Any]:
    assert list(validation.errors(document, "db")) == []
    [node] = document["data"].values()
    assert isinstance(node, dict)
    return node


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "name", ["onionperf-run", "tgen/client-transfer-cut.tgen.log", "torctl", "kernel-run"]
)
def test_golden(fixtures: Path, name: str, golden: Callable[[str, str], None]) -> None:
    document = pipeline.analyze([fixtures / name], measurement_ip=ADDRESS)
    node_of(document)
    document["meta"]["tool_version"] = "any"
    golden(f"analysis/{Path(name).name}.json", jsonio.pretty(document) + "\n")


def test_the_same_bytes_whatever_the_order(fixtures: Path) -> None:
    logs = sorted((fixtures / "onionperf-run").glob("*.xz"))
    orders = itertools.islice(itertools.permutations(logs), 0, None, 5)
    assert len({jsonio.canonical(pipeline.analyze(order)) for order in orders}) == 1


def test_every_line_is_accounted_for(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run", fixtures / "tgen"])
    for log in document["meta"]["inputs"]:
        lines = log["lines"]
        assert lines["total"] == lines["used"] + lines["skipped"] + sum(lines["rejected"].values())
        assert lines["rejected"] == {}
        assert log["unix_ts_first"] < log["unix_ts_last"]


def test_every_transfer_of_a_real_run_is_linked_to_its_circuit(fixtures: Path) -> None:
    node = node_of(pipeline.analyze([fixtures / "onionperf-run"]))
    transfers = node["tgen"]["transfers"]
    for transfer in transfers.values():
        links = transfer["links"]
        stream = node["tor"]["streams"][links["stream"]]
        assert stream["source"].endswith(":" + transfer["endpoint_local"].rpartition(":")[2])
        assert links["circuit"] in node["tor"]["circuits"]
        assert len(links["guard"]) == 40
        assert list(transfer["phases"])[2:4] == ["circuit", "stream"]
    assert len(transfers) == 12


def test_every_transfer_of_a_real_run_says_where_its_time_went(fixtures: Path) -> None:
    node = node_of(pipeline.analyze([fixtures / "kernel-run"]))
    connections = node["kernel"]["connections"]
    shares = []
    for transfer in node["tgen"]["transfers"].values():
        lasted = transfer["unix_ts_end"] - transfer["unix_ts_start"]
        assert sum(transfer["phases"].values()) == pytest.approx(lasted, abs=1e-6)
        assert list(transfer["phases"])[:7] == [
            "socket", "connect", "greeting", "choice", "request", "circuit", "stream",
        ]  # fmt: skip
        shares.append(transfer["phases"].get("rest", 0.0) / lasted)
        links = transfer["links"]
        local = connections[links["connection"]]
        assert transfer["endpoint_local"].endswith(f"127.0.0.1:{local['local_port']}")
        tor = connections[local["peer"]]
        assert (local["command"], tor["command"], tor["side"]) == ("python", "tor", "passive")
        circuit = node["tor"]["circuits"][links["circuit"]]
        guard = connections[circuit["guard_connection"]]
        assert (guard["pid"], guard["side"]) == (tor["pid"], "active")
        assert transfer["kernel"]["guards"][0]["connection"] == circuit["guard_connection"]
        # With conflux, it came over several guards.
        received = sum(share["received_bytes"] for share in transfer["kernel"]["guards"])
        assert received > transfer["total_bytes_read"]
    assert sorted(shares)[len(shares) // 2] <= 0.05
    assert node["kernel"]["links"] == {
        "circuits": {"linked": 18, "ambiguous": 0, "unmatched": 0},
        "or_connections": {"linked": 5, "ambiguous": 0, "unmatched": 0},
        "transfers": {"linked": 10, "ambiguous": 0, "unmatched": 0},
    }


def test_what_the_kernel_did_not_see_is_said(fixtures: Path, tmp_path: Path) -> None:
    logs = [fixtures / "kernel-run/tgen-client", fixtures / "kernel-run/tor-client"]
    without = pipeline.analyze(logs)
    assert without["meta"]["sources"]["vm"]["absent"] == [
        {"what": "connections", "reason": "no kernel/connections.log among the logs"},
        {"what": "windows", "reason": "no kernel/windows among the logs"},
    ]
    assert "kernel" not in node_of(without)
    log = tmp_path / "connections.log"
    log.write_text(kernel_lines.line("absent", 1, reason="--flows off"))
    said = pipeline.analyze([*logs, log], nickname="vm")
    assert said["meta"]["sources"]["vm"]["absent"] == [
        {"what": what, "reason": "--flows off"} for what in ("connections", "windows")
    ]
    assert "kernel" not in node_of(said)


def test_packets_are_counted_by_the_one_who_has_them(fixtures: Path) -> None:
    asked: list[list[str]] = []

    def count(node: dict[str, Any], roots: Iterable[str]) -> list[str]:
        asked.append(list(roots))
        for number, transfer in enumerate(node["tgen"]["transfers"].values()):
            transfer["packets"] = {"count": number, "bytes": 100 * number}
        return ["from here on: it died"]

    folder = fixtures / "kernel-run"
    document = pipeline.analyze([folder / "tgen-client", folder / "kernel"], packets=count)
    transfers = node_of(document)["tgen"]["transfers"].values()
    assert [t["packets"]["count"] for t in transfers] == list(range(len(transfers)))
    (source,) = document["meta"]["sources"].values()
    assert source["absent"][-1] == {"what": "packets", "reason": "from here on: it died"}
    assert asked == [[str(folder)]]


def test_connections_alone_are_a_database(fixtures: Path) -> None:
    node = node_of(pipeline.analyze([fixtures / "kernel-run/kernel"]))
    assert len(node["kernel"]["connections"]) == 36
    assert "tgen" not in node


def measurement(top: Path, lines: type[Lines]) -> Path:
    """A client over two days with a rotation, a restart of all, and an onion host beside it."""
    write(
        top / "log_archive/2026-11-22/tgen-client/perfmeasure_2026-11-22_23:59:59.tgen.log",
        lines.initializing(0) + lines.outcome(10, 12, 0, 5000) + lines.created(86390, 1, 5001),
    )
    write(
        top / "tgen-client/perfmeasure.tgen.log",
        lines.outcome(86390, 86410, 1, 5001)
        + lines.initializing(86500)
        + lines.outcome(86510, 86512, 0, 5000)
        + lines.created(86600, 1, 5005)
        + lines.status(86601, 1, 5005, 300),
    )
    write(
        top / "log_archive/2026-11-22/tor-client/perfmeasure_2026-11-22_23:59:59.torctl.log",
        lines.circuit_events(5, 4) + lines.stream_events(10.1, 12, 9, 5000),
    )
    write(
        top / "tor-client/perfmeasure.torctl.log",
        lines.stream_events(86390.1, 86410, 10, 5001)
        + lines.circuit_events(86505, 4, created="23:59:59")
        + lines.stream_events(86510.1, 86512, 9, 5000),
    )
    write(top / "tgen-server/perfmeasure.tgen.log", lines.initializing(0))
    write(top / "tor-server/perfmeasure.torctl.log", lines.event(1, "BW 9999 9999"))
    return top


def test_a_measurement_over_two_days_with_a_restart(tmp_path: Path, lines: type[Lines]) -> None:
    node = node_of(pipeline.analyze([measurement(tmp_path, lines)]))
    transfers = node["tgen"]["transfers"]
    assert list(transfers) == ["stream:0", "stream:1", "stream:0#2", "stream:1#2"]
    links = {name: transfer["links"] for name, transfer in transfers.items()}
    assert (links["stream:0"]["stream"], links["stream:0"]["circuit"]) == ("9", "4")
    assert (links["stream:1"]["stream"], links["stream:1"]["circuit"]) == ("10", "4")
    assert (links["stream:0#2"]["stream"], links["stream:0#2"]["circuit"]) == ("9#2", "4#2")
    assert links["stream:1#2"] == {"status": "unmatched"}
    assert node["tor"]["streams"]["9#2"]["circuit_id"] == "4#2"
    assert node["tor"]["circuits"]["4"]["is_complete"] is False
    assert transfers["stream:1#2"]["is_complete"] is False
    assert node["tor"]["bandwidth_summary"]["bytes_read"] == {}  # the onion host's is another's


@pytest.mark.parametrize(
    ("date", "names"),
    [
        ("2026-11-22", ["stream:0"]),
        ("2026-11-23", ["stream:1", "stream:0", "stream:1#2"]),
        ("2026-11-25", []),
    ],
)
def test_a_day_has_what_ended_on_it(
    tmp_path: Path, lines: type[Lines], date: str, names: list[str]
) -> None:
    document = pipeline.analyze([measurement(tmp_path, lines)], date=date)
    assert list(validation.errors(document, "db")) == []
    found = [
        name
        for node in document["data"].values()
        for name in node.get("tgen", {}).get("transfers", {})
    ]
    assert found == names
    for node in document["data"].values():
        for transfer in node["tgen"]["transfers"].values():
            if "stream" in transfer["links"]:
                assert transfer["links"]["stream"] in node["tor"]["streams"]
                assert transfer["links"]["circuit"] in node["tor"]["circuits"]


def test_logs_of_far_days_are_not_read(tmp_path: Path, lines: type[Lines]) -> None:
    for day in range(10):
        write(
            tmp_path / f"tgen-client/perfmeasure_{day}.tgen.log",
            lines.outcome(day * 86400 + 1, day * 86400 + 2, day, 5000),
        )
    document = pipeline.analyze([tmp_path], date="2026-11-27")
    # The log of day 3 ends where that of day 4, the day before, begins.
    assert [log["name"][-10] for log in document["meta"]["inputs"]] == ["3", "4", "5", "6"]
    [node] = document["data"].values()
    assert list(node["tgen"]["transfers"]) == ["stream:5"]


def test_reused_ports_of_overlapping_transfers_are_ambiguous(
    tmp_path: Path, lines: type[Lines]
) -> None:
    write(
        tmp_path / "a.tgen.log",
        lines.initializing(0)
        + lines.outcome(1, 10, 0, 5000)
        + lines.outcome(5, 15, 1, 5000)
        + lines.outcome(20, 25, 2, 5000),
    )
    write(
        tmp_path / "a.torctl.log",
        lines.circuit_events(0, 4)
        + lines.stream_events(1.5, 10, 7, 5000)
        + lines.stream_events(6, 15, 8, 5000)
        + lines.stream_events(20.1, 25, 9, 5000),
    )
    node = node_of(pipeline.analyze([tmp_path]))
    assert [transfer["links"] for transfer in node["tgen"]["transfers"].values()] == [
        {"status": "ambiguous", "candidates": ["7", "8"]},
        {"status": "ambiguous", "candidates": ["8"]},
        {"status": "linked", "stream": "9", "circuit": "4", "guard": "A" * 40},
    ]
    assert node["tgen"]["transfers_summary"]["links"] == {
        "linked": 1,
        "ambiguous": 2,
        "unmatched": 0,
    }


def test_the_servers_log_tells_the_far_ends_times(fixtures: Path) -> None:
    folder = fixtures / "onionperf-run"
    client = folder / "tgen-client.onionperf.tgen.log.xz"
    node = node_of(pipeline.analyze([client, folder / "tgen-server.onionperf.tgen.log.xz"]))
    assert node["tgen"]["transfers_summary"]["servers"] == {
        "linked": 11,
        "ambiguous": 0,
        "unmatched": 1,
    }
    server = node["tgen"]["transfers"]["stream:0"]["server"]
    assert (server["hostname"], server["total_bytes_write"]) == ("vm", 5242985)
    node = node_of(pipeline.analyze([client]))
    assert "server" not in node["tgen"]["transfers"]["stream:0"]
    assert "servers" not in node["tgen"]["transfers_summary"]


def test_logs_of_all_kinds_in_one_folder(fixtures: Path, tmp_path: Path) -> None:
    for name in ("old-tgen/2019.tgen.log", "old-tgen/2015.tgen.log"):
        (tmp_path / Path(name).name).write_bytes((fixtures / name).read_bytes())
    (tmp_path / "new.tgen.log").write_bytes(
        (fixtures / "tgen/client-upstream-web.tgen.log").read_bytes()
    )
    (tmp_path / "x.torctl.log").write_bytes(
        (fixtures / "torctl/sample_400lines.torctl.log").read_bytes()
    )
    document = pipeline.analyze([tmp_path])
    node = node_of(document)
    assert list(document["data"]) == ["phlox"]
    assert list(node["tgen"]["transfers"])[:3] == ["vagrant:1", "transfer5m:1", "transfer5m:4"]
    assert len(node["tgen"]["transfers"]) == 23
    day = pipeline.analyze([tmp_path], date="2019-04-22")
    assert list(node_of(day)["tgen"]["transfers"]) == ["transfer5m:4"]


def test_names_of_a_day_do_not_depend_on_which_older_archives_are_there(
    tmp_path: Path, lines: type[Lines]
) -> None:
    top = measurement(tmp_path, lines)
    # Both programs were restarted with the same numbers on the day before, too.
    older = top / "log_archive/2026-11-21/tgen-client/perfmeasure_2026-11-21_23:59:59.tgen.log"
    without = pipeline.analyze([top], date="2026-11-23")
    write(older, lines.initializing(-900) + lines.outcome(-800, -700, 0, 5000))
    with_it = pipeline.analyze([top], date="2026-11-23")
    assert node_of(with_it) == node_of(without)


def test_two_hosts_in_one_tree_have_their_own_parts(tmp_path: Path, lines: type[Lines]) -> None:
    for host, port in (("one", 5000), ("two", 6000)):
        write(
            tmp_path / host / "tgen-client/x.tgen.log",
            lines.initializing(0, host) + lines.outcome(1, 2, 0, port),
        )
        write(tmp_path / host / "tor-client/x.torctl.log", lines.stream_events(1.1, 2, 7, port))
    data = pipeline.analyze([tmp_path])["data"]
    assert list(data) == ["one", "two"]
    for node in data.values():
        [transfer] = node["tgen"]["transfers"].values()
        assert transfer["links"]["status"] == "linked"
    [node] = pipeline.analyze([tmp_path], nickname="both")["data"].values()
    assert node["tgen"]["transfers_summary"]["links"]["linked"] == 2
    assert list(node["tor"]["streams"]) == ["7", "7#2"]


def test_passwords_never_reach_the_database(tmp_path: Path, lines: type[Lines]) -> None:
    write(
        tmp_path / "a.torctl.log",
        lines.event(
            1,
            'STREAM 7 NEW 0 a:80 SOURCE_ADDR=127.0.0.1:5000 PURPOSE=USER SOCKS_USERNAME="hush" '
            'SOCKS_PASSWORD="hush 2"',
        )
        + lines.event(2, 'STREAM 8 NEW 0 a:80 SOCKS_USERNAME="hush'),
    )
    document = pipeline.analyze([tmp_path])
    assert b"hush" not in jsonio.canonical(document)
    assert document["meta"]["inputs"][0]["lines"]["rejected"] == {"a quote is not closed": 1}


def test_what_the_caller_says_is_in_the_database(fixtures: Path) -> None:
    document = pipeline.analyze(
        [fixtures / "tgen/client-transfer-cut.tgen.log"],
        nickname="nick",
        measurement_ip=ADDRESS,
        host={"kernel": "6.1"},
    )
    assert document["data"]["nick"]["measurement_ip"] == ADDRESS
    assert document["meta"]["host"] == {"kernel": "6.1"}
    assert document["meta"]["sources"]["nick"]["generators"] == ["TGen v1.1.2"]


def test_nothing_that_is_known(tmp_path: Path, fixtures: Path) -> None:
    with pytest.raises(InputError, match=r"no file with tgen\.log, torctl\.log or conn") as caught:
        pipeline.analyze([tmp_path])
    assert caught.value.exit_status is ExitStatus.UNUSABLE_INPUT
    with pytest.raises(InputError, match=r"expected\.onionperf-3\.1\.json is a JSON document"):
        pipeline.analyze([fixtures / "onionperf-run/expected.onionperf-3.1.json"])


def test_what_is_not_known_beside_what_is_is_said(tmp_path: Path, lines: type[Lines]) -> None:
    write(tmp_path / "a.tgen.log", lines.initializing(0))
    write(tmp_path / "b.tgen.log", "")
    write(tmp_path / "c.tgen.log", "hello")
    document = pipeline.analyze([tmp_path])
    node_of(document)
    assert {log["name"]: log["kind"] for log in document["meta"]["inputs"]} == {
        "a.tgen.log": "tgen",
        "b.tgen.log": "empty",
        "c.tgen.log": "unknown",
    }


@pytest.mark.parametrize("date", ["yesterday", "2026-13-01", "2026-1-1x"])
def test_a_date_that_is_none(fixtures: Path, date: str) -> None:
    with pytest.raises(UsageError, match="not a day"):
        pipeline.analyze([fixtures / "tgen"], date=date)


@given(st.data())
def test_damaged_logs_give_a_valid_database(
    fixtures: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    top = tmp_path_factory.mktemp("damaged")
    for name in ("tgen/client-upstream-web.tgen.log", "torctl/sample_400lines.torctl.log"):
        found = (fixtures / name).read_bytes().split(b"\n")
        for _ in range(data.draw(st.integers(0, 9))):
            at = data.draw(st.integers(1, len(found) - 2))
            line = found[at]
            cut = data.draw(st.integers(0, len(line)))
            found[at : at + 1] = data.draw(
                st.sampled_from(
                    (
                        [line[:cut]],
                        [line[cut:]],
                        [line, line],
                        [line[:cut] + b"-9\xff" + line[cut + 1 :]],
                        [line[:cut] + found[at + 1]],
                        [found[at - 1], line],
                    )
                )
            )
        (top / Path(name).name).write_bytes(b"\n".join(found))
    document = pipeline.analyze([top])
    assert list(validation.errors(document, "db")) == []
    assert jsonio.canonical(document) == jsonio.canonical(pipeline.analyze([top]))
    for log in document["meta"]["inputs"]:
        lines = log["lines"]
        assert lines["total"] == lines["used"] + lines["skipped"] + sum(lines["rejected"].values())


def test_the_control_port_alone_is_enough(fixtures: Path) -> None:
    # OnionPerf's B2: without the generator's log its analysis ended in a KeyError.
    document = pipeline.analyze([fixtures / "torctl/sample_400lines.torctl.log"])
    [node] = document["data"].values()
    assert len(node["tor"]["circuits"]) > 5
    assert "tgen" not in node


def test_a_generators_log_that_is_packed_by_xz(fixtures: Path) -> None:
    # OnionPerf's B3: it read .gz, and ended in a TypeError with .xz.
    name = "onionperf-run/tgen-client.onionperf.tgen.log.xz"
    [node] = pipeline.analyze([fixtures / name])["data"].values()
    assert len(node["tgen"]["transfers"]) == 12


def test_a_log_that_is_damaged_takes_no_other_with_it(tmp_path: Path, lines: type[Lines]) -> None:
    (tmp_path / "a.tgen.log").write_text(lines.outcome(1, 2, 0, 5000))
    (tmp_path / "b.torctl.log").write_text(lines.event(1, "BW 1 2") + lines.event(2, "CIRC x y"))
    document = pipeline.analyze([tmp_path])
    [node] = document["data"].values()
    assert len(node["tgen"]["transfers"]) == 1
    assert sum(node["tor"]["bandwidth_summary"]["bytes_read"].values()) == 1
