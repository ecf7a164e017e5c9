"""Finds kernel headers that bcc can compile with, or makes one folder of them out of two.

The programs in ``bpf/`` use only structures that are the same in every kernel (UAPI), so headers of
another kernel than the running one serve. Debian ships those in two folders,
``linux-headers-V-ARCH`` and ``linux-headers-V-common``; bcc takes one. An overlay of symbolic links
puts both together in the user's cache.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from perfmeasure.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path("/")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclasses.dataclass(frozen=True)
class Headers:
    """Kernel headers: the folders that make them up, the upper one last, and whose they are.

    ``is_found_by_bcc`` tells that bcc looks there on its own.
    """

    layers: tuple[Path, ...]
    is_running_kernels: bool
    is_found_by_bcc: bool


def package_name() -> str:
    """Return the Debian package with kernel headers for this machine."""
    return f"linux-headers-{_ARCHITECTURES.get(platform.machine(), platform.machine())}"


def find(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> Headers:
    """Return the headers to compile with.

    Args:
        root: the root of the file system.
        environ: where ``BCC_KERNEL_SOURCE`` may name a folder.

    Raises:
        MissingError: there are none.
    """
    release = platform.release()
    if source := environ.get("BCC_KERNEL_SOURCE"):
        if (Path(source) / "include").is_dir():
            return Headers((Path(source),), is_running_kernels=False, is_found_by_bcc=True)
        raise MissingError(
            "kernel headers",
            f"BCC_KERNEL_SOURCE names {source}, which has no folder include",
            next_step="unset BCC_KERNEL_SOURCE, or name a folder with a kernel's headers",
        )
    own = root / "lib/modules" / release / "build"
    if (own / "include").is_dir():
        return Headers((own,), is_running_kernels=True, is_found_by_bcc=True)
    if (packed := root / "sys/kernel/kheaders.tar.xz").exists():
        return Headers((packed,), is_running_kernels=True, is_found_by_bcc=True)
    for folder in sorted(root.glob("usr/src/linux-headers-*"), reverse=True):
        if folder.name.endswith("-common") or not (folder / "include").is_dir():
            continue
        # linux-headers-6.1.0-9-amd64 and linux-headers-6.1.0-9-cloud-amd64 share one -common.
        words = folder.name.split("-")
        commons = (
            folder.with_name("-".join([*words[:count], "common"]))
            for count in range(len(words) - 1, 1, -1)
        )
        common = next((path for path in commons if path.is_dir()), None)
        layers = (folder,) if common is None else (common, folder)
        return Headers(layers, is_running_kernels=False, is_found_by_bcc=False)
    raise MissingError(
        "kernel headers",
        f"none for {release}, and none of another kernel in /usr/src",
        next_step=f"install some: apt-get install --no-install-recommends {package_name()}",
    )


def folder_for_bcc(headers: Headers, cache: Path) -> Path | None:
    """Return the folder to name in ``BCC_KERNEL_SOURCE``, None where bcc finds the headers itself.

    Two layers are linked into one folder below ``cache`` at the first call; it is used again.

    Raises:
        MissingError: ``cache`` is not writable.
    """
    if headers.is_found_by_bcc:
        return None
    if len(headers.layers) == 1:
        return headers.layers[0]
    target = cache / "perfmeasure" / f"kernel-headers-{headers.layers[-1].name}"
    if (target / "include").is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=target.parent, prefix=".kernel-headers-"))
        try:
            _overlay(headers.layers, making)
            making.rename(target)
        except OSError:
            shutil.rmtree(making, ignore_errors=True)
            if not (target / "include").is_dir():  # another process was quicker
                raise
    except OSError as error:
        raise MissingError(
            str(target),
            f"kernel headers cannot be linked together here ({error.strerror})",
            next_step="name a writable folder in XDG_CACHE_HOME",
        ) from error
    return target


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the user's cache folder (XDG base directory specification)."""
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _overlay(layers: tuple[Path, ...], target: Path) -> None:
    """Link what is in ``layers`` into ``target``; folders that several have are made and filled."""
    names = {entry.name for layer in layers for entry in layer.iterdir()}
    for name in sorted(names):
        having = tuple(layer / name for layer in layers if (layer / name).exists())
        if len(having) > 1 and all(path.is_dir() for path in having):
            (target / name).mkdir()
            _overlay(having, target / name)
        elif having:
            (target / name).symlink_to(having[-1])
