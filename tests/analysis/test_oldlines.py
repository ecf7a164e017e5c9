"""The lines in fixtures/old-tgen are real ones; where a source left out a stamp, it is made up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis import oldlines, source, tgen
from tests.analysis.scanned import tgen_lines

KINDS = ("2015", "2019", "server")


def lines_of(fixtures: Path, name: str) -> list[bytes]:
    return (fixtures / f"old-tgen/{name}.tgen.log").read_bytes().splitlines()


def test_a_success_of_2019(fixtures: Path) -> None:
    log, counts = tgen_lines(lines_of(fixtures, "2019"))
    assert (log.host, log.program, counts.skipped) == ("phlox", "TGen before v1.0", 1)
    record = log.transfers[0].record
    assert log.transfers[0].base_id == "transfer5m:1"
    assert record["elapsed_seconds"]["command"] == 4.461062
    assert record["elapsed_seconds"]["last_byte"] == 22.390412
    assert "proxy_response" not in record["elapsed_seconds"]  # -1 even in a success
    assert record["unix_ts_end"] - record["unix_ts_start"] == pytest.approx(22.49397)
    assert (record["filesize_bytes"], record["payload_bytes_status"]) == (5242880, 5242880)
    assert (record["total_bytes_read"], record["total_bytes_write"]) == (5242946, 52)
    assert (record["hostname_local"], record["hostname_remote"]) == ("phlox", "phlox")
    assert log.transfers[0].source_port == 36384
    assert record["is_success"]


def test_an_error_of_2019_has_the_numbers_of_onionperf_at_its_time(fixtures: Path) -> None:
    # OnionPerf's B11: its later versions find no transfer at all in such a log.
    transfer = tgen_lines(lines_of(fixtures, "2019"))[0].transfers[1]
    record = transfer.record
    assert transfer.base_id == "transfer5m:4"
    assert record["unix_ts_start"] == 1555940480.6472511
    assert (record["error_code"], record["hostname_remote"]) == ("PROXY", "(null)")
    assert (record["is_error"], record["is_success"], record["is_complete"]) == (True, False, True)
    steps = {
        name: value for name, value in record["elapsed_seconds"].items() if "payload" not in name
    }
    assert steps == {
        "proxy_init": 0.000283,
        "proxy_request": 0.000412,
        "proxy_choice": 0.000348,
        "socket_connect": 0.00021,
        "socket_create": 1.1e-05,
    }


def test_a_success_of_2015_counts_in_milliseconds(fixtures: Path) -> None:
    [transfer] = tgen_lines(lines_of(fixtures, "2015"))[0].transfers
    record = transfer.record
    assert transfer.base_id == "vagrant:1"
    assert record["elapsed_seconds"]["first_byte"] == 1.117
    assert record["elapsed_seconds"]["checksum"] == 15.442
    assert "socket_connect" not in record["elapsed_seconds"]
    assert record["endpoint_proxy"] == "localhost:127.0.0.1:9001"
    assert record["endpoint_remote"] == "fgbnngzbmpjwtqs2.onion:(null):80"
    assert record["unix_ts_start"] == 1435228489.797125 - 15.442


def test_what_a_server_answered_is_no_transfer_of_its_own(fixtures: Path) -> None:
    # Two "-nan%" out of nothing, and a step that is a time of day: OnionPerf divided by zero here.
    log, counts = tgen_lines(lines_of(fixtures, "server"))
    assert (log.transfers, log.passive_count, counts.rejected) == ([], 1, {})
    assert log.answered[0].record["error_code"] == "AUTH"
    assert "socket_connect" not in log.answered[0].record["elapsed_seconds"]


def status_of(line: bytes, at: bytes, done: int) -> bytes:
    """Make the transfer-status line, of an earlier time, that goes with a transfer-complete."""
    text = line[: line.index(b" usecs-to")].replace(b"transfer-complete", b"transfer-status")
    text = text.replace(b"2019-01-31 15:06:21 1548947181.000000", b"2019-01-31 15:06:00 " + at)
    return text.replace(
        b"5242880/5242880 (100.00%)", b"%d/5242880 (%.2f%%)" % (done, done / 52428.8)
    )


def test_status_lines_give_the_progress(fixtures: Path) -> None:
    complete = lines_of(fixtures, "2019")[2]
    lines = [
        status_of(complete, b"1548947165.000000", 0),
        status_of(complete, b"1548947170.000000", 2621440),
        complete,
    ]
    [transfer] = tgen_lines(lines)[0].transfers
    progress = transfer.record["elapsed_seconds"]["payload_progress"]
    start = 1548947181 - 22.49397
    assert progress["0.0"] == round(1548947165 - start, 6)
    assert progress["0.5"] == round(1548947170 - start, 6)
    assert progress["0.6"] == 22.49397
    [cut] = tgen_lines(lines[:2])[0].transfers
    assert (cut.record["is_complete"], cut.record["payload_bytes_status"]) == (False, 2621440)
    assert cut.start == 1548947165


def test_a_failure_began_no_later_than_the_first_line_about_it(fixtures: Path) -> None:
    # The steps alone would say that a transfer that waited for five minutes lasted 0.4 ms.
    error = lines_of(fixtures, "2019")[3]
    status = error[: error.index(b" usecs-to")].replace(b"transfer-error", b"transfer-status")
    status = status.replace(b"1555940480.647663", b"1555940180.000000")
    [transfer] = tgen_lines([status, error])[0].transfers
    assert transfer.record["unix_ts_start"] == 1555940180


def test_names_may_hold_what_separates_fields(fixtures: Path) -> None:
    line = lines_of(fixtures, "2019")[2]
    odd = line.replace(b",phlox,GET", b",ph,lo x,GET").replace(b",phlox,1,", b",a,7,b,1,")
    [transfer] = tgen_lines([odd])[0].transfers
    assert transfer.base_id == "transfer5m:1"
    assert (transfer.record["hostname_local"], transfer.record["hostname_remote"]) == (
        "ph,lo x",
        "a,7,b",
    )
    [transfer] = tgen_lines([lines_of(fixtures, "2015")[0].replace(b"1-vagrant-", b"1-va-gr-")])[
        0
    ].transfers
    assert transfer.record["hostname_local"] == "va-gr"


def test_both_directions_of_2020(fixtures: Path) -> None:
    line = lines_of(fixtures, "2019")[2].replace(
        b"(100.00%) ", b"(100.00%) payload-bytes-write=40/80 (50.00%) "
    )
    assert oldlines.reached(line) == (5242880, 40, 100.0, 50.0)
    [transfer] = tgen_lines([line])[0].transfers
    assert "0.5" in transfer.record["elapsed_seconds"]["payload_progress_send"]


def test_old_and_new_programs_in_one_log(fixtures: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tgen.log"
    new = (fixtures / "tgen/client-upstream-web.tgen.log").read_bytes()
    path.write_bytes(b"\n".join(lines_of(fixtures, "2019")) + b"\n" + new)
    log = tgen.read_logs(source.find([path]))
    assert [t.base_id for t in log.transfers[:3]] == ["transfer5m:1", "transfer5m:4", "streamA:0"]
    assert len(log.transfers) == 22


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_cut_anywhere_is_rejected_or_whole(fixtures: Path, kind: str) -> None:
    whole = lines_of(fixtures, kind)[-1]
    log, _ = tgen_lines([whole])
    [expected] = log.transfers + log.answered
    for end in range(len(whole)):
        log, counts = tgen_lines([whole[:end]])
        assert not log.transfers
        assert not log.answered or log.answered[0].record == expected.record
        if b"] [transfer-" in whole[:end]:
            assert counts.rejected


@given(st.data())
def test_bytes_changed_anywhere_never_raise(fixtures: Path, data: st.DataObject) -> None:
    line = bytearray(lines_of(fixtures, data.draw(st.sampled_from(KINDS)))[-1])
    for _ in range(data.draw(st.integers(1, 4))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    tgen_lines(bytes(line).split(b"\n"))


@given(st.binary(max_size=200))
def test_rubbish_never_raises(rubbish: bytes) -> None:
    stamp = b"2019-01-31 15:06:21 1548947181.000000 [message] [x] [y] [transfer-%s] transport "
    lines = [stamp % word + rubbish for word in (b"status", b"complete", b"error")]
    assert not tgen_lines([line.replace(b"\n", b"") for line in lines])[0].transfers
