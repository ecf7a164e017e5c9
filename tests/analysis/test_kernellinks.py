from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis.kernel import KernelConnection, KernelLog
from perfmeasure.analysis.kernellinks import KernelLinks, link
from perfmeasure.analysis.torlog import Circuit, Connection, TorLog
from perfmeasure.analysis.transfers import Transfer
from tests.analysis import kernel_lines as kernel

FINGERPRINT = "A" * 40
GUARD = ("192.0.2.7", 9001)
TOR = 900
GENERATOR = 800


def transfer(
    start: float, end: float, port: int = 5000, proxy: str = "NAME:127.0.0.1:9050"
) -> Transfer:
    record = {"endpoint_proxy": proxy, "endpoint_remote": "NAME:198.51.100.1:8080"}
    return Transfer("stream:0", record, kernel.DAY + start, kernel.DAY + end, port)


def socks(cookie: int, begin: float, end: float, port: int = 5000, **fields: Any) -> str:
    """Both ends of a connection to the SOCKS port, the generator's and tor's."""
    ends = ("127.0.0.1", port, "127.0.0.1", 9050)
    stamps = {"connect": begin, "closed": end}
    return kernel.connection(
        end, cookie, ends=ends, stamps=stamps, end="fin_local", pid=GENERATOR, **fields
    ) + kernel.connection(
        end, cookie + 1, ends=(*ends[2:], *ends[:2]), stamps=stamps, end="fin_remote", pid=TOR,
        **{**fields, "side": "passive"},
    )  # fmt: skip


def to_relay(
    cookie: int, begin: float, end: float, relay: tuple[str, int] = GUARD, pid: int = TOR
) -> str:
    return kernel.connection(
        end, cookie, ends=("10.0.0.1", 40000 + cookie, *relay), pid=pid, end="fin_local",
        stamps={"connect": begin, "closed": end},
    )  # fmt: skip


def or_connection(
    number: str,
    begin: float,
    end: float | None = None,
    first: str = "LAUNCHED",
    target: str = f"${FINGERPRINT}~a",
) -> Connection:
    at = kernel.DAY + begin
    return Connection(number, target, at, [(first, at)], None if end is None else kernel.DAY + end)


def circuit(number: int, extended: float, hop: str = FINGERPRINT) -> Circuit:
    at = kernel.DAY + extended
    return Circuit(number, at, at, path=[(f"${hop}~a", at)])


def tor_log(
    *records: Circuit | Connection, relays: dict[str, set[tuple[str, int]]] | None = None
) -> TorLog:
    log = TorLog(relays={FINGERPRINT: {GUARD}} if relays is None else relays)
    log.circuits += [r for r in records if isinstance(r, Circuit)]
    log.connections += [r for r in records if isinstance(r, Connection)]
    return log


def logged(*lines: str) -> KernelLog:
    log, counts = kernel.assembled(kernel.start(0) + kernel.clock(0) + "".join(lines))
    assert not counts.rejected
    return log


def of(log: KernelLog, cookie: int) -> KernelConnection:
    [found] = [connection for connection in log.connections if connection.cookie == cookie]
    return found


def statuses(links: KernelLinks) -> list[str]:
    return [claim.status for claim in links.transfers]


def test_a_transfer_and_both_ends_of_its_connection() -> None:
    log = logged(socks(1, 10.0001, 20), socks(3, 10.1, 20, 5001))
    links = link(log, [transfer(10, 20), transfer(10, 20, 5001), transfer(10, 20, 5002)], None)
    assert statuses(links) == ["linked", "linked", "unmatched"]
    assert [claim.candidates for claim in links.transfers] == [(of(log, 1),), (of(log, 3),), ()]
    assert links.peers[of(log, 1)] is of(log, 2)
    assert links.peers[of(log, 2)] is of(log, 1)


def test_without_a_proxy_the_connection_leads_to_the_server() -> None:
    direct = kernel.connection(
        9, 1, ends=("10.0.0.1", 5000, "198.51.100.1", 8080), stamps={"connect": 1.0}
    )
    log = logged(direct, socks(2, 1.0, 5))
    links = link(log, [transfer(1, 5, proxy="NULL:0.0.0.0:0")], None)
    assert [claim.candidates for claim in links.transfers] == [(of(log, 1),)]


@pytest.mark.parametrize("other", [("127.0.0.1", 9051), ("127.0.0.2", 9050)])
def test_another_destination_is_no_candidate(other: tuple[str, int]) -> None:
    ends = ("127.0.0.1", 5000, *other)
    log = logged(kernel.connection(9, 1, ends=ends, stamps={"connect": 1.0}))
    assert statuses(link(log, [transfer(1, 5)], None)) == ["unmatched"]


def test_the_same_ports_in_two_namespaces_are_ambiguous() -> None:
    log = logged(socks(1, 10, 20), socks(3, 10.2, 20, netns=2))
    assert statuses(link(log, [transfer(10, 20)], None)) == ["ambiguous"]


def test_a_port_used_again() -> None:
    log = logged(socks(1, 10, 20), socks(3, 20.5, 30))
    links = link(log, [transfer(10, 20), transfer(20.5, 30)], None)
    assert [claim.candidates[0].cookie for claim in links.transfers] == [1, 3]


def test_two_transfers_that_claim_one_connection_are_ambiguous() -> None:
    links = link(logged(socks(1, 10, 20)), [transfer(9, 20), transfer(10, 21)], None)
    assert statuses(links) == ["ambiguous", "ambiguous"]


def test_a_connection_that_was_there_before_the_collector_is_linked_by_its_first_record() -> None:
    text = kernel.connection(12, 1, existed_before_start=True)
    assert statuses(link(logged(text), [transfer(10, 20)], None)) == ["linked"]
    assert statuses(link(logged(text), [transfer(14, 20)], None)) == ["unmatched"]


def test_guards_by_address_process_and_time() -> None:
    log = logged(
        socks(1, 10, 20),
        to_relay(5, 2, 30),
        to_relay(6, 2, 30, pid=901),  # another relay of the same network
        to_relay(7, 2.001, 30, ("192.0.2.8", 9001)),
    )
    first = or_connection("3", 2.002)
    links = link(log, [transfer(10, 20)], tor_log(first, circuit(4, 5)))
    assert [claim.candidates for claim in links.or_connections.values()] == [(of(log, 5),)]
    assert [claim.candidates for claim in links.circuits.values()] == [(of(log, 5),)]
    assert links.linked() == {of(log, 1), of(log, 2), of(log, 5)}


def test_without_the_relays_address_time_has_to_tell() -> None:
    alone, early = to_relay(5, 2, 30), to_relay(7, 2.3, 30, ("192.0.2.8", 9001))
    at_once = to_relay(8, 2.001, 30, ("192.0.2.9", 9001))
    events = tor_log(or_connection("3", 2.002), circuit(4, 5), relays={})
    log = logged(socks(1, 10, 20), alone, early)
    links = link(log, [transfer(10, 20)], events)
    assert [claim.candidates for claim in links.or_connections.values()] == [(of(log, 5),)]
    assert [claim.candidates for claim in links.circuits.values()] == [(of(log, 5),)]
    links = link(logged(socks(1, 10, 20), alone, at_once), [transfer(10, 20)], events)
    assert [claim.status for claim in links.or_connections.values()] == ["ambiguous"]
    assert [claim.status for claim in links.circuits.values()] == ["unmatched"]


def test_an_endpoint_that_is_an_address_is_one() -> None:
    log = logged(socks(1, 10, 20), to_relay(5, 2, 30), to_relay(7, 2, 30, ("192.0.2.8", 9001)))
    events = tor_log(or_connection("3", 2.0, target="192.0.2.8:9001"), relays={})
    links = link(log, [transfer(10, 20)], events)
    assert [claim.candidates for claim in links.or_connections.values()] == [(of(log, 7),)]


def test_two_connections_to_one_guard_at_a_time_are_ambiguous() -> None:
    log = logged(socks(1, 10, 20), to_relay(5, 2, 30), to_relay(6, 3, 9), to_relay(7, 9.5, 30))
    circuits = [circuit(4, 2.5), circuit(5, 4), circuit(6, 9.2), circuit(7, 10), circuit(8, 31)]
    links = link(log, [transfer(10, 20)], tor_log(*circuits))
    assert [claim.status for claim in links.circuits.values()] == [
        "linked", "ambiguous", "linked", "ambiguous", "unmatched",
    ]  # fmt: skip


def test_without_tor_s_process_nothing_is_guessed() -> None:
    log = logged(to_relay(5, 2, 30), to_relay(6, 9, 30, pid=901))
    launched, found = or_connection("3", 2.0), or_connection("4", 4.0, first="CONNECTED")
    links = link(log, [], tor_log(launched, circuit(4, 5), relays={}))
    assert [claim.status for claim in links.or_connections.values()] == ["unmatched"]
    links = link(log, [], tor_log(launched, found, circuit(4, 5)))
    assert [claim.status for claim in links.or_connections.values()] == ["ambiguous"] * 2
    assert [claim.status for claim in links.circuits.values()] == ["unmatched"]


def test_what_others_began_and_circuits_without_a_relay_are_not_asked_about() -> None:
    events = tor_log(or_connection("3", 2.0, first="NEW"), Circuit(4, 0.0, 0.0))
    links = link(logged(to_relay(5, 2, 30)), [], events)
    assert (links.or_connections, links.circuits) == ({}, {})


times = st.integers(0, 30).map(float)
spans = st.lists(st.tuples(times, times, st.sampled_from((5000, 5001))), max_size=5)


@given(spans, spans)
def test_a_link_is_never_one_of_two(
    wanted: list[tuple[float, float, int]], there: list[tuple[float, float, int]]
) -> None:
    transfers = [transfer(min(a, b), max(a, b), port) for a, b, port in wanted]
    log = logged(
        *(socks(index * 2, min(a, b), max(a, b), port) for index, (a, b, port) in enumerate(there))
    )
    links = link(log, transfers, None)
    linked = [claim.candidates[0] for claim in links.transfers if claim.status == "linked"]
    assert len(linked) == len(set(linked))
    for one, claim in zip(transfers, links.transfers, strict=True):
        inside = {
            found
            for found in log.connections
            if found.side == "active"
            and found.ends.local_port == one.source_port
            and found.start_ts is not None
            and one.start <= found.start_ts <= one.end
        }
        assert inside <= set(claim.candidates)
        if claim.status == "linked":
            assert len(inside) <= 1
