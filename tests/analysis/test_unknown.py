from __future__ import annotations

import pytest

from perfmeasure.analysis.unknown import looks_like


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b" \n", "compressed data that cannot be unpacked or hold nothing"),
        (b"Nov 22 00:00:00.000 [notice] Tor", "tor's own log"),
        (b'{"type": 1}', "a JSON document"),
        (b"<?xml", "an XML document"),
        (b"<p>", "an HTML or XML document"),
        (b"@type torperf 1.0", "a .tpf file"),
        (b"\x7fELF", "a program"),
        (b"PAR1", "a Parquet file"),
        (b"a\0b", "binary data"),
        (b"hello\nworld", "text that begins with 'hello'"),
    ],
)
def test_what_files_look_like(content: bytes, said: str) -> None:
    assert looks_like(content, content).startswith(said)
