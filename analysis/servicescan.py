"""Finds the facts in one log of services and their connections (services/services.log), by line.

Each line is one JSON object (docs/formats.md). Records that are used: ``start``, ``instance``,
``service``, ``service_connection``, ``network_traffic``, ``relay``, ``lost`` and ``absent``;
``clock`` and ``stop`` are skipped. What the facts mean together, `services` finds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from perfmeasure.analysis.connectionscan import absent, lost
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.jsonrecords import (
    RecordScan,
    garbled,
    moment,
    number,
    numbers,
    parsed_address,
    port,
    text,
)

_PROTOCOLS = frozenset({"tcp", "udp"})
_SIDES = frozenset({"active", "passive", "unknown"})
_STATES = frozenset({"open", "closed"})
_DIRECTIONS = frozenset({"ingress", "egress"})
_MOST_BYTES = 1 << 53  # so that sums over ten million connections stay exact, and JSON's too


class ServicesStarted(NamedTuple):
    """A collector began on an instance; a text that it did not tell is empty."""

    instance_id: str
    host: str
    source: str
    scope: str


class InstanceSeen(NamedTuple):
    """The addresses of an instance: in the namespace ``netns[i]`` the address ``ips[i]``."""

    instance_id: str
    netns: list[int]
    ips: list[str]


class ServiceSeen(NamedTuple):
    """A socket that listens. ``valid_to_unix_ts`` is 0.0 while it does; ``pid`` 0 if unknown.

    ``instance_ips`` are the addresses of its namespace, if told; fingerprint and nickname those of
    a relay of Tor, else empty.
    """

    instance_id: str
    netns: int
    service: str
    pid: int
    protocol: str
    listen_ip: str
    listen_port: int
    is_v6only: bool
    valid_from_unix_ts: float
    valid_to_unix_ts: float
    instance_ips: list[str]
    fingerprint: str
    nickname: str


class ServiceConnectionSeen(NamedTuple):
    """One end of a connection as far as it is known by then; a later one of its id replaces it.

    ``service`` is empty if no process was found; ``start_unix_ts`` and ``end_unix_ts`` are 0.0 if
    not told. ``numbers`` has ``pid``, ``bytes_sent`` and ``bytes_received``, those that are known.
    """

    instance_id: str
    netns: int
    id: str
    service: str
    side: str
    protocol: str
    src_ip: str
    src_port: int
    dst_ip: str
    dst_port: int
    start_unix_ts: float
    end_unix_ts: float
    is_closed: bool
    source: str
    numbers: dict[str, int]


class TrafficSeen(NamedTuple):
    """What an interface counted in a window, by service key."""

    instance_id: str
    interface: str
    direction: str
    protocol: str
    src_ip: str
    dst_ip: str
    dst_port: int
    packets: int
    bytes: int
    window_start_unix_ts: float


class RelaySeen(NamedTuple):
    """Where a relay of Tor is."""

    fingerprint: str
    nickname: str
    ip: str
    port: int


class ServiceScan(RecordScan):
    """The scan of one log: `batch` for its lines in their order, then `end`."""

    def __init__(self) -> None:
        super().__init__(
            {
                "start": _started,
                "clock": None,
                "instance": _instance,
                "service": _service,
                "service_connection": _connection,
                "network_traffic": _traffic,
                "relay": _relay,
                "lost": lost,
                "absent": absent,
                "stop": None,
            }
        )


def _started(record: dict[str, Any]) -> ServicesStarted:
    return ServicesStarted(
        text(record, "instance_id"),
        *(text(record, name, "") for name in ("host", "source", "scope")),
    )


def _instance(record: dict[str, Any]) -> InstanceSeen:
    places = record.get("addresses")
    if not isinstance(places, list):
        garbled("addresses")
    netns, ips = [], []
    for place in places:
        if not isinstance(place, dict) or not isinstance(place.get("ips"), list):
            garbled("addresses")
        for ip in place["ips"]:
            netns.append(number(place, "netns"))
            ips.append(_ip(ip, "addresses"))
    return InstanceSeen(text(record, "instance_id"), netns, ips)


def _service(record: dict[str, Any]) -> ServiceSeen:
    is_v6only = record.get("is_v6only", False)
    if not isinstance(is_v6only, bool):
        garbled("is_v6only")
    ips = record.get("instance_ips", [])
    if not isinstance(ips, list):
        garbled("instance_ips")
    valid_from = _time(record, "valid_from_unix_ts")
    valid_to = moment(record, "valid_to_unix_ts")
    if "valid_to_unix_ts" in record and valid_to < valid_from:
        raise RejectedError("valid_to before valid_from")
    return ServiceSeen(
        instance_id=text(record, "instance_id"),
        netns=number(record, "netns"),
        service=text(record, "name"),
        pid=numbers(record, ("pid",)).get("pid", 0),
        protocol=_one_of(record, "protocol", _PROTOCOLS),
        listen_ip=_address(record, "listen_ip"),
        listen_port=port(record, "listen_port"),
        is_v6only=is_v6only,
        valid_from_unix_ts=valid_from,
        valid_to_unix_ts=valid_to,
        instance_ips=[_ip(ip, "instance_ips") for ip in ips],
        fingerprint=text(record, "fingerprint", ""),
        nickname=text(record, "nickname", ""),
    )


def _connection(record: dict[str, Any]) -> ServiceConnectionSeen:
    start, end = moment(record, "start_unix_ts"), moment(record, "end_unix_ts")
    if "end_unix_ts" in record and end < start:
        raise RejectedError("end before start")
    counted = numbers(record, ("pid", "bytes_sent", "bytes_received"))
    for field, count in counted.items():
        if count >= _MOST_BYTES:
            garbled(field)
    return ServiceConnectionSeen(
        instance_id=text(record, "instance_id"),
        netns=number(record, "netns"),
        id=text(record, "id"),
        service=text(record, "service", ""),
        side=_one_of(record, "side", _SIDES),
        protocol=_one_of(record, "protocol", _PROTOCOLS),
        src_ip=_address(record, "src_ip"),
        src_port=port(record, "src_port"),
        dst_ip=_address(record, "dst_ip"),
        dst_port=port(record, "dst_port"),
        start_unix_ts=start,
        end_unix_ts=end,
        is_closed=_one_of(record, "state", _STATES) == "closed",
        source=text(record, "source"),
        numbers=counted,
    )


def _traffic(record: dict[str, Any]) -> TrafficSeen:
    return TrafficSeen(
        instance_id=text(record, "instance_id"),
        interface=text(record, "interface"),
        direction=_one_of(record, "direction", _DIRECTIONS),
        protocol=text(record, "protocol"),
        src_ip=_address(record, "src_ip"),
        dst_ip=_address(record, "dst_ip"),
        dst_port=port(record, "dst_port"),
        packets=number(record, "packets", _MOST_BYTES),
        bytes=number(record, "bytes", _MOST_BYTES),
        window_start_unix_ts=_time(record, "window_start_unix_ts"),
    )


def _relay(record: dict[str, Any]) -> RelaySeen:
    return RelaySeen(
        text(record, "fingerprint"), text(record, "nickname", ""),
        _address(record, "ip"), port(record, "port"),
    )  # fmt: skip


def _one_of(record: dict[str, Any], field: str, known: frozenset[str]) -> str:
    value = record.get(field)
    if not isinstance(value, str) or value not in known:
        garbled(field)
    return value


def _time(record: dict[str, Any], field: str) -> float:
    """Return a time in Unix seconds that must be there."""
    value = moment(record, field)
    if not value:
        garbled(field)
    return value


def _address(record: dict[str, Any], field: str) -> str:
    return _ip(record.get(field), field)


def _ip(value: object, field: str) -> str:
    """Return an address in its usual form, IPv4 that is mapped into IPv6 as IPv4."""
    if not isinstance(value, str):
        garbled(field)
    # What follows the % is the name of an interface, which means nothing elsewhere.
    version, address = parsed_address(value.partition("%")[0].removeprefix("::ffff:"))
    if not version and value.startswith("::ffff:"):
        version, address = parsed_address(value)
    if not version:
        garbled(field)
    return address
