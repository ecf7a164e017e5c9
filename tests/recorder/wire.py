"""Real lines for the tests: a veth pair between two network namespaces, and frames put on it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.recorder import Recorder

_CLONE_NEWNET = 0x40000000
_SECONDS = 30.0
HERE, THERE = "here", "there"


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Have this thread's sockets be of a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert libc.setns(other, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(own, _CLONE_NEWNET) == 0
    finally:
        os.close(own)
        os.close(other)


class Line:
    """A veth pair: what is sent on the interface ``there`` is seen on ``here``, and the reverse."""

    def __init__(self) -> None:
        self.name = f"pm{secrets.token_hex(4)}"
        self.far = f"{self.name}f"

    def make(self) -> None:
        for name in (self.name, self.far):
            ip("netns", "add", name)
            with inside(name):
                # No packets but the test's own.
                subprocess.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"], check=True)
                subprocess.run(
                    ["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"], check=True
                )
        ip("-n", self.name, "link", "add", HERE, "type", "veth", "peer", THERE, "netns", self.far)
        ip("-n", self.name, "link", "set", HERE, "up", "mtu", "9000")
        ip("-n", self.far, "link", "set", THERE, "up", "mtu", "9000")
        ip("-n", self.name, "link", "set", "lo", "up")

    def remove(self) -> None:
        for name in (self.name, self.far):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    @contextlib.contextmanager
    def sender(self) -> Iterator[Callable[[bytes], object]]:
        """Yield a function that puts a frame on the far end."""
        with inside(self.far):
            out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            out.bind((THERE, 0))
        with out:
            yield out.send

    def send(self, frames: Iterable[bytes], pause_seconds: float = 0.0) -> None:
        """Put frames on the far end, one after the other."""
        with self.sender() as send:
            for frame in frames:
                send(frame)
                if pause_seconds:
                    time.sleep(pause_seconds)


def ip(*words: str) -> str:
    """Run ip(8) and return what it prints."""
    ran = subprocess.run(
        ["ip", *words], check=True, capture_output=True, text=True, timeout=_SECONDS
    )  # fmt: skip
    return ran.stdout


class Running:
    """A recorder that captures in a thread of its own.

    Attributes:
        messages: what it told.
        error: what ended it, if that was an error.
    """

    def __init__(
        self, store: Path, setup: Setup, namespace: str, interface: str = HERE, **options: Any
    ) -> None:
        self.messages: list[str] = []
        self.error: Exception | None = None
        self.recorder = Recorder(store, setup, self.messages.append)
        self._thread = threading.Thread(target=self._run, args=(namespace, interface, options))
        self._thread.start()
        # The first call is answered when packets are being taken.
        self.recorder.submit(lambda _: None).result(_SECONDS)

    def _run(self, namespace: str, interface: str, options: dict[str, Any]) -> None:
        try:
            with inside(namespace):
                self.recorder.capture(interface, **options)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def call(self, function: Callable[[Any], Any]) -> Any:
        return self.recorder.submit(function).result(_SECONDS)

    def wait_for(self, packets: int) -> None:
        """Return when the kernel and user space have taken in so many packets in all."""
        until = time.monotonic() + _SECONDS
        while self.call(lambda _: self.seen) < packets:
            assert time.monotonic() < until, (
                f"{self.call(lambda _: self.seen)} of {packets} packets"
            )
            time.sleep(0.02)

    @property
    def seen(self) -> int:
        assert self.recorder.recording is not None
        return self.recorder.recording.seen()[0]

    def end(self) -> None:
        """Have it capture no more; the store stays open."""
        self.recorder.stop()
        self._thread.join(_SECONDS)
        assert not self._thread.is_alive()

    def stop(self) -> Recorder:
        self.end()
        self.recorder.close()
        if self.error is not None:
            raise self.error
        return self.recorder
