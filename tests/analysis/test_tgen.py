from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis import source, tgen
from tests.analysis.scanned import balance, tgen_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perfmeasure.analysis.source import Counts, Input
    from perfmeasure.analysis.transfers import TgenLog
    from tests.analysis.conftest import Lines


def read(fixtures: Path, name: str) -> TgenLog:
    return tgen.read_logs(source.find([fixtures / name]))


def test_a_run_of_the_real_program(fixtures: Path) -> None:
    log = read(fixtures, "onionperf-run/tgen-client.onionperf.tgen.log.xz")
    assert (log.host, log.program, log.passive_count) == ("vm", "TGen v1.1.2", 0)
    assert [transfer.base_id for transfer in log.transfers] == [f"stream:{n}" for n in range(12)]
    first = log.transfers[0].record
    assert first["elapsed_seconds"]["proxy_request"] == 0.000383
    assert first["elapsed_seconds"]["last_byte"] == 1.070341
    assert first["elapsed_seconds"]["payload_progress"]["0.5"] == 0.713947
    assert first["elapsed_seconds"]["payload_bytes"]["1048576"] == 0.320252
    assert (first["filesize_bytes"], first["method"]) == (5242880, "GET")
    assert (first["total_bytes_read"], first["total_bytes_write"]) == (5242984, 2167)
    assert log.transfers[0].source_port == 43766
    failed = log.transfers[10].record
    assert (failed["error_code"], failed["is_error"], failed["is_success"]) == (
        "PROXY",
        True,
        False,
    )
    assert "command" not in failed["elapsed_seconds"]  # -1 in the log: not reached
    assert failed["unix_ts_start"] == 1795309220.567547 - (2366511749 - 2276218130) / 1e6


def test_a_servers_streams_are_counted_only(fixtures: Path) -> None:
    log = read(fixtures, "onionperf-run/tgen-server.onionperf.tgen.log.xz")
    assert (log.transfers, log.passive_count, len(log.answered)) == ([], 11, 11)
    assert log.answered[0].call_sign == ("vm", "stream")
    assert log.answered[0].record["elapsed_seconds"]["last_byte"] == 0.519377


def test_two_lines_in_one_are_none(lines: type[Lines]) -> None:
    first, second = lines.status(1, 0, 5000, 100), lines.status(2, 0, 5000, 700)
    for cut in range(first.index("transport ["), len(first)):
        log, counts = one_line(first[:cut] + second)
        assert counts.rejected, cut
        assert not log.transfers


def test_a_transfer_whose_program_was_killed_is_kept(fixtures: Path) -> None:
    [transfer] = read(fixtures, "tgen/client-transfer-cut.tgen.log").transfers
    record = transfer.record
    assert (record["is_complete"], record["is_error"], record["is_success"]) == (False,) * 3
    assert "unix_ts_end" not in record
    assert record["payload_bytes_status"] > 0
    assert transfer.end == pytest.approx(1795307680.713211)  # the last line of the log


@pytest.mark.parametrize("version", ["v1.0.0", "v1.1.1", "v1.9.0"])
def test_any_version_of_the_program(fixtures: Path, tmp_path: Path, version: str) -> None:
    # OnionPerf's B4: another version than the tool's own gave nothing at all.
    text = (fixtures / "tgen/client-upstream-web.tgen.log").read_text()
    path = tmp_path / "x.log"
    path.write_text(text.replace("TGen v1.1.2", f"TGen {version}"))
    log = tgen.read_logs(source.find([path]))
    assert (len(log.transfers), log.program) == (20, f"TGen {version}")


def test_uploads_take_the_other_direction(fixtures: Path, tmp_path: Path) -> None:
    text = (fixtures / "tgen/client-upstream-web.tgen.log").read_text()
    path = tmp_path / "x.log"
    path.write_text(text.replace("recvsize=1048576", "recvsize=0"))
    record = tgen.read_logs(source.find([path])).transfers[0].record
    assert (record["method"], record["filesize_bytes"]) == ("PUT", 1024)
    assert record["payload_bytes_status"] == 1024
    assert record["elapsed_seconds"]["checksum"] == 0.000265
    assert record["elapsed_seconds"]["payload_bytes"] == {}
    assert "10240" in record["elapsed_seconds"]["payload_bytes_recv"]


def test_a_restart_cuts_what_was_open(log_of: Callable[..., Input], lines: type[Lines]) -> None:
    text = (
        lines.initializing(0)
        + lines.created(1, 0, 5000)
        + lines.status(2, 0, 5000, 200)
        + lines.initializing(9)
        + lines.outcome(10, 12, 0, 5000)
    )
    log = log_of(text)
    first, second = tgen.read_logs([log]).transfers
    assert (first.record["is_complete"], second.record["is_complete"]) == (False, True)
    assert (first.base_id, second.base_id) == ("stream:0", "stream:0")
    assert (first.start, first.end) == (lines.day + 1, lines.day + 9)
    assert log.counts.rejected == {}
    assert balance(log.counts) == log.counts.lines


def test_logs_that_follow_one_another_are_one(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    yesterday = log_of(lines.created(-2, 3, 5000) + lines.status(-1, 3, 5000, 400), "a.log")
    today = log_of(lines.status(1, 3, 5000, 900) + lines.outcome(-2, 2, 3, 5000), "b.log")
    [transfer] = tgen.read_logs([yesterday, today]).transfers
    progress = transfer.record["elapsed_seconds"]["payload_progress"]
    assert (progress["0.4"], progress["0.9"], progress["1.0"]) == (1.0, 3.0, 4.0)


def test_a_line_with_cr_is_the_same(log_of: Callable[..., Input], lines: type[Lines]) -> None:
    text = lines.status(1, 0, 5000, 200) + lines.outcome(0, 2, 0, 5000)
    assert len(tgen.read_logs([log_of(text.replace("\n", "\r\n"))]).transfers) == 1


def test_a_line_that_is_there_twice_is_one_transfer(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    log = log_of(lines.outcome(1, 2, 0, 5000) * 2 + lines.outcome(3, 5, 0, 5000))
    assert len(tgen.read_logs([log]).transfers) == 2
    assert log.counts.rejected == {"the same end of a transfer again": 1}


def test_a_line_out_of_order_begins_no_transfer(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    log = log_of(
        lines.outcome(1, 3, 0, 5000) + lines.created(1, 0, 5000) + lines.status(2, 0, 5000, 300)
    )
    [transfer] = tgen.read_logs([log]).transfers
    assert transfer.record["is_complete"]
    assert log.counts.rejected == {"out of order: the transfer had ended": 2}


def test_a_size_below_zero_is_none(log_of: Callable[..., Input], lines: type[Lines]) -> None:
    text = lines.outcome(1, 2, 0, 5000)
    log = log_of(text.replace("total-bytes-send=2167", "total-bytes-send=-1"))
    assert not tgen.read_logs([log]).transfers
    assert log.counts.rejected == {"stream-success has a number that is none": 1}


def one_line(text: str) -> tuple[TgenLog, Counts]:
    return tgen_lines([text.rstrip("\n").encode()])


@pytest.mark.parametrize("kind", ["initializing", "created", "status", "outcome"])
def test_a_line_cut_anywhere_is_counted_and_harmless(lines: type[Lines], kind: str) -> None:
    # OnionPerf's B6: one cut line ended the whole analysis.
    whole = {
        "initializing": lines.initializing(1),
        "created": lines.created(1, 0, 5000),
        "status": lines.status(1, 0, 5000, 100),
        "outcome": lines.outcome(1, 2, 0, 5000),
    }[kind].rstrip("\n")
    for end in range(len(whole)):
        log, counts = one_line(whole[:end])
        assert not log.transfers
        if kind != "initializing" and end > whole.index("["):
            # Up to the word that says what it is, it is a line of no interest.
            assert counts.rejected or "transport [fd" not in whole[:end]
    assert not one_line(whole)[1].rejected


@given(st.data())
def test_bytes_changed_anywhere_never_raise(lines: type[Lines], data: st.DataObject) -> None:
    text = data.draw(
        st.sampled_from(
            (lines.created(1, 0, 5000), lines.status(1, 0, 5000, 9), lines.outcome(1, 2, 0, 5000))
        )
    )
    line = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    tgen_lines(bytes(line).split(b"\n"))


@given(st.binary(max_size=300))
def test_rubbish_never_raises(rubbish: bytes) -> None:
    log, _ = tgen_lines([rubbish, b"2026-11-22 00:33:12 1795307592.266044 " + rubbish])
    assert not log.transfers
