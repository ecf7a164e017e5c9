"""The bracketed sections of the lines of TGen from 1.0 on, each field held against its grammar.

    … transport [fd=…,…] stream [id=…,…] bytes [total-bytes-recv=…,…] times [created-ts=…,…]

Fields are known by their names, not by their places. A field that is missing, there twice, or not
of its shape spoils the line: it has been cut, or something was written into it.
"""

from __future__ import annotations

import re

_NAME = r"[^,\[\]]+"
_WORD = r"[A-Z][A-Z0-9_]*"
_ENDPOINT = r"[^,\[\]]+:\d{1,5}"
_SIZE = r"\d{1,15}"
_PERCENT = r"(?:\d{1,9}\.\d\d%|\?%?)"  # always two decimals, so that a digit that is missing shows
_MICROSECONDS = r"-?\d{1,15}"

# The fields of each section and what they look like; later programs may write more, but not in
# `bytes`: that is what two lines look like of which a part was lost, and its numbers are believed.
_SECTIONS: dict[str, dict[str, re.Pattern[str]]] = {
    section: {name: re.compile(shape, re.ASCII) for name, shape in shapes.items()}
    for section, shapes in {
        "transport": {
            "fd": r"-?\d{1,9}", "local": _ENDPOINT, "proxy": _ENDPOINT, "remote": _ENDPOINT,
            "state": _WORD, "error": _WORD,
        },
        "stream": {
            "id": _SIZE, "vertexid": _NAME, "name": _NAME, "peername": _NAME, "sendsize": _SIZE,
            "recvsize": _SIZE, "sendstate": _WORD, "recvstate": _WORD, "error": _WORD,
        },
        "bytes": {
            "total-bytes-recv": _SIZE, "total-bytes-send": _SIZE, "payload-bytes-recv": _SIZE,
            "payload-bytes-send": _SIZE, "payload-progress-recv": _PERCENT,
            "payload-progress-send": _PERCENT,
        },
        "times": dict.fromkeys((
            "created-ts", "now-ts", "usecs-to-socket-create", "usecs-to-socket-connect",
            "usecs-to-proxy-init", "usecs-to-proxy-choice", "usecs-to-proxy-request",
            "usecs-to-proxy-response", "usecs-to-command", "usecs-to-response",
            "usecs-to-first-byte-recv", "usecs-to-last-byte-recv", "usecs-to-checksum-recv",
            "usecs-to-first-byte-send", "usecs-to-last-byte-send", "usecs-to-checksum-send",
        ), _MICROSECONDS),
    }.items()
}  # fmt: skip
_OTHER_FIELD = re.compile(r"[a-z][a-z-]*")
_OTHER_VALUE = re.compile(r"[^\[\]]+")

_FRAME = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \d{9,10}\.(?:\d{6}|\d\d) "
    r"\[(?:message|info|debug|warning|error|critical)\] (?:\[[\w.:-]+\] )?\[\w+\] ",
    re.ASCII,
)
_WORDS = frozenset({"[stream-status", "[stream-success", "[stream-error"})
_BEGINS = "Created new stream ["
Sections = dict[str, dict[str, str]]


def is_framed(text: str, begin: int) -> bool:
    """Whether all before ``begin`` is as any line of any TGen begins: stamp, level, place."""
    return _FRAME.fullmatch(text, 0, begin) is not None


def percent_of(text: str) -> float:
    """Return ``3.12%`` as 3.12, and -1 for ``?``, which TGen writes when no size was set."""
    return -1.0 if text[0] == "?" else float(text[:-1])


def sections_of(line: bytes) -> Sections | None:
    """Return the bracketed sections of a line by name, or None if any of it is garbled."""
    try:
        text = line.decode().rstrip()
    except UnicodeDecodeError:
        return None
    at = text.find(_BEGINS)
    if at >= 0:
        rest = text[at + 12 :].replace("] on transport [", "] transport [", 1)
    else:
        at = text.find("[stream-")
        word, _, rest = text[at:].partition("] ")
        if word not in _WORDS:
            return None
    if not (text.isprintable() and is_framed(text, at) and rest.endswith("]")):
        return None
    sections: Sections = {}
    for part in rest[:-1].split("] "):
        name, _, inside = part.partition(" [")
        shapes = _SECTIONS.get(name)
        fields = _fields_of(inside, shapes) if shapes and name not in sections else None
        if fields is None or (name == "bytes" and len(fields) > len(_SECTIONS[name])):
            return None
        sections[name] = fields
    return sections if {"transport", "stream"} <= sections.keys() else None


def _fields_of(inside: str, shapes: dict[str, re.Pattern[str]]) -> dict[str, str] | None:
    """Return the fields of a section, or None if one is missing, there twice, or garbled."""
    fields: dict[str, str] = {}
    for item in inside.split(","):
        key, _, value = item.partition("=")
        shape = shapes.get(key)
        is_whole = (
            shape.fullmatch(value)
            if shape
            else _OTHER_FIELD.fullmatch(key) and _OTHER_VALUE.fullmatch(value)
        )
        if not is_whole or key in fields:
            return None
        fields[key] = value
    return fields if fields.keys() >= shapes.keys() else None
