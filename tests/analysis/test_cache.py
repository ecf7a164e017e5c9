from __future__ import annotations

import os
from pathlib import Path

import pytest

from perfmeasure.analysis.cache import Cache
from perfmeasure.errors import ExitStatus, PerfmeasureError

SHA256 = "ab" * 32
FACTS = b"PAR1 facts PAR1"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, said: list[str]) -> Cache:
    return Cache(tmp_path / "new" / "cache", said.append)


def test_what_is_kept_is_found(cache: Cache, tmp_path: Path, said: list[str]) -> None:
    assert cache.find(SHA256) is None
    cache.put(SHA256, {"kind": "tgen"}, FACTS)
    assert cache.find(SHA256) == {"kind": "tgen"}
    assert cache.facts(SHA256).read_bytes() == FACTS
    assert Cache(tmp_path / "new" / "cache", said.append).find(SHA256) == {"kind": "tgen"}
    cache.put(SHA256, {"kind": "torctl"}, FACTS + b"2")
    assert cache.find(SHA256) == {"kind": "torctl"}
    assert [path.name for path in cache.facts(SHA256).parent.parent.iterdir()] == [SHA256]
    assert said == []


@pytest.mark.parametrize("name", ["facts.parquet", "scan.json"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone", "empty"])
def test_a_damaged_entry_is_said_and_not_used(
    cache: Cache, said: list[str], name: str, how: str
) -> None:
    cache.put(SHA256, {"kind": "tgen", "lines": 12345}, FACTS)
    path = cache.facts(SHA256).with_name(name)
    content = path.read_bytes()
    damaged = {
        "cut": content[:-3],
        "changed": content.replace(b"facts", b"fakes").replace(b"12345", b"12346"),
        "empty": b"",
    }
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(damaged[how])
    assert cache.find(SHA256) is None
    assert len(said) == 1
    assert "anew" in said[0]
    cache.put(SHA256, {"kind": "tgen"}, FACTS)
    assert cache.find(SHA256) == {"kind": "tgen"}


def test_an_entry_of_another_log_is_damaged(cache: Cache, said: list[str]) -> None:
    other = "ab" + "cd" * 31
    cache.put(SHA256, {"kind": "tgen"}, FACTS)
    cache.facts(SHA256).parent.rename(cache.facts(other).parent)
    assert cache.find(other) is None
    assert len(said) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PerfmeasureError, match="cannot be written") as caught:
        Cache(tmp_path / "file", said.append)
    assert caught.value.exit_status is ExitStatus.FAILED


def test_a_disk_that_is_full(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _data: bytes) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PerfmeasureError, match=r"No space left on device.*--cache"):
        cache.put(SHA256, {}, FACTS)
    assert list(cache.facts(SHA256).parent.parent.iterdir()) == []
