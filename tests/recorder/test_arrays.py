from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perfmeasure.errors import InputError
from perfmeasure.recorder.arrays import Arrays, save

CONTENT = {
    "numbers": np.arange(1000, dtype="u4"),
    "names": np.array([b"a" * 16, b"b"], "S16"),
    "pairs": np.arange(6, dtype="u2").reshape(3, 2),
    "nothing": np.zeros(0, "u8"),
}


def test_numpy_reads_what_is_written_and_so_do_we(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    assert save(path, CONTENT, {"version": 1}) == path.stat().st_size
    ours = Arrays(path)
    assert ours.meta == {"version": 1}
    assert sorted(ours) == sorted(CONTENT)
    with np.load(path) as theirs:
        for name, array in CONTENT.items():
            assert (theirs[name] == array).all()
            assert (ours[name] == array).all()
            assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape)
            assert not ours[name].flags.writeable
    at = [int(ours[name].__array_interface__["data"][0]) for name in ours]
    assert all(address % 64 == 0 for address in at)
    assert Arrays.is_whole(path)
    assert [child.name for child in tmp_path.iterdir()] == ["x.npz"]


def test_what_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save(path, CONTENT, {"version": 1})
    whole = path.read_bytes()
    for size in [0, 1, 20, 80, 1000, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="cannot be used"):
            Arrays(path)
        assert not Arrays.is_whole(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert not Arrays.is_whole(path)
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        Arrays(path)
    assert not Arrays.is_whole(path)


def test_an_array_that_is_not_there_is_named(tmp_path: Path) -> None:
    save(tmp_path / "x.npz", CONTENT, {})
    with pytest.raises(InputError, match="no array other"):
        Arrays(tmp_path / "x.npz")["other"]
