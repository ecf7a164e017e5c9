from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.topology import remotewrite
from tests.topology import tsdb

_NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True)
_SERIES = st.tuples(
    st.dictionaries(_NAMES, st.text(max_size=200), max_size=6),
    st.lists(
        st.tuples(
            st.integers(remotewrite.FIRST_MS, remotewrite.END_MS - 1), st.floats(allow_nan=False)
        ),
        max_size=20,
    ),
)


@given(st.lists(_SERIES, max_size=5))
def test_what_was_written_is_read_by_the_rules_of_the_wire_format(
    series: list[tuple[dict[str, str], list[tuple[int, float]]]],
) -> None:
    body = remotewrite.request(
        (
            remotewrite.label_bytes(labels),
            remotewrite.sample_bytes(
                np.array([at for at, _ in samples], np.int64),
                np.array([value for _, value in samples], np.float64),
            ),
        )
        for labels, samples in series
    )
    assert tsdb.written(body) == [
        (frozenset((name, value) for name, value in labels.items() if value), at, value)
        for labels, samples in series
        for at, value in samples
    ]


@pytest.mark.parametrize("at_ms", [0, -1, remotewrite.FIRST_MS - 1, remotewrite.END_MS])
def test_a_time_of_another_century_is_refused(at_ms: int) -> None:
    with pytest.raises(ValueError, match="1971"):
        remotewrite.sample_bytes(np.array([at_ms], np.int64), np.array([1.0]))
