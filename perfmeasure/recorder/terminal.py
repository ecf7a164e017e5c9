"""``perfmeasure console``: commands from a terminal, or from a pipe, to a recorder or a store."""

from __future__ import annotations

import contextlib
import os
import readline
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import click

from perfmeasure.errors import ExitStatus, UsageError
from perfmeasure.recorder import door, language
from perfmeasure.recorder.client import RemoteConsole
from perfmeasure.recorder.commands import store_folder, store_options
from perfmeasure.recorder.console import Console
from perfmeasure.recorder.feeds import Feeds, parse_feed
from perfmeasure.recorder.outlet import Client
from perfmeasure.recorder.server import HOST
from perfmeasure.recorder.store import Store

_PROMPT = "perfmeasure> "
_LEAVE = ("quit", "exit")
_HISTORY_LINES = 1000
_WAIT_SECONDS = 0.2


class Commanded(Protocol):
    """What carries out commands."""

    def execute(self, line: str, client: Client) -> str:
        """Return the last line of the answer."""

    def close(self) -> None:
        """Let go of it."""


@click.command("console")
@store_options
@click.option(
    "--connect", metavar="HOST:PORT", help="A recorder's console elsewhere, such as in a tunnel.",
)  # fmt: skip
@click.option(
    "--token-file", type=click.Path(path_type=Path), metavar="FILE",
    help="The token for --connect: private/console.token of the store.",
)  # fmt: skip
@click.option(
    "--feed", "feeds", multiple=True, metavar="NAME=COMMAND",
    help="A program that takes pcap on its standard input, for `query feed NAME`; no shell. May be "
    "given several times.",
)  # fmt: skip
def console_command(
    store: Path | None, prefix: Path | None, connect: str | None, token_file: Path | None,
    feeds: tuple[str, ...],
) -> int:  # fmt: skip
    """Give commands to a running recorder, or queries to a store: help lists them.

    Commands are read from the terminal, or line by line from a pipe. A recorder that runs on the
    store is found by itself; without one, only queries are answered. The exit status is 1 if a
    command of a pipe was answered with ERROR, or a program that was fed has failed.
    """
    client = Feeds(
        dict(map(parse_feed, feeds)), click.echo, lambda text: click.echo(text, err=True)
    )
    if (connect is None) != (token_file is None):
        raise UsageError("--connect, --token-file", "one without the other", "both")
    if connect is not None and token_file is not None:
        if store is not None or prefix is not None:
            raise UsageError("--connect", "given together with a store", "one of them")
        console: Commanded = _elsewhere(connect, token_file, client)
    else:
        console = _here(store_folder(store, prefix), client)
    is_interactive = sys.stdin.isatty()
    errors = 0
    try:
        for line in _typed() if is_interactive else _piped():
            reply = _execute(console, line, client)
            click.echo(reply)
            errors += reply.startswith("ERROR")
        # What is subscribed to goes on until the recorder ends, or it is over, or Ctrl-C.
        while not is_interactive and not client.wait(_WAIT_SECONDS):
            pass
    finally:
        console.close()
        client.close()
    is_good = is_interactive or not (errors or client.failures)
    return ExitStatus.DONE if is_good else ExitStatus.FAILED


def _execute(console: Commanded, line: str, client: Feeds) -> str:
    """Carry out a command; a feed to a program that was not named is not begun."""
    with contextlib.suppress(UsageError):
        command = language.parse(line)
        target = command.target if isinstance(command, language.Query) else None
        if isinstance(target, language.Feed) and target.program not in client.programs:
            return f"ERROR feed {target.program}: no such program; wanted --feed NAME=COMMAND"
    return console.execute(line, client)


def _elsewhere(address: str, token_file: Path, client: Feeds) -> RemoteConsole:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError("--connect", repr(address), "HOST:PORT")
    try:
        return RemoteConsole(host.strip("[]"), int(port), door.read_token(token_file), client)
    except ConnectionRefusedError as error:
        raise UsageError("--connect", f"nothing listens at {address}", "a recorder") from error


def _here(folder: Path, client: Feeds) -> Commanded:
    """Return the console of the recorder that runs on a store; without one, of the store."""
    Store(folder).close()  # says so if there is none
    port = door.announced(folder)
    if port is not None:
        token = door.read_token(door.token_path(folder))
        # A recorder that was killed did not take its port back.
        with contextlib.suppress(ConnectionRefusedError):
            return RemoteConsole(HOST, port, token, client)
    click.echo(f"perfmeasure: no recorder runs on {folder}: queries only", err=True)
    return Console(folder)


# ---- lines --------------------------------------------------------------------------------------


def _piped() -> Iterator[str]:
    for line in sys.stdin:
        if line.strip() in _LEAVE:
            return
        if line.strip():
            yield line.strip()


def _typed() -> Iterator[str]:
    """Yield lines from the terminal, with history and completion by the Tab key."""
    history = _history_path()
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(_HISTORY_LINES)
    readline.set_completer_delims(" \t")
    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    try:
        while (line := input(_PROMPT).strip()) not in _LEAVE:
            if line:
                yield line
    except EOFError:
        click.echo()
    finally:
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
            history.chmod(0o600)


def complete(text: str, state: int) -> str | None:
    """Return the ``state``-th word of the language that begins with ``text``, for readline."""
    found = [word for word in (*language.WORDS, *_LEAVE) if word.startswith(text)]
    return f"{found[state]} " if state < len(found) else None


def _history_path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "perfmeasure" / "console.history"
