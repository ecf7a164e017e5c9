"""Lines of logs, as the generator and the reader of the control port write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perfmeasure.analysis import source
from perfmeasure.units import log_stamp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perfmeasure.analysis.source import Input

DAY = 1795305600.0  # 2026-11-22 00:00:00 UTC


class Lines:
    """Makes single lines. Times are seconds after ``DAY``."""

    day = DAY
    onion = "voeep6zxdcbb3lecvt4ealjmaharmpdglsbddjnansb4qak3ptky7mid.onion"

    @staticmethod
    def initializing(at: float, host: str = "vm") -> str:
        return (
            f"{log_stamp(DAY + at)} [message] [tgen-main.c:43] [_tgenmain_run] Initializing TGen "
            f"v1.1.2 running GLib v2.74.6 and IGraph v0.10.2 on host {host} with process id 14529\n"
        )

    @staticmethod
    def _transport(port: int, error: str = "NONE") -> str:
        return (
            f"transport [fd=7,local=localhost:127.0.0.1:{port},proxy=localhost:127.0.0.1:9050,"
            f"remote=localhost:127.0.0.1:8080,state=SUCCESS_OPEN,error={error}]"
        )

    @staticmethod
    def _stream(number: int, vertex: str, error: str = "NONE") -> str:
        return (
            f"[id={number},vertexid={vertex},name=vm,peername=vm,sendsize=0,recvsize=1000,"
            f"sendstate=SEND_FOOTER,recvstate=RECV_PAYLOAD,error={error}]"
        )

    @classmethod
    def created(cls, at: float, number: int, port: int, vertex: str = "stream") -> str:
        return (
            f"{log_stamp(DAY + at)} [info] [tgen-stream.c:2125] [tgenstream_new] Created new "
            f"stream {cls._stream(number, vertex)} on {cls._transport(port)}\n"
        )

    @classmethod
    def status(cls, at: float, number: int, port: int, recv: int, vertex: str = "stream") -> str:
        return (
            f"{log_stamp(DAY + at)} [info] [tgen-stream.c:1754] [_tgenstream_log] [stream-status] "
            f"{cls._transport(port)} stream {cls._stream(number, vertex)} "
            f"bytes [{cls._bytes(recv)}]\n"
        )

    @staticmethod
    def _bytes(recv: int) -> str:
        return (
            f"total-bytes-recv={recv},total-bytes-send=2167,payload-bytes-recv={recv},"
            f"payload-bytes-send=0,payload-progress-recv={recv / 10:.2f}%,"
            "payload-progress-send=100.00%"
        )

    @classmethod
    def outcome(
        cls,
        start: float,
        end: float,
        number: int,
        port: int,
        *,
        vertex: str = "stream",
        error: str = "NONE",
    ) -> str:
        steps = (
            "socket-create", "socket-connect", "proxy-init", "proxy-choice", "proxy-request",
            "proxy-response", "command", "response", "first-byte-recv", "last-byte-recv",
            "checksum-recv",
        )  # fmt: skip
        lasted = round((end - start) * 1e6)
        created = round((start + 1e6) * 1e6)  # of the monotonic clock
        times = ",".join(
            f"usecs-to-{step}={lasted * (index + 1) // 12}" for index, step in enumerate(steps)
        )
        word = "stream-success" if error == "NONE" else "stream-error"
        return (
            f"{log_stamp(DAY + end)} [message] [tgen-stream.c:1738] [_tgenstream_log] [{word}] "
            f"{cls._transport(port)} stream {cls._stream(number, vertex, error)} "
            f"bytes [{cls._bytes(1000)}] times [created-ts={created},{times},"
            "usecs-to-first-byte-send=-1,usecs-to-last-byte-send=-1,usecs-to-checksum-send=-1,"
            f"now-ts={created + lasted}]\n"
        )

    @staticmethod
    def event(at: float, text: str) -> str:
        return f"{log_stamp(DAY + at)} 650 {text}\r\n"

    @staticmethod
    def note(at: float, text: str) -> str:
        return f"{log_stamp(DAY + at)} {text}\n"

    @classmethod
    def stream_events(
        cls, start: float, end: float, number: int, port: int, circuit: int = 4
    ) -> str:
        target = "127.0.0.1:8080"
        return (
            cls.event(
                start,
                f"STREAM {number} NEW 0 {target} SOURCE_ADDR=127.0.0.1:{port} PURPOSE=USER",
            )
            + cls.event(start, f"STREAM {number} SENTCONNECT {circuit} {target}")
            + cls.event(start, f"STREAM {number} SUCCEEDED {circuit} {target}")
            + cls.event(end, f"STREAM {number} CLOSED {circuit} {target} REASON=DONE")
        )

    @classmethod
    def circuit_events(cls, start: float, number: int, *, created: str = "00:00:01") -> str:
        hops = [f"${letter * 40}~{name}" for letter, name in zip("ABC", "abc", strict=True)]
        time_created = f"TIME_CREATED=2026-11-22T{created}.000000"
        text = cls.event(start, f"CIRC {number} LAUNCHED PURPOSE=GENERAL {time_created}")
        for count in (1, 2, 3):
            path = ",".join(hops[:count])
            text += cls.event(
                start + count / 10, f"CIRC {number} EXTENDED {path} PURPOSE=GENERAL {time_created}"
            )
        return text + cls.event(
            start + 0.3, f"CIRC {number} BUILT {','.join(hops)} PURPOSE=GENERAL {time_created}"
        )


@pytest.fixture(scope="session")
def lines() -> type[Lines]:
    """Make single lines of logs."""
    return Lines


@pytest.fixture
def log_of(tmp_path: Path) -> Callable[..., Input]:
    """Write text to a file and return it as a recognised `Input`."""

    def make(text: str | bytes, name: str = "a.log") -> Input:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return source.find([path])[0]

    return make
