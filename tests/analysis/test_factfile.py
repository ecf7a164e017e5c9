from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmeasure.analysis import connectionscan, events, factfile, scan, source, sql, tgenscan
from perfmeasure.analysis.clocksteps import ClockPair
from perfmeasure.analysis.source import Fact, Kind

if TYPE_CHECKING:
    from pathlib import Path

LOGS = (
    "kernel-run/kernel/connections.log.xz",
    "onionperf-run/tgen-client.onionperf.tgen.log.xz",
    "onionperf-run/tor-client.onionperf.torctl.log.xz",
    "old-tgen/2019.tgen.log",
    "torctl/sample_400lines.torctl.log",
)


@pytest.mark.parametrize("name", LOGS)
def test_facts_come_back_as_they_were(fixtures: Path, tmp_path: Path, name: str) -> None:
    [log] = source.find([fixtures / name])
    blocks = list(scan.facts(log, is_whole=False))
    path = tmp_path / "facts.parquet"
    factfile.write(path, log.kind, blocks)
    facts = [fact for block in blocks for fact in block]
    found = [fact for block in factfile.read(path, log.kind) for fact in block]
    assert found == facts
    assert [type(fact) for _, _, fact in found] == [type(fact) for _, _, fact in facts]
    assert len(facts) >= 3
    assert list(tmp_path.iterdir()) == [path]


numbers = st.integers(0, 2**64 - 1)
seconds = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
lines = texts.map(str.encode)
tgen_facts = st.one_of(
    st.builds(tgenscan.Program, texts, texts),
    st.builds(tgenscan.Seen, lines, lines, numbers, numbers, seconds, seconds, lines),
    st.builds(
        tgenscan.Ended, lines, lines, numbers, numbers, seconds, seconds, st.booleans(), lines
    ),
    st.builds(ClockPair, numbers, numbers),
)
torctl_facts = st.one_of(
    st.builds(
        events.CircuitEvent,
        texts, numbers, texts, st.lists(texts), st.dictionaries(texts, texts),
    ),
    st.builds(events.Bandwidth, st.lists(numbers), st.lists(numbers), st.lists(numbers)),
    st.builds(events.BuildTimeoutEvent, texts, numbers, seconds),
    st.builds(events.RelayNote, texts, st.lists(texts)),
)  # fmt: skip
counts = st.dictionaries(texts, numbers)
connection_facts = st.one_of(
    st.builds(
        connectionscan.ConnectionSeen,
        numbers, numbers, texts, numbers, texts, numbers, numbers, texts, st.booleans(), texts,
        texts, counts, counts,
    ),
    st.builds(
        connectionscan.CollectorStarted, texts, texts, texts, texts, texts, texts, seconds
    ),
    st.builds(connectionscan.CollectorLost, texts, numbers),
    st.builds(connectionscan.CollectorAbsent, texts),
)  # fmt: skip


@settings(max_examples=30)
@given(
    st.one_of(
        st.tuples(st.just(Kind.TGEN), st.lists(st.tuples(numbers, seconds, tgen_facts))),
        st.tuples(st.just(Kind.TORCTL), st.lists(st.tuples(numbers, seconds, torctl_facts))),
        st.tuples(
            st.just(Kind.CONNECTIONS), st.lists(st.tuples(numbers, seconds, connection_facts))
        ),
    )
)
def test_any_fact_comes_back(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[Kind, list[Fact]]
) -> None:
    kind, facts = case
    path = tmp_path_factory.mktemp("facts") / "facts.parquet"
    factfile.write(path, kind, [facts])
    assert [fact for block in factfile.read(path, kind) for fact in block] == facts


def test_the_same_facts_are_the_same_bytes_and_can_be_asked(fixtures: Path, tmp_path: Path) -> None:
    [log] = source.find([fixtures / "torctl/sample_400lines.torctl.log"])
    for name in ("a", "b"):
        factfile.write(tmp_path / name, log.kind, scan.facts(log, is_whole=False))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with sql.cursor() as cursor:
        cursor.execute(
            "SELECT circuit.number, circuit.values['PURPOSE'] FROM read_parquet(?) "
            "WHERE circuit.status = 'LAUNCHED'",
            [str(tmp_path / "a")],
        )
        assert {purpose for _, purpose in cursor.fetchall()} >= {"GENERAL"}


def test_what_is_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "facts.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(duckdb.Error):
        list(factfile.read(path, Kind.TGEN))
