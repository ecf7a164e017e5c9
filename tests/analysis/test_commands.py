from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from perfmeasure.analysis import database
from perfmeasure.analysis.commands import analyze_command, validate_command
from perfmeasure.errors import InputError

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
    with pytest.raises(InputError, match="no schema"):
        raise ran.exception or AssertionError


def test_validate_knows_the_other_tools_database(fixtures: Path) -> None:
    path = fixtures / "onionperf-run/expected.onionperf-3.1.json"
    ran = CliRunner().invoke(validate_command, [str(path)])
    assert (ran.exit_code, ran.stdout) == (0, f"{path}: valid onionperf-3.1\n")
