from __future__ import annotations

import getpass
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import perfmeasure
from perfmeasure import hostinfo, jsonio

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def test_it_is_this_machine() -> None:
    info = hostinfo.host_info("0.4.9.11")
    assert info["kernel_release"] == os.uname().release
    assert info["architecture"] == os.uname().machine
    assert info["cpu_count"] == os.cpu_count()
    assert info["memory_bytes"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert info["python_version"] == platform.python_version()
    assert info["perfmeasure_version"] == perfmeasure.__version__
    assert info["tor_version"] == "0.4.9.11"
    assert info["libraries"]["stem"].startswith("1.8")


def test_the_sysctls_are_as_sysctl_would_print_them() -> None:
    sysctls = hostinfo.host_info()["sysctls"]
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    assert sysctls["net.ipv4.tcp_congestion_control"] == control
    assert re.fullmatch(r"\d+ \d+ \d+", sysctls["net.ipv4.tcp_rmem"])
    assert list(sysctls) == sorted(sysctls)


def test_it_is_json_and_says_nothing_private() -> None:
    text = jsonio.canonical(hostinfo.host_info("0.4.9.11")).decode()
    assert not re.search(r"\b\d{1,3}(\.\d{1,3}){3}\b", text.replace('"0.4.9.11"', ""))
    assert "hostname" not in text
    assert str(Path.home()) not in text
    assert getpass.getuser() not in text
    assert not re.search(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", text)


def test_the_host_name_only_when_asked_for() -> None:
    assert hostinfo.host_info(with_hostname=True)["hostname"] == os.uname().nodename


def test_unknown_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise PermissionError(13, "not for you")

    for name in ("read_text", "open"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(platform, "freedesktop_os_release", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)
    info = hostinfo.host_info()
    assert None not in info.values()
    assert not {"tor_version", "sysctls", "cpu_model", "memory_bytes", "perfmeasure_commit"} & set(
        info
    )
    assert info["kernel_release"] == os.uname().release


def test_the_commit_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require: Callable[..., None]
) -> None:
    require("git")
    monkeypatch.setattr(hostinfo, "_CHECKOUT", tmp_path)
    assert hostinfo._commit() is None

    who = ("-c", "user.name=n", "-c", "user.email=e")
    for command in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    assert re.fullmatch(r"[0-9a-f]{7,40}", hostinfo._commit() or "")

    subprocess.run(["git", "-C", tmp_path, "tag", "v9"], check=True)
    assert hostinfo._commit() == "v9"
    (tmp_path / "new").touch()
    subprocess.run(["git", "-C", tmp_path, "add", "new"], check=True)
    assert hostinfo._commit() == "v9-dirty"
