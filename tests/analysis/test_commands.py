from __future__ import annotations

import hashlib
import lzma
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from perfmeasure.analysis import database, merge, pipeline, validation
from perfmeasure.analysis.commands import analyze_command, validate_command
from perfmeasure.analysis.geoip import CountryTable
from perfmeasure.errors import InputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.analysis.conftest import Lines


def test_analyze_says_what_it_did_and_validate_agrees(fixtures: Path, tmp_path: Path) -> None:
    output = tmp_path / "db.json.xz"
    arguments = [fixtures / "onionperf-run", "-o", output, "--nickname", "x", "--address", "::1"]
    ran = CliRunner().invoke(analyze_command, list(map(str, arguments)))
    assert ran.exit_code == 0, ran.output
    assert ran.stdout == ""
    assert "tgen of the server: 2062 lines" in ran.stderr
    assert "x: 6 transfers by onion: 5 succeeded, 1 failed, 0 not complete, 6 linked" in ran.stderr
    assert f"wrote {output} (perfmeasure-1.0, " in ran.stderr
    assert database.load(output)["data"]["x"]["measurement_ip"] == "::1"
    checked = CliRunner().invoke(validate_command, [str(output)])
    assert (checked.exit_code, checked.stdout) == (0, f"{output}: valid perfmeasure-1.0\n")


def test_countries_of_guards(fixtures: Path, tmp_path: Path) -> None:
    log = fixtures / "torctl/sample_400lines.torctl.log"
    table, output = tmp_path / "geoip", tmp_path / "db.json"
    arguments = [str(log), "-o", str(output), "--geoip", str(table)]
    table.write_text("127.0.0.0,127.255.255.255,FR\n")
    ran = CliRunner().invoke(analyze_command, arguments)
    assert ran.exit_code == 0, ran.output
    assert "country of 5 of 5 guards found: 0 without an address in the logs, 0 not" in ran.stderr
    document = database.load(output)
    assert list(validation.errors(document, "db")) == []
    [node] = document["data"].values()
    assert [guard["country"] for guard in node["tor"]["guards"]] == ["fr"] * 5
    guards = [g for c in node["tor"]["circuits"].values() for g in c.get("current_guards", ())]
    assert guards
    assert all(guard["country"] == "fr" for guard in guards)
    assert document["meta"]["geoip"] == {
        "tables": [{"name": "geoip", "sha256": hashlib.sha256(table.read_bytes()).hexdigest()}],
        "guards": {"with_country": 5, "without_address": 0, "not_in_tables": 0},
    }
    table.write_text("not a table\n")
    output.unlink()
    ran = CliRunner().invoke(analyze_command, arguments)
    assert isinstance(ran.exception, InputError)
    assert str(ran.exception).startswith(f"{table}:1: 'not a table' is no range")
    assert not output.exists()


def test_what_has_no_country_is_counted(tmp_path: Path, lines: type[Lines]) -> None:
    fingerprints = [letter * 40 for letter in "ABC"]
    at = [f"192.0.2.{n}.${f}.exit:9001" for n, f in enumerate(fingerprints[:2])]
    text = "".join(lines.event(0, f"GUARD ENTRY ${f}~x NEW") for f in fingerprints)
    for number, target in enumerate(at):
        text += lines.event(1, f"STREAM {number} NEW 0 {target} PURPOSE=DIR_FETCH")
    (tmp_path / "x.torctl.log").write_text(text)
    for name, country in (("first", "??"), ("second", "DE"), ("third", "FR")):
        (tmp_path / name).write_text(f"192.0.2.1,192.0.2.1,{country}\n")
    tables = [CountryTable(tmp_path / name) for name in ("first", "second", "third")]
    document = pipeline.analyze([tmp_path], nickname="n", geoip=tables)
    guards = document["data"]["n"]["tor"]["guards"]
    assert [guard.get("country") for guard in guards] == [None, "de", None]
    counts = {"with_country": 1, "without_address": 1, "not_in_tables": 1}
    assert document["meta"]["geoip"]["guards"] == counts
    merged = merge.merge([document, {**document, "data": {"m": document["data"]["n"]}}])
    assert set(merged["meta"]["geoip"]) == {"tables"}
    assert list(validation.errors(merged, "db")) == []


def test_a_log_is_never_overwritten(tmp_path: Path, lines: type[Lines]) -> None:
    log = tmp_path / "x.tgen.log"
    log.write_text(lines.initializing(0) + lines.outcome(1, 2, 0, 5000))
    before = log.read_bytes()
    for _ in range(2):
        ran = CliRunner().invoke(analyze_command, [str(tmp_path), "-o", str(log)])
        assert isinstance(ran.exception, UsageError)
        assert log.read_bytes() == before
    output = tmp_path / "db.json"
    for _ in range(2):  # an earlier database is
        ran = CliRunner().invoke(analyze_command, [str(tmp_path), "-o", str(output)])
        assert ran.exit_code == 0, ran.output


@pytest.mark.parametrize("nickname", ["", "a b", "../x", "a/b"])
def test_a_nickname_that_is_none(fixtures: Path, tmp_path: Path, nickname: str) -> None:
    log = fixtures / "tgen/client-direct-success.tgen.log"
    output = tmp_path / "db.json"
    ran = CliRunner().invoke(analyze_command, [str(log), "-o", str(output), "-n", nickname])
    assert isinstance(ran.exception, UsageError)
    assert not output.exists()


def test_another_format(fixtures: Path, tmp_path: Path) -> None:
    output = tmp_path / "db.json"
    arguments = [fixtures / "onionperf-run", "-o", output, "--format", "onionperf-3.1"]
    assert CliRunner().invoke(analyze_command, list(map(str, arguments))).exit_code == 0
    assert database.load(output)["version"] == "3.1"


def test_rejected_lines_are_shown_with_file_and_line(tmp_path: Path, lines: type[Lines]) -> None:
    log = tmp_path / "x.tgen.log"
    log.write_text(lines.initializing(0) + lines.outcome(1, 2, 0, 5000)[:-20] + "\n")
    ran = CliRunner().invoke(analyze_command, [str(log), "-o", str(tmp_path / "db.json")])
    assert ran.exit_code == 0
    assert "1 rejected: stream-success is cut or garbled" in ran.stderr
    assert "x.tgen.log:2: stream-success is cut or garbled" in ran.stderr
    assert "vm: no transfer had ended in these logs" in ran.stderr


@pytest.mark.parametrize("damage", ["no text", "no xz", "cut at once", "empty"])
@pytest.mark.parametrize("kind", ["tgen", "torctl"])
def test_a_log_that_fails_as_a_whole_takes_nothing_with_it(
    tmp_path: Path, lines: type[Lines], kind: str, damage: str
) -> None:
    # OnionPerf's B7: of a folder, a pair of which one log failed was lost in silence, with exit
    # status 0 and nothing written.
    texts = {
        "tgen": lines.initializing(0) + lines.outcome(1, 2, 0, 5000),
        "torctl": lines.stream_events(1, 2, 7, 5000) + lines.circuit_events(1, 4),
    }
    for day in ("one", "two"):
        folder = tmp_path / "logs" / day
        folder.mkdir(parents=True)
        for name, text in texts.items():
            (folder / f"onionperf.{name}.log.xz").write_bytes(lzma.compress(text.encode()))
    failed = tmp_path / "logs" / "two" / f"onionperf.{kind}.log.xz"
    failed.write_bytes({
        "no text": lzma.compress(bytes(range(256)) * 9),
        "no xz": b"\xfd7zXZ\0" + b"\xff" * 99,
        "cut at once": failed.read_bytes()[:20],
        "empty": b"",
    }[damage])  # fmt: skip
    output = tmp_path / "db.json"
    ran = CliRunner().invoke(
        analyze_command, [str(tmp_path / "logs"), "-o", str(output), "-n", "vm"]
    )
    assert ran.exit_code == 0, ran.output
    [said] = [line for line in ran.stderr.splitlines() if "not used" in line or "empty" in line]
    assert f"onionperf.{kind}.log.xz: " in said
    document = database.load(output)
    assert list(validation.errors(document, "db")) == []
    node = document["data"]["vm"]
    assert len(node["tgen"]["transfers"]) == (1 if kind == "tgen" else 2)
    assert len(node["tor"]["circuits"]) == (1 if kind == "torctl" else 2)


def test_only_a_servers_log(fixtures: Path, tmp_path: Path) -> None:
    log = fixtures / "onionperf-run/tgen-server.onionperf.tgen.log.xz"
    ran = CliRunner().invoke(analyze_command, [str(log), "-o", str(tmp_path / "db.json")])
    assert ran.exit_code == 0
    assert "no client's log among these: no transfers" in ran.stderr


def test_nothing_known_writes_nothing(tmp_path: Path) -> None:
    log = tmp_path / "x.tgen.log"
    log.write_text("hello")
    output = tmp_path / "db.json"
    ran = CliRunner().invoke(analyze_command, [str(log), "-o", str(output)])
    assert isinstance(ran.exception, InputError)
    assert not output.exists()


def test_validate_names_what_is_wrong(fixtures: Path, tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    log = fixtures / "tgen/client-direct-success.tgen.log"
    CliRunner().invoke(analyze_command, [str(log), "-o", str(path)])
    document = database.load(path)
    for transfer in document["data"]["vm"]["tgen"]["transfers"].values():
        for field in ("is_error", "is_success", "method", "endpoint_local", "transfer_id"):
            transfer[field] = 7
    database.save(document, path)
    ran = CliRunner().invoke(validate_command, [str(path)])
    assert isinstance(ran.exception, InputError)
    assert "data/vm/tgen/transfers/stream:0/is_error: 7 is not of type" in ran.stderr
    assert ran.stderr.count("\n") == 21
    assert ran.stderr.endswith("and more\n")


def test_validate_does_not_know_other_documents(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    path.write_text('{"type": "tgen", "version": "1.1.2", "data": {}}')
    ran = CliRunner().invoke(validate_command, [str(path)])
    assert isinstance(ran.exception, InputError)
    assert "no schema" in ran.stderr


def test_validate_goes_on_after_a_file_that_is_none(fixtures: Path, tmp_path: Path) -> None:
    good = fixtures / "onionperf-run/expected.onionperf-3.1.json"
    untyped = tmp_path / "untyped.json"
    untyped.write_text("{}")
    ran = CliRunner().invoke(validate_command, [str(tmp_path / "none"), str(untyped), str(good)])
    assert ran.stdout == f"{good}: valid onionperf-3.1\n"
    first, second = ran.stderr.splitlines()
    assert first.startswith(f"{tmp_path}/none: cannot be read (No such file")
    assert second.startswith(f"{untyped}: JSON without a type and a version")
    assert str(ran.exception).startswith("validate: 2 of 3 files do not follow their schema")


def test_validate_knows_the_other_tools_database(fixtures: Path) -> None:
    path = fixtures / "onionperf-run/expected.onionperf-3.1.json"
    ran = CliRunner().invoke(validate_command, [str(path)])
    assert (ran.exit_code, ran.stdout) == (0, f"{path}: valid onionperf-3.1\n")
