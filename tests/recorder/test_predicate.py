from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.recorder import core
from perfmeasure.recorder.capturefile import CaptureFile
from perfmeasure.recorder.keys import Port, Protocol, parse_key
from perfmeasure.recorder.predicate import And, Match, Node, Not, Or, Times
from perfmeasure.recorder.snapshot import StoreAt
from perfmeasure.recorder.store import Store
from perfmeasure.recorder.writer import Limits, StoreWriter
from tests.recorder import made

PACKETS = made.trace(21, 3000, 60)
FOUND = [made.fields(packet.frame) for packet in PACKETS]
TIMES = sorted(packet.ts_ns for packet in PACKETS)


def truth(node: Node) -> set[int]:  # noqa: PLR0911 - one for each kind of node
    """Return the numbers of the packets that match, each looked at alone."""
    everything = set(range(len(PACKETS)))
    match node:
        case Match(Protocol(number)):
            return {n for n, f in enumerate(FOUND) if f.protocol == number}
        case Match(Port(number)):
            return {n for n, f in enumerate(FOUND) if number in (f.src_port, f.dst_port)}
        case Match(key):
            assert key == parse_key("ip", "10.0.0.3")
            return {n for n, f in enumerate(FOUND) if "10.0.0.3" in (f.src, f.dst)}
        case Times(first, last):
            return {n for n, p in enumerate(PACKETS) if first <= p.ts_ns <= last}
        case Not(inner):
            return everything - truth(inner)
        case And(nodes):
            return everything.intersection(*map(truth, nodes))
        case Or(nodes):
            return set().union(*map(truth, nodes))
    raise AssertionError(node)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Eight segments, the last of them open."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "in.pcap").write_bytes(made.pcap(PACKETS))
    writer = StoreWriter(folder, {"all": Limits(segment_bytes=70_000)})
    for batch in CaptureFile(folder / "in.pcap").batches():
        writer.append("all", batch.data, batch.frames, core.decode(batch.data, batch.frames))
    return StoreAt(folder, writer.snapshot())


spans = st.tuples(st.sampled_from(TIMES), st.sampled_from(TIMES)).map(sorted)
leaves: st.SearchStrategy[Node] = st.one_of(
    st.sampled_from([Match(Protocol(6)), Match(Port(80)), Match(parse_key("ip", "10.0.0.3"))]),
    spans.map(lambda span: Times(*span)),
    st.sampled_from(TIMES).map(lambda first_ns: Times(first_ns=first_ns)),
)
nodes = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=1, max_size=3).map(lambda found: And(tuple(found))),
        st.lists(inner, max_size=3).map(lambda found: Or(tuple(found))),
    ),
    max_leaves=8,
)


@given(nodes)
def test_any_tree_finds_what_a_walk_finds(store: Store, node: Node) -> None:
    wanted = sorted(truth(node), key=lambda n: (PACKETS[n].ts_ns, n))
    frames = [
        bytes(segment.record(frame))[16:]
        for chunk in store.packets(node)
        for segment, frame in chunk.records()
    ]
    assert frames == [PACKETS[n].frame for n in wanted]
    counts = store.count(node)
    assert (counts.packets, counts.bytes) == (len(frames), sum(map(len, frames)))
