"""The time series of a topology: their names, their labels, and what may stand in a label.

Each group is one table of series and one of their samples in a DuckDB (`Group.series_table`,
`Group.samples_table`); the families of a group share its labels, one column of samples each.
Times are Unix milliseconds, as both servers keep them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

_LONGEST = 200
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

OTHER = "other"
"""The name, address and port of what is beyond the bound of a group's series."""


@dataclass(frozen=True)
class Family:
    """One metric: its name, whether it only grows, and what it says."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str


@dataclass(frozen=True)
class Group:
    """Families with the same labels.

    Args:
        name: of the group's tables.
        labels: the names of the labels, columns of the table of series.
        families: the metrics, in the order of the columns of the table of samples.
        bounded: the labels that say `OTHER` in the series of what is beyond the bound.
    """

    name: str
    labels: tuple[str, ...]
    families: tuple[Family, ...]
    bounded: tuple[str, ...] = ()

    @property
    def series_table(self) -> str:
        """Columns: id, then one for each label; an empty text is an absent label."""
        return f"{self.name}_series"

    @property
    def samples_table(self) -> str:
        """Columns: id, at_ms, then one for each family, by its name; sorted by id and at_ms."""
        return f"{self.name}_samples"


_BYTES_BOTH_WAYS = "Payload bytes, both ways, of connections that"
_ENDED = "have ended since 00:00 UTC"
_OPEN = "have not ended"


def _connection_families(
    name: str, sender: str, when: str, *, is_counter: bool
) -> tuple[Family, ...]:
    kind: Literal["counter", "gauge"] = "counter" if is_counter else "gauge"
    return (
        Family(name, kind, f"{_BYTES_BOTH_WAYS} {when}."),
        Family(f"{name}_sent", kind, f"Those of {name} that {sender} sent."),
        Family(f"{name}_count", kind, f"How many connections are in {name}."),
    )


ADDRESSES = Group(
    "addresses_of_instances",
    ("instance_id", "instance_ip"),
    (Family("instance_address", "gauge", "1 while the machine has this address."),),
    ("instance_ip",),
)
SERVICES = Group(
    "services",
    ("instance_id", "instance_ip", "name", "listen_ports", "listen_port", "protocol"),
    (Family("services", "gauge", "1 while the service listens on this address and port."),),
    ("instance_ip", "name", "listen_ports", "listen_port"),
)
LOCAL_SERVICES = Group(
    "local_services",
    ("instance_id", "netns", "listen_ip", "name", "listen_ports", "listen_port", "protocol"),
    (Family("local_services", "gauge", "1 while it listens on this loopback address and port."),),
    ("netns", "listen_ip", "name", "listen_ports", "listen_port"),
)
_CALLED = (
    "src_service",
    "src_instance_id",
    "dst_ip",
    "dst_port",
    "protocol",
    "source",
    "netns",
)
_ACCEPTED = (
    "dst_service",
    "dst_instance_id",
    "dst_ip",
    "dst_port",
    "src_ip",
    "protocol",
    "source",
    "netns",
)
CONNECTIONS = Group(
    "connections",
    _CALLED,
    _connection_families("service_connection", "src_service", _ENDED, is_counter=True),
    ("src_service", "dst_ip", "dst_port", "netns"),
)
OPEN_CONNECTIONS = Group(
    "open_connections",
    _CALLED,
    _connection_families("service_connection_open", "src_service", _OPEN, is_counter=False),
    ("src_service", "dst_ip", "dst_port", "netns"),
)
ACCEPTED = Group(
    "accepted",
    _ACCEPTED,
    _connection_families("service_accepted", "dst_service", _ENDED, is_counter=True),
    ("dst_service", "dst_ip", "dst_port", "src_ip", "netns"),
)
OPEN_ACCEPTED = Group(
    "open_accepted",
    _ACCEPTED,
    _connection_families("service_accepted_open", "dst_service", _OPEN, is_counter=False),
    ("dst_service", "dst_ip", "dst_port", "src_ip", "netns"),
)
TRAFFIC = Group(
    "traffic",
    ("instance_id", "interface", "direction", "protocol", "src_ip", "dst_ip", "dst_port"),
    (
        Family(
            "network_traffic",
            "counter",
            "Bytes of frames on the interface since 00:00 UTC, source ports put together.",
        ),
    ),
    ("interface", "src_ip", "dst_ip", "dst_port"),
)
EDGES = Group(
    "edges",
    (
        "caller_service",
        "caller_instance",
        "callee_service",
        "callee_instance",
        "port",
        "protocol",
    ),
    (
        Family("service_edge", "gauge", "Payload bytes, both ways, in the topology's window."),
        Family("service_edge_connections", "gauge", "Connections in the topology's window."),
    ),
    ("callee_service", "callee_instance", "port"),
)
COVERAGE = Group(
    "coverage",
    ("part",),
    (
        Family("service_coverage", "gauge", "Bytes of the topology's input, and what they became."),
        Family("service_coverage_connections", "gauge", "The same for connections."),
    ),
)

RAW = (
    ADDRESSES,
    SERVICES,
    LOCAL_SERVICES,
    CONNECTIONS,
    OPEN_CONNECTIONS,
    ACCEPTED,
    OPEN_ACCEPTED,
    TRAFFIC,
)
"""What is made of the rows alone."""
JOINED = (EDGES, COVERAGE)
"""What is made of a topology."""


def protected(value: str) -> str:
    """Return ``value`` as it may stand in a label: printable, valid UTF-8, and not long.

    What had to be changed ends in a digest of what it was, so that two never become one.
    """
    if len(value) <= _LONGEST and not _UNPRINTABLE.search(value):
        return value
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    printable = _UNPRINTABLE.sub("\ufffd", value[:_LONGEST])
    return f"{printable}~{digest}"
