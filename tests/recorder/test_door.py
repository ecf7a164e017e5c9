from __future__ import annotations

from pathlib import Path

import pytest

from perfmeasure.errors import InputError, UsageError
from perfmeasure.recorder.door import (
    announce,
    announced,
    make_token,
    read_token,
    token_path,
    withdraw,
)


def test_the_token_is_private_and_stays(tmp_path: Path) -> None:
    token = make_token(tmp_path)
    assert len(token) == 64
    assert token_path(tmp_path).stat().st_mode & 0o777 == 0o600
    assert token_path(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    assert make_token(tmp_path) == token == read_token(token_path(tmp_path))
    assert make_token(tmp_path / "other") != token


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    make_token(tmp_path)
    token_path(tmp_path).chmod(0o640)
    with pytest.raises(UsageError, match="not a file that only you can read; wanted mode 0600"):
        make_token(tmp_path)


def test_a_link_instead_of_a_token_is_refused(tmp_path: Path) -> None:
    token = make_token(tmp_path / "other")
    make_token(tmp_path)
    token_path(tmp_path).unlink()
    token_path(tmp_path).symlink_to(token_path(tmp_path / "other"))
    with pytest.raises(UsageError, match="not a file that only you can read") as caught:
        make_token(tmp_path)
    assert token not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 64, b"g" * 64])
def test_what_is_no_token(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(InputError, match="token"):
        read_token(tmp_path / "token")
    with pytest.raises(InputError, match="No such file"):
        read_token(tmp_path / "none")


def test_the_port_is_there_while_it_is_announced(tmp_path: Path) -> None:
    make_token(tmp_path)
    assert announced(tmp_path) is None
    announce(tmp_path, 4711)
    assert announced(tmp_path) == 4711
    withdraw(tmp_path)
    withdraw(tmp_path)
    assert announced(tmp_path) is None
    (tmp_path / "private" / "console.port").write_text("0\n")
    with pytest.raises(InputError, match="wanted a port"):
        announced(tmp_path)
