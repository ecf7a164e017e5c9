"""Connections at a fixed rate that live a given time each, between processes of known names.

Run as a program it is one of them: ``short_connections.py serve`` prints the port that it listens
at; ``short_connections.py call PORT RATE SECONDS LIFE...`` connects, living each life in turn, and
prints how often it did for each.
"""

from __future__ import annotations

import heapq
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SENT_BYTES, ANSWERED_BYTES = 200, 1000


def serve() -> None:
    """Accept, answer each caller once, and close when it does."""
    Path("/proc/self/comm").write_text("bench-server")
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    ready = selectors.EpollSelector()
    ready.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock is listener:
                caller, _ = listener.accept()
                ready.register(caller, selectors.EVENT_READ)
            elif sock.recv(SENT_BYTES):
                sock.send(bytes(ANSWERED_BYTES))
            else:
                ready.unregister(sock)
                sock.close()


def call(port: int, rate: float, seconds: float, lives: list[float]) -> None:
    """Connect at the rate, and close each connection when it has lived."""
    Path("/proc/self/comm").write_text("bench-client")
    alive: list[tuple[float, int, socket.socket]] = []
    done: Counter[float] = Counter()
    began = time.monotonic()
    count = 0
    while (now := time.monotonic()) < began + seconds or alive:
        while alive and alive[0][0] <= now:
            heapq.heappop(alive)[2].close()
        if now < began + seconds and count < (now - began) * rate:
            life = lives[count % len(lives)]
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(bytes(SENT_BYTES))
            sock.recv(ANSWERED_BYTES, socket.MSG_WAITALL)
            heapq.heappush(alive, (time.monotonic() + life, count, sock))
            done[life] += 1
            count += 1
        else:
            time.sleep(0.0005)
    sys.stdout.write(" ".join(f"{done[life]}" for life in lives) + "\n")


class Load:
    """A server that runs, and callers that are started at will."""

    def __init__(self) -> None:
        self._server = self._start("serve")
        assert self._server.stdout is not None
        self.port = int(self._server.stdout.readline())

    def call(self, rate: float, seconds: float, *lives: float) -> dict[float, int]:
        """Connect, and return how many connections there were of each life."""
        words = map(str, (self.port, rate, seconds, *lives))
        caller = self._start("call", *words)
        said, _ = caller.communicate()
        return dict(zip(lives, map(int, said.split()), strict=True))

    def end(self) -> None:
        """End the server."""
        self._server.send_signal(signal.SIGKILL)
        self._server.communicate()

    def _start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True
        )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        call(int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), [*map(float, sys.argv[5:])])
