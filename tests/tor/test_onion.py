"""perfmeasure.tor.onion: address, key protection, folders."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import MeasurementError, UsageError
from perfmeasure.tor.onion import OnionService, is_address, make_private

if TYPE_CHECKING:
    from pathlib import Path

# A search engine's, known to everyone.
ADDRESS = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion"
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


@pytest.fixture
def onion(tmp_path: Path) -> OnionService:
    return OnionService.under(tmp_path / "private", 8080, 9090)


def test_a_real_address_is_one() -> None:
    assert is_address(ADDRESS)


@given(st.integers(0, 55), st.sampled_from(LETTERS))
def test_one_letter_wrong_is_seen(place: int, letter: str) -> None:
    changed = ADDRESS[:place] + letter + ADDRESS[place + 1 :]
    assert is_address(changed) is (changed == ADDRESS)


@given(st.text())
def test_any_text_is_no_address(text: str) -> None:
    assert not is_address(text)


def test_folders_are_private(onion: OnionService) -> None:
    onion.folder.parent.mkdir(mode=0o755)
    onion.prepare()
    for folder in (onion.folder, onion.folder.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_single_onion_has_a_folder_of_its_own(onion: OnionService, tmp_path: Path) -> None:
    single = OnionService.under(tmp_path / "private", 8080, 9090, is_single_onion=True)
    assert single.folder != onion.folder
    assert single.folder.parent == onion.folder.parent


def test_a_key_that_others_can_read_is_refused(onion: OnionService) -> None:
    onion.prepare()
    key = onion.folder / "hs_ed25519_secret_key"
    key.write_bytes(b"secret")
    key.chmod(0o640)
    with pytest.raises(UsageError, match=r"mode 0640.*chmod 600") as caught:
        onion.prepare()
    assert "secret" not in str(caught.value).replace("secret_key", "")
    key.chmod(0o600)
    onion.prepare()


def test_no_address_yet(onion: OnionService) -> None:
    with pytest.raises(MeasurementError, match="no onion address"):
        onion.address()


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"example.com\n", ADDRESS[:-7].encode()])
def test_what_is_no_address_is_refused(onion: OnionService, content: bytes) -> None:
    onion.prepare()
    (onion.folder / "hostname").write_bytes(content)
    with pytest.raises(MeasurementError, match="is not an onion address"):
        onion.address()


def test_address_is_read(onion: OnionService) -> None:
    onion.prepare()
    (onion.folder / "hostname").write_text(ADDRESS + "\n")
    assert onion.address() == ADDRESS


def test_a_link_or_a_file_is_no_private_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="link"):
        make_private(tmp_path / "link")
    with pytest.raises(UsageError, match="cannot be made private"):
        make_private(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be made private"):
        make_private(tmp_path / "file" / "below")
