from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest

from perfmeasure import jsonio
from perfmeasure.analysis import pipeline, remote
from perfmeasure.analysis.remote import RemotePath
from perfmeasure.errors import ExitStatus, InputError, MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def memory(fixtures: Path) -> Iterator[str]:
    """A store that is no file system, with the fixtures' run in it as a measurement keeps it."""
    system = fsspec.filesystem("memory")
    for path in sorted((fixtures / "onionperf-run").glob("*.xz")):
        role = path.name.partition(".")[0]
        system.pipe(f"/store/host/{role}/{path.name}", path.read_bytes())
    system.pipe("/store/host/docroot/x.tgen.log", b"not to be read")
    yield "memory://store/host"
    system.rm("/store", recursive=True)


def test_a_folder_by_its_url_is_as_good_as_a_local_one(
    memory: str, fixtures: Path, tmp_path: Path
) -> None:
    for path in (fixtures / "onionperf-run").glob("*.xz"):
        copy = tmp_path / "host" / path.name.partition(".")[0] / path.name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(path.read_bytes())
    local = jsonio.canonical(pipeline.analyze([tmp_path / "host"]))
    for url in (memory, f"{memory}/", f"file://{tmp_path}/host"):
        assert jsonio.canonical(pipeline.analyze([remote.path_of(url)])) == local
    # A role's folder alone, and the same files twice.
    tgen = f"{memory}/tgen-client"
    both = pipeline.analyze([RemotePath(tgen), RemotePath(tgen)])
    assert [log["name"] for log in both["meta"]["inputs"]] == [
        "tgen-client/tgen-client.onionperf.tgen.log.xz"
    ]


def test_a_file_by_its_url(memory: str) -> None:
    url = f"{memory}/tgen-client/tgen-client.onionperf.tgen.log.xz"
    document = pipeline.analyze([RemotePath(url)])
    assert len(document["data"]["vm"]["tgen"]["transfers"]) == 12


def test_what_is_not_there(memory: str) -> None:
    with pytest.raises(InputError, match=f"{memory}/missing: does not exist"):
        pipeline.analyze([RemotePath(f"{memory}/missing")])


def test_a_protocol_that_this_machine_does_not_have() -> None:
    with pytest.raises(UsageError, match=r"nothing://x: .*URL that fsspec knows"):
        pipeline.analyze([RemotePath("nothing://x")])
    with pytest.raises(MissingError, match=r"s3fs.*perfmeasure\[fleet\]") as caught:
        pipeline.analyze([RemotePath("s3://bucket/logs")])
    assert caught.value.exit_status is ExitStatus.MISSING


def test_without_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingError, match=r"pip install 'perfmeasure\[fleet\]'"):
        pipeline.analyze([RemotePath("memory://x")])


def test_what_an_argument_means() -> None:
    assert remote.path_of("s3://bucket/a") == RemotePath("s3://bucket/a")
    assert remote.path_of("a/b") == Path("a/b")
    assert remote.path_of("-") == Path("-")
