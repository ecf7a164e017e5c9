from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis.join import SLACK_SECONDS, join
from perfmeasure.analysis.torlog import Circuit, Stream
from perfmeasure.analysis.transfers import Transfer


def transfer(start: float, end: float, port: int = 5000) -> Transfer:
    return Transfer("stream:0", {}, start, end, port)


def stream(number: int, start: float, port: int = 5000) -> Stream:
    return Stream(number, start, start, started=start, source=f"127.0.0.1:{port}")


def test_port_and_time() -> None:
    streams = [stream(1, 10.1), stream(2, 10.2, 5001), stream(3, 30.0)]
    links = join([transfer(10, 20), transfer(10, 20, 5001), transfer(10, 20, 5002)], streams)
    assert [link.status for link in links] == ["linked", "linked", "unmatched"]
    assert [link.stream for link in links] == [streams[0], streams[1], None]


def test_overlapping_transfers_of_one_port_are_ambiguous() -> None:
    streams = [stream(1, 1.0), stream(2, 6.0)]
    links = join([transfer(0, 10), transfer(5, 15)], streams)
    assert [link.status for link in links] == ["ambiguous", "ambiguous"]
    assert links[0].candidates == tuple(streams)
    assert links[1].candidates == (streams[1],)
    assert all(link.stream is None and link.circuit is None for link in links)


def test_two_transfers_that_claim_one_stream_are_ambiguous() -> None:
    links = join([transfer(0, 10), transfer(0, 10)], [stream(1, 1.0)])
    assert [link.status for link in links] == ["ambiguous", "ambiguous"]


def test_a_port_used_again_soon_is_linked_right() -> None:
    streams = [stream(1, 0.01), stream(2, 10.11)]
    links = join([transfer(0, 10), transfer(10.1, 20)], streams)
    assert [link.stream for link in links] == streams


def test_a_port_used_again_soon_whose_first_stream_is_lost() -> None:
    # The second stream lies within the slack of the first transfer, but is the second's.
    [first, second] = join([transfer(0, 10), transfer(10.1, 20)], [stream(2, 10.2)])
    assert (first.status, second.status) == ("unmatched", "linked")


def test_stamps_that_are_rounded_or_late() -> None:
    for start in (9.995, 10 - SLACK_SECONDS, 20 + SLACK_SECONDS):
        [link] = join([transfer(10, 20)], [stream(1, start)])
        assert link.status == "linked", start
    for start in (9.9 - SLACK_SECONDS, 20.1 + SLACK_SECONDS):
        [link] = join([transfer(10, 20)], [stream(1, start)])
        assert link.status == "unmatched", start


def test_two_streams_within_the_slack_only_are_ambiguous() -> None:
    [link] = join([transfer(10, 20)], [stream(1, 9.0), stream(2, 21.0)])
    assert link.status == "ambiguous"
    assert len(link.candidates) == 2


def test_streams_without_a_port_or_a_start_are_no_candidates() -> None:
    known_late = Stream(1, 1.0, 1.0, source="127.0.0.1:5000")
    without_port = Stream(2, 1.0, 1.0, started=1.0)
    [link, unknown] = join([transfer(0, 10), transfer(0, 10, 0)], [known_late, without_port])
    assert (link.status, unknown.status) == ("unmatched", "unmatched")


def test_the_circuit_that_carried_it() -> None:
    one = stream(1, 1.0)
    first, second, third = (Circuit(number, 0.0, 0.0) for number in (1, 2, 3))
    one.circuit = third
    assert join([transfer(0, 10)], [one])[0].circuit is third
    one.sent_on = first
    assert join([transfer(0, 10)], [one])[0].circuit is first
    one.succeeded_on = second
    assert join([transfer(0, 10)], [one])[0].circuit is second


times = st.integers(0, 40).map(float)


@given(
    st.lists(st.tuples(times, times, st.sampled_from((5000, 5001))), max_size=6),
    st.lists(st.tuples(times, st.sampled_from((5000, 5001))), max_size=6),
)
def test_a_link_is_never_one_of_two(
    spans: list[tuple[float, float, int]], starts: list[tuple[float, int]]
) -> None:
    transfers = [transfer(min(a, b), max(a, b), port) for a, b, port in spans]
    streams = [stream(number, start, port) for number, (start, port) in enumerate(starts)]
    links = join(transfers, streams)
    linked = [link.stream for link in links if link.stream]
    assert len(linked) == len(set(linked))
    for one, link in zip(transfers, links, strict=True):
        if link.stream is None:
            continue
        assert link.stream.source_port == one.source_port
        inside = [
            s
            for s in streams
            if s.source_port == one.source_port and one.start <= s.first_seen <= one.end
        ]
        assert inside in ([link.stream], [])
