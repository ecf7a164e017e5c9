from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from perfmeasure import jsonio
from perfmeasure.errors import InputError, MeasurementError, UsageError
from perfmeasure.web import index, publisher
from perfmeasure.web.publisher import publish, publish_day
from tests.analysis import service_lines
from tests.topology import fleet_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[..., Any]

DAY = "2026-11-22"


PAGE = {*index.page_names(), "index.html"}


def _names(docroot: Path) -> set[str]:
    return {str(path.relative_to(docroot)) for path in docroot.rglob("*") if path.is_file()}


def _is_left(docroot: Path) -> list[Path]:
    """Return the folders that no publication means to leave."""
    return [path for path in docroot.iterdir() if path.is_dir() and path.name != "figures"]


def _index(docroot: Path) -> dict[str, dict[str, Any]]:
    document = jsonio.loads((docroot / "index.json").read_bytes())
    return {file["name"]: file for file in document["files"]}


def test_a_publication(tmp_path: Path) -> None:
    docroot = tmp_path / "new" / "docroot"
    done = publish(docroot, {"latest.json": b"{}\n", f"{DAY}.x.json.xz": b"x"}, latest_date=DAY)
    assert _names(docroot) == {
        *PAGE, *(f"{name}.gz" for name in PAGE),
        "latest.json", "latest.json.gz", f"{DAY}.x.json.xz", "figures/index.json",
        "figures/index.json.gz", "index.json", "index.json.gz", "index.xml", "index.xml.gz",
        "status.json", ".publisher.json", ".publisher.lock",
    }  # fmt: skip
    assert done.written[:3] == ("latest.json.gz", "latest.json", f"{DAY}.x.json.xz")
    assert done.written[-2:] == ("index.html.gz", "index.html")
    assert done.unchanged == done.unlisted == ()
    assert list(_index(docroot)) == [f"{DAY}.x.json.xz", "latest.json", "latest.json.gz"]
    for name, file in _index(docroot).items():
        assert file["sha256"] == index.sha256_of(docroot / name)
        assert file["size_bytes"] == (docroot / name).stat().st_size
    assert f"the UTC day {DAY}" in (docroot / "index.html").read_text()
    assert f'<file name="{DAY}.x.json.xz" size="1"' in (docroot / "index.xml").read_text()


def test_the_same_again_changes_no_file(tmp_path: Path) -> None:
    def times() -> dict[str, int]:
        return {name: (tmp_path / name).stat().st_mtime_ns for name in _names(tmp_path)}

    publish(tmp_path, {"latest.json": b"{}\n"}, latest_date=DAY)
    before = times()
    done = publish(tmp_path, {"latest.json": b"{}\n"}, latest_date=DAY)
    assert done.written == ()
    assert set(done.unchanged) == {"latest.json", "index.json", "index.xml", *PAGE}
    before.pop(".publisher.json", None)
    after = times()
    after.pop(".publisher.json", None)
    assert after == before


def test_files_of_others_are_indexed_and_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        path = tmp_path / f"2026-10-{number + 1:02d}.onionperf.analysis.json.xz"
        path.write_bytes(b"%d" % number)
        os.utime(path, (1e9, 1e9))
    (tmp_path / os.fsdecode(b"bad\xff")).write_bytes(b"")
    done = publish(tmp_path, {})
    assert done.unlisted == (os.fsdecode(b"bad\xff"),)
    assert len(_index(tmp_path)) == 30
    read: list[str] = []
    real = index.sha256_of

    def count(path: Path) -> str:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(index, "sha256_of", count)
    for number in range(3):
        publish(tmp_path, {"latest.json": b"%d" % number})
    assert set(read) == {os.fsdecode(b"bad\xff")}  # too new to be trusted yet
    (tmp_path / "2026-10-01.onionperf.analysis.json.xz").unlink()
    publish(tmp_path, {})
    assert len(_index(tmp_path)) == 31  # 29 days, latest.json and its sibling


def test_a_page_that_has_no_files_yet(tmp_path: Path) -> None:
    publish(tmp_path, {})
    assert "Nothing has been published yet" in (tmp_path / "index.html").read_text()
    assert _index(tmp_path) == {}


@contextlib.contextmanager
def _file_size_limit(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _contents(docroot: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in docroot.iterdir() if path.is_file()}


def test_no_room_leaves_everything_as_it_was(tmp_path: Path) -> None:
    publish(tmp_path, {"latest.json": b"old\n"}, latest_date=DAY)
    before = _contents(tmp_path)
    new: dict[str, bytes | Path] = {"latest.json": b"new\n", "big.xz": os.urandom(200_000)}
    with _file_size_limit(150_000), pytest.raises(MeasurementError, match="no room to publish"):
        publish(tmp_path, new, latest_date=DAY)
    assert _contents(tmp_path) == before
    assert not _is_left(tmp_path)


def test_a_full_file_system_leaves_everything_as_it_was(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("root")
    docroot = tmp_path / "docroot"
    docroot.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(docroot)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this root may not mount")
    try:
        publish(docroot, {"latest.json": b"old\n"}, latest_date=DAY)
        before = _contents(docroot)
        with pytest.raises(MeasurementError, match="No space left on device"):
            publish(docroot, {"latest.json": b"new\n", "big.xz": bytes(4 << 20)})
        assert _contents(docroot) == before
        publish(docroot, {"latest.json": b"new\n"})
        assert (docroot / "latest.json").read_bytes() == b"new\n"
    finally:
        subprocess.run(["umount", str(docroot)], check=True)


def test_a_docroot_that_cannot_be_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MeasurementError, match="cannot be published"):
        publish(tmp_path / "file", {})


_PUBLISH_FOR_EVER = """
import itertools, pathlib, sys
from perfmeasure.web.publisher import publish
for number in itertools.count():
    text = b'{"n":%d,"pad":"%s"}\\n' % (number, b"x" * (number % 7) * 5000)
    publish(pathlib.Path(sys.argv[1]), {"a.xz": b"%d" % number, "latest.json": text})
    print(number, flush=True)
"""


def test_a_publication_that_is_killed_leaves_whole_files(tmp_path: Path) -> None:
    for round_number in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", _PUBLISH_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.003 * round_number)
            process.send_signal(signal.SIGKILL)
        assert jsonio.loads((tmp_path / "latest.json").read_bytes())["n"] >= 0
        assert all((tmp_path / name).exists() for name in _index(tmp_path))
    publish(tmp_path, {})
    assert not _is_left(tmp_path)
    for name, file in _index(tmp_path).items():
        assert file["sha256"] == index.sha256_of(tmp_path / name)


class _Readers:
    """Four clients that fetch latest.json again and again, and one that follows the index."""

    def __init__(self, served: Any, version: Callable[[int], bytes]) -> None:
        self._served = served
        self._version = version
        self._stop = threading.Event()
        self.wrong: list[str] = []
        self.fetched = {"gzip": 0, "identity": 0}
        self._rows_by_tag: dict[str, bytes] = {}
        accepted = ("gzip", "identity") * 2
        self._threads = [threading.Thread(target=self._fetch, args=(a,)) for a in accepted]
        self._threads.append(threading.Thread(target=self._follow_index))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _fetch(self, accepted: str) -> None:
        while not self._stop.is_set():
            status, headers, body = self._served.ask("/latest.json", Accept_Encoding=accepted)
            encoding = headers["Content-Encoding"] or "identity"
            self.fetched[encoding] += 1
            if encoding == "gzip":
                body = gzip.decompress(body)
            row = body[:12]
            if status != 200 or body != self._version(int(row[5:10])):
                self.wrong.append(f"{status} {len(body)} {row!r}")
            if self._rows_by_tag.setdefault(headers["ETag"], row) != row:
                self.wrong.append(f"{headers['ETag']} names two versions")

    def _follow_index(self) -> None:
        while not self._stop.is_set():
            listed = jsonio.loads(self._served.ask("/index.json")[2])["files"]
            gone = [
                file["name"]
                for file in listed
                if self._served.ask("/" + file["name"], "HEAD")[0] != 200
            ]
            self.wrong += [f"{name} is in the index and not there" for name in gone]


def test_clients_never_see_a_mix_of_versions(serve: Serve, tmp_path: Path) -> None:
    def version(number: int) -> bytes:
        # Sizes come again, so that a mix cannot be told by its size alone.
        row = b'{"n":%05d}\n' % number
        return row * (2000 + number % 3 * 20_000)

    publish(tmp_path, {"latest.json": version(0)})
    served = serve(tmp_path)
    readers = _Readers(served, version)
    readers.start()
    try:
        for number in range(1, 201):
            files = {"latest.json": version(number), f"{number % 10}.xz": b"%d" % number}
            publish(tmp_path, files)
    finally:
        readers.stop()
    assert readers.wrong == []
    assert min(readers.fetched.values()) > 20
    assert served.ask("/latest.json")[2] == version(200) == (tmp_path / "latest.json").read_bytes()


@pytest.fixture
def prefix(tmp_path: Path, fixtures: Path) -> Path:
    """Return the data folder of a measurement with a real run's logs of DAY."""
    run = fixtures / "onionperf-run"
    for source, target in (
        ("tgen-client.onionperf.tgen.log.xz", "tgen-client/perfmeasure.tgen.log"),
        ("tor-client.onionperf.torctl.log.xz", "tor-client/perfmeasure.torctl.log"),
    ):
        path = tmp_path / target
        path.parent.mkdir()
        path.write_bytes(lzma.decompress((run / source).read_bytes()))
    return tmp_path


def test_a_day(prefix: Path) -> None:
    docroot = prefix / "docroot"
    result = publish_day(prefix, docroot, DAY, nickname="one", measurement_ip="127.0.0.1")
    assert (result["transfers_count"], result["successes_count"]) == (12, 11)
    assert result["date"] == DAY
    assert result["warnings"] == []
    for line in (
        "by exit: 6 transfers, 6 succeeded, 6 linked to their Tor stream and circuit",
        "by onion: 6 transfers, 5 succeeded",
        "  failed: 1 PROXY",
        "  time to last byte: median 1.170 s, 95 % 1.405 s",
        f"databases: {docroot}/{DAY}.*, {docroot}/latest.json",
    ):
        assert line in result["summary"]
    text = (docroot / "latest.json").read_bytes()
    packed = docroot / f"{DAY}.perfmeasure.analysis.json.xz"
    assert lzma.decompress(packed.read_bytes()) == text
    document = jsonio.loads(text)
    assert document["data"]["one"]["measurement_ip"] == "127.0.0.1"
    for_collectors = docroot / f"{DAY}.onionperf.analysis.json.xz"
    onionperf = jsonio.loads(lzma.decompress(for_collectors.read_bytes()))
    assert (onionperf["type"], onionperf["version"]) == ("onionperf", "3.1")
    assert len(onionperf["data"]["one"]["tgen"]["streams"]) == 12
    assert {DAY} == {
        match[1]
        for line in (docroot / "index.html").read_text().splitlines()
        if (match := re.match(r'.*<a href="([0-9-]{10})\.onionperf\.analysis\.json\.xz">.*', line))
    }


def test_the_topology_of_the_day_that_is_the_newest(prefix: Path) -> None:
    docroot = prefix / "docroot"
    publish_day(prefix, docroot, DAY)
    assert "topology.json" not in _names(docroot)
    log = prefix / "services/services.log"
    log.parent.mkdir()
    ends = ("192.0.2.10", 5000, "192.0.2.1", 9001)
    log.write_text(
        service_lines.start(0)
        + service_lines.instance(0, "m1", "192.0.2.10")
        + service_lines.connection(1, "m1", 1, "tor-client", ends, end=61, sent=5, received=7)
    )
    publish_day(prefix, docroot, DAY)
    found = jsonio.loads((docroot / "topology.json").read_bytes())
    assert (found["type"], found["version"]) == ("perfmeasure-topology", "1.0")
    [edge] = found["edges"]
    assert (edge["source"], edge["target"], edge["bytes"]) == (
        "m1/tor-client", "external/192.0.2.1:9001", 12,
    )  # fmt: skip
    assert len(found["buckets"]) > 10
    [node] = jsonio.loads((docroot / "latest.json").read_bytes())["data"].values()
    assert {"type": found["type"], "version": found["version"], **node["topology"]} == found


def test_services_are_shown_to_who_scrapes_them(prefix: Path) -> None:
    fleet_rows.write_logs(fleet_rows.fleet(hosts=1, calls=20), prefix / "collected")
    (prefix / "collected/host-0/services").rename(prefix / "services")
    publish_day(prefix, prefix / "docroot", DAY, nickname="one")
    topology = jsonio.loads((prefix / "docroot" / "topology.json").read_bytes())
    text = (prefix / "docroot" / "metrics").read_text()
    assert gzip.decompress((prefix / "docroot" / "metrics.gz").read_bytes()).decode() == text
    size = topology["coverage"]["input_bytes"]
    assert f'\nservice_coverage{{part="input"}} {size}\n' in text
    assert 'services{instance_id="host-0",instance_ip="10.0.0.1",name="mysql"' in text
    counted = re.findall(r"^service_connection\{.*\} (\d+)$", text, re.MULTILINE)
    assert sum(map(int, counted)) == size


def test_what_is_published_tells_nothing_of_the_machine_inside(prefix: Path) -> None:
    publish_day(prefix, prefix / "docroot", DAY)
    for name in _names(prefix / "docroot"):
        content = (prefix / "docroot" / name).read_bytes()
        if name.endswith(".xz"):
            content = lzma.decompress(content)
        for secret in (str(prefix), str(Path.home()), "HTTPSProxy", 'SOCKS_PASSWORD="'):
            if secret != "/":
                assert secret.encode() not in content, name


def test_archived_logs_are_the_same_day_and_are_compressed(prefix: Path) -> None:
    live = publish_day(prefix, prefix / "one", DAY, nickname="one")
    for role, kind in (("tgen-client", "tgen"), ("tor-client", "torctl")):
        folder = prefix / "log_archive" / DAY / role
        folder.mkdir(parents=True)
        target = folder / f"perfmeasure_{DAY}_23:59:59.{kind}.log"
        (prefix / role / f"perfmeasure.{kind}.log").rename(target)
    archived = publish_day(prefix, prefix / "two", DAY, nickname="one")
    assert archived["summary"].replace("/two", "/one") == live["summary"]
    names = sorted(path.name for path in (prefix / "log_archive").rglob("*log*"))
    assert names[-2:] == [
        f"perfmeasure_{DAY}_23:59:59.tgen.log.gz",
        f"perfmeasure_{DAY}_23:59:59.torctl.log.gz",
    ]


def test_a_day_that_goes_on_shows_in_latest_only(prefix: Path) -> None:
    result = publish_day(prefix, prefix / "docroot", DAY, is_over=False)
    assert not [name for name in result["written"] if name.startswith(DAY)]
    assert "latest.json" in result["written"]
    assert f"the UTC day {DAY}" in (prefix / "docroot" / "index.html").read_text()


def test_a_day_has_figures_while_it_goes_on_and_one_from_before_gets_them(prefix: Path) -> None:
    docroot = prefix / "docroot"
    publish_day(prefix, docroot, DAY, is_over=False)
    day = jsonio.loads((docroot / "figures" / DAY / "day.json").read_bytes())
    assert day["transfers"] == 12
    publish_day(prefix, docroot, DAY)
    # Published by a version that made none, beside one that cannot be read.
    before = _names(docroot)
    shutil.rmtree(docroot / "figures")
    (docroot / "2026-11-20.perfmeasure.analysis.json.xz").write_bytes(b"no database")
    publish_day(prefix, docroot, "2026-11-21")
    assert jsonio.loads((docroot / "figures/index.json").read_bytes())["days"] == [
        "2026-11-21", DAY,
    ]  # fmt: skip
    assert jsonio.loads((docroot / "figures" / DAY / "day.json").read_bytes()) == day
    assert before <= _names(docroot)


def test_latest_is_the_newest_day(prefix: Path) -> None:
    docroot = prefix / "docroot"
    publish_day(prefix, docroot, DAY)
    newest = (docroot / "latest.json").read_bytes()
    # The next day holds nothing of these logs; they are looked at, for they may span midnight.
    earlier = publish_day(prefix, docroot, "2026-11-21")
    assert "latest.json" not in earlier["written"] + earlier["unchanged"]
    assert (docroot / "latest.json").read_bytes() == newest
    assert f"the UTC day {DAY}" in (docroot / "index.html").read_text()
    (docroot / index.STATE_NAME).unlink()  # the names of the dated files say the same
    assert "latest.json" not in publish_day(prefix, docroot, "2026-11-21")["written"]


def test_a_day_of_a_clock_that_ran_ahead_does_not_stay_latest(prefix: Path) -> None:
    docroot = prefix / "docroot"
    docroot.mkdir()
    (docroot / "2999-01-01.perfmeasure.analysis.json.xz").write_bytes(b"")
    assert "latest.json" in publish_day(prefix, docroot, DAY)["written"]


def test_only_transfers_since_a_time_are_summarised(prefix: Path) -> None:
    result = publish_day(prefix, prefix / "docroot", DAY, since_unix_ts=4e9)
    assert result["transfers_count"] == 0
    assert result["summary"].startswith("no transfers\n")
    assert b'"transfer_id"' in (prefix / "docroot" / "latest.json").read_bytes()


def test_circuits_of_no_learned_timeout_are_marked_on_request(prefix: Path) -> None:
    def marks(docroot: Path) -> dict[tuple[bool, bool], int]:
        found: dict[tuple[bool, bool], int] = {}
        packed = (docroot / f"{DAY}.onionperf.analysis.json.xz").read_bytes()
        node = jsonio.loads(lzma.decompress(packed))["data"]["one"]
        for circuit in node["tor"]["circuits"].values():
            key = (circuit["cbt_set"], circuit["filtered_out"])
            found[key] = found.get(key, 0) + 1
        return found

    publish_day(prefix, prefix / "a", DAY, nickname="one")
    publish_day(prefix, prefix / "b", DAY, nickname="one", exclude_cbt=True)
    assert all(not filtered for _, filtered in marks(prefix / "a"))
    assert all(filtered is not is_set for is_set, filtered in marks(prefix / "b"))


def test_lines_that_could_not_be_used_are_told(prefix: Path) -> None:
    with (prefix / "tgen-client" / "perfmeasure.tgen.log").open("a") as log:
        log.write("this is no line of a log\n")
    (warning,) = publish_day(prefix, prefix / "docroot", DAY)["warnings"]
    assert warning.endswith("perfmeasure.tgen.log: 1 lines could not be used")


def test_an_archive_that_cannot_be_compressed_is_told_and_published(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(publisher, "compress_archive", fail)
    result = publish_day(prefix, prefix / "docroot", DAY)
    assert result["warnings"] == ["/x: cannot be compressed (Permission denied)"]
    assert result["transfers_count"] == 12


def test_what_cannot_be_published(prefix: Path) -> None:
    with pytest.raises(UsageError, match="is not a day"):
        publish_day(prefix, prefix / "docroot", "yesterday")
    with pytest.raises(InputError):
        publish_day(prefix, prefix / "docroot", "2020-01-01")
    shutil.rmtree(prefix / "tgen-client")
    shutil.rmtree(prefix / "tor-client")
    with pytest.raises(InputError):
        publish_day(prefix, prefix / "docroot", DAY)
    assert not (prefix / "docroot").exists()


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perfmeasure.web.publisher", *arguments],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_as_a_process(prefix: Path) -> None:
    common = ["--prefix", str(prefix), "--docroot", str(prefix / "docroot")]
    more = ["--nickname", "one", "--address", "192.0.2.1", "--since", "1.5", "--exclude-cbt"]
    done = _run(*common, "--date", DAY, *more)
    assert (done.returncode, done.stderr) == (0, "")
    result = jsonio.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert not (prefix / "docroot" / "packets").exists()
    assert result["transfers_count"] == 12
    assert result["seconds"] > 0
    assert f"{DAY}.onionperf.analysis.json.xz" in result["written"]

    failed = _run(*common, "--date", "2020-01-01")
    assert failed.returncode == 4
    assert failed.stderr.startswith("perfmeasure: ")
    assert _run(*common, "--date", "x").returncode == 2
    assert _run(*common).returncode == 2
    assert "Traceback" not in failed.stderr
