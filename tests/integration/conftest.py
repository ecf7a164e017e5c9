"""Every test in this folder runs the real tor."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True)
def _needs_tor(require: Callable[[str], None]) -> None:
    require("tor")
