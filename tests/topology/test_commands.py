from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from topology_fixture import Played
from topology_machines import Amount, Edge

from perfmeasure import jsonio
from perfmeasure.analysis.topology import Window
from perfmeasure.cli import run
from perfmeasure.errors import ExitStatus, UsageError
from perfmeasure.topology import commands
from perfmeasure.topology.commands import topology_command
from tests.analysis import service_lines as lines

DAY = lines.DAY


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(topology_command, [str(word) for word in arguments])


def document(*arguments: object) -> dict[str, Any]:
    ran = invoke(*arguments, "--json")
    assert ran.exit_code == 0, ran.output
    found: dict[str, Any] = jsonio.loads(ran.stdout)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two machines: nginx on m1 calls mysql on m2, and somebody else."""
    logs = {
        "m1": lines.start(0)
        + lines.instance(0, "m1", "10.0.0.1")
        + lines.service(0, "m1", "nginx", ("10.0.0.1", 80))
        + lines.connection(
            1, "m1", 1, "nginx", ("10.0.0.1", 5000, "10.0.0.2", 3306), end=11, sent=7, received=2000
        )
        + lines.connection(
            2, "m1", 2, "nginx", ("10.0.0.1", 5001, "192.0.2.1", 443), end=3, sent=5, received=6
        ),
        "m2": lines.start(0, "m2")
        + lines.instance(0, "m2", "10.0.0.2")
        + lines.service(0, "m2", "mysql", ("::", 3306))
        + lines.connection(
            1, "m2", 1, "mysql", ("10.0.0.2", 3306, "10.0.0.1", 5000), side="passive",
            end=11, sent=2000, received=7,
        ),
    }  # fmt: skip
    for name, text in logs.items():
        (tmp_path / name / "services").mkdir(parents=True)
        (tmp_path / name / "services" / "services.log").write_text(text)
    return tmp_path


def test_three_machines_as_they_were_to_the_byte(three_machine_logs: Played) -> None:
    found = document(three_machine_logs.folder)
    edges = {}
    for edge in found["edges"]:
        caller_machine, caller = edge["source"].split("/", 1)
        callee_machine, callee = edge["target"].split("/", 1)
        key = Edge(caller_machine, caller, callee_machine, callee, edge["protocol"], edge["port"])
        assert key not in edges
        assert edge["sources"] == ["ebpf"]
        assert not edge["is_inferred"]
        edges[key] = Amount(edge["bytes_sent"], edge["bytes_received"], edge["connections"])
    assert edges == three_machine_logs.truth
    coverage = found["coverage"]
    assert coverage["share_bytes"] == coverage["share_connections"] == 1.0
    assert coverage["matched_bytes"] == coverage["input_bytes"] > 0
    assert coverage["paired_connections"] == coverage["input_connections"]
    assert coverage["reported_bytes"] == 2 * coverage["input_bytes"]


def test_the_agent_is_one_of_its_commands() -> None:
    ran = invoke("--help")
    assert ran.exit_code == 0
    assert all(word in ran.output for word in ("show", "diff", "collect"))


def test_the_table_and_what_became_of_the_bytes(folder: Path) -> None:
    ran = invoke(folder)
    assert ran.exit_code == 0
    [head, first, second, *rest] = ran.stdout.splitlines()
    assert head.split() == ["from", "to", "protocol", "connections", "sent", "received"]
    assert first.split() == ["m1/nginx", "m2/mysql", "MySQL:3306", "1", "7", "B", "2.0", "KiB"]
    assert second.split()[:3] == ["m1/nginx", "external/192.0.2.1:443", "HTTPS:443"]
    assert rest == [
        "2 connections (2.0 KiB): 1 matched (2.0 KiB), 1 external (11 B)",
        "attributed: 100.00% of the connections, 100.00% of the bytes",
    ]


def test_json_has_the_keys_that_are_promised(folder: Path) -> None:
    found = document(folder)
    assert (found["type"], found["version"]) == ("perfmeasure-topology", "1.0")
    assert {"id", "service", "instance"} <= found["nodes"][1].keys()
    assert {"source", "target", "bytes", "connections"} <= found["edges"][0].keys()
    terms = ("input", "matched", "external", "ambiguous", "unattributed")
    for unit in ("bytes", "connections"):
        whole, *parts = (found["coverage"][f"{term}_{unit}"] for term in terms)
        assert whole == sum(parts)


def test_one_machine_alone_has_the_other_outside(folder: Path) -> None:
    assert document(folder / "m1")["edges"][0]["target"] == "external/10.0.0.2:3306"
    assert document(folder / "m2")["edges"][0]["source"] == "external/10.0.0.1"


def test_groups_windows_and_the_rest_of_the_peers(folder: Path) -> None:
    by_process = document(folder, "--group-by", "process")["edges"][0]
    assert (by_process["source"], by_process["target"]) == ("m1/nginx/100", "m2/mysql/100")
    assert {node["id"] for node in document(folder, "--group-by", "instance")["nodes"]} == {
        "m1", "m2", "external/192.0.2.1:443",
    }  # fmt: skip
    half = document(folder, "--window", f"{DAY + 6}..{DAY + 20}")
    assert half["window"] == {"start_unix_ts": DAY + 6, "end_unix_ts": DAY + 20}
    assert half["coverage"]["input_bytes"] == half["coverage"]["estimated_bytes"] == 1004
    assert "spread" in invoke(folder, "--window", "5s").stdout
    other = [node for node in document(folder, "--top", 0)["nodes"] if node["kind"] == "external"]
    assert other == [{"id": "external/other", "kind": "external", "peers": 1}]


def test_damage_is_told_and_the_rest_is_used(folder: Path) -> None:
    log = folder / "m1/services/services.log"
    (folder / "m1/services/services.log.xz").write_bytes(
        lzma.compress(log.read_bytes() + b'{"record":"service","unix')
    )
    log.unlink()
    ran = invoke(folder, "--json")
    assert "m1/services/services.log.xz:6: line is cut" in ran.stderr
    assert jsonio.loads(ran.stdout)["coverage"]["input_connections"] == 2


@pytest.mark.parametrize("suffix", ["json", "json.gz", "graphml", "dot", "mmd", "parquet"])
def test_files(folder: Path, suffix: str) -> None:
    path = folder / f"map.{suffix}"
    ran = invoke(folder, "-o", path)
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert path.stat().st_size > 100


def test_differences(folder: Path) -> None:
    invoke(folder, "-o", folder / "all.json")
    ran = invoke("diff", folder / "m1", folder / "all.json")
    assert "appeared: m2/mysql" in ran.stdout
    assert "vanished: external/10.0.0.2:3306" in ran.stdout
    same = invoke("diff", folder, folder / "all.json", "--json")
    assert jsonio.loads(same.stdout)["edges"]["unchanged_count"] == 2


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("5m", 300.0),
        ("1000..2000.5", Window(1000.0, 2000.5)),
        ("2026-11-22T00:00:00..2026-11-22T01:00:00+01:00", None),
        ("2026-11-22..2026-11-23", Window(DAY, DAY + 86400)),
        ("0s", None),
        ("5..5", None),
        ("yesterday..5", None),
    ],
)
def test_windows(text: str, window: Window | float | None) -> None:
    if window is None:
        with pytest.raises(UsageError, match="--window"):
            commands.parse_window(text)
    else:
        assert commands.parse_window(text) == window


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nowhere"], ExitStatus.UNUSABLE_INPUT, "does not exist"),
        (["."], ExitStatus.UNUSABLE_INPUT, "no log of services"),
        (["m1", "-o", "x.png"], ExitStatus.USAGE, "no format has this suffix"),
        (["m1", "-o", "no/x.json"], ExitStatus.FAILED, "cannot be written"),
        (["diff", "m1", "list.json"], ExitStatus.UNUSABLE_INPUT, "a document without a topology"),
    ],
)
def test_what_cannot_be_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    *, arguments: list[str], status: int, said: str,
) -> None:  # fmt: skip
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty" if arguments == ["."] else folder)
    Path("list.json").write_text("{}\n")
    assert run(["topology", *arguments]) == status
    assert said in capfd.readouterr().err


def test_without_a_path_it_is_what_measure_writes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "m1").rename(folder / "perfmeasure-data")
    monkeypatch.chdir(folder)
    assert document()["coverage"]["input_connections"] == 2
    monkeypatch.chdir(folder / "m2")
    assert document()["coverage"]["input_connections"] == 1
