from __future__ import annotations

import gzip
import itertools
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis import compression

SUFFIXES = (".gz", ".xz", ".zst")


def unpack(data: bytes, block: int = 7) -> tuple[bytes, list[str]]:
    reasons: list[str] = []
    blocks = iter(data[at : at + block] for at in range(0, len(data), block))
    return b"".join(compression.plain_blocks(blocks, reasons.append)), reasons


@given(st.binary(max_size=2000), st.sampled_from(("", *SUFFIXES)))
def test_round_trip(data: bytes, suffix: str) -> None:
    if suffix or not any(data.startswith(m) for m in (b"\x1f\x8b", b"\xfd7z", b"\x28\xb5")):
        assert unpack(compression.compress(data, suffix), 100) == (data, [])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_bytes_on_each_run(suffix: str) -> None:
    data = bytes(range(256)) * 100
    assert compression.compress(data, suffix) == compression.compress(data, suffix)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_several_members_with_padding_between(suffix: str) -> None:
    one, two = (compression.compress(text, suffix) for text in (b"one" * 50, b"two" * 50))
    assert unpack(one + two + bytes(8), 9999) == (b"one" * 50 + b"two" * 50, [])
    assert unpack(one + bytes(512) + two) == (b"one" * 50 + b"two" * 50, [])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncation_gives_a_prefix_and_a_reason(suffix: str) -> None:
    data = b"".join(b"%d " % number for number in range(300))
    packed = compression.compress(data, suffix)
    for end in range(6, len(packed)):
        found, reasons = unpack(packed[:end], 64)
        assert data.startswith(found)
        assert reasons == ["compressed data end early"], end


def test_what_is_behind_the_data_is_said() -> None:
    assert unpack(gzip.compress(b"data") + b"rubbish") == (b"data", ["compressed data are damaged"])


@pytest.mark.parametrize("packed", [gzip.compress(bytes(10**8)), lzma.compress(bytes(10**8))])
def test_a_bomb_comes_in_blocks(packed: bytes) -> None:
    blocks = compression.plain_blocks(iter([packed]), lambda _: None)
    for block in itertools.islice(blocks, 20):
        assert len(block) <= compression.BLOCK_BYTES
