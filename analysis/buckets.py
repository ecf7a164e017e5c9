"""The bytes of edges by time: each connection's spread evenly over its life."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from perfmeasure.analysis.topology import Joined
from perfmeasure.errors import PerfmeasureError

MOST_BUCKETS = 60
_SECONDS = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400,
)  # fmt: skip

# A bucket gets what is sent by its end less what is sent by its beginning, both rounded, so that
# the buckets of a connection add up to it.
_SPREAD = """
CREATE TEMP VIEW spread AS
WITH lived AS (
    SELECT *, greatest(start_ts, {begin}) AS from_ts, least(last_ts, {end}) AS to_ts FROM counted),
placed AS (
    SELECT *, floor((from_ts - {first}) / {seconds})::BIGINT AS first_bucket,
           floor((to_ts - {first}) / {seconds})::BIGINT AS last_bucket FROM lived),
cut AS (
    SELECT *, unnest(range(first_bucket, last_bucket + 1)) AS bucket_number FROM placed),
parts AS (
    SELECT *, if(bucket_number = first_bucket, 0,
                 ({first} + bucket_number * {seconds} - from_ts) / (to_ts - from_ts)) AS before,
           if(bucket_number = last_bucket, 1,
              ({first} + (bucket_number + 1) * {seconds} - from_ts) / (to_ts - from_ts)) AS by_then
    FROM cut)
SELECT * REPLACE (
    (round(bytes_sent * by_then) - round(bytes_sent * before))::BIGINT AS bytes_sent,
    (round(bytes_received * by_then) - round(bytes_received * before))::BIGINT AS bytes_received)
FROM parts
"""


def seconds_for(length_seconds: float) -> int:
    """Return how long a bucket is, so that there are not too many of them in a time."""
    for seconds in _SECONDS:
        if length_seconds / seconds < MOST_BUCKETS - 1:
            return seconds
    return math.ceil(length_seconds / (MOST_BUCKETS - 1) / _SECONDS[-1]) * _SECONDS[-1]


def add_edges(joined: Joined) -> tuple[float, int]:
    """Make the view ``bucket_edge``: as ``edge``, for each bucket.

    Returns:
        The beginning of bucket 0 (Unix seconds), and the length of each in seconds.
    """
    [(begin, end)] = joined.cursor.execute(
        "SELECT min(first_unix_ts), max(last_unix_ts) FROM edge"
    ).fetchall()
    if joined.window:
        begin = max(begin, joined.window.start_unix_ts)
        end = min(end, joined.window.end_unix_ts)
    seconds = seconds_for(end - begin)
    first = math.floor(begin / seconds) * seconds
    joined.cursor.execute(_SPREAD.format(begin=begin, end=end, first=first, seconds=seconds))
    joined.add_edges("bucket_edge", calls="spread", heard="spread", bucket="bucket_number")
    return first, seconds


def document(
    found: Sequence[tuple[int, int, int, int]],
    edges: Sequence[dict[str, Any]],
    first_unix_ts: float,
    seconds: int,
) -> list[dict[str, Any]]:
    """Return the buckets of a topology, also those in which nothing was sent.

    Args:
        found: number of the bucket, place among ``edges``, bytes and connections.
        edges: of the topology.
        first_unix_ts: the beginning of bucket 0.
        seconds: the length of each.

    Raises:
        PerfmeasureError: they do not add up to the edges: a defect.
    """
    buckets: list[dict[str, Any]] = [
        {"start_unix_ts": first_unix_ts + number * seconds, "edges": []}
        for number in range(max((row[0] for row in found), default=-1) + 1)
    ]
    totals = [0] * len(edges)
    for number, place, size, connections in sorted(found):
        buckets[number]["edges"].append([place, size, connections])
        totals[place] += size
    if totals != [edge["bytes"] for edge in edges]:
        raise PerfmeasureError(
            "topology",
            "the bytes of its buckets are not those of its edges",
            next_step="report it, please: nothing of this result can be trusted",
        )
    return buckets
