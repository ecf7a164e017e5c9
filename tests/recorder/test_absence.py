from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from perfmeasure.errors import InputError
from perfmeasure.recorder import absence


def test_a_reason_is_noted_until_there_are_packets(tmp_path: Path) -> None:
    store = tmp_path / "data" / absence.PACKETS
    assert absence.reason(store) is None
    absence.note(store, "turned off")
    assert absence.reason(store) == "turned off"
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    absence.note(store, "no right")
    assert absence.reason(store) == "no right"
    absence.clear(store)
    absence.clear(store)
    assert absence.reason(store) is None


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"unix_ts":1}', b"\xff"])
def test_what_is_no_reason_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "absent.json").write_bytes(content)
    with pytest.raises(InputError, match=r"absent\.json"):
        absence.reason(tmp_path)


def test_the_store_belongs_to_whom_the_data_directory_does(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("root")
    os.chown(tmp_path, 65534, 65534)
    absence.make_store(tmp_path / "packets")
    assert (tmp_path / "packets").stat().st_uid == 65534
    absence.make_store(tmp_path / "packets")
