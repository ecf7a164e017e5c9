from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perfmeasure.analysis import conversion, database, onionperf, pipeline, validation
from perfmeasure.errors import InputError, UsageError


def run(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))


@pytest.fixture
def stored(fixtures: Path, tmp_path: Path) -> Path:
    path = tmp_path / "db.json.zst"
    database.save(pipeline.analyze([fixtures / "onionperf-run"], nickname="testnet"), path)
    return path


@pytest.mark.parametrize("name", conversion.DATABASES)
@pytest.mark.parametrize("suffix", ["", ".xz", ".gz", ".zst"])
def test_every_database_can_be_written_and_read_again(
    stored: Path, tmp_path: Path, name: str, suffix: str
) -> None:
    output, back = tmp_path / f"other.json{suffix}", tmp_path / "back.json"
    ran = run(conversion.convert_command, stored, "-o", output, "--format", name)
    assert ran.exit_code == 0, ran.output
    document = database.load(output)
    assert validation.kind_of(document, "db") == name
    assert list(validation.errors(document, "db")) == []
    ran = run(conversion.convert_command, output, "-o", back)
    assert ran.exit_code == 0, ran.output
    found = database.load(back)
    assert list(validation.errors(found, "db")) == []
    transfers = found["data"]["testnet"]["tgen"]["transfers"]
    assert transfers.keys() == database.load(stored)["data"]["testnet"]["tgen"]["transfers"].keys()


def test_what_is_lost_is_said_and_in_the_database(fixtures: Path, tmp_path: Path) -> None:
    document = database.load(fixtures / "onionperf-run/expected.onionperf-3.1.json")
    document["data"]["testnet"]["weather"] = "fine"
    source, output = tmp_path / "in.json", tmp_path / "out.json"
    database.save(document, source)
    ran = run(conversion.convert_command, source, "-o", output)
    assert f"{source}: not carried over: nickname: weather: 1\n" in ran.stderr
    [entry] = database.load(output)["meta"]["inputs"]
    assert (entry["name"], entry["format"]) == ("in.json", "onionperf-3.1")
    assert entry["not_carried_over"] == {"nickname: weather": 1}


def test_what_a_format_cannot_hold_is_said(stored: Path, tmp_path: Path) -> None:
    output = tmp_path / "x"
    ran = run(conversion.convert_command, stored, "-o", output, "--format", "onionperf-3.1")
    assert "onionperf-3.1 cannot hold: circuits not seen from launch to end: 20\n" in ran.stderr
    assert database.load(output) == onionperf.to_3_1(database.load(stored))


def test_several_into_one_and_days_out_of_it(stored: Path, fixtures: Path, tmp_path: Path) -> None:
    other = fixtures / "tgen/client-socks-success.onionperf-3.1.json"
    outputs = tmp_path / "ab.json", tmp_path / "ba.json"
    for output, inputs in zip(outputs, ((stored, other), (other, stored)), strict=True):
        assert run(conversion.convert_command, *inputs, "-o", output).exit_code == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert set(database.load(outputs[0])["data"]) == {"testnet", "vm"}
    ran = run(conversion.convert_command, outputs[0], "-o", outputs[1], "--from", "2026-11-23")
    assert ran.exit_code == 0
    assert "testnet: 0 of 12 transfers ended on these days\n" in ran.stderr
    for node in database.load(outputs[1])["data"].values():
        assert node["tgen"]["transfers"] == {}


def test_tables_and_tpf(stored: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.csv"
    ran = run(conversion.convert_command, stored, "-o", output, "--format", "csv")
    assert ran.exit_code == 0
    assert output.read_text().startswith("id,time_to_first_byte,")
    folder = tmp_path / "tpf"
    ran = run(conversion.convert_command, stored, "-o", folder, "--format", "torperf-1.1")
    assert f"wrote {folder} (torperf-1.1, 1 files)" in ran.stderr
    assert [path.name for path in folder.iterdir()] == ["testnet-5242880-2026-11-22.tpf"]
    ran = run(conversion.convert_command, stored, "-o", output, "--format", "torperf-1.1")
    assert isinstance(ran.exception, UsageError)


def test_each_database_gives_a_table_of_all_its_transfers(fixtures: Path, tmp_path: Path) -> None:
    # OnionPerf's B9: its visualize ended in an exception on every database that was tried.
    stored = sorted(fixtures.glob("*/*onionperf-3.1.json"))
    count = 0
    for path in stored:
        table = tmp_path / f"{path.name}.csv"
        ran = run(conversion.convert_command, path, "-o", table, "--format", "csv")
        assert ran.exit_code == 0, ran.output
        with table.open(newline="") as file:
            found = list(csv.DictReader(file))
        streams = [
            stream
            for node in database.load(path)["data"].values()
            for stream in node["tgen"]["streams"].values()
        ]
        assert len(found) == len(streams)
        count += len(found)
        assert sum(not row["error_code"] for row in found) == sum(s["is_success"] for s in streams)
    assert count > 12


def test_filter_marks_and_the_tables_leave_out(stored: Path, tmp_path: Path) -> None:
    marked, table = tmp_path / "marked.json", tmp_path / "x.csv"
    ran = run(
        conversion.filter_command, stored, "-o", marked, "--destination", "onion",
        "--min-size", "1 MiB", "--outcome", "success",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    assert "testnet: 0 of 22 circuits filtered out; 5 of 12 transfers are left" in ran.stderr
    assert list(validation.errors(database.load(marked), "db")) == []
    ran = run(conversion.convert_command, marked, "-o", table, "--format", "csv")
    assert "csv cannot hold: transfers that were filtered out: 7\n" in ran.stderr
    assert len(table.read_text().splitlines()) == 6


@pytest.mark.parametrize("options", [[], ["--guards", "--exclude-cbt"]])
def test_a_filter_that_asks_nothing(stored: Path, tmp_path: Path, options: list[str]) -> None:
    ran = run(conversion.filter_command, stored, "-o", tmp_path / "x", *options)
    assert isinstance(ran.exception, UsageError)
    assert not (tmp_path / "x").exists()


def test_what_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"type": "onionperf", "version": 3.1, "data": 7}')
    ran = run(conversion.convert_command, path, "-o", tmp_path / "y")
    assert isinstance(ran.exception, InputError)
    assert "data: 7 is not of type" in str(ran.exception)


def test_a_nickname_that_would_leave_the_folder(stored: Path, tmp_path: Path) -> None:
    document = database.load(stored)
    document["data"]["../x"] = document["data"].pop("testnet")
    database.save(document, stored)
    folder = tmp_path / "tpf"
    ran = run(conversion.convert_command, stored, "-o", folder, "--format", "torperf-1.1")
    assert isinstance(ran.exception, UsageError)
    assert not folder.exists()
