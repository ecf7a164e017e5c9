"""perfmeasure.tor.snapshot: kept whole or not at all, and refused when damaged or old."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.tor.relay import Relay
from perfmeasure.tor.snapshot import (
    OLDEST_SECONDS,
    SnapshotError,
    cache_folders,
    kept_files,
    take_slot,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from perfmeasure.tor.snapshot import Slot

NOW = 1_795_316_079.0
FILES = {
    "keys/secret_id_key": b"key\n",
    "keys/ed25519_signing_cert": b"cert",
    "cached-microdesc-consensus": b"network-status-version 3\n" * 100,
    "cached-microdescs.new": b"",
    "cached-descriptors": b"\x00\xff",
}
NOT_KEPT = {
    "lock": b"",
    "control_auth_cookie": b"secret",
    "state": b"guards",
    "diff-cache/1234": b"x",
    "keys/x.tmp": b"half",
}


def _relays(base: Path) -> list[Relay]:
    relays = [
        Relay(
            "authority0", base / "authority0", is_authority=True, or_port=1, fingerprint="A" * 40
        ),
        Relay("exit0", base / "exit0", is_exit=True, or_port=2, fingerprint="B" * 40),
    ]
    for relay in relays:
        for name, content in (FILES | NOT_KEPT).items():
            path = relay.data / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return relays


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def slot(cache: Path, tmp_path: Path) -> Iterator[Slot]:
    """A slot with a snapshot."""
    slot = take_slot([cache], "key")
    assert slot is not None
    slot.save(_relays(tmp_path / "made"), NOW)
    yield slot
    slot.release()


def test_what_was_saved_is_restored(slot: Slot, tmp_path: Path) -> None:
    base = tmp_path / "elsewhere"
    relays, made_unix_ts = slot.restore(base, NOW + 60)
    assert made_unix_ts == NOW
    wanted = [replace(relay, folder=base / relay.name) for relay in _relays(tmp_path / "made")]
    assert relays == wanted
    for relay in relays:
        assert stat.S_IMODE(relay.data.stat().st_mode) == 0o700
        found = {p.relative_to(relay.data).as_posix(): p for p in relay.data.rglob("*")}
        assert {n: p.read_bytes() for n, p in found.items() if p.is_file()} == FILES
        assert all(stat.S_IMODE(p.stat().st_mode) & 0o077 == 0 for p in found.values())


def test_restoring_removes_what_was_there(slot: Slot, tmp_path: Path) -> None:
    base = tmp_path / "again"
    _relays(base)
    slot.restore(base, NOW)
    assert not (base / "exit0" / "data" / "state").exists()


def test_nothing_is_there_at_first(cache: Path, tmp_path: Path) -> None:
    slot = take_slot([cache], "key")
    assert slot is not None
    with pytest.raises(SnapshotError, match="not there"):
        slot.restore(tmp_path / "base", NOW)
    slot.release()


@pytest.mark.parametrize(("age", "is_good"), [(-1, False), (0, True), (OLDEST_SECONDS, True)])
def test_age(slot: Slot, tmp_path: Path, age: float, *, is_good: bool) -> None:
    assert bool(slot.restore(tmp_path / "base", NOW + OLDEST_SECONDS))
    if is_good:
        assert slot.restore(tmp_path / "base", NOW + age)
    else:
        with pytest.raises(SnapshotError, match="days old"):
            slot.restore(tmp_path / "base", NOW + age)
    with pytest.raises(SnapshotError, match="days old"):
        slot.restore(tmp_path / "base", NOW + OLDEST_SECONDS + 1)


def _truncate(folder: Path) -> None:
    os.truncate(folder / "exit0" / "cached-microdesc-consensus", 100)


def _change(folder: Path) -> None:
    path = folder / "exit0" / "cached-microdesc-consensus"
    path.write_bytes(path.read_bytes().replace(b"3", b"4", 1))


def _delete_key(folder: Path) -> None:
    (folder / "authority0" / "keys" / "secret_id_key").unlink()


def _delete_key_and_its_entry(folder: Path) -> None:
    _delete_key(folder)
    path = folder / "manifest.json"
    document = jsonio.loads(path.read_bytes())
    del document["sha256"]["authority0/keys/secret_id_key"]
    path.write_bytes(jsonio.canonical(document))


def _truncate_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 100)


def _point_outside(folder: Path) -> None:
    path = folder / "manifest.json"
    text = path.read_text().replace("exit0/cached-descriptors", "exit0/../../../x")
    path.write_text(text)


def _point_outside_by_name(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("exit0", "../x0"))


def _another_format(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"format":1', '"format":2'))


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _change,
        _delete_key,
        _delete_key_and_its_entry,
        _truncate_manifest,
        _point_outside,
        _point_outside_by_name,
        _another_format,
    ],
)
def test_damage_is_seen_before_anything_is_written(
    slot: Slot, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(slot.folder)
    with pytest.raises(SnapshotError):
        slot.restore(tmp_path / "base", NOW)
    assert not (tmp_path / "base").exists()


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["format", "made_unix_ts", "relays", "sha256", "name", "or_port"]),
                x,
            )
        ),
    )
)
def test_any_manifest_is_refused_with_a_reason(document: object) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as name:
        slot = take_slot([Path(name)], "key")
        assert slot is not None
        slot.folder.mkdir()
        (slot.folder / "manifest.json").write_bytes(jsonio.canonical(document))
        with pytest.raises(SnapshotError):
            slot.restore(Path(name) / "base", NOW)
        slot.release()


def test_each_user_has_a_slot_of_its_own(cache: Path) -> None:
    slots = [take_slot([cache], "key") for _ in range(9)]
    assert slots[8] is None
    assert len({slot.folder for slot in slots if slot is not None}) == 8
    for slot in slots[:8]:
        assert slot is not None
        slot.release()
    again = take_slot([cache], "key")
    assert again is not None
    assert again.folder.name == "0"
    again.release()


def test_a_killed_user_leaves_its_slot(cache: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from perfmeasure.tor import snapshot\n"
        "slot = snapshot.take_slot([Path(sys.argv[1])], 'key')\n"
        "jsonio_canonical = snapshot.jsonio.canonical\n"
        "snapshot.jsonio.canonical = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "import importlib.util as u\n"
        "spec = u.spec_from_file_location('t', sys.argv[2]); t = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(t)\n"
        "slot.save(t._relays(Path(sys.argv[3])), 1.0)\n"
    )
    argv = [sys.executable, "-c", code, str(cache), __file__, str(tmp_path / "made")]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    place = cache / "testnet" / "key"
    assert any(path.name.startswith("0.new-") for path in place.iterdir())
    slot = take_slot([cache], "key")
    assert slot is not None
    assert slot.folder.name == "0"
    with pytest.raises(SnapshotError, match="not there"):
        slot.restore(tmp_path / "base", NOW)
    assert [path.name for path in place.iterdir() if path.is_dir()] == []
    slot.save(_relays(tmp_path / "made"), NOW)
    assert slot.restore(tmp_path / "base", NOW)
    slot.release()


def test_saving_replaces(slot: Slot, tmp_path: Path) -> None:
    relays = _relays(tmp_path / "made")
    (relays[1].data / "cached-descriptors").write_bytes(b"new")
    slot.save(relays, NOW + 5)
    assert slot.restore(tmp_path / "base", NOW + 5)
    assert (tmp_path / "base" / "exit0" / "data" / "cached-descriptors").read_bytes() == b"new"
    assert [path.name for path in slot.folder.parent.iterdir() if path.is_dir()] == ["0"]


def test_another_folder_when_the_first_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    slot = take_slot([tmp_path / "file" / "perfmeasure", tmp_path / "second"], "key")
    assert slot is not None
    assert slot.folder == tmp_path / "second" / "testnet" / "key" / "0"
    slot.release()
    assert take_slot([tmp_path / "file"], "key") is None


def test_cache_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    second = tmp_path / "prefix" / "cache"
    assert cache_folders(second.parent) == [tmp_path / ".cache" / "perfmeasure", second]
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert [str(folder) for folder in cache_folders(second.parent)] == [
        "/x/perfmeasure",
        str(second),
    ]
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification: to be ignored
    assert cache_folders(second.parent)[0] == tmp_path / ".cache" / "perfmeasure"


def test_kept_files(tmp_path: Path) -> None:
    (relay, _) = _relays(tmp_path)
    assert set(kept_files(relay.data)) == set(FILES)
    shutil.rmtree(relay.data)
    assert kept_files(relay.data) == []
