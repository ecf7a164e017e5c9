"""Lines of services/services.log without a file. Times are seconds after ``DAY``."""

from __future__ import annotations

from typing import Any

from perfmeasure import jsonio

DAY = 1795305600.0  # 2026-11-22 00:00:00 UTC
BOOT = "83df3e82-9731-42c8-b042-e6fa74b517fd"


def line(record: str, at: float, **fields: Any) -> str:
    """Return a record."""
    return jsonio.compact({"record": record, "unix_ts": DAY + at, **fields}) + "\n"


def start(at: float, instance: str = "m1", **fields: Any) -> str:
    """Return the start of a collector."""
    told = {
        "program": "perfmeasure-services", "version": "0.1.0", "instance_id": instance,
        "host": instance, "kernel": "6.1.0", "boot_id": BOOT, "source": "ebpf", "scope": "host",
        "poll_seconds": 1.0,
    }  # fmt: skip
    return line("start", at, **{**told, **fields})


def instance(at: float, instance: str, *ips: str, netns: int = 1) -> str:
    """Return the addresses of an instance in one namespace; those of loopback are added."""
    return line(
        "instance", at, instance_id=instance, host=instance,
        addresses=[{"netns": netns, "ips": [*ips, "127.0.0.1", "::1"]}],
    )  # fmt: skip


def service(
    at: float, instance: str, name: str, listen: tuple[str, int], *, ended: float | None = None,
    **fields: Any,
) -> str:  # fmt: skip
    """Return a socket that listens since ``at``, or its end."""
    told = {
        "instance_id": instance, "instance_ips": [], "netns": 1, "name": name, "pid": 100,
        "command": name, "protocol": "tcp", "listen_ip": listen[0], "listen_port": listen[1],
        "is_v6only": False, "valid_from_unix_ts": DAY + at,
    }  # fmt: skip
    if ended is not None:
        told["valid_to_unix_ts"] = DAY + ended
    return line("service", at if ended is None else ended, **{**told, **fields})


def connection(
    at: float, instance: str, number: int | str, name: str | None,
    ends: tuple[str, int, str, int], *, end: float | None = None, side: str = "active",
    sent: int = 0, received: int = 0, **fields: Any,
) -> str:  # fmt: skip
    """Return an end of a connection that began at ``at``, its last state if it has an ``end``."""
    told: dict[str, Any] = {
        "instance_id": instance, "netns": 1, "id": str(number), "pid": 100, "side": side,
        "protocol": "tcp", "src_ip": ends[0], "src_port": ends[1], "dst_ip": ends[2],
        "dst_port": ends[3], "bytes_sent": sent, "bytes_received": received,
        "start_unix_ts": DAY + at, "state": "open", "source": "ebpf",
    }  # fmt: skip
    if name is not None:
        told["service"] = name
    if end is not None:
        told |= {"end_unix_ts": DAY + end, "state": "closed"}
    told |= fields
    return line("service_connection", at if end is None else end, **told)
