"""The join in plain Python, by the rules of docs/formats.md, and worlds to try it on.

Slow and simple: each connection is looked up by going through all listeners.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from hypothesis import strategies as st

from perfmeasure.analysis import endpoints, pairs

Row = dict[str, Any]
Key = tuple[str, str, str, int]


def is_loopback(ip: str) -> bool:
    return ip.startswith("127.") or ip == "::1"


def unmapped(ip: str) -> str:
    return ip[7:] if ip.startswith("::ffff:") and "." in ip else ip


def place(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def end_of(row: Row) -> float:
    end: float | None = row["end_unix_ts"]
    return math.inf if end is None else end


class Reference:
    """The same as `graph.section`, for few rows."""

    def __init__(self, listeners: list[Row], addresses: list[Row], connections: list[Row]) -> None:
        self.listeners = [{**row, "listen_ip": unmapped(row["listen_ip"])} for row in listeners]
        self.addresses = {
            (row["instance_id"], row["netns"], unmapped(row["ip"])) for row in addresses
        }
        self.known: dict[str, set[str]] = {}
        for instance, _, ip in self.addresses:
            self.known.setdefault(ip, set()).add(instance)
        self.machines = {ip: next(iter(who)) for ip, who in self.known.items() if len(who) == 1}
        for row in self.listeners:
            if row["listen_ip"] not in {_ANY_V4, _ANY_V6}:
                self.known.setdefault(row["listen_ip"], set()).add(row["instance_id"])
        self.edges: dict[Key, Counter[str]] = {}
        self.categories: Counter[tuple[str, str]] = Counter()
        self._count(
            [
                {**row, "src_ip": unmapped(row["src_ip"]), "dst_ip": unmapped(row["dst_ip"])}
                for row in connections
            ]
        )

    # ---- who listens -----------------------------------------------------------------------------

    def _rank(  # noqa: PLR0911 - one for each rule
        self, row: Row, caller: Row, ip: str
    ) -> int | None:
        """Return how closely a listener is bound to an address, None where it does not answer."""
        listen, family = row["listen_ip"], 6 if ":" in ip else 4
        is_wildcard = listen in {_ANY_V4, _ANY_V6}
        if is_loopback(ip):
            if (row["instance_id"], row["netns"]) != (caller["instance_id"], caller["netns"]):
                return None
        else:
            instances = self.known.get(ip, set())
            is_elsewhere = row["instance_id"] != caller["instance_id"]
            if len(instances) > 1 and caller["instance_id"] in instances and is_elsewhere:
                return None
            if is_wildcard and (row["instance_id"], row["netns"], ip) not in self.addresses:
                return None
        if not is_wildcard:
            return 0 if listen == ip else None
        if listen == _ANY_V4:
            return 1 if family == 4 else None
        if family == 6:
            return 1
        return None if row["is_v6only"] else 2

    def answering(self, caller: Row, ip: str, port: int) -> list[Row]:
        """Return who could answer at an address when a connection began."""
        at = caller["start_unix_ts"]
        bound = [
            (rank, row)
            for row in self.listeners
            if (row["protocol"], row["listen_port"]) == (caller["protocol"], port)
            and (rank := self._rank(row, caller, ip)) is not None
            and row["valid_from_unix_ts"] < _to(row)
        ]
        for moment in self._moments(bound, at):
            there = [(r, row) for r, row in bound if row["valid_from_unix_ts"] <= moment < _to(row)]
            if there:
                best = min(rank for rank, _ in there)
                return [row for rank, row in there if rank == best]
        return []

    @staticmethod
    def _moments(bound: list[tuple[int, Row]], at: float) -> list[float]:
        """Return the times to look at: its own, the next listener's, the last listener's."""
        slack = endpoints.SLACK_SECONDS
        later = [
            r["valid_from_unix_ts"] for _, r in bound if 0 < r["valid_from_unix_ts"] - at <= slack
        ]
        before = [_to(r) for _, r in bound if 0 <= at - _to(r) < slack]
        return [at, *sorted(later)[:1], *(math.nextafter(end, 0) for end in sorted(before)[-1:])]

    # ---- who calls -------------------------------------------------------------------------------

    def _calls(self, row: Row) -> tuple[bool, bool]:
        """Return whether a report is the caller's, and whether that is only inferred."""
        if row["side"] != "unknown":
            return row["side"] == "active", False
        if self.answering(row, row["src_ip"], row["src_port"]):
            return False, False
        if self.answering(row, row["dst_ip"], row["dst_port"]):
            return True, False
        return row["src_port"] >= row["dst_port"], True

    def _pairs(self, calls: list[Row], accepted: list[Row]) -> dict[int, Row]:
        """Return the report of who accepted, by the place of the caller's among ``calls``."""
        slack = pairs.SLACK_SECONDS
        found = []
        for c, call in enumerate(calls):
            for a, accept in enumerate(accepted):
                if not _are_ends_of_one(call, accept):
                    continue
                if (
                    call["start_unix_ts"] <= end_of(accept) + slack
                    and accept["start_unix_ts"] <= end_of(call) + slack
                ):
                    apart = abs(call["start_unix_ts"] - accept["start_unix_ts"])
                    is_elsewhere = call["instance_id"] != accept["instance_id"]
                    found.append((is_elsewhere, apart, call["row"], accept["row"], c, a))
        paired: dict[int, Row] = {}
        taken = set()
        for *_, c, a in sorted(found):
            if c not in paired and a not in taken:
                paired[c] = accepted[a]
                taken.add(a)
        self.unpaired = [row for a, row in enumerate(accepted) if a not in taken]
        return paired

    def _count(self, connections: list[Row]) -> None:
        judged = [({**row, "row": n}, *self._calls(row)) for n, row in enumerate(connections)]
        calls = [row for row, is_call, _ in judged if is_call]
        paired = self._pairs(calls, [row for row, is_call, _ in judged if not is_call])
        for number, row in enumerate(calls):
            source = f"{row['instance_id']}/{row['service'] or 'unattributed'}"
            target, kind = self._callee(row, paired.get(number))
            category = kind if row["service"] else "unattributed"
            self._add((source, target, row["protocol"], row["dst_port"]), category, row,
                      row["bytes_sent"], row["bytes_received"])  # fmt: skip
        for row in self.unpaired:
            self._heard(row)

    def _callee(self, row: Row, accepted: Row | None) -> tuple[str, str]:
        if accepted and accepted["service"]:
            return f"{accepted['instance_id']}/{accepted['service']}", "matched"
        return self._answer(row, row["dst_ip"], row["dst_port"]) or (
            "external/"
            + (f"{row['instance_id']}/" if is_loopback(row["dst_ip"]) else "")
            + place(row["dst_ip"], row["dst_port"]),
            "external",
        )

    def _answer(self, row: Row, ip: str, port: int) -> tuple[str, str] | None:
        found = {f"{r['instance_id']}/{r['service']}" for r in self.answering(row, ip, port)}
        if len(found) == 1:
            return found.pop(), "matched"
        if not found:
            return None
        # What of 127/8 nobody is bound to is one place.
        bound = {"127.0.0.1", *(r["listen_ip"] for r in self.listeners)}
        shown = endpoints.REST_OF_LOOPBACK if ip.startswith("127.") and ip not in bound else ip
        scope = f"{row['instance_id']}/{row['netns']}/" if is_loopback(ip) else ""
        return f"ambiguous/{scope}{place(shown, port)}", "ambiguous"

    def _heard(self, row: Row) -> None:
        """Count what only the end that was called told of."""
        machine = self.machines.get(row["dst_ip"])
        if is_loopback(row["dst_ip"]):
            machine = row["instance_id"]
        source = f"{machine}/unattributed" if machine else f"external/{row['dst_ip']}"
        if row["service"]:
            target, kind = f"{row['instance_id']}/{row['service']}", "matched"
        else:
            nobody = (f"{row['instance_id']}/unattributed", "unattributed")
            target, kind = self._answer(row, row["src_ip"], row["src_port"]) or nobody
        if kind == "matched":
            kind = "unattributed" if machine else "external"
        self._add((source, target, row["protocol"], row["src_port"]), kind, row,
                  row["bytes_received"], row["bytes_sent"])  # fmt: skip

    def _add(
        self, key: Key, category: str, row: Row, sent: int | None, received: int | None
    ) -> None:
        del row
        counts = self.edges.setdefault(key, Counter(bytes_sent=0, bytes_received=0))
        counts.update(bytes_sent=sent or 0, bytes_received=received or 0, connections=1)
        self.categories[category, "connections"] += 1
        self.categories[category, "bytes"] += (sent or 0) + (received or 0)


def _to(row: Row) -> float:
    end: float | None = row["valid_to_unix_ts"]
    return math.inf if end is None else end


def _are_ends_of_one(call: Row, accept: Row) -> bool:
    is_inside = is_loopback(call["src_ip"]) or is_loopback(accept["src_ip"])
    here, there = ((row["instance_id"], row["netns"]) for row in (call, accept))
    if is_inside and here != there:
        return False
    return (
        call["protocol"], call["src_ip"], call["src_port"], call["dst_ip"], call["dst_port"]
    ) == (
        accept["protocol"], accept["dst_ip"], accept["dst_port"], accept["src_ip"],
        accept["src_port"],
    )  # fmt: skip


# ---- worlds -------------------------------------------------------------------------------------

_ANY_V4, _ANY_V6 = "0.0.0.0", "::"  # noqa: S104 - nothing is bound here
_INSTANCES = ("m1", "m2", "m3")
_IPS = (
    "10.0.0.1", "10.0.0.2", "10.0.0.3", "172.17.0.2", "127.0.0.1", "127.0.0.9", "::1", "fd00::1",
    "fd00::2", "::ffff:10.0.0.1", "192.0.2.7",
)  # fmt: skip
_PORTS = (80, 443, 5000)
_TIMES = st.integers(0, 24).map(lambda n: 1000.0 + n / 2)
_PROTOCOLS = st.sampled_from(["tcp", "tcp", "tcp", "udp"])


@st.composite
def _listeners(draw: st.DrawFn) -> Row:
    begin, end = draw(_TIMES), draw(st.none() | _TIMES)
    return {
        "instance_id": draw(st.sampled_from(_INSTANCES)),
        "netns": draw(st.sampled_from([1, 1, 1, 2])),
        "service": draw(st.sampled_from(["a", "b"])),
        "protocol": draw(_PROTOCOLS),
        "listen_ip": draw(st.sampled_from([*_IPS, _ANY_V4, _ANY_V4, _ANY_V6, _ANY_V6])),
        "listen_port": draw(st.sampled_from(_PORTS)),
        "is_v6only": draw(st.booleans()),
        "pid": draw(st.integers(1, 3)),
        "valid_from_unix_ts": begin,
        "valid_to_unix_ts": None if end is None else max(begin, end),
    }


@st.composite
def _addresses(draw: st.DrawFn) -> Row:
    return {
        "instance_id": draw(st.sampled_from(_INSTANCES)),
        "netns": draw(st.sampled_from([1, 1, 1, 2])),
        "ip": draw(st.sampled_from(_IPS)),
    }


@st.composite
def _connections(draw: st.DrawFn) -> list[Row]:
    """Draw a report, and often the one of the other end, too."""
    begin, end = draw(_TIMES), draw(st.none() | _TIMES)
    row: Row = {
        "instance_id": draw(st.sampled_from(_INSTANCES)),
        "netns": draw(st.sampled_from([1, 1, 1, 2])),
        "service": draw(st.sampled_from([None, "a", "b", "c"])),
        "pid": draw(st.none() | st.integers(1, 3)),
        "side": draw(st.sampled_from(["active", "active", "passive", "unknown"])),
        "protocol": draw(_PROTOCOLS),
        "src_ip": draw(st.sampled_from(_IPS)),
        "src_port": draw(st.sampled_from([*_PORTS, 40000, 40001])),
        "dst_ip": draw(st.sampled_from(_IPS)),
        "dst_port": draw(st.sampled_from(_PORTS)),
        "bytes_sent": draw(st.none() | st.integers(0, 1000)),
        "bytes_received": draw(st.integers(0, 1000)),
        "start_unix_ts": begin,
        "end_unix_ts": None if end is None else max(begin, end),
        "source": draw(st.sampled_from(["ebpf", "polling", "destroy", "other"])),
    }
    if draw(st.booleans()):
        return [row]
    other = {
        **row,
        "instance_id": draw(st.sampled_from(_INSTANCES)),
        "service": draw(st.sampled_from([None, "a", "b"])),
        "side": {"active": "passive", "passive": "active"}.get(row["side"], "unknown"),
        "src_ip": row["dst_ip"], "src_port": row["dst_port"],
        "dst_ip": row["src_ip"], "dst_port": row["src_port"],
    }  # fmt: skip
    return draw(st.permutations([row, other]))


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, list[Row]]:
    """Draw the tables of a few machines."""
    return {
        "listeners": draw(st.lists(_listeners(), max_size=12)),
        "addresses": draw(st.lists(_addresses(), max_size=12)),
        "connections": [
            row for rows in draw(st.lists(_connections(), max_size=20)) for row in rows
        ],
    }
