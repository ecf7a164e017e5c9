"""Names of system calls, against the headers of the machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perfmeasure.flows.call_names import CALL_OF_32_BITS, call_name, call_names

DEFINITION = re.compile(r"(?m)^#define __NR_(\w+)\s+(\d+)\s*$")


def test_the_names_are_those_of_the_machines_headers() -> None:
    headers = sorted(Path("/usr/include").glob("*/asm/unistd_64.h"))
    if not headers:
        pytest.skip("no linux-libc-dev of x86_64")
    wanted = {int(number): name for name, number in DEFINITION.findall(headers[0].read_text())}
    ours = call_names("x86_64")
    assert len(wanted) > 300
    assert {number: ours.get(number) for number in wanted} == wanted


def test_the_generic_names_are_those_of_the_headers() -> None:
    header = Path("/usr/include/asm-generic/unistd.h")
    if not header.exists():
        pytest.skip("no linux-libc-dev")
    # Calls from 403 to 423 are for 32-bit machines only; the others have one number everywhere.
    wanted = {
        int(number): name
        for name, number in DEFINITION.findall(header.read_text())
        if not 403 <= int(number) <= 423
        and name not in {"arch_specific_syscall", "sync_file_range2", "syscalls"}
    }
    ours = call_names("aarch64")
    assert len(wanted) > 250
    assert {number: ours.get(number) for number in wanted} == wanted


def test_what_is_not_known_keeps_its_number() -> None:
    names = call_names("x86_64")
    assert call_name(110, names) == "getppid"
    assert call_name(4000, names) == "4000"
    assert call_name(20 | CALL_OF_32_BITS, names) == "32-bit:20"
    assert call_names("vax") == {}
    assert call_name(110, {}) == "110"
