"""perfmeasure.tgen.sending."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import networkx as nx
import pytest

from perfmeasure.tgen.graphml import format_graphml, parse_graphml
from perfmeasure.tgen.markov import PACKET_BYTES, MarkovModel
from perfmeasure.tgen.protocol import FOOTER, response_line


def md5(payload: bytes) -> hashlib._Hash:
    return hashlib.md5(payload, usedforsecurity=False)


def chain(*emissions: tuple[str, float]) -> MarkovModel:
    """Return a model that emits these observations with these delays one after the other."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("s0", type="state", name="start")
    for index, (name, delay) in enumerate(emissions, 1):
        graph.add_node(f"s{index}", type="state", name=str(index))
        graph.add_node(f"o{index}", type="observation", name=name)
        graph.add_edge(f"s{index - 1}", f"s{index}", type="transition", weight=1.0)
        graph.add_edge(
            f"s{index}", f"o{index}", type="emission", weight=1.0, distribution="uniform",
            param_low=delay, param_high=delay,
        )  # fmt: skip
    text = format_graphml(graph)
    return MarkovModel(parse_graphml(text, "chain"), "chain", None, text, "chain")


@pytest.mark.parametrize(
    ("send", "recv"), [(0, 5_000_000), (5_000_000, 0), (1_000_001, 3_000_001), (0, 0), (1, 1)]
)
def test_payload_of_any_size_goes_both_ways(
    ends: Any, loop: Any, line_log: Any, send: int, recv: int
) -> None:
    client, served = ends.pair(send_size_bytes=send, recv_size_bytes=recv)
    loop.until(lambda: client.has_ended and served[0].has_ended)
    for outcome, sent, received in zip(
        sorted(line_log.of("[stream-success]"), key=lambda found: found["vertexid"]),
        (recv, send),
        (send, recv),
        strict=True,
    ):
        assert outcome["payload-bytes-send"] == str(sent)
        assert outcome["payload-bytes-recv"] == str(received)
        assert outcome["payload-progress-send"] == "100.00%"
        assert (outcome["usecs-to-checksum-recv"] == "-1") == (received == 0)
        assert (outcome["usecs-to-first-byte-send"] == "-1") == (sent == 0)


def test_without_sizes_it_lasts_until_the_model_ends(ends: Any, loop: Any, line_log: Any) -> None:
    model = chain(*[("+", 0.0)] * 3, *[("-", 0.0)] * 5, ("F", 0.0))
    client, served = ends.pair(packet_model=model)
    loop.until(lambda: client.has_ended and served[0].has_ended)
    assert client.is_success
    assert served[0].is_success
    assert client.send.payload_bytes == served[0].recv.payload_bytes == 3 * PACKET_BYTES
    assert client.recv.payload_bytes == served[0].send.payload_bytes == 5 * PACKET_BYTES
    assert {outcome["sendsize"] for outcome in line_log.of("[stream-success]")} == {"0"}


def test_with_a_size_a_model_that_ends_begins_anew(ends: Any, loop: Any) -> None:
    client, served = ends.pair(
        packet_model=chain(("+", 0.0), ("F", 0.0)), send_size_bytes=10_000, recv_size_bytes=0
    )
    loop.until(lambda: client.has_ended and served[0].has_ended)
    assert client.is_success
    assert served[0].recv.payload_bytes == 10_000


def test_delays_of_the_model_are_kept(ends: Any, loop: Any) -> None:
    model = chain(*[("+", 50_000.0)] * 4, ("F", 0.0))
    begin = time.monotonic()
    client, _ = ends.pair(packet_model=model, recv_size_bytes=0)
    loop.until(lambda: client.has_ended)
    assert client.is_success
    assert client.send.payload_bytes == 4 * PACKET_BYTES
    assert time.monotonic() - begin >= 0.2


def test_a_model_without_packets_of_ours_does_not_hold_others_up(
    ends: Any, loop: Any, line_log: Any
) -> None:
    stuck, _ = ends.pair(
        packet_model=chain(("-", 0.0), ("F", 0.0)), send_size_bytes=10, recv_size_bytes=0,
        stallout_seconds=1.0,
    )  # fmt: skip
    other, _ = ends.pair(send_size_bytes=10**6, recv_size_bytes=10**6)
    loop.until(lambda: other.has_ended)
    assert other.is_success
    assert not stuck.has_ended
    loop.until(lambda: stuck.has_ended)
    assert stuck.error == "STALLOUT"
    assert line_log.of("[stream-error]")


def test_a_peer_that_does_not_read_stops_only_its_own_stream(ends: Any, loop: Any) -> None:
    stream, wire = ends.commander(send_size_bytes=200_000_000, recv_size_bytes=0)
    loop.run(0.3)
    at = stream.send.payload_bytes
    assert 0 < at < 200_000_000
    loop.run(0.1)
    assert stream.send.payload_bytes == at
    got = 0
    while not wire.is_closed and got < 200_000_000:
        got += len(wire.read_until(lambda got: got, 5))
        wire.got.clear()
        if got >= 200_000_000:
            break
    assert stream.send.payload_bytes == 200_000_000


def test_a_broken_connection_is_an_error_of_writing(ends: Any, loop: Any, line_log: Any) -> None:
    stream, wire = ends.commander(send_size_bytes=10**9, recv_size_bytes=None)
    loop.run(0.05)
    stream.transport.want_read(wanted=False)  # so that writing is what finds out
    wire.reset()
    loop.until(lambda: stream.has_ended)
    (outcome,) = line_log.of("[stream-error]")
    assert outcome["error"] in ("WRITE", "MISC", "READ")
    assert float(outcome["payload-progress-send"].rstrip("%")) < 100


def test_the_footer_waits_for_what_the_peer_owes(ends: Any, loop: Any) -> None:
    stream, wire = ends.commander(send_size_bytes=10, recv_size_bytes=5)
    wire.send(response_line("far", "NONE") + b"aaaaa")
    assert b"FIN" not in wire.read_until(lambda got: b"MD5" in got)
    loop.run(0.02)
    assert stream.send.state == "SEND_FOOTER"
    wire.send(f"MD5 {md5(b'aaaaa').hexdigest()}\n".encode())
    assert wire.read_until(lambda got: got.endswith(FOOTER)).endswith(FOOTER)
    assert not stream.has_ended
    wire.send(FOOTER)
    loop.until(lambda: stream.has_ended)
    assert stream.is_success


def test_a_model_is_sent_by_path_when_asked(ends: Any) -> None:
    _, wire = ends.commander(sends_model_path=True, send_size_bytes=0, recv_size_bytes=9)
    line = wire.read_until(lambda got: b"\n" in got)
    assert b" MODEL_MODE=path MODEL_PATH=internal-packet-model\n" in line
    assert b"SEND_SIZE=~ RECV_SIZE=9 " in line
