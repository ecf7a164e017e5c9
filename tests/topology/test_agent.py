from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from perfmeasure.flows.connection_source import ConnectionSource
from perfmeasure.flows.connections import Record
from perfmeasure.stopping import StopSignals
from perfmeasure.topology import agent
from perfmeasure.topology.service_log import ServiceRecorder


class Kernel:
    """Stands for kernel, recorder and signals; notes what is asked of it."""

    reason = "SIGTERM"

    def __init__(self, looks: int) -> None:
        self.did: list[str] = []
        self._left = looks
        self._due: Iterator[bool] = iter([False, True, False])

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left < 0

    @property
    def is_due(self) -> bool:
        return next(self._due)

    def snapshot(self, *, with_idle: bool = False) -> None:
        self.did.append("snapshot of all" if with_idle else "snapshot")

    def read(self) -> list[bytes]:
        return [Record(local_address=bytes(16), remote_address=bytes(16)).pack()]

    def take(self, records: list[Record]) -> None:
        self.did.append(f"take {len(records)}")

    def look(self) -> None:
        self.did.append("look")

    def close(self) -> None:
        self.did.append("close")

    def stop(self, reason: str) -> None:
        self.did.append(f"stop {reason}")


def test_what_is_live_is_asked_for_just_before_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agent, "LOOK_SECONDS", 0.0)
    kernel: Any = Kernel(3)
    agent.follow(cast("ServiceRecorder", kernel), cast("ConnectionSource", kernel), kernel)
    assert kernel.did == [
        "take 1", "look",
        "snapshot", "take 1", "look",
        "take 1", "look",
        "snapshot of all", "take 1", "close", "stop SIGTERM",
    ]  # fmt: skip
    assert capsys.readouterr().err == "READY\n"


def test_without_the_kernel_there_is_nothing_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "LOOK_SECONDS", 0.0)
    kernel: Any = Kernel(2)
    agent.follow(cast("ServiceRecorder", kernel), None, cast("StopSignals", kernel))
    assert kernel.did == ["look", "look", "stop SIGTERM"]
