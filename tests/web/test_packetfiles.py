from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from perfmeasure import jsonio
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.recorder import Recorder
from perfmeasure.recorder.transfers import add_packets
from perfmeasure.web import figures, index
from perfmeasure.web.packetfiles import file_name, prepared
from perfmeasure.web.publisher import Published, publish
from tests.recorder import made

BEGIN = made.START_NS // 10**9
DAY = "2023-11-14"
NAME = f"packets/{DAY}/host.t_3a0.pcapng"


class Scene:
    """A measurement whose transfers, one a second, have a packet each in the store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.docroot = root / "docroot"
        self.transfers = 0
        self.problems: list[str] = []

    def record(self, transfers: int, packets: int = 1) -> None:
        """Record so many packets of each of more transfers."""
        frames = [
            made.Timed(
                made.START_NS + number * 10**9 + at,
                made.ethernet(made.tcp("127.0.0.1", 4000 + number, "127.0.0.1", 9050, 100)),
            )
            for number in range(self.transfers, self.transfers + transfers)
            for at in range(packets)
        ]
        self.transfers += transfers
        (self.root / "in.pcap").write_bytes(made.pcap(frames))
        recorder = Recorder(self.root / "packets", Setup(), print)
        recorder.read([self.root / "in.pcap"])
        recorder.close()

    def publish(self, budget_bytes: int | None = 10**6, *, date: str = DAY) -> Published:
        """Publish a day as the publisher does."""
        node = {
            "tgen": {
                "transfers": {
                    f"t:{number}": {
                        "endpoint_local": f"localhost:127.0.0.1:{4000 + number}",
                        "endpoint_proxy": "localhost:127.0.0.1:9050",
                        "endpoint_remote": "x.onion:0.0.0.0:80",
                        "links": {"status": "unmatched"},
                        "unix_ts_start": float(BEGIN + number),
                        "unix_ts_end": BEGIN + number + 0.5,
                    }
                    for number in range(self.transfers)
                }
            }
        }
        add_packets(node, [str(self.root)])
        shown: list[dict[str, Any]] = [
            {"nickname": "host", "id": name, "unix_ts_start": transfer["unix_ts_start"],
             "packets": transfer["packets"]}
            for name, transfer in node["tgen"]["transfers"].items() if "packets" in transfer
        ]  # fmt: skip
        document = {"data": {"host": node}}
        with prepared(
            self.docroot, self.root / "packets", date, (document, shown), budget_bytes
        ) as found:
            self.problems = found.problems
            files = found.files | figures.files_of_days(self.docroot, {date: ({}, {}, shown)})
            return publish(self.docroot, files, removed=found.removed)

    def links(self, date: str = DAY) -> dict[str, dict[str, Any]]:
        """Return what the page is told of published packets, by transfer."""
        return {
            transfer["id"]: transfer["packets_file"]
            for transfers in figures.published_transfers(self.docroot, date).values()
            for transfer in transfers
            if "packets_file" in transfer
        }

    def files(self) -> set[str]:
        folder = self.docroot / "packets"
        return {path.relative_to(self.docroot).as_posix() for path in folder.rglob("*.pcapng")}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def blocks(content: bytes) -> list[int]:
    """Return the types of the blocks of pcapng."""
    found, at = [], 0
    while at < len(content):
        kind, length = struct.unpack_from("<II", content, at)
        found.append(kind)
        at += length
    return found


def test_each_transfer_has_a_file_that_is_named_where_it_is_looked_for(scene: Scene) -> None:
    scene.record(2, packets=3)
    done = scene.publish()
    assert scene.files() == {NAME, f"packets/{DAY}/host.t_3a1.pcapng"} <= set(done.written)
    content = (scene.docroot / NAME).read_bytes()
    assert blocks(content) == [0x0A0D0D0A, 1, 6, 6, 6]
    assert content.count(b"transfer t:0") == 3
    assert scene.links()["t:0"] == {"name": NAME, "count": 3, "bytes": 3 * (54 + 100)}
    listed = jsonio.loads((scene.docroot / "index.json").read_bytes())["files"]
    assert {file["name"]: file["sha256"] for file in listed}[NAME] == index.sha256_of(
        scene.docroot / NAME
    )
    assert NAME in (scene.docroot / "index.xml").read_text()
    # Of what may be very many, the page's list has the folder.
    page = (scene.docroot / "index.html").read_text()
    assert page.count(f'<a href="packets/{DAY}/">') == 1
    assert ".pcapng" not in page
    assert not list(scene.docroot.glob(".publisher-packets"))


def test_without_the_option_nothing_of_packets_is_there(scene: Scene) -> None:
    scene.record(2)
    scene.publish(None)
    assert not (scene.docroot / "packets").exists()
    assert scene.links() == {}


def test_a_file_is_written_again_only_for_more_packets(scene: Scene) -> None:
    scene.record(1)
    scene.publish()
    before = (scene.docroot / NAME).stat()
    assert NAME not in scene.publish().written
    scene.record(1)
    done = scene.publish()
    assert NAME not in done.written
    assert (scene.docroot / NAME).stat() == before
    scene.transfers = 0
    scene.record(1)  # of the first once more
    assert NAME in scene.publish().written
    assert scene.links()["t:0"]["count"] == 2


def test_what_the_store_dropped_stays_published(scene: Scene) -> None:
    scene.record(1)
    scene.publish()
    shutil.rmtree(scene.root / "packets")
    scene.record(1)
    done = scene.publish()
    assert f"packets/{DAY}/host.t_3a1.pcapng" in done.written
    assert NAME not in done.written
    [shown] = figures.published_transfers(scene.docroot, DAY).values()
    assert [transfer["packets"]["count"] for transfer in shown] == [0, 1]
    assert {name: file["count"] for name, file in scene.links().items()} == {"t:0": 1, "t:1": 1}
    assert (scene.docroot / NAME).exists()


def test_of_a_day_that_is_too_much_the_earliest_are_not_there(scene: Scene) -> None:
    scene.record(4)
    scene.publish()
    size = (scene.docroot / NAME).stat().st_size
    scene.publish(2 * size)
    assert set(scene.links()) == {"t:2", "t:3"}
    assert scene.files() == {file["name"] for file in scene.links().values()}
    assert scene.publish(2 * size).written == ()
    scene.publish(0)
    assert scene.files() == set()
    assert not (scene.docroot / "packets" / DAY).exists()


def test_the_earliest_days_go_and_their_links_with_them(scene: Scene) -> None:
    scene.record(1)
    for date in ("2023-11-12", "2023-11-13", DAY):
        scene.publish(date=date)
    size = (scene.docroot / NAME).stat().st_size
    scene.publish(2 * size)
    assert {name.split("/")[1] for name in scene.files()} == {"2023-11-13", DAY}
    assert scene.links("2023-11-12") == {}
    assert scene.links("2023-11-13")
    assert scene.links()
    # A day of the past takes nothing from those after it.
    scene.publish(2 * size, date="2023-11-12")
    assert {name.split("/")[1] for name in scene.files()} == {"2023-11-13", DAY}
    listed = jsonio.loads((scene.docroot / "index.json").read_bytes())["files"]
    assert {file["name"] for file in listed if file["name"].startswith("packets/")} == scene.files()


def test_a_store_that_is_damaged_takes_nothing_with_it(scene: Scene) -> None:
    scene.record(1)
    scene.publish()
    node: dict[str, Any] = {"tgen": {"transfers": {}}}
    shown = [{"nickname": "host", "id": "t:0", "unix_ts_start": float(BEGIN),
              "packets": {"count": 9, "bytes": 9}}]  # fmt: skip
    shown.append({**shown[0], "id": "t:1"})
    of_day = ({"data": {"host": node}}, shown)
    with prepared(scene.docroot, scene.root / "nowhere", DAY, of_day, 10**6) as found:
        assert found.problems == [
            f"packets of {name}: packets/nowhere: no store of packets" for name in ("t:1", "t:0")
        ]
        assert (found.files, found.removed) == ({}, [])
    assert "packets_file" in shown[0]
    assert "packets_file" not in shown[1]


@pytest.mark.parametrize(
    ("transfer", "name"),
    [
        ("transfer50k:1", "transfer50k_3a1"),
        ("../a b%#2", "_2e_2e_2fa_20b_25_232"),
        ("\udc80é", "_ed_b2_80_c3_a9"),
    ],
)
def test_a_name_is_a_url_and_leads_nowhere_else(transfer: str, name: str) -> None:
    assert file_name(DAY, "host", transfer) == f"packets/{DAY}/host.{name}.pcapng"


def test_names_that_no_disk_holds_are_cut_and_stay_different() -> None:
    names = {file_name(DAY, "h" * 300, "x" * 300 + last) for last in "ab"}
    assert len(names) == 2
    assert all(len(name.rpartition("/")[2]) < 255 for name in names)
