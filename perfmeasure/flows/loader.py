"""Compiles a program of ``bpf/`` with bcc and loads its functions into the kernel.

This is the one place that imports bcc. What goes wrong becomes one message that says what the
machine lacks: bcc itself, kernel headers, the right to load, or a hook that this kernel has not.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmeasure.errors import MissingError
from perfmeasure.flows import headers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BPF_FOLDER = Path(__file__).resolve().parent.parent / "bpf"
_REPORT_LINES = 4


class Program:
    """One compiled file of ``bpf/``, its loaded functions and its maps.

    Args:
        file_name: the file in ``bpf/``, ``flows.bpf.c`` say. What it includes is beside it.
        functions: the kind of each function to load, as bcc names it: ``{"count": "XDP"}``.
        definitions: preprocessor symbols.
        attach_types: for functions that the kernel loads for one hook only, which (`AttachType`).

    Raises:
        MissingError: it cannot be compiled or loaded here.
    """

    def __init__(
        self,
        file_name: str,
        functions: Mapping[str, str],
        definitions: Mapping[str, int | str] | None = None,
        attach_types: Mapping[str, int] | None = None,
    ) -> None:
        self._bcc = _import_bcc()
        path = BPF_FOLDER / file_name
        flags = [f"-I{path.parent}", "-Wno-macro-redefined"]
        flags += [f"-D{name}={value}" for name, value in (definitions or {}).items()]
        self.functions: dict[str, Any] = {}
        with _one_report(file_name) as report:
            self.table = self._compile(path, flags)
            for name, kind in functions.items():
                try:
                    self.functions[name] = self.table.load_func(
                        name.encode(),
                        getattr(self._bcc.BPF, kind),
                        attach_type=(attach_types or {}).get(name, -1),
                    )
                except Exception as error:
                    raise _not_loaded(file_name, name, report()) from error

    def fd(self, function: str) -> int:
        """Return the descriptor of a loaded function."""
        return int(self.functions[function].fd)

    def map_fd(self, name: str) -> int:
        """Return the descriptor of a map."""
        # Not self.table[name].map_fd: bcc makes no object of some kinds of map.
        return int(self._bcc.lib.bpf_table_fd(self.table.module, name.encode()))

    def _compile(self, path: Path, flags: Sequence[str]) -> Any:
        with _headers_shown():
            return self._bcc.BPF(src_file=os.fsencode(path), cflags=list(flags))


@contextlib.contextmanager
def _headers_shown() -> Iterator[None]:
    """Name the headers to bcc, in the environment, which children started later do not get."""
    source = headers.folder_for_bcc(headers.find(), headers.cache_folder())
    if source is None:
        yield
        return
    before = os.environ.get(headers.SOURCE_VARIABLE)
    os.environ[headers.SOURCE_VARIABLE] = str(source)
    try:
        yield
    finally:
        del os.environ[headers.SOURCE_VARIABLE]
        if before is not None:
            os.environ[headers.SOURCE_VARIABLE] = before


def _import_bcc() -> Any:
    remedy = (
        "install it: apt-get install --no-install-recommends python3-bpfcc, "
        "then run ./run once more"
    )
    try:
        bcc = importlib.import_module("bcc")
    except Exception as error:
        # Another project of the same name may fail in any way.
        raise MissingError("bcc", f"cannot be imported ({error})", next_step=remedy) from error
    if not hasattr(bcc, "BPF"):
        found = f"another project of the same name in {getattr(bcc, '__file__', 'this Python')}"
        raise MissingError("bcc", found, next_step=f"pip uninstall bcc; {remedy}")
    return bcc


@contextlib.contextmanager
def _one_report(file_name: str) -> Iterator[Any]:
    """Keep what the compiler and the verifier print on standard error, for the message.

    Yields a function that returns the first lines of it.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        saved = os.dup(2)
        os.dup2(kept.fileno(), 2)

        def report() -> str:
            kept.seek(0)
            lines = kept.read().decode("utf-8", "replace").splitlines()
            said = [line.strip() for line in lines if line.strip()]
            errors = [line for line in said if "error" in line.lower()]
            return "; ".join((errors or said[-_REPORT_LINES:])[:_REPORT_LINES])

        try:
            yield report
        except MissingError:
            raise
        except Exception as error:
            said = report() or str(error)
            if "not permitted" in said:  # bcc makes the maps while it compiles
                raise _not_loaded(file_name, "maps", said) from error
            raise MissingError(
                file_name,
                f"bcc cannot compile it ({said})",
                next_step="run perfmeasure doctor flows",
            ) from error
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _not_loaded(file_name: str, function: str, report: str) -> MissingError:
    if os.geteuid() != 0:
        next_step = "run as root, or grant CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
    else:
        next_step = "run perfmeasure doctor flows"
    return MissingError(
        f"{file_name}: {function}", f"the kernel does not load it ({report})", next_step=next_step
    )
