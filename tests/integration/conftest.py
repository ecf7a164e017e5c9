"""Every test in this folder runs the real tor, on a network whose snapshot they share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _needs_tor(
    require: Callable[[str], None], cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("tor")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
