"""The other end of `perfmeasure.recorder.server`: commands to a recorder in another process."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from typing import BinaryIO

from perfmeasure.errors import MeasurementError
from perfmeasure.recorder.outlet import Client
from perfmeasure.recorder.server import DATA_BYTES, GREETING

_CONNECT_SECONDS = 5.0
_MAX_LINE_BYTES = 1 << 16


class RemoteConsole:
    """A recorder's console, to be used as `perfmeasure.recorder.console.Console` is.

    Args:
        host: where it listens.
        port: the same.
        token: of the store.
        client: is given the lines of answers, and data, which may come at any time.

    Raises:
        ConnectionRefusedError: nothing listens there.
        MeasurementError: there is no console there, or the token is wrong.
    """

    def __init__(self, host: str, port: int, token: str, client: Client) -> None:
        self._where = f"console {host}:{port}"
        self._client = client
        self._thread: threading.Thread | None = None
        self._replies: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        try:
            self._socket = socket.create_connection((host, port), _CONNECT_SECONDS)
        except ConnectionRefusedError:
            raise
        except OSError as error:
            raise self._error(f"cannot be reached ({error.strerror or error})") from error
        self._file: BinaryIO = self._socket.makefile("rb")
        try:
            greeting = self._file.readline(_MAX_LINE_BYTES)
            if greeting != GREETING:
                # Nobody but a recorder is told the token.
                raise self._error(f"says {greeting[:80]!r}", f"{GREETING!r}")
            self._socket.sendall(f"token {token}\n".encode())
            answer = self._file.readline(_MAX_LINE_BYTES)
        except OSError as error:
            self.close()
            raise self._error("does not answer") from error
        except MeasurementError:
            self.close()
            raise
        if answer != b"OK\n":
            self.close()
            text = answer.decode("utf-8", "replace").strip().removeprefix("ERROR ")
            raise self._error(text or "closed the connection", "", "give the store's own token")
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._listen, name="console", daemon=True)
        self._thread.start()

    def _error(self, got: str, wanted: str = "", next_step: str = "") -> MeasurementError:
        return MeasurementError(self._where, got, wanted, next_step)

    def _listen(self) -> None:
        try:
            while line := self._file.readline(_MAX_LINE_BYTES):
                text = line.decode("utf-8", "replace").rstrip("\n")
                if text.startswith(" "):
                    self._client.text(text[1:])
                elif text.startswith("DATA "):
                    _, program, tag, size = text.split(" ")
                    content = self._file.read(min(int(size), DATA_BYTES))
                    self._client.data(program, tag, content)
                else:
                    self._replies.put(text)
        except (OSError, ValueError):
            pass  # the end, for whoever waits
        finally:
            self._replies.put(None)

    def execute(self, line: str, client: Client) -> str:
        """Have a command carried out; return ``OK …`` or ``ERROR …``.

        Args:
            line: the command.
            client: that was given before.

        Raises:
            MeasurementError: the recorder has ended.
        """
        del client
        with contextlib.suppress(OSError):
            self._socket.sendall(" ".join(line.splitlines()).encode() + b"\n")
        reply = self._replies.get()
        if reply is None:
            raise self._error("has closed the connection", "a recorder that is running")
        return reply

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(_CONNECT_SECONDS)  # it may be feeding a program that is slow
        self._socket.close()
