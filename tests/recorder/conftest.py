"""Lines that the tests of the recorder share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.recorder.wire import Line


@pytest.fixture(scope="module")
def line(require: Callable[..., None]) -> Iterator[Line]:
    """A veth pair in namespaces of its own."""
    require("root", "ip")
    made = Line()
    try:
        made.make()
        yield made
    finally:
        made.remove()
