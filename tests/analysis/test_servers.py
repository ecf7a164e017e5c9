from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis import servers, source, tgen
from perfmeasure.analysis.transfers import Transfer


def transfer(
    start: float, end: float, name: str = "vm", vertex: str = "s", size: int = 9
) -> Transfer:
    record = {
        "filesize_bytes": size, "hostname_local": "far", "elapsed_seconds": {},
        "error_code": "NONE",
        "is_error": False, "is_success": True, "total_bytes_read": 1, "total_bytes_write": 2,
        "unix_ts_start": start, "unix_ts_end": end,
    }  # fmt: skip
    return Transfer("x:1", record, start, end, 0, (name, vertex))


def statuses(transfers: list[Transfer], answered: list[Transfer]) -> list[str]:
    return [found.status for found in servers.match(transfers, answered)]


def test_every_answer_of_a_real_server_finds_its_transfer(fixtures: Path) -> None:
    folder = fixtures / "onionperf-run"
    client = tgen.read_logs(source.find([folder / "tgen-client.onionperf.tgen.log.xz"]))
    server = tgen.read_logs(source.find([folder / "tgen-server.onionperf.tgen.log.xz"]))
    found = servers.match(client.transfers, server.answered)
    # One transfer failed on its way: the server knows nothing of it.
    assert [match.status for match in found] == ["linked"] * 10 + ["unmatched", "linked"]
    assert not client.transfers[10].record["is_success"]
    first = found[0].record()
    assert (first["unix_ts_end"], first["elapsed_seconds"]["first_byte"]) == (
        1795309051.380367,
        0.041139,
    )
    for mine, match in zip(client.transfers, found, strict=True):
        if mine.record["is_success"]:
            assert match.status == "linked"
            assert mine.start <= match.record()["unix_ts_start"]


def test_name_size_and_time_must_fit() -> None:
    answered = [transfer(10.1, 12)]
    assert statuses([transfer(10, 12.1)], answered) == ["linked"]
    for other in (
        transfer(10, 12, name="other"),
        transfer(10, 12, vertex="t"),
        transfer(10, 12, size=8),
        transfer(13.1, 14),
        transfer(8, 9),
    ):
        assert statuses([other], answered) == ["unmatched"]
    assert statuses([transfer(12.5, 14)], answered) == ["linked"]


def test_two_that_fit_are_ambiguous_and_counted() -> None:
    [found] = servers.match([transfer(10, 20)], [transfer(11, 12), transfer(13, 14)])
    assert found.record() == {"status": "ambiguous", "candidates": 2}
    both = [transfer(10, 20), transfer(12, 22)]
    assert statuses(both, [transfer(13, 14)]) == ["ambiguous", "ambiguous"]


def test_a_long_answer_is_found_behind_short_ones() -> None:
    answered = [transfer(0, 100), transfer(1, 2), transfer(3, 4)]
    assert statuses([transfer(90, 95)], answered) == ["linked"]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=8),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=8),
)
def test_no_answer_is_given_to_two(mine: list[tuple[int, int]], far: list[tuple[int, int]]) -> None:
    transfers = [transfer(start, start + length) for start, length in mine]
    answered = [transfer(start, start + length) for start, length in far]
    linked = [found.answered for found in servers.match(transfers, answered) if found.answered]
    assert len({id(entry) for entry in linked}) == len(linked)
