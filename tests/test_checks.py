from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perfmeasure import checks
from perfmeasure.checks import Status
from perfmeasure.errors import MissingError
from perfmeasure.recorder import core, libpcap

if TYPE_CHECKING:
    from collections.abc import Callable

# Everything is imported first, since nobody may not be able to read the checkout.
AS_NOBODY = """
import os
from pathlib import Path
from perfmeasure import checks
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(checks.{call}.status, checks.{call}.found, checks.{call}.remedy, sep="|")
"""


def as_nobody(call: str) -> tuple[str, str, str]:
    ran = subprocess.run(
        [sys.executable, "-c", AS_NOBODY.format(call=call)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    status, found, remedy = ran.stdout.strip().split("|")
    return status, found, remedy


def program(folder: Path, name: str, prints: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("says", "status", "found"),
    [
        ("Tor version 0.4.9.11.", Status.OK, "0.4.9.11 in"),
        (
            "Tor version 0.5.0.1-alpha-dev (git-0123456789abcdef).",
            Status.OK,
            "0.5.0.1-alpha-dev in",
        ),
        ("Tor version 0.4.6.9.", Status.MISSING, "0.4.6.9 in"),
        ("Segmentation fault", Status.MISSING, "told no version: 'Segmentation fault'"),
        ("", Status.MISSING, "told no version"),
    ],
)
def test_tor_by_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, status: Status, found: str
) -> None:
    program(tmp_path, "tor", says)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    check = checks.check_tor()
    assert check.status is status
    assert found in check.found
    assert bool(check.remedy) == (status is Status.MISSING)


def test_the_real_tor_is_found_without_sbin_on_path(
    monkeypatch: pytest.MonkeyPatch, require: Callable[..., None]
) -> None:
    require("tor")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert checks.check_tor().status is Status.OK


def test_no_tor_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_program", lambda _name: None)
    check = checks.check_tor()
    assert check.status is Status.MISSING
    assert "apt-get install" in check.remedy


def test_a_tor_that_cannot_run_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tor").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "tor").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert checks.check_tor().status is Status.MISSING


def test_tgen_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    program(tmp_path, "tgen", "")
    assert checks.check_tgen().found == str(tmp_path / "tgen")
    monkeypatch.setattr(checks, "find_program", lambda _name: None)
    check = checks.check_tgen()
    assert (check.status, check.remedy) == (Status.OK, "")
    assert "built-in" in check.found


def test_packages_of_this_environment_are_listed() -> None:
    check = checks.check_packages()
    assert check.status is Status.OK, check.remedy
    assert "Twisted 2" in check.found
    assert "pytest" not in check.found  # of the extra `test`


def test_a_package_that_is_absent_or_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["click>=999", "no-such-package>=1.2", 'never>=1; python_version < "3.0"']
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: needs)
    check = checks.check_packages()
    assert check.status is Status.MISSING
    assert check.remedy.endswith("-m pip install 'click>=999' 'no-such-package>=1.2'")


def test_the_other_project_named_bcc_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bcc.py").write_text("__version__ = '9'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    check = checks.check_bcc()
    sys.modules.pop("bcc", None)
    assert check.status is Status.MISSING
    assert "another project" in check.found
    assert "python3-bpfcc" in check.remedy


@pytest.mark.parametrize(("source", "said"), [("1/0", "ZeroDivision"), ("import no_bcc", "no_bcc")])
def test_a_bcc_that_fails_on_import_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    (tmp_path / "bcc.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    check = checks.check_bcc()
    assert check.status is Status.MISSING
    assert said in check.found


def test_the_real_bcc(require: Callable[..., None]) -> None:
    require("bpf")
    assert checks.check_bcc().status is Status.OK


def test_kernel_headers_in_the_order_of_use(tmp_path: Path) -> None:
    def look(**environ: str) -> checks.Check:
        return checks.check_kernel_headers(tmp_path, environ)

    assert look().status is Status.MISSING
    assert "apt-get install --no-install-recommends linux-headers-" in look().remedy

    for name in ("linux-headers-6.1.0-9-common", "linux-headers-6.1.0-9-amd64"):
        (tmp_path / "usr/src" / name / "include").mkdir(parents=True)
    assert look().status is Status.OK
    assert "linux-headers-6.1.0-9-amd64, of another kernel" in look().found

    (tmp_path / "lib/modules" / platform.release() / "build/include").mkdir(parents=True)
    assert look().status is Status.OK

    wrong = look(BCC_KERNEL_SOURCE=str(tmp_path))
    assert wrong.status is Status.MISSING
    (tmp_path / "include").mkdir()
    assert look(BCC_KERNEL_SOURCE=str(tmp_path)).found == f"{tmp_path} (BCC_KERNEL_SOURCE)"


def test_headers_packed_in_the_kernel_count(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/kheaders.tar.xz").touch()
    assert checks.check_kernel_headers(tmp_path, {}).status is Status.OK


def test_rights_are_there_for_root(require: Callable[..., None]) -> None:
    require("root", "bpf")
    assert checks.check_bpf_right().status is Status.OK
    assert checks.check_raw_socket().status is Status.OK


def test_rights_are_refused_to_nobody(require: Callable[..., None], tmp_path: Path) -> None:
    require("root")
    status, found, remedy = as_nobody("check_raw_socket()")
    assert status == "missing"
    assert "Operation not permitted" in found
    assert "CAP_NET_RAW" in remedy
    status, found, remedy = as_nobody("check_bpf_right()")
    assert status == "missing"
    assert "cannot load a packet program: Operation not permitted" in found
    assert "CAP_BPF" in remedy
    status, _, remedy = as_nobody(f"check_disk(Path({str(tmp_path)!r}))")
    assert (status, remedy) == ("missing", "choose another --prefix")


def test_libpcap_is_told_by_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise MissingError("libpcap", "libpcap.so.0.8 cannot be loaded", next_step="install it")

    monkeypatch.setattr(libpcap, "version", lambda: "libpcap version 1.10.3")
    assert checks.check_libpcap().found == "libpcap version 1.10.3"
    monkeypatch.setattr(libpcap, "version", absent)
    check = checks.check_libpcap()
    assert (check.status, check.remedy) == (Status.WARNING, "install it")


@pytest.mark.parametrize("wish", ["", "1"])
def test_the_core_in_use_is_told(wish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "IS_NATIVE", True)
    assert checks.check_native_core().status is Status.OK
    monkeypatch.setattr(core, "IS_NATIVE", False)
    monkeypatch.setenv(core.PLAIN_VARIABLE, wish)
    check = checks.check_native_core()
    assert (check.status, "unset" in check.remedy) == (Status.WARNING, bool(wish))


def test_a_machine_without_the_bpf_call_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    check = checks.check_bpf_right()
    assert check.status is Status.MISSING
    assert "CONFIG_BPF_SYSCALL" in check.remedy


def test_nothing_is_left_open() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    checks.check_bpf_right()
    checks.check_raw_socket()
    assert sorted(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize("kind", ["tracefs", "cgroup2"])
def test_file_systems_that_are_not_mounted(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_mounts", lambda _kind: [])
    check = checks.check_tracefs() if kind == "tracefs" else checks.check_cgroup()
    assert check.status is (Status.WARNING if kind == "tracefs" else Status.MISSING)
    assert f"mount -t {kind}" in check.remedy


def test_mounts_are_found_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [str(path) for path in checks._mounts("proc")][:1] == ["/proc"]
    monkeypatch.setattr(checks, "_mounts", lambda _kind: [tmp_path])
    assert checks.check_cgroup().found == str(tmp_path)
    assert "not readable" in checks.check_tracefs().found
    (tmp_path / "events").mkdir()
    assert checks.check_tracefs().status is Status.OK


def test_the_clock_is_as_another_reader_of_adjtimex_says() -> None:
    check = checks.check_clock()
    if check.status is Status.OK:
        assert check.found.startswith("synchronised, off by at most ")
    else:
        assert "not synchronised" in check.found
        assert check.remedy


def test_the_clocksource_is_the_kernels() -> None:
    check = checks.check_clocksource()
    assert check.status is Status.OK or check.remedy or check.found == "unknown"


def test_disk_looks_at_the_nearest_folder_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.check_disk(tmp_path / "not/yet/there").found.endswith(f"free in {tmp_path}")
    monkeypatch.setattr(checks, "_MIN_FREE_BYTES", 2**70)
    assert checks.check_disk(tmp_path).status is Status.WARNING


def test_a_low_limit_of_descriptors_is_a_warning() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        check = checks.check_descriptors()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (check.status, check.remedy) == (Status.WARNING, "ulimit -n 1024")
