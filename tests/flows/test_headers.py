from __future__ import annotations

import platform
from pathlib import Path

import pytest

from perfmeasure.errors import MissingError
from perfmeasure.flows import headers
from perfmeasure.flows.headers import Headers


def debian(root: Path, version: str = "6.1.0-9", flavour: str = "amd64") -> tuple[Path, Path]:
    common = root / f"usr/src/linux-headers-{version}-common"
    own = root / f"usr/src/linux-headers-{version}-{flavour}"
    for folder, name in ((common, "bpf.h"), (own, "autoconf.h")):
        (folder / "include/linux").mkdir(parents=True, exist_ok=True)
        (folder / "include/linux" / name).write_text(name)
    (common / "Makefile").write_text("common")
    (own / "Makefile").write_text("own")
    return common, own


def test_nothing_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(
        MissingError, match="apt-get install --no-install-recommends linux-headers-"
    ):
        headers.find(tmp_path, {})


def test_the_environment_comes_first_and_must_be_right(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="has no folder include"):
        headers.find(tmp_path, {"BCC_KERNEL_SOURCE": str(tmp_path)})
    (tmp_path / "include").mkdir()
    found = headers.find(tmp_path, {"BCC_KERNEL_SOURCE": str(tmp_path)})
    assert found == Headers((tmp_path,), is_running_kernels=False, is_found_by_bcc=True)
    assert headers.folder_for_bcc(found, tmp_path) is None


def test_the_running_kernels_own_come_before_others(tmp_path: Path) -> None:
    debian(tmp_path)
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/kheaders.tar.xz").touch()
    assert headers.find(tmp_path, {}).layers == (tmp_path / "sys/kernel/kheaders.tar.xz",)
    own = tmp_path / "lib/modules" / platform.release() / "build"
    (own / "include").mkdir(parents=True)
    assert headers.find(tmp_path, {}).layers == (own,)
    assert headers.find(tmp_path, {}).is_running_kernels


@pytest.mark.parametrize("flavour", ["amd64", "cloud-amd64"])
def test_debians_two_folders_become_one(tmp_path: Path, flavour: str) -> None:
    common, own = debian(tmp_path, flavour=flavour)
    found = headers.find(tmp_path, {})
    assert found == Headers((common, own), is_running_kernels=False, is_found_by_bcc=False)
    folder = headers.folder_for_bcc(found, tmp_path / "cache")
    assert folder is not None
    names = sorted(path.name for path in (folder / "include/linux").iterdir())
    assert names == ["autoconf.h", "bpf.h"]
    assert (folder / "Makefile").read_text() == "own"
    assert headers.folder_for_bcc(found, tmp_path / "cache") == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_headers_in_one_folder_need_no_overlay(tmp_path: Path) -> None:
    folder = tmp_path / "usr/src/linux-headers-7.0.0-custom"
    (folder / "include").mkdir(parents=True)
    found = headers.find(tmp_path, {})
    assert headers.folder_for_bcc(found, tmp_path / "cache") == folder
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    debian(tmp_path)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(MissingError, match="XDG_CACHE_HOME"):
        headers.folder_for_bcc(headers.find(tmp_path, {}), tmp_path / "cache")


def test_the_cache_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert headers.cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert headers.cache_folder({}) == tmp_path / ".cache"
