"""How far a command has come, for the person who waits: on stderr, never on stdout.

On a terminal each open phase has a line that is drawn over; elsewhere (a file, a journal) each
change is one plain line, and nothing is written when nothing changed. Nothing here needs a thread,
so it can be called from Twisted's reactor; the caller decides when something is drawn.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from perfmeasure.units import format_seconds

if TYPE_CHECKING:
    from types import TracebackType


_WARNINGS_KEPT = 20


@dataclass
class _Phase:
    name: str
    text: str = ""
    fraction: float | None = None
    began: float = field(default_factory=time.monotonic)

    def line(self) -> str:
        """Return ``bootstrap tor-client: 45 % loading_descriptors``."""
        percent = "" if self.fraction is None else f"{self.fraction:.0%}".replace("%", " %")
        said = " ".join(filter(None, (percent, self.text)))
        return f"{self.name}: {said}" if said else f"{self.name} …"


class Progress:
    """Shows phases of work, one or several open at a time, until it is closed.

    A context manager: whatever ends the work, the terminal is left as it was found.

    Args:
        stream: where to write; stderr when not given.

    Attributes:
        warnings: the last ones, each with its Unix time.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.warnings: deque[tuple[float, str]] = deque(maxlen=_WARNINGS_KEPT)
        self._open: dict[str, _Phase] = {}
        self._current: _Phase | None = None
        self._last_lines: dict[str, str] = {}
        self._live: Live | None = None
        self._console = Console(file=self._stream, highlight=False, markup=False, emoji=False)

    @property
    def open_lines(self) -> list[str]:
        """What is going on: a line for each open phase."""
        return [phase.line() for phase in self._open.values()]

    def phase(self, name: str) -> None:
        """Open the phase ``name``, or go back to it; `update` and `done` are then about it."""
        if name in self._open:
            self._current = self._open[name]
            return
        self._current = self._open[name] = _Phase(name)
        self._last_lines.pop(name, None)
        self._show()

    def update(self, text: str, fraction: float | None = None) -> None:
        """Say where the current phase is; ``fraction`` of it is done, from 0 to 1, if known."""
        if self._current is None:
            self.phase("perfmeasure")
        assert self._current is not None  # noqa: S101 - `phase` has just set it
        self._current.text = text
        self._current.fraction = None if fraction is None else min(max(fraction, 0.0), 1.0)
        self._show()

    def done(self, text: str = "done") -> None:
        """Close the current phase, with what came of it."""
        if self._current is None:
            return
        phase, self._current = self._current, None
        del self._open[phase.name]
        took = format_seconds(time.monotonic() - phase.began)
        if not self._open:
            self._stop_drawing()
        self._print(f"{phase.name}: {text} ({took})", "green")
        self._show()

    def warn(self, text: str) -> None:
        """Say something that must not be overlooked, and stays."""
        self.warnings.append((time.time(), text))
        self._print(f"warning: {text}", "yellow")

    def close(self) -> None:
        """Stop drawing. What phases that are still open said last stays readable."""
        if self._live is not None:
            self._stop_drawing()
            for phase in self._open.values():
                self._print(phase.line())
        self._open.clear()
        self._current = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _print(self, line: str, style: str = "") -> None:
        # A terminal that went away, or a full disk under a log, must not end the measurement.
        with contextlib.suppress(OSError, ValueError):
            self._console.print(Text(line, style=style), soft_wrap=True)

    def _stop_drawing(self) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError, ValueError):
                self._live.stop()
            self._live = None

    def _show(self) -> None:
        if not self._console.is_terminal:
            phase = self._current
            if phase is not None and self._last_lines.get(phase.name) != phase.line():
                self._last_lines[phase.name] = phase.line()
                self._print(phase.line())
            return
        if not self._open:
            return
        with contextlib.suppress(OSError, ValueError):
            if self._live is None:
                self._live = Live(
                    console=self._console, auto_refresh=False, transient=True, redirect_stdout=False
                )
                self._live.start()
            self._live.update(self._rows(), refresh=True)

    def _rows(self) -> Table:
        rows = Table.grid(padding=(0, 1))
        rows.add_column(width=20)
        rows.add_column(no_wrap=True, overflow="ellipsis")
        for phase in self._open.values():
            bar = ProgressBar(total=1.0, completed=phase.fraction or 0.0, width=20)
            rows.add_row(bar if phase.fraction is not None else "", Text(phase.line()))
        return rows
