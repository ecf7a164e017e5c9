from __future__ import annotations

import lzma
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.analysis import pipeline, scan, source
from perfmeasure.analysis.source import Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perfmeasure.analysis.source import Input
    from tests.analysis.conftest import Lines

# A real run, a real server's, old programs', and what no program of ours writes.
LOGS = (
    "onionperf-run/tgen-client.onionperf.tgen.log.xz",
    "onionperf-run/tgen-server.onionperf.tgen.log.xz",
    "onionperf-run/tor-client.onionperf.torctl.log.xz",
    "old-tgen/2019.tgen.log",
    "tgen/client-transfer-cut.tgen.log",
    "torctl/sample_400lines.torctl.log",
)


def without_inputs(document: dict[str, Any]) -> bytes:
    del document["meta"]["inputs"]
    return jsonio.canonical(document)


def test_counts_are_made_anew_by_each_scan(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    log = log_of(lines.outcome(1, 2, 0, 5000) + "rubbish\n")
    first = [list(block) for block in scan.facts(log, is_whole=False)]
    counts = log.counts
    assert (counts.lines, counts.used, counts.rejected) == (2, 1, {"no time stamp": 1})
    assert [list(block) for block in scan.facts(log, is_whole=False)] == first
    assert log.counts == counts
    assert log.last_unix_ts == lines.day + 2


@pytest.fixture(scope="module", params=LOGS)
def log_lines(request: pytest.FixtureRequest, fixtures: Path) -> list[bytes]:
    path = fixtures / request.param
    stored = path.read_bytes()
    text = lzma.decompress(stored) if path.suffix == ".xz" else stored
    return text.splitlines(keepends=True)


@given(st.data())
def test_where_a_log_was_cut_in_two_does_not_matter(
    log_lines: list[bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    # A window, so that the cut comes within transfers, streams and circuits.
    begin = data.draw(st.integers(0, len(log_lines) - 1))
    window = log_lines[begin : begin + data.draw(st.integers(1, 400))]
    for _ in range(data.draw(st.integers(0, 3))):  # lines that come again, out of order
        at = data.draw(st.integers(0, len(window)))
        window[at:at] = window[at // 2 : at // 2 + data.draw(st.integers(1, 40))]
    for _ in range(data.draw(st.integers(0, 3))):  # lines that are out of place
        at = data.draw(st.integers(0, len(window) - 1))
        window.insert(data.draw(st.integers(max(0, at - 9), at)), window.pop(at))
    cut = data.draw(st.integers(0, len(window)))
    top = tmp_path_factory.mktemp("cut")
    kind = "torctl" if b" 650 " in log_lines[-1] else "tgen"
    whole = top / f"whole.{kind}.log"
    whole.write_bytes(b"".join(window))
    for day, part in ((1, window[:cut]), (2, window[cut:])):
        path = top / f"two/log_archive/2026-11-2{day}/perfmeasure_2026-11-2{day}.{kind}.log"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"".join(part))
    known = [log for log in source.find([top / "two"]) if log.kind in {Kind.TGEN, Kind.TORCTL}]
    # Which part comes first is told by the first stamps.
    assume(known)
    assume([log.name for log in known] == sorted(log.name for log in known))
    assume(len(known) == 2 or cut in {0, len(window)})
    assert without_inputs(pipeline.analyze([top / "two"])) == without_inputs(
        pipeline.analyze([whole])
    )


def overlapping(lines: type[Lines], *, is_ended: bool) -> tuple[str, str]:
    """A log, and another that repeats its second half and goes on."""
    begin = lines.initializing(0) + lines.created(1, 0, 5000) + lines.created(1.5, 1, 5001)
    middle = "".join(
        lines.status(at, number, 5000 + number, 100 * at) for at in range(2, 9) for number in (0, 1)
    )
    end = lines.outcome(1, 9, 0, 5000)
    after = lines.status(9.5, 0, 5000, 100) + lines.status(10, 0, 5000, 150)
    return begin + middle + end, middle + end * is_ended + after + lines.outcome(1.5, 12, 1, 5001)


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_log_that_repeats_what_an_earlier_one_said(
    tmp_path: Path, lines: type[Lines], is_ended: bool
) -> None:
    first, second = overlapping(lines, is_ended=is_ended)
    for name, text in (("two/a", first), ("two/b", second), ("one/a", first + second)):
        path = tmp_path / f"{name}.tgen.log"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    two, one = pipeline.analyze([tmp_path / "two"]), pipeline.analyze([tmp_path / "one"])
    rejected = [log["lines"]["rejected"] for log in two["meta"]["inputs"]]
    assert rejected[0] == {}
    assert rejected[1] == one["meta"]["inputs"][0]["lines"]["rejected"]
    assert rejected[1]["out of order: the transfer had ended"] == 7
    examples = [log["rejected_first"] for log in two["meta"]["inputs"]]
    assert [text.split(":")[1] for text in examples[1]] == ["1", "3", "5", "7", "9"]
    assert without_inputs(two) == without_inputs(one)
