"""The checks of `perfmeasure doctor`: each looks at one thing that a part of perfmeasure needs.

Rights are tried, not guessed from the user id: a container's root may hold none of them, and a
plain user may have been given one. Nothing is changed and nothing is left open.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import importlib
import importlib.metadata
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmeasure.errors import MissingError
from perfmeasure.flows import bpfcall, headers
from perfmeasure.recorder import core, libpcap
from perfmeasure.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST_TOR = (0, 4, 7)
"""The oldest tor series whose events and options the measurement relies on."""

_MIN_FREE_BYTES = 5 * 1024**3
_MIN_DESCRIPTORS = 1024
_ROOT = Path("/")
_SLOW_CLOCKSOURCES = frozenset({"acpi_pm", "hpet", "jiffies", "pit", "refined-jiffies"})


class Status(enum.StrEnum):
    """How one check ended."""

    OK = "ok"
    """It is there, or is not needed."""
    WARNING = "warning"
    """The part works without it, but less well or not in every case."""
    MISSING = "missing"
    """The part cannot work without it."""


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    name: str
    """What was looked at."""
    status: Status
    found: str
    """What was found, in words."""
    remedy: str = ""
    """What to do about it: a command or a setting. Empty when nothing is to be done."""


# ---- measure ------------------------------------------------------------------------------------


def find_program(name: str) -> str | None:
    """Return the path of a program, also from the folders for daemons that users' PATHs lack."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    return shutil.which(name, path=path)


def _first_line(*command: str) -> str:
    """Return the first line a program prints, or nothing when it does not run."""
    try:
        ran = subprocess.run(
            command, capture_output=True, timeout=20, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter((ran.stdout or ran.stderr).decode(errors="replace").splitlines()), "")


def check_tor() -> Check:
    """Whether a tor that is new enough is installed."""
    install = "apt-get install --no-install-recommends tor"
    path = find_program("tor")
    if path is None:
        return Check("tor", Status.MISSING, "no program tor on PATH", install)
    said = _first_line(path, "--version")
    version = re.search(r"(\d+)\.(\d+)\.(\d+)\S*?(?=\.?(?:\s|$))", said)
    if version is None:
        return Check("tor", Status.MISSING, f"{path} told no version: {said!r}", install)
    oldest = ".".join(map(str, OLDEST_TOR))
    if tuple(map(int, version.groups())) < OLDEST_TOR:
        return Check("tor", Status.MISSING, f"{version[0]} in {path}", f"install tor >= {oldest}")
    return Check("tor", Status.OK, f"{version[0]} in {path} (needs >= {oldest})")


def check_tgen() -> Check:
    """Which traffic generator a measurement uses."""
    path = find_program("tgen")
    if path is None:
        return Check("tgen", Status.OK, "no program tgen on PATH: the built-in generator is used")
    return Check("tgen", Status.OK, path)


def _version_numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:4])


def check_packages() -> Check:
    """Whether the Python packages that perfmeasure declares are here, and new enough."""
    name = "python packages"
    try:
        declared = importlib.metadata.requires("perfmeasure") or []
    except importlib.metadata.PackageNotFoundError:
        return Check(
            name,
            Status.WARNING,
            "perfmeasure runs without being installed, so its needs are not known",
            "pip install -e . in the checkout (./run does it)",
        )
    here, lacking = [], []
    for requirement in declared:
        wanted, _, marker = requirement.partition(";")
        if not _applies(marker):
            continue
        package, _, oldest = wanted.strip().partition(">=")
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(wanted.strip())
            continue
        here.append(f"{package} {version}")
        if _version_numbers(version) < _version_numbers(oldest):
            lacking.append(wanted.strip())
    found = ", ".join(here) or "none"
    if lacking:
        quoted = " ".join(f"'{wanted}'" for wanted in lacking)
        return Check(name, Status.MISSING, found, f"{sys.executable} -m pip install {quoted}")
    return Check(name, Status.OK, found)


def _applies(marker: str) -> bool:
    """Whether a requirement with this marker is meant for this Python, and is no extra's."""
    if "extra" in marker:
        return False
    limit = re.search(r'python_version\s*<\s*"([\d.]+)"', marker)
    return limit is None or sys.version_info[:2] < _version_numbers(limit[1])


# ---- flows --------------------------------------------------------------------------------------


def check_bcc() -> Check:
    """Whether bcc imports, and is the compiler collection and not PyPI's project of that name."""
    remedy = "apt-get install --no-install-recommends python3-bpfcc, then run ./run once more"
    try:
        bcc: Any = importlib.import_module("bcc")
    except ImportError as error:
        return Check("bcc", Status.MISSING, f"{error}", remedy)
    except Exception as error:  # noqa: BLE001 - another project's module may fail in any way
        return Check("bcc", Status.MISSING, f"bcc fails on import: {error!r}", remedy)
    if not hasattr(bcc, "BPF"):
        return Check(
            "bcc",
            Status.MISSING,
            f"another project of the same name in {getattr(bcc, '__file__', 'this Python')}",
            f"pip uninstall bcc; {remedy}",
        )
    return Check("bcc", Status.OK, f"{getattr(bcc, '__version__', 'version unknown')}")


def check_kernel_headers(root: Path = _ROOT, environ: Mapping[str, str] = os.environ) -> Check:
    """Whether there are kernel headers that bcc can compile with."""
    name = "kernel headers"
    try:
        found = headers.find(root, environ)
    except MissingError as error:
        return Check(name, Status.MISSING, error.got, error.next_step)
    where = f"{found.layers[-1]}"
    if found.is_running_kernels:
        return Check(name, Status.OK, f"{where}, of the running kernel")
    if found.is_found_by_bcc:
        return Check(name, Status.OK, f"{where} (BCC_KERNEL_SOURCE)")
    return Check(
        name,
        Status.OK,
        f"{where}, of another kernel than the running {platform.release()}: "
        "enough, since only stable structures are used",
    )


# `r0 = 0; exit`, the least program there is; both instructions are 8 bytes.
_PROGRAM = bytes.fromhex("b7000000000000009500000000000000")


def _try_bpf(command: bpfcall.Command, attributes: bytes) -> int:
    """Call bpf(2) for a descriptor, close that, and return 0 or the error's number."""
    try:
        os.close(bpfcall.bpf(command, attributes))
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _u32s(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, sys.byteorder) for value in values)


def check_bpf_right() -> Check:
    """Whether this process may create a BPF map and load a program for packets and for tracing."""
    program, licence = ctypes.create_string_buffer(_PROGRAM), ctypes.create_string_buffer(b"BSD")
    pointers = b"".join(
        ctypes.addressof(buffer).to_bytes(8, sys.byteorder) for buffer in (program, licence)
    )
    create, load = bpfcall.Command.MAP_CREATE, bpfcall.Command.PROG_LOAD
    attempts = {
        "create a map": (create, _u32s(2, 4, 8, 1)),  # an array, 4-byte key, 8-byte value
        "load a packet program": (load, _u32s(6, 2) + pointers + bytes(24)),  # XDP
        "load a tracing program": (load, _u32s(17, 2) + pointers + bytes(24)),  # raw_tp
    }
    refused = {what: code for what, attempt in attempts.items() if (code := _try_bpf(*attempt))}
    if not refused:
        return Check("BPF right", Status.OK, "map created, packet and tracing programs loaded")
    found = "; ".join(f"cannot {what}: {os.strerror(code)}" for what, code in refused.items())
    if errno.ENOSYS in refused.values():
        remedy = "a kernel with CONFIG_BPF_SYSCALL"
    elif os.geteuid() == 0:
        remedy = "grant CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN to this container or service"
    else:
        remedy = "run as root, or grant CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
    return Check("BPF right", Status.MISSING, found, remedy)


def _mounts(kind: str) -> list[Path]:
    """Return where file systems of this kind are mounted."""
    try:
        rows = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return []
    return [Path(row[1]) for row in rows if len(row) > 2 and row[2] == kind]


def check_tracefs() -> Check:
    """Whether tracepoints can be looked up. Programs on control groups do without."""
    remedy = "mount -t tracefs tracefs /sys/kernel/tracing"
    mounted = _mounts("tracefs")
    if not mounted:
        return Check("tracefs", Status.WARNING, "not mounted: no tracepoint can be used", remedy)
    if not os.access(mounted[0] / "events", os.R_OK | os.X_OK):
        found = f"{mounted[0]} is not readable for this user"
        return Check("tracefs", Status.WARNING, found, "run as root")
    return Check("tracefs", Status.OK, f"{mounted[0]}")


def check_cgroup() -> Check:
    """Whether a control group of version 2 is there to attach programs to."""
    mounted = _mounts("cgroup2")
    if mounted:
        return Check("cgroup v2", Status.OK, f"{mounted[0]}")
    remedy = "mkdir -p /run/cgroup2 && mount -t cgroup2 cgroup2 /run/cgroup2"
    return Check("cgroup v2", Status.MISSING, "not mounted", remedy)


# ---- recorder -----------------------------------------------------------------------------------


def check_raw_socket() -> Check:
    """Whether this process may open a packet socket."""
    try:
        # Protocol 0 binds to nothing: no packet is taken while we look.
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError as error:
        remedy = "grant CAP_NET_RAW" if os.geteuid() == 0 else "run as root, or grant CAP_NET_RAW"
        found = f"cannot open a packet socket: {os.strerror(error.errno or 0)}"
        return Check("raw socket", Status.MISSING, found, remedy)
    return Check("raw socket", Status.OK, "a packet socket opens")


def check_libpcap() -> Check:
    """Whether filters in pcap's language can be used."""
    try:
        return Check("libpcap", Status.OK, libpcap.version())
    except MissingError as error:
        found = f"{error.got}: no filter can be used"
        return Check("libpcap", Status.WARNING, found, error.next_step)


def check_native_core() -> Check:
    """Whether the recorder's inner loops are the C extension, or numpy."""
    name = "recorder core"
    if core.IS_NATIVE:
        return Check(name, Status.OK, "the C extension")
    if os.environ.get(core.PLAIN_VARIABLE):
        found, remedy = f"numpy ({core.PLAIN_VARIABLE} is set)", f"unset {core.PLAIN_VARIABLE}"
    else:
        found = "numpy, as no C extension was built"
        remedy = (
            "apt-get install --no-install-recommends gcc libc6-dev python3-dev, then install "
            "perfmeasure anew (./run does it)"
        )
    return Check(name, Status.WARNING, f"{found}: the same packets, ten times slower", remedy)


# ---- general ------------------------------------------------------------------------------------

_TIME_ERROR = 5  # what adjtimex(2) returns for a clock that nothing keeps right
_TIMEX_BYTES = 208


def check_clock() -> Check:
    """Whether something keeps this machine's clock right."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: read, change nothing
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except AttributeError:
        state = -1
    if state < 0:
        return Check("clock", Status.WARNING, "the kernel does not tell its state")
    if state == _TIME_ERROR:
        return Check(
            "clock",
            Status.WARNING,
            "not synchronised: times cannot be compared with other machines'",
            "apt-get install chrony (or leave it to the host of this virtual machine)",
        )
    word = ctypes.sizeof(ctypes.c_long)
    max_error_us = ctypes.c_long.from_buffer(buffer, 3 * word).value
    return Check("clock", Status.OK, f"synchronised, off by at most {max_error_us / 1000:.0f} ms")


def check_clocksource() -> Check:
    """Whether reading the clock is cheap."""
    path = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    try:
        name = path.read_text().strip()
    except OSError:
        return Check("clocksource", Status.WARNING, "unknown")
    if name in _SLOW_CLOCKSOURCES:
        found = f"{name}: each time stamp costs a microsecond or more"
        return Check(
            "clocksource", Status.WARNING, found, "boot with clocksource=tsc if it has one"
        )
    return Check("clocksource", Status.OK, name)


def check_disk(prefix: Path = Path("perfmeasure-data")) -> Check:
    """Whether there is room, and the right to write, where the data directory is or would be."""
    whole = prefix.absolute()
    place = next(path for path in (whole, *whole.parents) if os.access(path, os.F_OK))
    free_bytes = shutil.disk_usage(place).free
    found = f"{format_bytes(free_bytes)} free in {place}"
    if not os.access(place, os.W_OK | os.X_OK):
        remedy = "choose another --prefix"
        return Check("disk", Status.MISSING, f"{place} is not writable for this user", remedy)
    if free_bytes < _MIN_FREE_BYTES:
        return Check("disk", Status.WARNING, found, f"free {format_bytes(_MIN_FREE_BYTES)}")
    return Check("disk", Status.OK, found)


def check_descriptors() -> Check:
    """Whether enough files and sockets may be open at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    found = " of at most ".join("unlimited" if n == unlimited else str(n) for n in (soft, hard))
    if soft != unlimited and soft < _MIN_DESCRIPTORS:
        remedy = f"ulimit -n {_MIN_DESCRIPTORS}"
        return Check("file descriptors", Status.WARNING, found, remedy)
    return Check("file descriptors", Status.OK, found)
