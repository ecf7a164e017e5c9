from __future__ import annotations

from typing import TYPE_CHECKING

from perfmeasure.analysis import source, summaries, tgen, torctl
from perfmeasure.analysis.join import join
from perfmeasure.analysis.servers import ServerMatch

if TYPE_CHECKING:
    from pathlib import Path


def test_summaries_of_a_real_run(fixtures: Path) -> None:
    run = fixtures / "onionperf-run"
    transfers = tgen.read_logs(source.find([run / "tgen-client.onionperf.tgen.log.xz"])).transfers
    tor = torctl.read_logs(source.find([run / "tor-client.onionperf.torctl.log.xz"]))
    found = summaries.transfers_summary(transfers, join(transfers, tor.streams))
    # As in the seed, from the command on: 93952 and 1070341 less 7805 microseconds.
    assert found["time_to_first_byte"]["5242880"]["1795309051"] == [0.093952 - 0.007805]
    assert found["time_to_last_byte"]["5242880"]["1795309051"] == [1.070341 - 0.007805]
    assert len(found["time_to_last_byte"]["5242880"]) == 11
    assert found["errors"] == {"PROXY": {"1795309220": [5242880]}}
    assert found["links"] == {"linked": 12, "ambiguous": 0, "unmatched": 0}
    lifetimes = summaries.streams_summary(tor)["lifetimes"]
    assert {purpose: len(seconds) for purpose, seconds in lifetimes.items()} == {
        "USER": 12,
        "DIR_FETCH": 1,
    }
    circuits = summaries.circuits_summary(tor)
    # Two were launched and closed within the log, and one of these has four hops.
    assert circuits["buildtimes"] == [0.009999990463256836]
    assert [round(seconds, 2) for seconds in circuits["lifetimes"]] == [154.28, 68.1]
    bandwidth = summaries.bandwidth_summary(tor)
    assert set(bandwidth["bytes_read"]) == set(bandwidth["bytes_written"])
    assert len(bandwidth["bytes_read"]) > 170


def test_what_was_cut_is_in_no_summary_but_the_links(fixtures: Path) -> None:
    transfers = tgen.read_logs(
        source.find([fixtures / "tgen/client-transfer-cut.tgen.log"])
    ).transfers
    assert summaries.transfers_summary(transfers, join(transfers, [])) == {
        "time_to_first_byte": {},
        "time_to_last_byte": {},
        "errors": {},
        "links": {"linked": 0, "ambiguous": 0, "unmatched": 1},
    }


def test_statuses_are_counted() -> None:
    found = summaries.count_statuses([ServerMatch("linked"), ServerMatch("linked")])
    assert found == {"linked": 2, "ambiguous": 0, "unmatched": 0}
