from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import distributed
import pytest

from perfmeasure import jsonio
from perfmeasure.analysis import pipeline, scan, scans, source
from perfmeasure.analysis.cache import Cache
from perfmeasure.analysis.cluster import Cluster
from perfmeasure.analysis.scans import Scans
from perfmeasure.analysis.workers import Here, Processes
from perfmeasure.errors import ExitStatus, InputError, PerfmeasureError
from tests.analysis import killing
from tests.analysis.test_scan import overlapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfmeasure.analysis.scan import FactsOf
    from perfmeasure.analysis.scans import Prepare
    from perfmeasure.analysis.source import Input
    from perfmeasure.analysis.workers import Workers
    from tests.analysis.conftest import Lines


@pytest.fixture(scope="module")
def hosts(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Logs of several hosts and kinds, some of them with the same first line and the same name."""
    top = tmp_path_factory.mktemp("hosts")
    shutil.copytree(fixtures / "onionperf-run", top / "one")
    shutil.copytree(fixtures / "onionperf-run", top / "two")
    shutil.copytree(fixtures / "tgen", top / "three")
    shutil.copytree(fixtures / "torctl", top / "four")
    single = [top / "a/x.tgen.log", top / "b/x.tgen.log"]
    for path in single:
        path.parent.mkdir()
        path.write_bytes((fixtures / "old-tgen/2019.tgen.log").read_bytes())
    single[1].write_bytes(single[1].read_bytes() + b"rubbish\n")
    return [top / "one", top / "two", top / "three", top / "four", *single]


@pytest.fixture(scope="module")
def expected(hosts: list[Path]) -> str:
    """The SHA-256 of the database that one process makes, scanning as it goes."""
    return digest(pipeline.analyze(hosts))


def digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(jsonio.canonical(document)).hexdigest()


def shuffled(hosts: list[Path], seed: int) -> list[Path]:
    return random.Random(seed).sample(hosts, len(hosts))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_one_sha256_with_any_number_of_processes_in_any_order(
    hosts: list[Path], expected: str, processes: int
) -> None:
    with scans.prepared(
        processes=processes, scheduler=None, cache=None, say=pytest.fail
    ) as prepare:
        assert digest(pipeline.analyze(shuffled(hosts, processes), prepare=prepare)) == expected


def preparing(workers: Workers, folder: Path) -> Prepare:
    def prepare(logs: Sequence[Input]) -> FactsOf:
        found = Scans(Cache(folder, pytest.fail), workers, is_lasting=False)
        assert found.make(logs) == len(logs)
        return found.facts

    return prepare


def test_one_sha256_with_a_process_killed_in_the_middle(
    hosts: list[Path], expected: str, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    with Processes(2) as workers:
        killed = killing.OneIsKilled(workers, marks)
        document = pipeline.analyze(
            shuffled(hosts, 7), prepare=preparing(killed, tmp_path / "cache")
        )
    assert digest(document) == expected
    assert killed.attempts() == len(document["meta"]["inputs"]) + 1


def test_one_sha256_on_a_cluster_with_a_worker_killed_in_the_middle(
    hosts: list[Path], expected: str, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            protocol="tcp://",
            dashboard_address=":0",
            silence_logs=True,
        ) as local,
        Cluster(local.scheduler_address) as workers,
    ):
        killed = killing.OneIsKilled(workers, marks)
        document = pipeline.analyze(
            shuffled(hosts, 8), prepare=preparing(killed, tmp_path / "cache")
        )
        assert digest(document) == expected
        assert killed.attempts() > len(document["meta"]["inputs"])
        # The same through the command's own way in.
        with scans.prepared(
            processes=None, scheduler=local.scheduler_address, cache=None, say=pytest.fail
        ) as asked:
            assert digest(pipeline.analyze(hosts, prepare=asked)) == expected


def cached(paths: list[Path], folder: Path, processes: int = 1) -> tuple[str, list[str]]:
    said: list[str] = []
    with scans.prepared(
        processes=processes, scheduler=None, cache=folder, say=said.append
    ) as prepare:
        return digest(pipeline.analyze(paths, prepare=prepare)), said


def test_a_second_run_scans_only_what_is_new(
    hosts: list[Path], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    count = len(pipeline.analyze(hosts)["meta"]["inputs"])
    # Two hosts have the same logs: each content is scanned once.
    first, said = cached(hosts, folder, 2)
    assert first == expected
    assert said == [f"{count - 4} logs scanned, 4 taken from {folder}"]
    with monkeypatch.context() as patch:
        patch.setattr(scan, "facts", pytest.fail)  # nothing is unpacked or parsed
        assert cached(shuffled(hosts, 3), folder) == (
            expected,
            [f"0 logs scanned, {count} taken from {folder}"],
        )
    new = tmp_path / "new.tgen.log"
    new.write_bytes((hosts[4]).read_bytes() + b"rubbish 2\n")
    _, said = cached([*hosts, new], folder)
    assert said == [f"1 logs scanned, {count} taken from {folder}"]


def test_a_damaged_entry_is_scanned_anew(hosts: list[Path], expected: str, tmp_path: Path) -> None:
    cached(hosts, tmp_path)
    damaged = sorted(tmp_path.glob("v1/*/*/facts.parquet"))[:3]
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    found, said = cached(hosts, tmp_path)
    assert found == expected
    assert [text.rpartition(": ")[2] for text in said[:3]] == [
        "damaged; the log is scanned anew"
    ] * 3
    assert said[3].startswith("3 logs scanned")


def test_a_log_that_needs_each_line_is_scanned_again(tmp_path: Path, lines: type[Lines]) -> None:
    for name, text in zip("ab", overlapping(lines, is_ended=True), strict=True):
        (tmp_path / f"{name}.tgen.log").write_text(text)
    expected = digest(pipeline.analyze([tmp_path]))
    assert cached([tmp_path], tmp_path / "cache", 2)[0] == expected
    assert cached([tmp_path], tmp_path / "cache")[0] == expected


def test_standard_input_is_scanned_here(
    fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fixtures / "tgen/client-upstream-web.tgen.log"
    for processes in (1, 2):
        with path.open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            found, said = cached([Path("-")], tmp_path / str(processes), processes)
        assert said[0].startswith("1 logs scanned")
        with path.open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            assert digest(pipeline.analyze([Path("-")])) == found


def test_a_log_that_vanishes(lines: type[Lines], tmp_path: Path) -> None:
    path = tmp_path / "a.tgen.log"
    path.write_text(lines.initializing(0))

    class Vanishing(Here):
        def run(self, *arguments: Any) -> Any:
            path.unlink(missing_ok=True)
            return super().run(*arguments)

    with pytest.raises(InputError, match=r"a\.tgen\.log: cannot be read \(No such file") as caught:
        pipeline.analyze([path], prepare=preparing(Vanishing(), tmp_path / "cache"))
    assert caught.value.exit_status is ExitStatus.UNUSABLE_INPUT


def test_a_worker_of_another_version(lines: type[Lines], tmp_path: Path) -> None:
    path = tmp_path / "a.tgen.log"
    path.write_text(lines.initializing(0))
    [log] = source.find([path])
    with pytest.raises(PerfmeasureError, match="Install the same perfmeasure"):
        scan.scanned(scan.Task(log, version=0))


def test_processes_are_taken_for_much_to_do(tmp_path: Path, lines: type[Lines]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.tgen.log").write_text(lines.initializing(0))
    logs = source.find([tmp_path])
    assert scans._worthwhile(logs) == 1
    os.truncate(tmp_path / "a.tgen.log", scans.LEAST_BYTES_FOR_PROCESSES)
    assert scans._worthwhile(logs) == min(len(os.sched_getaffinity(0)), 2)
    os.truncate(tmp_path / "a.tgen.log", scans.LEAST_BYTES_FOR_PROCESSES // 10)
    assert scans._worthwhile(logs) == 1
    (tmp_path / "a.tgen.log").rename(tmp_path / "a.tgen.log.xz")
    assert scans._worthwhile(source.find([tmp_path])) == min(len(os.sched_getaffinity(0)), 2)
