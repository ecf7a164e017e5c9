"""The console of a running recorder, for clients on this machine that know its token.

A TCP server on 127.0.0.1, with a thread for each client, as queries keep a thread busy. The
protocol is in docs/recorder.md. No client can harm another one, or the recording: lines, clients
and blocks of data have a bound, nothing is kept for a client that does not read, and one that takes
nothing for half a minute is cut off.
"""

from __future__ import annotations

import contextlib
import hmac
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Self

from perfmeasure.errors import MeasurementError
from perfmeasure.recorder import door
from perfmeasure.recorder.console import Console
from perfmeasure.recorder.language import MAX_LINE_BYTES
from perfmeasure.recorder.recorder import Recorder

GREETING = b"perfmeasure console 1\n"
HOST = "127.0.0.1"
MAX_CLIENTS = 16
DATA_BYTES = 1 << 20
"""The most that one block of data holds."""

_TOKEN_SECONDS = 10.0
_SEND_SECONDS = 30.0
_STOP_SECONDS = 5.0
_READ_BYTES = 65536
_PAUSE_SECONDS = 0.1


class ConsoleServer:
    """The console of a recorder, over TCP; a context around `Recorder.capture`.

    Args:
        recorder: whose console it is.
        port: to listen on; 0 takes a free one.
        tell: is given messages for the user.
        send_seconds: how long a client may take nothing.

    Raises:
        UsageError: the store's folder ``private`` is not private.
        InputError: the token file holds none.
        MeasurementError: the port is in use.
    """

    def __init__(
        self,
        recorder: Recorder,
        port: int,
        tell: Callable[[str], None],
        send_seconds: float = _SEND_SECONDS,
    ) -> None:
        self._store: Path = recorder.writer.folder
        self._tell = tell
        self._send_seconds = send_seconds
        self._token = door.make_token(self._store)
        self._console = Console(self._store, recorder, tell)
        self._clients: dict[_Connection, threading.Thread] = {}
        self._lock = threading.Lock()
        self._is_stopping = False
        try:
            self._socket = socket.create_server((HOST, port))
        except OSError as error:
            raise MeasurementError(
                f"console port {port}", f"cannot be opened ({error.strerror})", "a free port"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="console", daemon=True)

    def __enter__(self) -> Self:
        """Take clients from now on."""
        self._thread.start()
        door.announce(self._store, self.port)
        return self

    def __exit__(self, *error: object) -> None:
        """Let subscriptions deliver what was recorded, and end."""
        door.withdraw(self._store)
        self._is_stopping = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join()
        self._socket.close()
        self._console.close()
        with self._lock:
            clients = list(self._clients.items())
        for connection, _ in clients:
            connection.hang_up()
        for _, thread in clients:
            thread.join(_STOP_SECONDS)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                if self._is_stopping:
                    return
                time.sleep(_PAUSE_SECONDS)  # perhaps too many files are open
                continue
            client.settimeout(min(_TOKEN_SECONDS, self._send_seconds))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection = _Connection(client)
            with self._lock:
                is_full = len(self._clients) >= MAX_CLIENTS
                if not is_full:
                    thread = threading.Thread(
                        target=self._serve, args=(connection,), name="client", daemon=True
                    )
                    self._clients[connection] = thread
                    thread.start()
            if is_full:
                with contextlib.suppress(OSError):
                    connection.send(b"ERROR too many clients\n")
                connection.hang_up()
                client.close()

    def _serve(self, connection: _Connection) -> None:
        try:
            if self._admit(connection):
                connection.set_timeout(self._send_seconds)
                while (line := connection.line()) is not None:
                    connection.reply(self._answer(line, connection))
        except OSError:
            pass  # the client is gone, or takes nothing
        finally:
            connection.hang_up()
            self._console.leave(connection)
            connection.close()
            with self._lock:
                self._clients.pop(connection, None)

    def _admit(self, connection: _Connection) -> bool:
        connection.send(GREETING)
        line = connection.line(_TOKEN_SECONDS)
        is_right = line is not None and hmac.compare_digest(
            line.encode(), f"token {self._token}".encode()
        )
        connection.reply("OK" if is_right else "ERROR wrong token")
        return is_right

    def _answer(self, line: str, connection: _Connection) -> str:
        try:
            return self._console.execute(line, connection)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - the client is told, the recording goes on
            traceback.print_exc(file=sys.stderr)
            return f"ERROR a defect of perfmeasure itself: {type(error).__name__}"


class _Connection:
    """One client: a `perfmeasure.recorder.outlet.Client`."""

    def __init__(self, client: socket.socket) -> None:
        self._socket = client
        self._lock = threading.Lock()
        self._read = b""

    def line(self, timeout_seconds: float | None = None) -> str | None:
        """Return the next line without its end; None when there are no more.

        Args:
            timeout_seconds: how long to wait for it; for ever without.

        Raises:
            OSError: the client is gone, too slow, or sends a line that is too long.
        """
        until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while b"\n" not in self._read[: MAX_LINE_BYTES + 1]:
            if len(self._read) > MAX_LINE_BYTES:
                self.reply(f"ERROR a line of more than {MAX_LINE_BYTES} bytes")
                raise ConnectionAbortedError("line too long")
            try:
                content = self._socket.recv(_READ_BYTES)
            except TimeoutError:
                content = None  # who sits before a console may think
            if until is not None and time.monotonic() > until:
                raise TimeoutError
            if content == b"":
                return None
            self._read += content or b""
        line, _, self._read = self._read.partition(b"\n")
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def set_timeout(self, seconds: float) -> None:
        """Have sending fail when the client takes nothing for so long."""
        self._socket.settimeout(seconds)

    def text(self, line: str) -> None:
        """See `Client`."""
        self.send(f" {line}\n".encode())

    def reply(self, line: str) -> None:
        """Send the last line of an answer."""
        self.send(f"{line}\n".encode())

    def data(self, program: str, tag: str, content: bytes) -> None:
        """See `Client`."""
        for at in range(0, max(len(content), 1), DATA_BYTES):
            block = content[at : at + DATA_BYTES]
            self.send(f"DATA {program} {tag} {len(block)}\n".encode() + block)

    def send(self, content: bytes) -> None:
        """Send all.

        Raises:
            OSError: the client is gone, or takes nothing.
        """
        with self._lock:
            try:
                self._socket.sendall(content)
            except OSError:
                self.hang_up()  # half of it may be sent: nothing may follow
                raise

    def hang_up(self) -> None:
        """End the connection, which wakes who waits for it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the socket."""
        self._socket.close()
