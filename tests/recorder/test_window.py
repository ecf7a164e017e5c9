from __future__ import annotations

import io
import os

from perfmeasure.recorder.window import Window


def test_offsets_stay_true_while_the_buffer_moves() -> None:
    content = os.urandom(5_000_000)
    window = Window(io.BytesIO(content))
    seen = 0
    while window.fill(1000):
        assert window.offset(window.at) == seen
        assert window.data[window.at : window.end] == content[seen : seen + window.left]
        seen += min(window.left, 700_001)
        window.at += min(window.left, 700_001)
    assert seen + window.left == len(content)
    assert window.data[window.at :] == content[seen:]


def test_it_grows_to_what_is_asked_and_skips_what_is_not() -> None:
    content = os.urandom(4_000_000)
    window = Window(io.BytesIO(content))
    assert window.fill(3_000_000)
    assert window.skip(3_500_000)
    assert window.offset(window.at) == 3_500_000
    assert window.fill(500_000)
    assert window.data[window.at :] == content[3_500_000:]
    assert not window.skip(500_001)
