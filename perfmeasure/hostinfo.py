"""What a reader needs to know about the measuring machine to judge or repeat a measurement.

There is no address, no user name and no path in it, and the host's name only where it is asked for.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import perfmeasure

_SYSCTLS = (
    "net.core.default_qdisc",
    "net.core.netdev_max_backlog",
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_autocorking",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_ecn",
    "net.ipv4.tcp_fastopen",
    "net.ipv4.tcp_limit_output_bytes",
    "net.ipv4.tcp_moderate_rcvbuf",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_no_metrics_save",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_sack",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_window_scaling",
    "net.ipv4.tcp_wmem",
)
_LIBRARIES = ("Twisted", "lxml", "networkx", "numpy", "stem", "ujson")
_CHECKOUT = Path(perfmeasure.__file__).resolve().parent.parent


def host_info(tor_version: str | None = None, *, with_hostname: bool = False) -> dict[str, Any]:
    """Describe this machine and the software that measures on it.

    Args:
        tor_version: what the measured tor calls itself, put in as ``tor_version``.
        with_hostname: add ``hostname``.

    Returns:
        ``architecture``, ``clocksource``, ``cpu_count``, ``cpu_model``, ``distribution``,
        ``kernel_release``, ``libraries`` (name -> version), ``memory_bytes``,
        ``perfmeasure_commit`` (only in a git checkout), ``perfmeasure_version``,
        ``python_version``, ``sysctls`` (name -> value as the kernel writes it) and the two above.
        What cannot be found out is absent; no exception is raised.
    """
    known = {
        "architecture": platform.machine(),
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "cpu_count": os.cpu_count(),
        "cpu_model": _field("/proc/cpuinfo", "model name"),
        "distribution": _distribution(),
        "hostname": platform.node() if with_hostname else None,
        "kernel_release": platform.release(),
        "libraries": _libraries(),
        "memory_bytes": _memory_bytes(),
        "perfmeasure_commit": _commit(),
        "perfmeasure_version": perfmeasure.__version__,
        "python_version": platform.python_version(),
        "sysctls": _sysctls(),
        "tor_version": tor_version,
    }
    return {name: value for name, value in known.items() if value}


def _read(path: str) -> str | None:
    try:
        return " ".join(Path(path).read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return None


def _field(path: str, name: str) -> str | None:
    """Return the first value of ``name`` in a file of `name : value` lines."""
    with contextlib.suppress(OSError), Path(path).open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return None


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _memory_bytes() -> int | None:
    size, _, unit = (_field("/proc/meminfo", "MemTotal") or "").partition(" ")
    return int(size) * 1024 if size.isdigit() and unit == "kB" else None


def _libraries() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        # A distribution without readable metadata is an OSError to some finders.
        with contextlib.suppress(metadata.PackageNotFoundError, OSError):
            versions[name] = metadata.version(name)
    return versions


def _sysctls() -> dict[str, str]:
    values = {name: _read("/proc/sys/" + name.replace(".", "/")) for name in _SYSCTLS}
    return {name: value for name, value in values.items() if value is not None}


def _commit() -> str | None:
    """Return what git calls this checkout, with ``-dirty`` where files were changed."""
    if not (_CHECKOUT / ".git").exists():
        return None
    try:
        ran = subprocess.run(
            ["git", "-C", str(_CHECKOUT), "describe", "--always", "--dirty", "--tags"],
            capture_output=True,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return ran.stdout.strip()
