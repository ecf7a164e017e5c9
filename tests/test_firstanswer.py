from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from perfmeasure import firstanswer
from perfmeasure.config import MeasureConfig
from perfmeasure.errors import MeasurementError
from perfmeasure.plan import Plan
from perfmeasure.progress import Progress

ADDRESS = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion"


class Host:
    """Stands for the onion host, whose descriptor is uploaded at once."""

    async def wait_descriptor_uploaded(self, address: str, limit_seconds: float) -> int:
        assert (address, limit_seconds) == (ADDRESS, 180)
        return 6


class Scene:
    """An onion service that refuses some tries."""

    def __init__(self, tmp_path: Path, refusals: int, **config: Any) -> None:
        folder = tmp_path / "private" / "onion"
        folder.mkdir(parents=True)
        (folder / "hostname").write_text(f"{ADDRESS}\n")
        self.clock = Clock()
        self.refusals = refusals
        self.drops = 0
        self.plan = Plan(
            config=MeasureConfig(prefix=tmp_path, **config), tor=Path("tor"), tgen=None,
            listen_port=1, connect_port=80, socks_port=9050, client_control_port=3,
            server_control_port=4,
        )  # fmt: skip

    async def probe(self, reactor: Any, host: str, socks_port: int, name: str, port: int) -> float:
        assert (reactor, host, socks_port, name, port) == (
            self.clock, "127.0.0.1", 9050, ADDRESS, 80,
        )  # fmt: skip
        if self.refusals:
            self.refusals -= 1
            raise MeasurementError("SOCKS", "host unreachable")
        return 0.25

    async def drop_guards(self) -> None:
        self.drops += 1

    def start(self) -> list[Any]:
        results: list[Any] = []
        answer = firstanswer.first_answer(
            self.plan,
            Host(),  # type: ignore[arg-type] # all that is asked of it
            drop_guards=self.drop_guards,
            reactor=self.clock,
            progress=Progress(),
        )
        Deferred.fromCoroutine(answer).addBoth(results.append)
        return results


def test_it_is_tried_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, refusals=2)
    monkeypatch.setattr(firstanswer, "probe", scene.probe)
    results = scene.start()
    scene.clock.pump([0.5, 0.5])
    assert results == [ADDRESS]
    said = capsys.readouterr().err
    assert "descriptor on 6 directories" in said
    assert "try 2 failed (host unreachable); trying again" in said
    assert "answers in 0.25 s, at try 3" in said
    assert scene.drops == 0


def test_with_guards_others_are_chosen_and_at_last_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path, refusals=1000, drop_guards_hours=1.0)
    monkeypatch.setattr(firstanswer, "probe", scene.probe)
    results = scene.start()
    scene.clock.pump([0.5] * 179)
    assert results == []
    assert scene.drops == 180
    scene.clock.advance(0.5)
    assert isinstance(results[0], Failure)
    assert "no answer in 90 s and 181 tries; the last: SOCKS: host unreachable" in str(
        results[0].value
    )
