"""What a file looks like that is no log of ours."""

from __future__ import annotations

import re

_TOR_OWN_LINE = re.compile(rb"[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d\.\d{3} \[")


def looks_like(stored: bytes, head: bytes) -> str:
    """Say in a few words what a file is that we do not know."""
    if not stored:
        return "an empty file"
    text = head.lstrip()
    if not text:
        return "compressed data that cannot be unpacked or hold nothing"
    if _TOR_OWN_LINE.match(text):
        return "tor's own log (the control port's events, torctl, are needed)"
    for start, name in (
        (b"{", "a JSON document (a database is not analysed again)"),
        (b"<?xml", "an XML document"),
        (b"<", "an HTML or XML document"),
        (b"@type ", "a .tpf file"),
        (b"\x7fELF", "a program"),
        (b"PAR1", "a Parquet file without the time of its windows in its name"),
    ):
        if text.startswith(start):
            return name
    if b"\0" in head:
        return "binary data"
    first = text.split(b"\n", 1)[0][:80].decode("ascii", "replace").strip()
    return f"text that begins with {first!r}"
