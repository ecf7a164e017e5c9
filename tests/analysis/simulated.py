"""Datasets drawn from known distributions, for comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np

from perfmeasure.analysis.datasets import Dataset


def row(
    index: int, first_byte: float | None, last_byte: float | None, **more: Any
) -> dict[str, Any]:
    return {
        "id": f"stream:{index}",
        "label": "host",
        "start": index * 720.0,
        "time_to_first_byte": first_byte,
        "time_to_last_byte": last_byte,
        "error_code": None if last_byte is not None else "TGEN/TIMEOUT",
        "mbps": None,
        "filesize_bytes": 51200,
        "server": "public",
        "fingerprints": None,
        **more,
    }


def dataset(
    label: str,
    random: np.random.Generator,
    *,
    count: int = 500,
    factor: float = 1.0,
    failing: float = 0.02,
    sizes: tuple[int, ...] = (51200,),
) -> Dataset:
    """Times are log-normal with a deviation of 0.25, as on one circuit after another."""
    first = np.exp(random.normal(-1.0, 0.25, count)) * factor
    last = first + np.exp(random.normal(0.0, 0.25, count)) * factor
    fails = random.random(count) < failing
    return Dataset(
        label,
        rows=[
            row(
                index,
                None if fails[index] else float(first[index]),
                None if fails[index] else float(last[index]),
                filesize_bytes=sizes[index % len(sizes)],
            )
            for index in range(count)
        ],
        hosts={("host", "192.0.2.1")},
    )
