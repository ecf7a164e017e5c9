"""The remote write protocol of Prometheus, version 0.1.0: samples as a snappy-packed protobuf.

Source: the protocol's specification and its ``remote.proto`` and ``types.proto``:
``WriteRequest{repeated TimeSeries timeseries = 1}``, ``TimeSeries{repeated Label labels = 1;
repeated Sample samples = 2}``, ``Label{string name = 1; string value = 2}``,
``Sample{double value = 1; int64 timestamp = 2}``, with labels sorted by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from perfmeasure.errors import MissingError

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}

# Between these, 1971 and 2109, a time takes six bytes as a varint: each sample is as long as any.
FIRST_MS = 1 << 35
END_MS = 1 << 42
_STAMP_BYTES = 6
_SAMPLE = np.dtype(
    [
        ("field", "u1"),
        ("length", "u1"),
        ("value_field", "u1"),
        ("value", "<f8"),
        ("stamp_field", "u1"),
        ("stamp", "u1", (_STAMP_BYTES,)),
    ]
)


def label_bytes(labels: Mapping[str, str]) -> bytes:
    """Return the labels of a series, ``__name__`` among them, as they stand in its message."""
    parts = []
    for name, value in sorted(labels.items()):
        if value:  # an empty label is the same as none
            pair = _field(1, name.encode()) + _field(2, value.encode())
            parts.append(_field(1, pair))
    return b"".join(parts)


def sample_bytes(stamps_ms: NDArray[np.int64], values: NDArray[np.float64]) -> bytes:
    """Return samples as they stand in the message of their series, `SAMPLE_BYTES` each.

    Raises:
        ValueError: a time is before 1971 or after 2109.
    """
    if len(stamps_ms) and not (stamps_ms.min() >= FIRST_MS and stamps_ms.max() < END_MS):
        raise ValueError("a sample's time is not between 1971 and 2109")
    samples = np.empty(len(stamps_ms), _SAMPLE)
    samples["field"] = 2 << 3 | 2
    samples["length"] = _SAMPLE.itemsize - 2
    samples["value_field"] = 1 << 3 | 1
    samples["value"] = values
    samples["stamp_field"] = 2 << 3
    shifts = np.arange(_STAMP_BYTES, dtype=np.int64) * 7
    digits = (stamps_ms[:, None] >> shifts) & 0x7F
    digits[:, :-1] |= 0x80
    samples["stamp"] = digits
    return samples.tobytes()


SAMPLE_BYTES = _SAMPLE.itemsize


def request(series: Iterable[tuple[bytes, bytes | memoryview]]) -> bytes:
    """Return the body of a request.

    Args:
        series: of each its labels and its samples, from `label_bytes` and `sample_bytes`.

    Raises:
        MissingError: no snappy is installed.
    """
    try:
        import cramjam  # noqa: PLC0415 - only those who export need it
    except ImportError:
        raise MissingError(
            "remote write",
            "cramjam, which packs as snappy does, is not installed",
            next_step="install it with: pip install 'perfmeasure[fleet]'",
        ) from None
    plain = b"".join(_field(1, b"".join(parts)) for parts in series)
    return bytes(cramjam.snappy.compress_raw(plain))


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
