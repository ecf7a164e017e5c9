from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from perfmeasure import jsonio
from perfmeasure.config import MeasureConfig
from perfmeasure.process import ChildProcess
from perfmeasure.progress import Progress
from perfmeasure.status import WRITE_SECONDS, Status
from perfmeasure.supervisor import Supervisor
from perfmeasure.tally import Tally


class World:
    """What a status tells of."""

    def __init__(self, prefix: Path) -> None:
        self.config = MeasureConfig(prefix=prefix, nickname="testhost", num_transfers=2)
        self.config.docroot.mkdir(parents=True)
        self.clock = Clock()
        self.progress = Progress()
        self.supervisor = Supervisor(self.clock, self.progress.warn)
        self.tally = Tally(
            ("exit", "onion"), 2, on_transfer=lambda _text: None, on_complete=lambda: None
        )
        self.status = Status(self.config, self.supervisor, self.tally, self.progress)

    def told(self) -> dict[str, object]:
        found: dict[str, object] = jsonio.loads((self.config.docroot / "status.json").read_bytes())
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "data")


def test_it_is_written_at_once_regularly_and_at_the_end(world: World) -> None:
    world.status.start()
    first = world.told()
    assert (first["state"], first["nickname"]) == ("running", "testhost")
    assert "last_transfer_unix_ts" not in first
    world.progress.phase("transfers")
    world.progress.update("1 of 4")
    world.tally.take(b"[stream-error] transport [] stream [vertexid=stream_exit,x]")
    world.clock.advance(WRITE_SECONDS)
    told = world.told()
    assert told["phases"] == ["transfers: 1 of 4"]
    assert told["transfers"] == {
        "exit": {"succeeded": 0, "failed": 1, "wanted": 2},
        "onion": {"succeeded": 0, "failed": 0, "wanted": 2},
    }
    assert told["last_transfer_unix_ts"] == told["unix_ts"]
    world.status.stop()
    assert world.told()["state"] == "ended"
    assert not world.clock.getDelayedCalls()
    assert [path.name for path in world.config.docroot.iterdir()] == ["status.json"]


def test_children_and_sources(world: World) -> None:
    child = ChildProcess("tor-client", ["true"], reactor=world.clock, report=world.progress.warn,
                         idle_limit_seconds=90)  # fmt: skip
    child.setServiceParent(world.supervisor)
    child.mark_work()
    world.clock.advance(5)
    log = world.config.prefix / "kernel" / "connections.log"
    log.parent.mkdir()
    log.write_text('{"record":"absent","unix_ts":1.0,"reason":"no right to /sys/fs/bpf"}\n')
    (world.config.prefix / "tgen-client").mkdir()
    (world.config.prefix / "tgen-client" / "perfmeasure.tgen.log").write_text("x\n")
    document = world.status.document("running")
    assert document["children"] == [
        {"name": "tor-client", "is_running": False, "restarts": 0, "idle_seconds": 5.0,
         "idle_limit_seconds": 90},
    ]  # fmt: skip
    kernel, tgen = document["sources"]
    assert kernel["name"] == "kernel/connections.log"
    assert kernel["absent"] == "no right to …/bpf"
    assert (tgen["size_bytes"], "absent" in tgen) == (2, False)
    assert document["disk"]["free_bytes"] <= document["disk"]["total_bytes"]
    log.write_text("half a li")
    assert "absent" not in world.status.document("running")["sources"][0]


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("tor-client ended with status 1; 10 lines", "tor-client ended with status 1; 10 lines"),
        ("guard 198.51.100.7:443 is down", "guard [address]:443 is down"),
        ("[2001:db8::7]:443 and 127.0.0.1:9050", "[address]:443 and 127.0.0.1:9050"),
        ("/srv/someone/x/torrc: bad", "…/torrc: bad"),
        ("at 12:30:45, ratio 3/4", "at 12:30:45, ratio 3/4"),
    ],
)
def test_what_is_told_may_be_told_to_everybody(world: World, text: str, public: str) -> None:
    world.progress.warn(text)
    [warning] = world.status.document("running")["warnings"]
    assert warning["text"] == public


def test_the_data_folder_is_not_told(world: World) -> None:
    world.progress.warn(f"{world.config.prefix}/kernel/connections.log: full")
    [warning] = world.status.document("running")["warnings"]
    assert warning["text"] == "kernel/connections.log: full"


def test_a_docroot_that_cannot_be_written_ends_nothing(world: World) -> None:
    world.config.docroot.rmdir()
    world.status.start()
    world.clock.advance(WRITE_SECONDS)
    world.config.docroot.mkdir()
    world.clock.advance(WRITE_SECONDS)
    assert world.told()["state"] == "running"
    world.status.stop()
