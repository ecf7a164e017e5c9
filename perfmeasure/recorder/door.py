"""How a console is found and entered: its port and its token, in the store's folder ``private``.

The folder has mode 0700, so that who may read it may command the recorder. The token stays the same
when a recorder is started again; the port is there while one runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from perfmeasure.errors import InputError, UsageError
from perfmeasure.tor.onion import make_private

_TOKEN = re.compile(r"[0-9a-f]{64}\Z")
_PORT, _TOKEN_NAME = "console.port", "console.token"


def folder_of(store: Path) -> Path:
    """Return where port and token of a store's console are."""
    return store / "private"


def token_path(store: Path) -> Path:
    """Return the file of the token."""
    return folder_of(store) / _TOKEN_NAME


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        InputError: there is none.
    """
    try:
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not ASCII"
        raise InputError(str(path), f"cannot be read ({why})", "the console's token") from error
    if not _TOKEN.match(text):
        raise InputError(str(path), "no token", "64 hexadecimal digits, as the recorder wrote them")
    return text


def make_token(store: Path) -> str:
    """Return the token of a store, which is made if need be, with mode 0600.

    Raises:
        UsageError: the folder or the file is not private.
        InputError: the file holds no token.
    """
    make_private(folder_of(store))
    path = token_path(store)
    with contextlib.suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
            file.write(f"{secrets.token_hex(32)}\n")
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid != os.geteuid():
        raise UsageError(
            str(path),
            "not a file that only you can read",
            "mode 0600",
            "delete it: the recorder makes a new one",
        )
    return read_token(path)


def announce(store: Path, port: int) -> None:
    """Have the console be found at a port of 127.0.0.1."""
    path = folder_of(store) / _PORT
    temporary = path.with_suffix(".part")
    temporary.write_text(f"{port}\n", "ascii")
    temporary.replace(path)


def withdraw(store: Path) -> None:
    """Have no console be found any more."""
    (folder_of(store) / _PORT).unlink(missing_ok=True)


def announced(store: Path) -> int | None:
    """Return the port of the console, or None if none was announced.

    Raises:
        InputError: the user may not look, or the file holds no port.
    """
    path = folder_of(store) / _PORT
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            str(path), f"cannot be read ({error.strerror})", "", "be the recorder's user"
        ) from error
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise InputError(str(path), f"{text[:20]!r}", "a port")
    return int(text)
